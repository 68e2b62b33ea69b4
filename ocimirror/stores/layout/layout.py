"""The OCI image layout: a directory of blobs named by digest, and index.json naming the roots.

What holds at every instant, also after kill -9 and power loss: index.json is complete, and all
that is reachable from it was on the disk before it was written. To that end blobs appear whole
(`atomic.NewFile`), from temporary files outside `blobs/`, and one replace of index.json under a
lock moves the names of a whole batch.

    oci-layout  index.json  index.json.prev  blobs/<algorithm>/<encoded>
    .ocimirror/lock         flock: shared while content is written, exclusive for its removal
    .ocimirror/index.lock   flock: exclusive for the moment of the index replace
    .ocimirror/tmp/         what is being written
    .ocimirror/quarantine/  what nothing reached, on its way out (see stores/layout/quarantine.py)

Spec: image-spec image-layout.md.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, TypeVar

from ocimirror.errors import (
    DamagedLayout,
    LocalStorageError,
    NoSpace,
    storage_errors,
)
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.stores.disk.atomic import PARTIAL, FileLock, NewFile, free_bytes, remove_abandoned
from ocimirror.stores.layout import index as layout_index
from ocimirror.stores.layout.directory import LayoutDirectory
from ocimirror.stores.layout.index import LayoutIndex
from ocimirror.stores.layout.layoutfile import (
    LAYOUT_FILE,
    LAYOUT_VERSION,
    MAX_LAYOUT_FILE_BYTES,
    check_layout_file,
)
from ocimirror.stores.layout.referrerslist import lists_with
from ocimirror.stores.layout.skeleton import Skeleton
from ocimirror.stores.layout.writable import PRIVATE, is_layout_to_write
from ocimirror.stores.store import Store, Stored, verified
from ocimirror.stores.stream import CHUNK_BYTES, VerifiedStream

T = TypeVar("T")


class Layout(LayoutDirectory, Store):
    """An image layout directory.

    Args:
        path: the directory.
        write: make the layout if it is absent, and hold the shared lock until `close`; without,
            nothing at all is written, what would write is refused, and read-only media will do.
        durable: survive power loss; without, only a crash of the process.
        wait: wait for a run that holds the lock exclusively.

    Raises:
        UsageError: to be written, and the directory holds something else.
        NotFound: to be read, and there is no such directory.
        DamagedLayout: to be read, and not a layout.
        Locked: another run holds the exclusive lock.
        LocalStorageError: before any transfer, where the directory cannot be written.
    """

    names_at_once = 64
    mendable = True
    _lock_mode: Literal["shared", "exclusive"] = "shared"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        write: bool = False,
        durable: bool = True,
        wait: bool = False,
    ) -> None:
        super().__init__(path)
        self._durable = durable
        self._skeleton = Skeleton(self._root, self._os, durable=durable)
        self._made = False
        self._private = os.path.join(self._root, PRIVATE)
        self._directories: dict[str, int] = {}
        self._guard = threading.Lock()
        self._lock: FileLock | None = None
        if not write:
            self._sealed = "was opened for reading", "Open it with write=True."
        try:
            if write:
                self._open_for_writing(wait)
            else:
                self._open_for_reading(wait)
        except BaseException:
            self.close()
            raise

    # --- opening -------------------------------------------------------------------------------

    def _open_for_reading(self, wait: bool) -> None:
        self.check()
        lock = os.path.join(self._private, "lock")
        if os.path.exists(lock) and os.access(lock, os.R_OK):
            self._lock = FileLock(lock, create=False)
            self._lock.acquire(self._lock_mode, wait=wait)

    def _open_for_writing(self, wait: bool) -> None:
        is_layout_to_write(self.path)
        self._lock = self._skeleton.locked(self._lock_mode, wait=wait)
        remove_abandoned(self._os.held(self._temporary_directory))
        raw = self._read_small(LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES)
        if raw is not None:
            check_layout_file(raw, self.path)
        with self._index_lock():
            absent = self._read_small("index.json", layout_index.MAX_SIZE_BYTES) is None
            if not absent:
                self.index()  # (a torn one is an error before any transfer)
            elif any(self.blob_files()):
                raise DamagedLayout(f"{self.path} has blobs and no index.json; nothing was written")
            if raw is None:
                self._write_file(LAYOUT_FILE, LAYOUT_VERSION)
            if absent:
                self._made = True
                # (index.json is last: what has one is a layout, and stays where it is.)
                for directory in (os.path.dirname(self._root), self._root):
                    if os.access(directory, os.R_OK):
                        self._sync_directory(directory)
                self._write_file("index.json", layout_index.EMPTY)
                self._sync_directory(self._root)

    def remove_if_unused(self) -> None:
        """Remove the layout if we made it, nothing came into it, and nobody else writes to it."""
        if self._made and self._lock is not None:
            self._skeleton.remove_if_empty(self._lock)

    def __del__(self) -> None:
        # (Only said: what it held is perhaps held by the process that this one was forked from.)
        if getattr(self, "_lock", None) is not None:
            warnings.warn(f"{self.location} was not closed", ResourceWarning, stacklevel=2)

    def _close(self) -> None:
        for directory in self._directories.values():
            os.close(directory)
        self._directories.clear()
        self._os.let_go()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # --- writing -------------------------------------------------------------------------------

    def _ingest(self, descriptor: Descriptor, stream: VerifiedStream, replace: bool) -> Stored:
        digest = descriptor.digest
        directory = self._path("blobs", digest.algorithm)
        self._make_directory(directory)
        if not replace and self._exists(descriptor):
            self._sync_present(os.path.join(directory, digest.encoded))
            return Stored.PRESENT
        free = free_bytes(self._os.held(self._root))
        if descriptor.size > free:
            raise NoSpace(f"{self.path}: {digest} needs {descriptor.size} bytes, {free} are free")
        with self._new_file(os.path.join(directory, digest.encoded), descriptor) as file:
            if file.kept:
                stream.resume(file.kept_content(), file.kept)
            while chunk := stream.read(CHUNK_BYTES):
                file.write(chunk)
            file.commit()
        return Stored.COPIED

    def _make_directory(self, path: str) -> None:
        if isinstance(self._os.held(path), str):
            with storage_errors(f"cannot make {path}"):
                self._os.make_directory(path)
                self._os.hold(path)

    def _named(self, name: str, descriptor: Descriptor) -> bool:
        return self.index().stands_for(name, descriptor)

    def _sync_present(self, path: str) -> None:
        """Sync what another writer may have left unsynced: it is named as durable from now on."""
        if self._durable:
            with storage_errors(f"cannot sync {path}"):
                self._os.sync_file(path)

    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        for _, manifest in names:
            self._ingest(manifest.descriptor, verified(manifest), replace=False)
        # (1) Whoever renamed the blobs into place, their entries are synced before they are named.
        for algorithm in filter(self._is_directory, self._listed("blobs")):
            self._sync_directory(self._path("blobs", algorithm))
        self._sync_directory(self._path("blobs"))
        moved = [(name, manifest.descriptor) for name, manifest in names]
        lists = partial(lists_with, self, [manifest for _, manifest in names])
        # (The lists as they are under the lock.)
        self.edit_index(lambda now: (now.with_names(moved + self.store_lists(lists())), None))

    def store_lists(self, lists: Sequence[tuple[str, Manifest]]) -> list[tuple[str, Descriptor]]:
        """Store lists of referrers that index.json is to name, and sync them."""
        for _, manifest in lists:
            self._ingest(manifest.descriptor, verified(manifest), replace=True)
        if lists:
            self._sync_directory(self._path("blobs", "sha256"))
        return [(name, manifest.descriptor) for name, manifest in lists]

    def edit_index(self, edit: Callable[[LayoutIndex], tuple[bytes | None, T]]) -> T:
        """Replace index.json under its lock, atomically; the old one stays as index.json.prev.

        Args:
            edit: makes the new document of the current one, None where it can stay as it is, and
                something to return; what it names must be stored and synced.
        """
        self._refuse_unwritable()
        with self._index_lock():
            # (2) Another process may have moved names since.
            old = self._read_small("index.json", layout_index.MAX_SIZE_BYTES) or b""
            parsed = self._parsed
            known = parsed[2] if parsed is not None and parsed[1] == old else None
            new, result = edit(known or LayoutIndex.parse(old, self.path))
            if new is not None:
                # (3) A copy, never a hard link: other tools write index.json in place. Not that of
                # the layout's creation: it would say of a layout that it is to hold nothing.
                if old != layout_index.EMPTY:
                    self._write_file("index.json.prev", old)
                # (4) The names move, all at once.
                self._write_file("index.json", new)
                self._sync_directory(self._root)
                self.refuse_replaced("names moved there")
            return result

    def _write_file(self, name: str, content: bytes) -> None:
        self.refuse_replaced(f"{name} was not written")
        with self._new_file(self._path(name)) as file:
            file.write(content)
            file.commit()

    def refuse_replaced(self, what: str) -> None:
        """Raise LocalStorageError if the paths of this layout lead to other directories by now."""
        moved = self._os.replaced()
        if moved is not None:
            raise LocalStorageError(
                f"{moved} is not the directory that it was when this run began; {what}."
                " What came until then is in the directory that was there.",
                advice="Put the directory back and run again.",
            )

    def _new_file(self, final: str, resumable: Descriptor | None = None) -> NewFile:
        # (Not the process id: in containers every run may be process 1.)
        temporary = f"{os.path.basename(final)[:64]}.{secrets.token_hex(8)}"
        kept = f"{resumable.digest}{PARTIAL}".replace(":", "-") if resumable else ""
        return NewFile(
            self._os,
            os.path.join(self._temporary_directory, temporary),
            final,
            durable=self._durable,
            kept=os.path.join(self._temporary_directory, kept) if kept else "",
            whole_bytes=resumable.size if resumable else 0,
        )

    def _sync_directory(self, path: str) -> None:
        if self._durable:
            with storage_errors(f"cannot sync {path}"):
                self._os.sync_directory(path)

    @contextlib.contextmanager
    def _index_lock(self) -> Iterator[None]:
        lock = FileLock(os.path.join(self._private, "index.lock"), os_layer=self._os)
        try:
            lock.acquire("exclusive", wait=True)
            yield
        finally:
            lock.release()

    @property
    def _temporary_directory(self) -> str:
        return os.path.join(self._private, "tmp")

    def _in_blobs(self, digest: Digest, act: Callable[[str, int], T]) -> T:
        """Act on the name of a blob and a descriptor of its directory, held until `close`."""
        with self._guard:
            directory = self._directories.get(digest.algorithm)
            if directory is None:
                directory = self._open_blobs(digest.algorithm)
                self._directories[digest.algorithm] = directory
        return act(digest.encoded, directory)
