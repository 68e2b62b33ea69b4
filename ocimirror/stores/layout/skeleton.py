"""The directories of a layout: made by the first run that writes, locked, and removed if unused.

A run that made a layout and brought nothing into it leaves none behind, so that nobody takes it
for a mirror. Others may be at the same path meanwhile: only who holds the lock exclusively removes
anything, the lock goes last of all files, and whoever waited for it finds that it is not in place
any more, and begins anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import Literal

from ocimirror.errors import DamagedLayout, LocalStorageError, Locked, storage_error
from ocimirror.stores.disk.atomic import FileLock
from ocimirror.stores.disk.files import read_whole
from ocimirror.stores.disk.oslayer import OsLayer
from ocimirror.stores.layout.index import EMPTY
from ocimirror.stores.layout.layoutfile import LAYOUT_FILE
from ocimirror.stores.layout.writable import PRIVATE

_TRIES = 50
_PAUSE_S = 0.02


class Skeleton:
    """The directories that a layout has before anything is in it.

    Args:
        path: of the layout.
        os_layer: the operations that change the disk.
        durable: sync the directories above what is made.
    """

    def __init__(self, path: str, os_layer: OsLayer, *, durable: bool) -> None:
        self._root = path
        self._os = os_layer
        self._durable = durable
        self._private = os.path.join(path, PRIVATE)
        self._blobs = os.path.join(path, "blobs")
        self._inner = (
            self._private,
            os.path.join(self._private, "tmp"),
            self._blobs,
            os.path.join(self._blobs, "sha256"),
        )
        self._made: list[str] = []

    def locked(self, mode: Literal["shared", "exclusive"], *, wait: bool) -> FileLock:
        """Make what is absent, hold the directories from then on, and lock them.

        Raises:
            Locked: another run has the lock.
            DamagedLayout: a link is in the place of a directory.
            LocalStorageError: something cannot be written, or a link came in the layout's place.
        """
        may_be_link = os.path.islink(self._root)
        for tries_left in reversed(range(_TRIES)):
            try:
                lock = self._lock(mode, wait=wait)
            except LocalStorageError as error:
                if not (tries_left and isinstance(error.__cause__, FileNotFoundError)):
                    raise
            except Locked:
                if not (tries_left and self._may_be_going()):
                    raise
            else:
                # (Whoever removed a layout here may have been half way before.)
                if lock.in_place() and self._os.replaced() is None:
                    return lock
                lock.release()
            self._os.let_go()
            if os.path.islink(self._root) and not may_be_link:
                raise LocalStorageError(f"{self._root} was replaced by a link; nothing was written")
            time.sleep(_PAUSE_S)
        raise Locked(f"{self._root} is made and removed again by other runs all the time")

    def _lock(self, mode: Literal["shared", "exclusive"], *, wait: bool) -> FileLock:
        self._make()
        lock = FileLock(os.path.join(self._private, "lock"), os_layer=self._os)
        try:
            lock.acquire(mode, wait=wait)
        except BaseException:
            lock.release()
            raise
        return lock

    def _make(self) -> None:
        """Make what is absent, and hold it; what is there must be ours to write, and no link."""
        absent = []
        parent = os.path.dirname(self._root)
        while not os.path.exists(parent):
            absent.append(parent)
            parent = os.path.dirname(parent)
        try:
            for directory in reversed(absent):
                self._make_one(directory)
                if self._durable:
                    self._os.sync_directory(os.path.dirname(directory))
            for directory in (self._root, *self._inner):
                self._make_one(directory)
                self._hold(directory)
        except OSError as error:
            raise storage_error(error, f"cannot write {directory}") from error

    def _make_one(self, directory: str) -> None:
        name, parent = self._os.at(directory)
        try:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            self._os.make_directory(directory)
            self._made += [directory] if directory not in self._made else []

    def _hold(self, directory: str) -> None:
        try:
            self._os.hold(directory)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR) or directory == self._root:
                raise
            raise DamagedLayout(f"{directory} is a link or not a directory") from error
        name, parent = self._os.at(directory)
        if not os.access(name, os.W_OK | os.X_OK, dir_fd=parent):
            # (It may also have gone in the meantime.)
            os.stat(name, dir_fd=parent)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _may_be_going(self) -> bool:
        try:
            return os.stat(os.path.join(self._root, "index.json")).st_size == len(EMPTY)
        except OSError:
            return True

    def remove_if_empty(self, lock: FileLock) -> None:
        """Remove the layout if nothing came into it and nobody else is at work in it.

        What cannot be removed stays; directories that were there before us stay.

        Args:
            lock: held by the caller, who releases it afterwards.
        """
        with contextlib.suppress(OSError, Locked, LocalStorageError):
            lock.acquire("exclusive", wait=False)
            if not lock.in_place() or not self._is_empty():
                return
            for name in ("index.json", LAYOUT_FILE, f"{PRIVATE}/index.lock"):
                with contextlib.suppress(FileNotFoundError):
                    self._os.unlink(os.path.join(self._root, name))
            for directory in reversed(self._inner[1:]):
                self._os.remove_directory(directory)
            self._os.unlink(os.path.join(self._private, "lock"))
            self._os.remove_directory(self._private)
            for directory in reversed([d for d in self._made if d not in self._inner]):
                self._os.remove_directory(directory)

    def _is_empty(self) -> bool:
        """Whether nothing is there but what a run makes at its beginning."""
        ours = {
            self._root: {"index.json", LAYOUT_FILE, "blobs", PRIVATE},
            self._private: {"lock", "index.lock", "tmp"},
            self._blobs: {"sha256"},
        }
        for directory in (self._root, *self._inner):
            if not set(os.listdir(self._os.held(directory))) <= ours.get(directory, set()):
                return False
        name, root = self._os.at(os.path.join(self._root, "index.json"))
        return read_whole(name, len(EMPTY), root) == EMPTY
