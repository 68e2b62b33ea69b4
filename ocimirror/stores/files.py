"""Reading regular files that may have been put there by anybody."""

from __future__ import annotations

import errno
import os
import stat

from ocimirror.errors import storage_error


def open_regular(path: str, directory: int | None = None) -> int:
    """Open a regular file; a link, FIFO or device is an OSError, and nothing blocks."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd


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
