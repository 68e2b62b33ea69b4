"""Durable writes: a new file, synced, renamed over its name; and locks that processes respect.

Everything that changes the disk goes through OsLayer (see stores/disk/oslayer.py).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from typing import Literal

from ocimirror.errors import IntegrityError, Locked, storage_error, storage_errors
from ocimirror.stores.disk.files import FileReader
from ocimirror.stores.disk.oslayer import OsLayer

_WRITE_BACK_BYTES = 16 * 1024 * 1024
ABANDONED_S = 60
_KEPT_S = 7 * 24 * 3600
WORTH_KEEPING_BYTES = 1024 * 1024
PARTIAL = ".partial"
_TEMPORARY = ".ocimirror-new"


class NewFile:
    """A file that appears under its name whole and synced, or not at all.

    Nothing is visible before `commit`; leaving the context without it removes the temporary
    file, or keeps it for the next try where `kept` says so and there is much of it. After a
    failed write or sync the file is discarded, never synced again: the kernel may have dropped
    the pages it could not write.

    Args:
        temporary: a path on the same file system that no other writer uses.
        final: the name it will get; what has the name now is replaced.
        durable: sync before the rename; without, only a crash of the process is survived.
        kept: a path that is the same for each try, used instead of `temporary` where no other
            living process uses it; what it holds is `kept` bytes of an earlier try. Their
            content is not known to be right.
        whole_bytes: the size that the file will have; what is kept and longer is discarded.

    What is NOT done: syncing the directory; the caller does, once for many files.
    """

    def __init__(
        self,
        os_layer: OsLayer,
        temporary: str,
        final: str,
        *,
        durable: bool,
        kept: str = "",
        whole_bytes: int = 0,
    ) -> None:
        self.kept = 0
        self._os = os_layer
        self._temporary = temporary
        self._final = final
        self._durable = durable
        self._kept_path = kept
        self._whole_bytes = whole_bytes
        self._keeps = False
        self._written = 0
        self._flushed = 0
        self._fd: int | None = None

    def __enter__(self) -> NewFile:
        with self._translated():
            if not (self._kept_path and self._open_kept()):
                self._fd = self._os.create(self._temporary)
                fcntl.flock(self._fd, fcntl.LOCK_SH)  # says that a living process writes it
        return self

    def _open_kept(self) -> bool:
        """Open the file of an earlier try, or begin it; False where another process has it."""
        try:
            fd = self._os.reopen(self._kept_path)
        except FileNotFoundError:
            try:
                fd = self._os.create(self._kept_path)
            except FileExistsError:
                return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have given it its name in the meantime.
            mine = os.fstat(fd)
            there = os.stat(self._kept_path, follow_symlinks=False)
            if (mine.st_ino, mine.st_dev) != (there.st_ino, there.st_dev):
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            self._os.close(fd)
            return False
        self._fd, self._temporary, self._keeps = fd, self._kept_path, True
        if mine.st_size > self._whole_bytes:
            self._os.truncate(fd)
        else:
            self.kept = self._written = self._flushed = mine.st_size
        os.lseek(fd, 0, os.SEEK_END)
        return True

    def kept_content(self) -> FileReader:
        """Return a reader of what an earlier try left."""
        assert self._fd is not None  # noqa: S101 - a programming error, not input
        return FileReader(self._fd, self._temporary, 0, self.kept, closes=False)

    def write(self, content: bytes) -> None:
        """Append bytes."""
        assert self._fd is not None  # noqa: S101 - a programming error, not input
        with self._translated():
            self._os.write(self._fd, content)
        self._written += len(content)
        if self._durable and self._written - self._flushed >= _WRITE_BACK_BYTES:
            self._os.start_write_back(self._fd, self._flushed, self._written - self._flushed)
            self._flushed = self._written

    def commit(self) -> None:
        """Sync the file, then give it its name."""
        assert self._fd is not None  # noqa: S101
        with self._translated():
            if self._durable:
                self._os.sync(self._fd)
            # Renamed while it is locked: nobody else may take it for a partial file now.
            self._os.rename(self._temporary, self._final)
            self._temporary = ""
            fd, self._fd = self._fd, None
            self._os.close(fd)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        wrong = kind is not None and issubclass(kind, IntegrityError)
        keep = self._keeps and not wrong and self._written >= WORTH_KEEPING_BYTES
        if self._temporary and not keep:
            with contextlib.suppress(OSError):
                self._os.unlink(self._temporary)
        if self._fd is not None:
            with contextlib.suppress(OSError):
                self._os.close(self._fd)
            self._fd = None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._keeps = False
            raise _with_space(error, self._final, self._written) from error


def _with_space(error: OSError, path: str, written: int) -> Exception:
    what = f"cannot write {path}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what += f" after {written} bytes, {free_bytes(os.path.dirname(path))} bytes free"
    return storage_error(error, what)


def replace_file(path: str, content: bytes, *, durable: bool = True) -> None:
    """Write a file anew: whoever reads it sees the old content or the new, whole.

    A link is followed, and what it leads to is replaced. What a writer that was killed left
    beside the file goes a minute later, with the next write.

    Raises:
        LocalStorageError: it could not be written; the old content is there still.
    """
    path = os.path.realpath(path)
    directory, name = os.path.split(path)
    os_layer = OsLayer()
    begin = f".{name[:40]}."
    with contextlib.suppress(OSError):
        remove_abandoned(directory, begin=begin, end=_TEMPORARY)
    temporary = os.path.join(directory, f"{begin}{secrets.token_hex(8)}{_TEMPORARY}")
    with NewFile(os_layer, temporary, path, durable=durable) as file:
        file.write(content)
        file.commit()
    if durable:
        with storage_errors(f"cannot sync {directory}"):
            os_layer.sync_directory(directory)


def remove_abandoned(
    directory: str | int, *, new_s: float = ABANDONED_S, begin: str = "", end: str = ""
) -> None:
    """Remove the temporary files in a directory whose writers are dead.

    What a next try can continue stays for a week.

    Args:
        directory: where they are: its path, or a descriptor.
        new_s: a file younger than this is perhaps not locked yet, and stays.
        begin, end: of the names of temporary files, where there are others.
    """
    held = directory if isinstance(directory, int) else None
    for entry in os.scandir(directory):
        if not (entry.name.startswith(begin) and entry.name.endswith(end)):
            continue
        with contextlib.suppress(OSError):
            age_s = time.time() - entry.stat(follow_symlinks=False).st_mtime
            if age_s < (_KEPT_S if entry.name.endswith(PARTIAL) else new_s):
                continue
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(entry.path, flags, dir_fd=held)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path, dir_fd=held)
            finally:
                os.close(fd)


def free_bytes(directory: str | int) -> int:
    """Return what an ordinary user may still write on the file system of a directory."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize


