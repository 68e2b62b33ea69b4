"""Source and Store: what every place that holds content promises.

Public methods are final and own the checks; a backend writes the underscore hooks only. A store
is opened on one repository or one layout, so no method carries a repository.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import NamedTuple, Self, final

from ocimirror.errors import IntegrityError, NotFound, Unsupported, UsageError
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor, Kind
from ocimirror.model.digest import Digest, digest_or_none
from ocimirror.model.manifest import MAX_SIZE_BYTES, Manifest
from ocimirror.model.reference import Reference
from ocimirror.stores.entry import Entry
from ocimirror.stores.stream import CHUNK_BYTES, Reader, VerifiedStream, Watch
from ocimirror.stores.unreadable import UnreadableEntry


class Stored(Enum):
    """How a push came to be stored."""

    COPIED = "copied"
    """These bytes went through our hash into the destination."""
    PRESENT = "present"
    """The destination had it; it was not hashed in this run."""
    MOUNTED = "mounted"
    """The registry took it from another of its repositories; it was not hashed in this run."""
    LINKED = "linked"
    """It is a file of another layout, which went through our hash and was not copied."""


class Referrer(NamedTuple):
    """A manifest that says something of another: a signature, an SBOM, an attestation.

    `tag` is cosign's name for it, empty where its subject field says what it is about.
    """

    tag: str
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Image:
    """An image at a place: what `layout["docker.io/library/alpine:3.19"]` returns.

    Attributes:
        place: a layout, an archive, or a repository of a registry.
        name: a tag, a digest, in a layout also a full reference; empty for the only image.
        reference: what was asked of a registry, where a name may have a tag and a digest.
    """

    place: Source
    name: str
    reference: Reference | None = None

    def resolve(self) -> Descriptor:
        """Return the descriptor of what the name stands for now; see `Source.resolve`."""
        return self.place.resolve(self.name)

    def __str__(self) -> str:
        if self.reference is not None:
            return f"docker://{self.reference}"
        separator = ":@" if self.name and digest_or_none(self.name) else ":" if self.name else ""
        return f"{self.place.location}{separator}{self.name}"


class Source(ABC):
    """A place to read from. Thread-safe for different descriptors.

    A closed one refuses everything with a UsageError.
    """

    location: str
    """The place in the words of containers-transports(5), without a name."""
    local: bool = True
    """Content is on this machine: to read it again costs no network."""
    mendable: bool = False
    """It is a layout in a directory: `repair` can write to it."""
    misnamed: Mapping[Digest, str] = {}
    """Content that is not what its name says, and is taken as it is, with a sentence each."""
    _closed: bool = False

    # (By `[name]` alone Python would try 0, 1, 2 … as names, without end.)
    __iter__ = None
    __contains__ = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    def __getitem__(self, name: str) -> Image:
        """Return the image of that name here; whether it exists is seen when it is read."""
        self._refuse_closed()
        return Image(self, name)

    @final
    def resolve(self, name: str) -> Descriptor:
        """Return the descriptor of the manifest bytes that a name stands for now.

        Args:
            name: a tag, a digest, in a layout also a full reference; empty for the only image.

        Raises:
            NotFound: the name is not there.
        """
        self._refuse_closed()
        return self._resolve(name)

    @final
    def fetch(self, descriptor: Descriptor, watch: Watch | None = None) -> VerifiedStream:
        """Return the verified bytes of a descriptor, not opened yet; a context manager."""
        return VerifiedStream(
            descriptor,
            partial(opened, self, descriptor),
            origin=self,
            watch=watch,
        )

    @final
    def read_manifest(self, descriptor: Descriptor) -> Manifest:
        """Fetch and parse a manifest of at most 4 MiB; its raw bytes are kept.

        Raises:
            IntegrityError: the bytes do not match, or are not a manifest of that type.
            NotFound: it is not there.
        """
        with self.fetch(descriptor) as stream:
            raw = stream.read_all(MAX_SIZE_BYTES)
        try:
            manifest = Manifest.parse(raw, descriptor)
        except IntegrityError as error:
            error.at("source")
            raise
        return self._with_members(manifest) if manifest.members else manifest

    def _with_members(self, manifest: Manifest) -> Manifest:
        """Return content of unknown type with its members as this place has them."""
        manifests, blobs, absent = [], [], []
        for member in manifest.members:
            kind = self._kind_of(member) if member.digest.verifiable else None
            if kind is None:
                absent.append(member)
            elif kind == "manifest":
                manifests.append(replace(member, kind=kind))
            else:
                blobs.append(member)
        return replace(
            manifest, manifests=tuple(manifests), blobs=tuple(blobs), absent=tuple(absent)
        )

    def _kind_of(self, member: Descriptor) -> Kind | None:
        """Return as what this place has something that content of unknown type names, if at all.

        A place that does not tell manifests from blobs looks: a manifest has a known type, or
        names descriptors itself.
        """
        if not self._exists(member):
            return None
        if mediatype.known(member.media_type):
            return "manifest"
        if mediatype.is_blob_in_index(member.media_type) or member.size > MAX_SIZE_BYTES:
            return "blob"
        try:
            with self.fetch(member) as stream:
                raw = stream.read_all(MAX_SIZE_BYTES)
            found = Manifest.parse(raw, replace(member, kind="manifest"))
        except (IntegrityError, Unsupported):
            return "blob"
        return "manifest" if found.members or not found.opaque else "blob"

    @final
    def exists(self, descriptor: Descriptor) -> bool:
        """Whether this one object is present with this size; says nothing of its children."""
        self._refuse_closed()
        return self._exists(descriptor)

    def entries(self) -> Sequence[Entry]:
        """Return what the index here names; a place without one, as a registry, has none."""
        return ()

    def unreadable(self) -> Sequence[UnreadableEntry]:
        """Return the entries of the index that cannot be read."""
        return ()

    def blob_files(self) -> Iterable[tuple[str, str]]:
        """Return (path, digest text) of each file that is there for a blob, if such are known."""
        return ()

    def find(self, name: str) -> Entry | None:  # noqa: ARG002 - a place without an index
        """Return the entry that a name stands for; None in a place without an index.

        Raises:
            NotFound, DamagedLayout, UsageError: as `LayoutIndex.find`.
        """
        return None

    @final
    def names(self) -> list[str]:
        """Return every name once: a registry's tags, a layout's full references."""
        self._refuse_closed()
        return self._names()

    @final
    def referrers(self, descriptor: Descriptor) -> list[Referrer]:
        """Return what is said to refer to a manifest, sorted by digest.

        NOT guaranteed: that the subject of each is this manifest; who reads one checks it.

        Raises:
            RemoteError: the registry failed while looking; that is never "none".
        """
        self._refuse_closed()
        found = {(r.tag, r.descriptor.digest): r for r in self._referrers(descriptor)}
        return [found[key] for key in sorted(found, key=lambda key: (key[1], key[0]))]

    def notes_on_referrers(self) -> list[str]:
        """Return what made the answers of `referrers` uncertain so far, a sentence each."""
        return []

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(self, *_: object) -> None:
        self.close()

    @final
    def close(self) -> None:
        """Release locks, files and connections that belong to this place; idempotent.

        What was written stays; streams that are still open may fail.
        """
        self._closed = True
        self._close()

    def _close(self) -> None:
        """Release what is held, perhaps once more."""
        return

    @final
    def _refuse_closed(self) -> None:
        if self._closed:
            raise UsageError(f"{self.location} is closed")

    @abstractmethod
    def _resolve(self, name: str) -> Descriptor: ...

    @abstractmethod
    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        """Open the raw bytes from a position on; called by VerifiedStream alone."""

    @abstractmethod
    def _exists(self, descriptor: Descriptor) -> bool: ...

    @abstractmethod
    def _names(self) -> list[str]: ...

    @abstractmethod
    def _referrers(self, descriptor: Descriptor) -> Iterable[Referrer]: ...


class Store(Source):
    """A place to read from and write to.

    Attributes:
        names_at_once: how many names one `tag` moves well.
        names_with_root: a root is stored together with its name, in one request.
        names_prove_closure: a name that stands for a manifest proves that all of it is here, but
            for platforms that were left out. So it is in a registry; from a directory files may
            have gone since.
        takes_indexes: else it holds one image manifest, and nothing that refers to it.
        may_refuse_sparse: it may not take an index with absent children.
        refuses_sparse: it was seen to refuse one.
    """

    names_at_once: int = 1
    names_with_root: bool = False
    names_prove_closure: bool = False
    takes_indexes: bool = True
    may_refuse_sparse: bool = False
    refuses_sparse: bool = False
    _sealed: tuple[str, str] | None = None
    """Why nothing can be written though the place is open, and what to do instead."""

    @final
    def push(
        self, descriptor: Descriptor, stream: VerifiedStream, *, replace: bool = False
    ) -> Stored:
        """Store content under its descriptor. Idempotent: returning means "is stored".

        The stream is not opened where the destination has the content already.

        Args:
            descriptor: what is stored; the manifests among them after their children.
            stream: verified content of that same descriptor, from any source; nothing of it was
                read yet, since a store keeps what it receives.
            replace: write these bytes even where content is present; it was found damaged.

        Raises:
            UsageError: the place is closed, was opened for reading, or was committed.
            IntegrityError: the stream failed its check; nothing is stored.
            PushRejected, LocalStorageError: the destination refused.
        """
        self._refuse_unwritable()
        stated = stream.descriptor
        if (stated.digest, stated.size) != (descriptor.digest, descriptor.size):
            raise ValueError(f"a stream of {stated} cannot be stored as {descriptor}")
        if not stream.fresh:
            raise ValueError(f"a stream of {stated} that was read from cannot be stored")
        return self._ingest(descriptor, stream, replace)

    @final
    def push_manifest(self, manifest: Manifest, *, replace: bool = False) -> Stored:
        """Store a manifest that is in memory: `push` of its own raw bytes."""
        return self.push(manifest.descriptor, verified(manifest), replace=replace)

    @final
    def tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        """Store each manifest and move its name to it, once its closure is in.

        A layout moves all of them in one atomic step; a registry one after the other. Repeating
        it changes nothing.

        Args:
            names: (name, manifest); a tag in a registry, a full reference in a layout; an empty
                name for a manifest that is kept and found by its subject only.
        """
        self._refuse_unwritable()
        self._tag(names)

    @final
    def named(self, name: str, descriptor: Descriptor) -> bool:
        """Whether the name stands for this manifest already; see `names_prove_closure`."""
        self._refuse_closed()
        return self._named(name, descriptor)

    def _named(self, name: str, descriptor: Descriptor) -> bool:
        try:
            return self._resolve(name).digest == descriptor.digest
        except NotFound:
            return False

    @final
    def commit(self, watch: Watch | None = None) -> int:
        """Make what was stored appear, where it does not at once; return the bytes written.

        An archive takes nothing more after that.

        Args:
            watch: told the number of bytes of each chunk; raises to stop.
        """
        self._refuse_closed()
        return self._commit(watch)

    def _commit(self, watch: Watch | None) -> int:  # noqa: ARG002 - nothing to write
        return 0

    @final
    def _refuse_unwritable(self) -> None:
        self._refuse_closed()
        if self._sealed is not None:
            why, advice = self._sealed
            raise UsageError(f"{self.location} {why}", advice=advice)

    @abstractmethod
    def _ingest(self, descriptor: Descriptor, stream: VerifiedStream, replace: bool) -> Stored: ...

    @abstractmethod
    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None: ...


def verified(manifest: Manifest) -> VerifiedStream:
    """Return the raw bytes of a manifest as a stream; they are hashed again on the way."""
    return VerifiedStream(manifest.descriptor, lambda _: io.BytesIO(manifest.raw))


def opened(place: Source, descriptor: Descriptor, position: int) -> Reader:
    """Open the raw bytes at a place, for a stream that checks them."""
    place._refuse_closed()
    return place._open(descriptor, position)


def skipped(reader: Reader, position: int) -> Reader:
    """Return a reader that has been read up to a position, for what can only begin at the start."""
    while position and (chunk := reader.read(min(CHUNK_BYTES, position))):
        position -= len(chunk)
    return reader
