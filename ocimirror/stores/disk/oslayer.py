"""The operations that change a disk, in one place.

Everything that changes the disk goes through OsLayer, so that what happens in a directory that is
held happens in that directory, whatever has its path by then.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable

_SYNC_FILE_RANGE_WRITE = 2
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Return Linux's call of that name, which Python does not have; None elsewhere.

    (posix_fadvise begins write-back too, but waits for all processors to drop cached pages.)
    """
    import ctypes  # (loaded for a large file only)

    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function


class OsLayer:
    """The operations that change a disk; paths are absolute."""

    # --- directories that are held -------------------------------------------------------------

    @functools.cached_property
    def _held(self) -> dict[str, int]:
        return {}

    def hold(self, path: str) -> None:
        """Reach the entries of a directory by a descriptor from now on, until `let_go`.

        If its parent is held, the directory may not be a link: an OSError.
        """
        if path in self._held:
            return
        fd = self.open_directory(path)
        if self._held.setdefault(path, fd) != fd:
            os.close(fd)  # (another thread was faster)

    def open_directory(self, path: str) -> int:
        """Return a descriptor that the caller closes; see `hold` for links."""
        name, parent = self.at(path)
        flags = _DIRECTORY if parent is None else _DIRECTORY | os.O_NOFOLLOW
        return os.open(name, flags, dir_fd=parent)

    def let_go(self) -> None:
        """Close the descriptors of directories."""
        while self._held:
            os.close(self._held.popitem()[1])

    def held(self, path: str) -> int | str:
        """Return the descriptor of a directory that is held, otherwise its path."""
        return self._held.get(path, path)

    def at(self, path: str) -> tuple[str, int | None]:
        """Return how to reach a path: a name and the descriptor of its directory, if it is held."""
        if not self._held:
            return path, None
        parent, name = os.path.split(path)
        fd = self._held.get(parent)
        return (path, None) if fd is None else (name, fd)

    def replaced(self) -> str | None:
        """Return the path of a directory that is held and is not there any more, None if all are.

        A link that leads to the same directory counts only for one whose parent is not held.
        """
        for path, fd in list(self._held.items()):
            name, parent = self.at(path)
            try:
                found = os.stat(name, dir_fd=parent, follow_symlinks=parent is None)
            except OSError:
                return path
            if not os.path.samestat(found, os.fstat(fd)):
                return path
        return None

    # --- changes -------------------------------------------------------------------------------

    def create(self, path: str) -> int:
        """Create a file that must not exist; return its descriptor."""
        name, directory = self.at(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(name, flags, 0o644, dir_fd=directory)

    def reopen(self, path: str) -> int:
        """Open a file that an earlier writer left; return its descriptor, at the beginning."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        name, directory = self.at(path)
        return os.open(name, flags, dir_fd=directory)

    def truncate(self, fd: int) -> None:
        """Make a file empty."""
        os.ftruncate(fd, 0)

    def write(self, fd: int, content: bytes) -> None:
        """Write all of it."""
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]

    def start_write_back(self, fd: int, offset: int, length: int) -> None:
        """Ask the kernel to begin writing a range, so that the final sync is short."""
        start = _sync_file_range()
        if start is not None:
            start(fd, offset, length, _SYNC_FILE_RANGE_WRITE)

    def sync(self, fd: int) -> None:
        """Wait until the file's content is on the disk."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor from `create`."""
        os.close(fd)

    def rename(self, old: str, new: str) -> None:
        """Rename over whatever has the new name, atomically."""
        (source, source_fd), (target, target_fd) = self.at(old), self.at(new)
        os.replace(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)

    def link(self, path: str, new: str) -> None:
        """Give a file one more name, on the same file system; a symbolic link is not followed."""
        (source, source_fd), (target, target_fd) = self.at(path), self.at(new)
        os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)

    def touch(self, path: str) -> None:
        """Say of a file that it was modified now."""
        name, directory = self.at(path)
        os.utime(name, dir_fd=directory, follow_symlinks=False)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        name, directory = self.at(path)
        os.unlink(name, dir_fd=directory)

    def make_directory(self, path: str) -> None:
        """Create one directory; no error where it exists."""
        name, directory = self.at(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=directory)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        name, directory = self.at(path)
        os.rmdir(name, dir_fd=directory)

    def sync_file(self, path: str) -> None:
        """Wait until a file that is there already is on the disk."""
        self._sync_path(path, os.O_NOFOLLOW)

    def sync_directory(self, path: str) -> None:
        """Wait until the directory's entries are on the disk."""
        fd = self._held.get(path)
        if fd is None:
            self._sync_path(path, os.O_DIRECTORY)
        else:
            os.fsync(fd)

    def _sync_path(self, path: str, flags: int) -> None:
        name, directory = self.at(path)
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=directory)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
