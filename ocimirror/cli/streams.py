"""Standard output and standard error, which may be closed, full, or read by nobody any more.

Writing to them raises nothing, so that no line that cannot be printed ends a run or hides its exit
code. What failed is remembered, and said at the end: exit code 8.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Unfailing(io.RawIOBase):
    """A descriptor whose first failure is kept; what comes later is dropped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, content: ReadableBuffer, /) -> int:
        view = memoryview(content).cast("B")
        written = 0
        while written < len(view) and self.failure is None:
            try:
                written += os.write(self._fd, view[written:])
            except BlockingIOError:  # (somebody who shares the terminal made it so)
                select.select([], [self._fd], [])
            except OSError as error:
                self.failure = error
        return len(view)


def prepare() -> None:
    """Make both streams unfailing; descriptors that were closed are taken, and refuse writing.

    Otherwise the next file that is opened would be 1 or 2, and messages would go into it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # (the lowest that is free: this one)
    sys.stdout = _stream(1, sys.stdout)
    sys.stderr = _stream(2, sys.stderr)


def _stream(fd: int, before: TextIO | None) -> TextIO:
    raw = _Unfailing(fd)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=fd == 2 or raw.isatty(),
    )


def finish(code: int) -> int:
    """Flush both streams; return the exit code, which is 8 if what was done could not be told.

    A pipe that nobody reads any more is no failure: whoever closed it has read enough.
    """
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        stream.flush()
        raw = stream.buffer.raw if isinstance(stream.buffer, io.BufferedWriter) else None
        failure = raw.failure if isinstance(raw, _Unfailing) else None
        if failure is None or isinstance(failure, BrokenPipeError):
            continue
        if code == 0:
            code = 8
            sys.stderr.write(f"error: cannot write {name}: {failure.strerror}\n")
            sys.stderr.flush()
    return code
