"""Reading regular files that may have been put there by anybody."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import BinaryIO, NamedTuple

from ocimirror.errors import UsageError, storage_error

_SILENCE_S = 60.0
_NO_WRITER_S = 2.0
_PIECE_BYTES = 1024 * 1024


class Identity(NamedTuple):
    """What changes when a file's content may have changed."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identity_of(status: os.stat_result) -> Identity:
    """Return the identity that a status shows."""
    return Identity(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def open_regular(path: str, directory: int | None = None) -> int:
    """Open a regular file; a link, FIFO or device is an OSError, and nothing blocks."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd


def is_there(path: str) -> bool:
    """Whether a path exists, be it a link that leads nowhere.

    Raises:
        LocalStorageError: nobody can tell, as on a disk with errors.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise storage_error(error, f"cannot read {path}") from error
    return True


def read_input(path: str, what: str, limit: int, *, pipes: bool = True) -> bytes:
    """Return the whole content of a file that a person names; links are followed.

    Args:
        path: of the file.
        what: names it in errors: "lock file".
        limit: in bytes.
        pipes: take a pipe too, as `<(command)` is one; it may be silent for a minute,
            and without a writer for two seconds.

    Raises:
        UsageError: it does not exist, is larger, a directory or a device, or a silent pipe.
        LocalStorageError: it cannot be read.
    """
    try:
        # (Without O_NONBLOCK, a FIFO that nobody writes to would block and heed no signal.)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"the {what} {path} does not exist") from error
    except ValueError as error:
        raise UsageError(f"the {what} {path}: {error}") from error
    except OSError as error:
        raise storage_error(error, f"cannot read {path}") from error
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) and not (pipes and stat.S_ISFIFO(mode)):
            raise UsageError(f"{path} is not a regular file")
        raw = bytearray()
        while chunk := _read_waiting(
            fd, min(_PIECE_BYTES, limit + 1 - len(raw)), began=bool(raw), mode=mode
        ):
            raw += chunk
    except TimeoutError as error:
        raise UsageError(f"the {what} {path} is a pipe that nothing is written to") from error
    except OSError as error:
        raise storage_error(error, f"cannot read {path}") from error
    finally:
        os.close(fd)
    if len(raw) > limit:
        raise UsageError(f"{path} is larger than {limit} bytes")
    return bytes(raw)


def _read_waiting(fd: int, amount: int, *, began: bool, mode: int) -> bytes:
    """Read what is there, or wait for it; a pipe without a writer looks like one at its end."""
    until = time.monotonic() + _SILENCE_S
    writer_until = time.monotonic() + _NO_WRITER_S
    while True:
        try:
            chunk = os.read(fd, amount)
        except BlockingIOError:
            began = True  # (there is a writer, which has not written yet)
            if time.monotonic() > until:
                raise TimeoutError from None
        else:
            if chunk or began or stat.S_ISREG(mode) or not amount:
                return chunk
            if time.monotonic() > writer_until:
                raise TimeoutError
        time.sleep(0.02)


def read_whole(path: str, limit: int, directory: int | None = None) -> bytes | None:
    """Return a regular file's content, None if it is absent; OSError (EFBIG) if it is too large."""
    try:
        fd = open_regular(path, directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(fd, "rb") as file:
        raw = b"" if os.fstat(fd).st_size > limit else read_bounded(file, limit)
        if os.fstat(fd).st_size > limit or len(raw) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes")
    return raw


def read_bounded(file: BinaryIO, limit: int) -> bytes:
    """Return the content of a file, or, if it is larger, one byte more than the limit.

    (To read so much at once takes so much memory, however small the file is.)
    """
    size = min(os.fstat(file.fileno()).st_size, limit)
    raw = file.read(size + 1)
    return raw if len(raw) <= size else raw + file.read(limit - size)  # (it has grown)


class FileReader:
    """Raw bytes of an open file, from a position to an end. A Reader.

    Its reads are positional, so that several can share one descriptor.

    Args:
        fd: the open file.
        what: names it in errors.
        begin, end: byte positions.
        closes: the descriptor is this reader's to close.
    """

    def __init__(self, fd: int, what: str, begin: int, end: int, *, closes: bool) -> None:
        self._fd = fd
        self._what = what
        self._position = begin
        self._end = end
        self._closes = closes

    def read(self, amount: int, /) -> bytes:
        """Return 1 to `amount` bytes, none at the end.

        Raises:
            LocalStorageError: the disk refused.
        """
        try:
            chunk = os.pread(self._fd, min(amount, self._end - self._position), self._position)
        except OSError as error:
            raise storage_error(error, f"cannot read {self._what}") from error
        self._position += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the descriptor where it is ours; idempotent."""
        if self._closes:
            self._closes = False
            os.close(self._fd)