class FileLock:
    """An flock on a file that is never renamed; the kernel releases it when the process dies.

    Advisory: only processes that ask for it are held back, and not across NFS clients.
    """

    def __init__(self, path: str, *, create: bool = True, os_layer: OsLayer | None = None) -> None:
        # (A link is not followed, and a FIFO in its place does not block.)
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        flags |= os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        try:
            name, directory = (os_layer or OsLayer()).at(path)
            self._fd = os.open(name, flags, 0o644, dir_fd=directory)
        except OSError as error:
            raise storage_error(error, f"cannot open the lock {path}") from error
        self._path = path

    def acquire(self, mode: Literal["shared", "exclusive"], *, wait: bool) -> None:
        """Take the lock, or change the mode of a lock that is held.

        Raises:
            Locked: another process holds it, and `wait` is false.
        """
        operation = fcntl.LOCK_SH if mode == "shared" else fcntl.LOCK_EX
        try:
            fcntl.flock(self._fd, operation | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise Locked(
                f"{self._path} is held by another process",
                advice="Another ocimirror is at work there; run again later, or with --wait,"
                " where the command has it.",
            ) from error
        except OSError as error:
            raise storage_error(error, f"cannot lock {self._path}") from error

    def in_place(self) -> bool:
        """Whether the file that is locked is still the one that has the path."""
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        locked = os.fstat(self._fd)
        return (found.st_dev, found.st_ino) == (locked.st_dev, locked.st_ino)

    def release(self) -> None:
        """Give the lock back; the file stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextlib.contextmanager
    def held(self, mode: Literal["shared", "exclusive"]) -> Iterator[None]:
        """Hold the lock for a moment, waiting for it."""
        self.acquire(mode, wait=True)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
