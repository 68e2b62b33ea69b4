"""What the parts of a repository need of it and of its registry: uploads, referrers, lists.

The store is put together of them, so that none of them can know the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.registry.http import Transport
from ocimirror.registry.messages import Access, Response, Send
from ocimirror.registry.url import Origin, UrlPolicy
from ocimirror.stores.store import Store
from ocimirror.stores.stream import VerifiedStream


@dataclass(slots=True)
class Habits:
    """What uploading to a registry taught us in this run.

    Attributes:
        chunked: something before it limits the size of a body.
        finds_own: a mount from the repository itself finds what is there, and is the beginning
            of an upload where there is nothing; None while that was not tried.
    """

    chunked: bool = False
    finds_own: bool | None = None


class Host(Protocol):
    """A registry, as its repositories' parts see it.

    Attributes:
        registry: `host[:port]` as references name it.
        blobs: a repository where each blob was seen in this run.
        habits: what uploading taught us.
        has_referrers_api: None while that was not seen.
        refuses_sparse: it was seen to refuse an index with absent children.
        transport: the run's connections.
    """

    registry: str
    blobs: dict[Digest, str]
    habits: Habits
    has_referrers_api: bool | None
    refuses_sparse: bool
    transport: Transport

    @property
    def endpoint(self) -> Origin:
        """Where the registry is."""
        ...

    @property
    def policy(self) -> UrlPolicy:
        """The judge of URLs that the registry names."""
        ...

    def send(
        self,
        method: str,
        url: str,
        access: Access,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | VerifiedStream | None = None,
        brief: bool = False,
        closes_upload: bool = False,
    ) -> Response:
        """Send a request as whom the registry knows us."""
        ...

    def repository(self, name: str) -> Store:
        """Return a new store of one of its repositories, which has seen nothing yet."""
        ...


class Repository(Protocol):
    """A repository, as its parts see it.

    Attributes:
        name: without the registry.
        location: with it, for errors.
    """

    name: str
    location: str

    @property
    def host(self) -> Host:
        """The registry that it is in."""
        ...

    @property
    def send(self) -> Send:
        """Asks for a path below the repository."""
        ...

    def resolve(self, name: str) -> Descriptor:
        """Return what a tag or a digest stands for."""
        ...

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether this one object is here."""
        ...

    def names(self) -> list[str]:
        """Return every tag."""
        ...

    def put_manifest(
        self, name: str, raw: bytes, descriptor: Descriptor, *, keeps_referrers: bool = True
    ) -> None:
        """Put manifest bytes under a tag or their digest."""
        ...
