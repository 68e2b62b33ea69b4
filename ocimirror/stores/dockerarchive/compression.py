"""Compressed layers, as streams: what they are compressed with, and what they stand for.

Decompressing is done to check a diff_id, or for engines that cannot read zstd. Nothing that is
copied from one OCI place to another is ever decompressed.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import IO, Literal, cast

from ocimirror.errors import DamagedLayout, UsageError
from ocimirror.stores.stream import CHUNK_BYTES, Reader

Compression = Literal["", "gzip", "zstd", "bzip2", "xz"]
MAGIC_BYTES = 10
FREE_BYTES = 1024**3
MAX_RATIO = 256


def compression_of(head: bytes) -> Compression:
    """Return what content is compressed with, from its first `MAGIC_BYTES`."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    # (A skippable frame may come first: RFC 8878, 3.1.2.)
    skippable = head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F
    if skippable or head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    # (A tar may begin with a file of any name, so all of the magic counts.)
    if head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
        return "bzip2"
    return ""


class Decompressed:
    """What compressed content stands for: a Reader over a Reader, in memory of one chunk.

    Args:
        reader: the compressed bytes; closed with this.
        compression: `gzip` or `zstd`.
        size: how many compressed bytes there are; None if nobody knows, and the caller bounds
            what comes out.
        what: names the content in errors.

    Raises:
        UsageError: zstd, and the library for it is not installed.
        DamagedLayout: when read: broken or cut off, or more than 256 times its size beyond 1 GiB.
    """

    def __init__(
        self, reader: Reader, compression: Compression, size: int | None, what: str
    ) -> None:
        self._reader = reader
        self._what = what
        self._left = sys.maxsize if size is None else FREE_BYTES + MAX_RATIO * size
        if compression == "gzip":
            self._next: Callable[[int], bytes] = _Gzip(reader).read
            self._broken: tuple[type[Exception], ...] = (zlib.error, EOFError)
        elif compression == "zstd":
            self._next, broken = _zstd(reader, what)
            self._broken = (broken,)
        else:
            raise ValueError(f"{compression} is not decompressed")

    def read(self, amount: int, /) -> bytes:
        """Return 1 to `amount` bytes, none at the end."""
        try:
            chunk = self._next(min(amount, CHUNK_BYTES))
        except self._broken as error:
            raise DamagedLayout(f"{self._what} cannot be decompressed: {error}") from error
        self._left -= len(chunk)
        if self._left < 0:
            raise DamagedLayout(
                f"{self._what} decompresses to more than {MAX_RATIO} times its size and 1 GiB"
            )
        return chunk

    def close(self) -> None:
        """Close the compressed reader."""
        self._reader.close()


class _Gzip:
    """Gzip members in a row, as every gunzip reads them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._member = zlib.decompressobj(wbits=31)
        self._input = b""

    def read(self, amount: int) -> bytes:
        while True:
            if self._member.eof:
                if not self._at_next_member(self._member.unused_data):
                    return b""
                self._member = zlib.decompressobj(wbits=31)
            elif not self._input:
                self._input = self._reader.read(CHUNK_BYTES)
                if not self._input:
                    raise EOFError("it ends in the middle")
            chunk = self._member.decompress(self._input, amount)
            self._input = self._member.unconsumed_tail
            if chunk:
                return chunk

    def _at_next_member(self, rest: bytes) -> bool:
        """Skip zeros, with which tapes and some builders pad; False at the end."""
        while not (rest := rest.lstrip(b"\0")):
            rest = self._reader.read(CHUNK_BYTES)
            if not rest:
                return False
        self._input = rest
        return True


def require_zstd(what: str = "this image's layers") -> ModuleType:
    """Return the library for zstd.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise UsageError(
            f"cannot decompress {what}: the library for zstd is not installed",
            advice="pip install 'ocimirror[docker-archive]'",
        ) from error
    return zstandard


def _zstd(reader: Reader, what: str) -> tuple[Callable[[int], bytes], type[Exception]]:
    """Return what reads frames in a row, and its error; it is silent of a cut, the hash is not."""
    library = require_zstd(what)
    source = cast("IO[bytes]", reader)
    stream = library.ZstdDecompressor().stream_reader(source, read_across_frames=True)
    return stream.read, library.ZstdError
