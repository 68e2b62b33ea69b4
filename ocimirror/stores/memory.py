"""The reference implementation of a store: the contract, executed, in memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence

from ocimirror.errors import IntegrityError, NotFound, Unsupported
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.model.reference import attachment_tag, is_attachment_tag
from ocimirror.stores.entry import Entry
from ocimirror.stores.store import Referrer, Store, Stored, verified
from ocimirror.stores.stream import Reader, VerifiedStream


class MemoryStore(Store):
    """Content in a dictionary; for tests, experiments and small conversions."""

    names_at_once = 64

    def __init__(self, location: str = "memory:") -> None:
        self.location = location
        self._content: dict[Digest, bytes] = {}
        self._roots: dict[str, Descriptor] = {}
        self._manifests: dict[str, Descriptor] = {}
        self._subjects: dict[Digest, Digest] = {}

    def entries(self) -> list[Entry]:
        """Return what names stand for."""
        return [
            Entry(root, name, name.rpartition(":")[2]) for name, root in list(self._roots.items())
        ]

    def _resolve(self, name: str) -> Descriptor:
        if not name and len(self._roots) == 1:
            return next(iter(self._roots.values()))
        found = self._roots.get(name) or self._manifests.get(name)
        if found is None:
            raise NotFound(f"{self.location}: no image {name}")
        return found

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        content = self._content.get(descriptor.digest)
        if content is None:
            raise NotFound(f"{self.location}: no {descriptor.digest}")
        return io.BytesIO(content[position:])

    def _exists(self, descriptor: Descriptor) -> bool:
        content = self._content.get(descriptor.digest)
        return content is not None and len(content) == descriptor.size

    def _names(self) -> list[str]:
        return list(self._roots)

    def _referrers(self, descriptor: Descriptor) -> Iterator[Referrer]:
        for found in list(self._manifests.values()):
            if self._subjects.get(found.digest) == descriptor.digest:
                yield Referrer("", found)
        for name, root in list(self._roots.items()):
            tag = name.rpartition(":")[2]
            if is_attachment_tag(tag) and tag.startswith(f"{attachment_tag(descriptor.digest)}."):
                yield Referrer(tag, root)

    def _ingest(self, descriptor: Descriptor, stream: VerifiedStream, replace: bool) -> Stored:
        present = not replace and self._exists(descriptor)
        if not present:
            self._content[descriptor.digest] = stream.read_all(descriptor.size)
        if descriptor.kind == "manifest":
            self._manifests[str(descriptor.digest)] = descriptor
            self._note_subject(descriptor)
        return Stored.PRESENT if present else Stored.COPIED

    def _note_subject(self, descriptor: Descriptor) -> None:
        content = self._content.get(descriptor.digest, b"")
        with contextlib.suppress(IntegrityError, Unsupported):  # (it keeps what it cannot read)
            subject = Manifest.parse(content, descriptor).subject
            if subject is not None:
                self._subjects[descriptor.digest] = subject.digest

    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        for name, manifest in names:
            self._ingest(manifest.descriptor, verified(manifest), replace=False)
            if name:
                self._roots[name] = manifest.descriptor
