"""A layout that nobody else uses meanwhile: to remove content from it, and to mend its index."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Literal

from ocimirror.errors import (
    DamagedLayout,
    IntegrityError,
    MissingContent,
    SizeMismatch,
    Unsupported,
    storage_error,
)
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.stores import index as layout_index
from ocimirror.stores.atomic import FileLock, remove_abandoned
from ocimirror.stores.files import FileReader
from ocimirror.stores.index import LayoutIndex
from ocimirror.stores.layout import Layout
from ocimirror.stores.quarantine import Quarantine
from ocimirror.stores.stream import Reader

Mended = Literal["kept", "restored", "rebuilt"]
_DAMAGED_INDEX = "index.json.damaged"


class ExclusiveLayout(Layout):
    """An image layout that is there, its lock held exclusively until `close`.

    It opens whatever state index.json is in. What is in quarantine is read as if it were still
    among the blobs, and does not count as present.

    Opened to `read`, it changes nothing, not even to have a lock where there never was one.

    Raises:
        Locked: another run reads or writes the layout.
    """

    _lock_mode = "exclusive"

    def _open_for_writing(self, wait: bool) -> None:
        self._refuse_what_is_no_layout()
        self._make_directories()
        self._lock = FileLock(os.path.join(self._private, "lock"))
        self._lock.acquire(self._lock_mode, wait=wait)
        # (Every writer has the lock, so that whatever is left has none.)
        remove_abandoned(self._temporary_directory, new_s=0)

    @cached_property
    def quarantine(self) -> Quarantine:
        """Where blobs wait to be deleted."""
        directory = os.path.join(self._private, "quarantine")
        return Quarantine(self._path("blobs"), directory, self._os, durable=self._durable)

    def _open_at(self, descriptor: Descriptor, position: int) -> Reader:
        try:
            return super()._open_at(descriptor, position)
        except MissingContent as missing:
            digest = descriptor.digest
            try:
                fd = self.quarantine.open(digest)
            except FileNotFoundError:
                raise missing from None
            except OSError as error:
                raise self._read_error(error, str(digest)) from error
        size = os.fstat(fd).st_size
        if size != descriptor.size:
            os.close(fd)
            raise SizeMismatch(f"{self.path}: {digest} has {size} bytes, wanted {descriptor.size}")
        return FileReader(fd, f"{digest} in {self.path}", position, size + 1, closes=True)

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

    def mend_index(self, *, from_blobs: bool) -> Mended:
        """Write index.json anew where it is absent, empty, torn or no index; a valid one stays.

        It is taken from index.json.prev. What was there is kept as .ocimirror/index.json.damaged.

        Args:
            from_blobs: without index.json.prev begin with nothing, and add an entry without a
                name for each manifest that no other manifest and no entry names.

        Raises:
            DamagedLayout: index.json.prev is no help, and the blobs were not to be asked.
        """
        with self._index_lock():
            if self._valid("index.json") is not None:
                return "kept"
            previous = self._valid("index.json.prev")
            if previous is None and not from_blobs:
                raise DamagedLayout(
                    f"{self.path}: neither index.json nor index.json.prev is an index",
                    advice="--rebuild-index makes one of the manifests that are there; their names"
                    " are lost.",
                )
            new = previous or layout_index.EMPTY
            if from_blobs:
                roots = [("", root) for root in self._roots()]
                new = LayoutIndex.parse(new, self.path).with_names(roots) or new
            self._keep_damaged_index()
            self._write_file("index.json", new)
            self._sync_directory(self._root)
            return "rebuilt" if from_blobs else "restored"

    def _valid(self, name: str) -> bytes | None:
        """Return an index document, None where it is absent or cannot be read as one."""
        try:
            raw = self._read_small(name, layout_index.MAX_SIZE_BYTES) or b""
            LayoutIndex.parse(raw, self.path)
        except DamagedLayout:
            return None
        return raw

    def _keep_damaged_index(self) -> None:
        old = self._path("index.json")
        if not os.path.lexists(old):
            return
        try:
            self._os.rename(old, os.path.join(self._private, _DAMAGED_INDEX))
        except OSError as error:
            raise storage_error(error, f"cannot keep the damaged {old}") from error

    def _roots(self) -> list[Descriptor]:
        """Return the manifests among the blobs that no other one names, sorted by digest."""
        files = self.quarantine.stored()[0]
        manifests = [found for file in files if (found := self._manifest(file.digest)) is not None]
        named = {
            child.digest
            for manifest in manifests
            for child in (*manifest.manifests, *manifest.blobs)
        }
        return sorted(
            (manifest.descriptor for manifest in manifests if manifest.digest not in named),
            key=lambda descriptor: descriptor.digest,
        )

    def _manifest(self, digest: Digest) -> Manifest | None:
        """Return a blob as a manifest; None where it is none, or damaged."""
        try:
            found = self._not_a_root(str(digest))
            if found is None or found.media_type not in mediatype.ACCEPTED:
                return None
            return self.read_manifest(found)
        except (IntegrityError, Unsupported):
            return None
