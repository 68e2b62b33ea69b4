"""Registry: a registry as a program opens it, with the connections of its own."""

from __future__ import annotations

import threading
import warnings
from typing import Self
from weakref import WeakValueDictionary

from ocimirror.errors import UsageError
from ocimirror.model.reference import Reference, check_registry
from ocimirror.registry.environment import from_environment
from ocimirror.registry.host import RegistryHost
from ocimirror.registry.http import Transport
from ocimirror.registry.options import NetworkOptions
from ocimirror.registry.repository import RegistryRepository
from ocimirror.stores.store import Image


class Registry:
    """A registry. Thread-safe; `close` it, or use it as a context, when all is done.

    A closed one, and every image of it, refuses everything with a UsageError.

    Args:
        host: `host[:port]` as references name it; `docker.io` is Docker Hub.
        options: how it is reached, and as whom, instead of what the environment says; else
            `from_environment()`.

    Raises:
        InvalidReference: not a registry.
        UsageError: HTTPS_PROXY is not a URL of a proxy.
    """

    # (By `[name]` alone Python would try 0, 1, 2 … as names, without end.)
    __iter__ = None
    __contains__ = None

    def __init__(self, host: str, options: NetworkOptions | None = None) -> None:
        self.host = check_registry(host)
        self._transport = Transport(from_environment() if options is None else options)
        self._registry = RegistryHost(self.host, self._transport)
        self._guard = threading.Lock()
        # (What was seen of a repository is shared by its images that are in use, and no longer.)
        self._repositories = WeakValueDictionary[str, RegistryRepository]()
        self._closed = False

    def __repr__(self) -> str:
        return f"Registry({self.host!r})"

    def __getitem__(self, name: str) -> Image:
        """Return an image of the registry; nothing is asked of it yet.

        Args:
            name: `REPOSITORY[:TAG][@DIGEST]`; without tag and digest, `latest` is read.

        Raises:
            InvalidReference: not such a name.
            UsageError: it is closed.
        """
        reference = Reference.parse(f"{self.host}/{name}")
        with self._guard:
            if self._closed:
                raise UsageError(f"docker://{self.host} is closed")
            repository = self._repositories.get(reference.repository)
            if repository is None:
                repository = self._registry.repository(reference.repository)
                self._repositories[reference.repository] = repository
        return Image(repository, reference.read_name, reference)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"docker://{self.host} was not closed", ResourceWarning, stacklevel=2)

    def close(self) -> None:
        """Close the connections, and forget what must not be printed; idempotent."""
        with self._guard:
            self._closed = True
            for repository in list(self._repositories.values()):
                repository.close()
        self._transport.close()
