"""Archives that cannot be read at random: standard input, pipes, compressed files.

Each is copied once into a temporary file that has no name, so that a kill leaves nothing behind.
"""

from __future__ import annotations

import os
import select
import stat
import tempfile
import threading
from typing import BinaryIO, NamedTuple

from ocimirror.errors import DamagedLayout, LocalStorageError, NoSpace, NotFound, storage_error
from ocimirror.stores.disk.atomic import free_bytes
from ocimirror.stores.dockerarchive.compression import (
    MAGIC_BYTES,
    Decompressed,
    compression_of,
)
from ocimirror.stores.stream import CHUNK_BYTES, Reader, Watch

RESERVE_BYTES = 64 * 1024 * 1024
_POLL_MS = 200
_STANDARD_INPUT = "-"


class _Spooled(NamedTuple):
    version: tuple[object, ...]
    file: BinaryIO


_last: _Spooled | None = None
_guard = threading.Lock()


def open_archive(path: str, watch: Watch | None = None) -> BinaryIO:
    """Open an archive for reads at any position; the caller closes the file.

    A command looks at an archive more than once, so the one that was spooled last is kept.

    Args:
        path: a file, a pipe, or `-` for standard input; gzip and zstd are decompressed.
        watch: called with the number of bytes of each chunk that is spooled, and with 0 while
            nothing comes; raises to stop.

    Raises:
        NotFound: the file does not exist.
        NoSpace: the directory for temporary files would have less than 64 MiB left.
        DamagedLayout: the content cannot be decompressed, or expands more than 256 times.
        UsageError: zstd, and the library for it is not installed.
        LocalStorageError: the file cannot be read.
    """
    global _last
    try:
        file = _opened(path)
        with file, _guard:
            status = os.fstat(file.fileno())
            version: tuple[object, ...] = path, status.st_dev, status.st_ino
            if stat.S_ISREG(status.st_mode):
                version += status.st_size, status.st_mtime_ns
            if _last is not None and _last.version == version:
                return _again(_last.file)
            head = b""
            if stat.S_ISREG(status.st_mode):
                head = os.pread(file.fileno(), MAGIC_BYTES, 0)
                if not compression_of(head) and path != _STANDARD_INPUT:
                    return _again(file)
            _last = _Spooled(version, _spooled(_Polled(file.fileno(), path, watch), status, path))
            return _again(_last.file)
    except FileNotFoundError as error:
        raise NotFound(f"the file {path} does not exist") from error
    except OSError as error:
        raise storage_error(error, f"cannot read {path}") from error


def _opened(path: str) -> BinaryIO:
    if path == _STANDARD_INPUT:
        return open(0, "rb", buffering=0, closefd=False)
    # (Without O_NONBLOCK, a FIFO that nobody writes to would block here and heed no signal.)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        os.close(fd)
        raise LocalStorageError(f"{path} is neither a regular file nor a pipe")
    return open(fd, "rb", buffering=0)


def _again(file: BinaryIO) -> BinaryIO:
    """Return the same file with a position of its own."""
    return open(f"/proc/self/fd/{file.fileno()}", "rb")


def _spooled(source: Reader, status: os.stat_result, path: str) -> BinaryIO:
    head = b""
    while len(head) < MAGIC_BYTES and (chunk := source.read(CHUNK_BYTES)):
        head += chunk
    content: Reader = _Prepended(head, source)
    compression = compression_of(head)
    if compression in ("bzip2", "xz"):
        raise DamagedLayout(
            f"{path} is compressed with {compression}",
            advice="Decompress it first; gzip and zstd are read as they are.",
        )
    if compression:
        regular = stat.S_ISREG(status.st_mode)
        content = Decompressed(content, compression, status.st_size if regular else None, path)
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - kept for the next look
        _fill(file, content, path)
    except OSError as error:
        raise storage_error(error, f"cannot spool {path} in {tempfile.gettempdir()}") from error
    return file


def _fill(file: BinaryIO, content: Reader, path: str) -> None:
    directory = tempfile.gettempdir()
    left = 0
    while chunk := content.read(CHUNK_BYTES):
        left -= len(chunk)
        if left < 0:
            left = free_bytes(directory) - RESERVE_BYTES - len(chunk)
            if left < 0:
                raise NoSpace(
                    f"cannot spool {path}: {directory} would have less than"
                    f" {RESERVE_BYTES // 1024**2} MiB free",
                    advice="Free space there, or name another directory with TMPDIR.",
                )
            left = min(left, RESERVE_BYTES)  # (looked at again: others write there too)
        file.write(chunk)
    file.flush()


class _Polled:
    """What a file, a pipe or a terminal gives, waited for so that a stop is noticed."""

    def __init__(self, fd: int, path: str, watch: Watch | None) -> None:
        self._fd = fd
        self._path = path
        self._watch = watch
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def read(self, amount: int, /) -> bytes:
        while not self._poll.poll(_POLL_MS):
            self._seen(0)
        chunk = os.read(self._fd, amount)
        self._seen(len(chunk))
        return chunk

    def _seen(self, size: int) -> None:
        if self._watch is not None:
            self._watch(size)

    def close(self) -> None:
        return


class _Prepended:
    """A reader with bytes in front that were read from it."""

    def __init__(self, head: bytes, rest: Reader) -> None:
        self._head = head
        self._rest = rest

    def read(self, amount: int, /) -> bytes:
        if not self._head:
            return self._rest.read(amount)
        chunk, self._head = self._head[:amount], self._head[amount:]
        return chunk

    def close(self) -> None:
        self._rest.close()
