"""A layout that nobody else uses meanwhile: to remove content from it, and to mend its index."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ocimirror.errors import (
    DamagedLayout,
    IntegrityError,
    NotFound,
    Unsupported,
    storage_error,
    storage_errors,
)
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Descent, Seen, drop
from ocimirror.model.manifest import Manifest
from ocimirror.stores.bydigest import proven
from ocimirror.stores.disk.atomic import remove_abandoned
from ocimirror.stores.disk.files import is_there
from ocimirror.stores.layout import index as layout_index
from ocimirror.stores.layout.index import LayoutIndex
from ocimirror.stores.layout.layout import Layout
from ocimirror.stores.layout.mending import Names, roots_among, with_readable, with_roots
from ocimirror.stores.layout.openblob import OpenBlob
from ocimirror.stores.layout.quarantine import Quarantine
from ocimirror.stores.layout.referrerslist import regained
from ocimirror.stores.layout.writable import DAMAGED_INDEX, was_damaged

Mended = Literal["kept", "restored", "rebuilt"]


@dataclass(frozen=True, slots=True)
class Mending:
    """What came of index.json, and the entries that stood for nothing and were left out."""

    index: Mended
    dropped: Sequence[str] = ()


class ExclusiveLayout(Layout):
    """An image layout that is there, its lock held exclusively until `close`.

    It opens whatever state index.json is in. What is in quarantine is read as if it were still
    among the blobs, and does not count as present.

    Not opened to be written, it changes nothing, not even to have a lock where there never was one.

    Raises:
        Locked: another run reads or writes the layout.
    """

    _lock_mode = "exclusive"

    def _open_for_writing(self, wait: bool) -> None:
        self.check()
        self._lock = self._skeleton.locked(self._lock_mode, wait=wait)
        # (Every writer has the lock, so that whatever is left has none.)
        remove_abandoned(self._os.held(self._temporary_directory), new_s=0)

    @cached_property
    def quarantine(self) -> Quarantine:
        """Where blobs wait to be deleted."""
        directory = os.path.join(self._private, "quarantine")
        for above in (self._root, self._private):
            with contextlib.suppress(FileNotFoundError):
                self._os.hold(above)
        return Quarantine(self._path("blobs"), directory, self._os, durable=self._durable)

    def open_blob(self, digest: Digest) -> OpenBlob | None:
        """Open the file of a blob, be it in quarantine; None where there is none."""
        found = super().open_blob(digest)
        if found is not None:
            return found
        try:
            return OpenBlob(self.quarantine.open(digest), digest, self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._read_error(error, str(digest)) from error

    def sync_index(self) -> None:
        """Wait until index.json is on the disk, whoever wrote it: what it lacks may go then."""
        if not self._durable:
            return
        try:
            self._os.sync_file(self._path("index.json"))
        except OSError as error:
            raise storage_error(error, f"cannot sync index.json of {self.path}") from error
        self._sync_directory(self._root)

    # --- index.json ----------------------------------------------------------------------------

    def mend_index(self, names: Names, *, rebuild: bool) -> Mending:
        """Make index.json name every root that the blobs prove; nothing that it named goes.

        Where it is absent, empty, torn or no index, it becomes index.json.prev and an entry for
        each root manifest that no entry reaches, be it in quarantine: what is needed is put back.
        The file that was there is kept as .ocimirror/index.json.damaged, which `gc` respects.

        Args:
            names: what manifests are called elsewhere, for those that have no name here.
            rebuild: look for roots that no entry reaches where the index is valid, too.
        """
        with self._index_lock():
            current = self._valid("index.json")
            base = current or self._valid("index.json.prev") or layout_index.EMPTY
            index = LayoutIndex.parse(base, self.path)
            look = rebuild or current is None
            if not (look or index.unreadable or (names and was_damaged(self.path))):
                return Mending("kept")
            stored = [*self.quarantine.stored()[0], *self.quarantine.waiting()]
            present = {file.digest for file in stored}
            manifests = self._manifests(present)
            dropped = [
                f"{row.message}{f' ({row.name})' if row.name else ''}"
                for row in index.unreadable
                if row.digest is None or row.digest not in manifests
            ]
            index = LayoutIndex.parse(with_readable(index, manifests), self.path)
            look = look or bool(dropped)
            roots = roots_among(manifests, index, present) if look else []
            lists, are_lists = regained(roots, index, manifests)
            raw = index.with_names(self.store_lists(lists)) if lists else None
            index = index if raw is None else LayoutIndex.parse(raw, self.path)
            roots = [root for root in roots if root.digest not in are_lists]
            new = with_roots(index, roots, names, self.path, manifests, outdated=current is None)
            if new == current:
                return Mending("kept")
            self._put_back(LayoutIndex.parse(new, self.path))
            if roots or lists or current is None or dropped:
                self._keep_damaged_index(current)
            if current is not None:
                self._write_file("index.json.prev", current)
            self._write_file("index.json", new)
            self._sync_directory(self._root)
            restored = current is None and not roots and not lists
            return Mending("restored" if restored else "rebuilt", dropped)

    def forget_damage(self) -> None:
        """Remove what was kept of a damaged index.json."""
        path = os.path.join(self._private, DAMAGED_INDEX)
        with storage_errors(f"cannot remove {path}"), contextlib.suppress(FileNotFoundError):
            self._os.unlink(path)

    def _put_back(self, index: LayoutIndex) -> None:
        """Put back from quarantine what an index reaches."""
        waiting = {file.digest: file for file in self.quarantine.waiting()}
        if not waiting:
            return
        needed: set[Digest] = set()
        seen: set[Seen] = set()
        for entry in index.entries:
            descent = Descent(entry.descriptor, seen=seen, refused=drop)
            for named in descent:
                needed.add(named.digest)
                with contextlib.suppress(IntegrityError, NotFound, Unsupported):
                    manifest = self.read_manifest(named)
                    needed.update(blob.digest for blob in manifest.blobs)
                    descent.add(named, manifest.manifests)
        present = {file.digest for file in self.quarantine.stored()[0]}
        self.quarantine.put_back(
            [file for digest, file in waiting.items() if digest in needed - present]
        )

    def _valid(self, name: str) -> bytes | None:
        """Return an index document, None where it is absent or cannot be read as one."""
        try:
            raw = self._read_small(name, layout_index.MAX_SIZE_BYTES) or b""
            LayoutIndex.parse(raw, self.path)
        except DamagedLayout:
            return None
        return raw

    def _keep_damaged_index(self, valid: bytes | None) -> None:
        """Keep index.json as it was; a file that says so even where there was none."""
        old = self._path("index.json")
        kept = os.path.join(self._private, DAMAGED_INDEX)
        if valid is not None or not is_there(old):
            if valid is None and is_there(kept):
                return  # (a run that was killed had put it there)
            with self._new_file(kept) as file:
                file.write(valid or b"")
                file.commit()
        else:
            with storage_errors(f"cannot keep the damaged {old}"):
                self._os.rename(old, kept)
        self._sync_directory(self._private)

    def _manifests(self, files: Collection[Digest]) -> dict[Digest, Manifest]:
        """Return the manifests among the blobs, and in quarantine."""
        found = (proven(self, digest, self._size_of_any(digest)) for digest in files)
        return {manifest.digest: manifest for manifest in found if manifest is not None}

    def _size_of_any(self, digest: Digest) -> int | None:
        """Return the size of a blob, be it in quarantine."""
        size = self.size_of(digest)
        if size is None and (file := self.open_blob(digest)) is not None:
            with file:
                return file.size
        return size
