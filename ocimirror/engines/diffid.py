"""The diff_id of a layer: the digest of its tar, whatever it is compressed with."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from typing import IO, cast

from ocimirror.errors import MalformedManifest, Unsupported
from ocimirror.model.digest import Digest
from ocimirror.stores.stream import VerifiedStream

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_STEP_BYTES = 1024 * 1024
_GZIP_WINDOW = 31  # (zlib: 15 bits, and a gzip header)


def diff_id_of(stream: VerifiedStream) -> Digest:
    """Read a layer to its end, which verifies it, and return the digest of its bare tar.

    What it is compressed with is told from its first bytes, as engines do.

    Raises:
        IntegrityError: the layer is not what its descriptor says, or its compression is broken.
        Unsupported: zstd, where the library for it is not installed.
    """
    plain = hashlib.sha256()
    head = b""
    while len(head) < len(_ZSTD) and (chunk := stream.read()):
        head += chunk
    what = f"layer {stream.descriptor.digest}"
    compressed = _chunks(head, stream)
    if head.startswith(_GZIP):
        compressed = _gunzipped(compressed, what)
    elif head.startswith(_ZSTD):
        compressed = _unzstd(compressed, what)
    for chunk in compressed:
        plain.update(chunk)
    return Digest.parse(f"sha256:{plain.hexdigest()}")


def _chunks(head: bytes, stream: VerifiedStream) -> Iterator[bytes]:
    yield head
    while chunk := stream.read():
        yield chunk


def _gunzipped(chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    """Yield the content of one gzip member after the other, in bounded pieces."""
    member = zlib.decompressobj(_GZIP_WINDOW)
    for chunk in chunks:
        while chunk:
            if member.eof:
                member = zlib.decompressobj(_GZIP_WINDOW)
            try:
                yield member.decompress(chunk, _STEP_BYTES)
            except zlib.error as error:
                raise MalformedManifest(f"{what} is not gzip: {error}") from error
            chunk = member.unused_data if member.eof else member.unconsumed_tail
    while not member.eof:
        rest = member.decompress(b"", _STEP_BYTES)
        if not rest:
            raise MalformedManifest(f"{what} ends within its gzip data")
        yield rest


def _unzstd(chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise Unsupported(
            f"{what} is compressed with zstd, and the library for it is not installed",
            advice="pip install 'ocimirror[docker-archive]'",
        ) from error
    pull = cast("IO[bytes]", _Pull(chunks))
    reader = zstandard.ZstdDecompressor().stream_reader(pull, read_across_frames=True)
    try:
        while chunk := reader.read(_STEP_BYTES):
            yield chunk
    except zstandard.ZstdError as error:
        raise MalformedManifest(f"{what} is not zstd: {error}") from error


class _Pull:
    """Chunks as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def read(self, amount: int) -> bytes:
        if not self._left:
            self._left = next(self._chunks, b"")
        chunk, self._left = self._left[:amount], self._left[amount:]
        return chunk
