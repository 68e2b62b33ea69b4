"""LayoutSource: what a layout is to a reader, be it a directory or a tar."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterator

from ocimirror.errors import NotFound
from ocimirror.model.descriptor import Descriptor, Kind
from ocimirror.model.digest import Digest, digest_or_none
from ocimirror.stores.attached import Attached
from ocimirror.stores.bydigest import manifest_by_digest
from ocimirror.stores.edges import Edges
from ocimirror.stores.entry import Entry
from ocimirror.stores.layout.index import LayoutIndex
from ocimirror.stores.store import Referrer, Source
from ocimirror.stores.unreadable import UnreadableEntry


class LayoutSource(Source):
    """What a layout is to a reader, be it a directory or a tar."""

    _attached: tuple[tuple[Entry, ...], Attached, Edges] | None = None
    _attaching = threading.Lock()

    @abstractmethod
    def index(self) -> LayoutIndex:
        """Return index.json as it is now.

        Raises:
            DamagedLayout: it is empty, torn or not an index.
        """

    @abstractmethod
    def size_of(self, digest: Digest) -> int | None:
        """Return the size of the stored file of that name, None where there is none."""

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries of index.json, in its order."""
        self._refuse_closed()
        return self.index().entries

    def unreadable(self) -> tuple[UnreadableEntry, ...]:
        """Return the entries of index.json that cannot be read."""
        self._refuse_closed()
        return self.index().unreadable

    def find(self, name: str) -> Entry:
        """Return the entry that a name stands for; without a name, the only image.

        Raises:
            NotFound, DamagedLayout, UsageError: as `LayoutIndex.find`.
        """
        self._refuse_closed()
        index = self.index()
        return index.find(name) if name else index.only(self.attached().alone(self.size_of))

    def unnamed(self) -> list[Entry]:
        """Return the entries without a name that are images of their own."""
        return [entry for entry in self.attached().alone(self.size_of) if not entry.name]

    def _resolve(self, name: str) -> Descriptor:
        try:
            return self.find(name).descriptor
        except NotFound:
            size = self.size_of(digest) if (digest := digest_or_none(name)) else None
            found = manifest_by_digest(self, digest, size) if digest and size is not None else None
            if found is None:
                raise
            return found

    def _exists(self, descriptor: Descriptor) -> bool:
        return self.size_of(descriptor.digest) == descriptor.size

    def _kind_of(self, member: Descriptor) -> Kind | None:
        size = self.size_of(member.digest)
        if size is not None and size != member.size:
            return "blob"  # (it is here, and whoever reads it finds it damaged)
        return super()._kind_of(member)

    def _referrers(self, descriptor: Descriptor) -> Iterator[Referrer]:
        return self.attached().of(descriptor.digest)

    def notes_on_referrers(self) -> list[str]:
        """Return a sentence about each entry that may be an attachment and cannot be read."""
        unread = self.attached().unread
        return [f"{self.location}: {d} cannot be read; it may be an attachment" for d in unread]

    def attached(self, entries: tuple[Entry, ...] | None = None) -> Attached:
        """Return what refers to what here; read once for each version of index.json.

        Args:
            entries: of the version that is meant; None for index.json as it is now.
        """
        meant = self.entries() if entries is None else entries
        with self._attaching:
            if self._attached is None or self._attached[0] is not meant:
                edges = self._attached[2].kept(meant) if self._attached else Edges(self)
                self._attached = meant, Attached(meant, edges), edges
            return self._attached[1]

    def images(self) -> list[Entry]:
        """Return the entries with a name that are images, or artifacts, of their own.

        Attachments follow what they refer to; one whose subject is not here follows nothing.
        """
        return [e for e in self.attached().images(self.size_of) if e.name]

    def _names(self) -> list[str]:
        return list(dict.fromkeys(entry.name for entry in self.entries() if entry.name))
