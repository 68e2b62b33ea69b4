"""The diff_id of a layer: the digest of its tar, whatever it is compressed with."""

from __future__ import annotations

import hashlib

from ocimirror.errors import Unsupported
from ocimirror.model.digest import Digest
from ocimirror.stores.dockerarchive.compression import (
    MAGIC_BYTES,
    Decompressed,
    compression_of,
)
from ocimirror.stores.stream import CHUNK_BYTES, Reader, VerifiedStream


def diff_id_of(stream: VerifiedStream) -> Digest:
    """Read a layer to its end, which verifies it, and return the sha256 of its bare tar.

    What it is compressed with is told from its first bytes, as engines do.

    Raises:
        IntegrityError: the layer is not what its descriptor says, or its compression is broken.
        Unsupported: it is compressed with something that OCI layers are not.
        UsageError: zstd, and the library for it is not installed.
    """
    what = f"layer {stream.descriptor.digest}"
    head = b""
    while len(head) < MAGIC_BYTES and (chunk := stream.read()):
        head += chunk
    content: Reader = _Joined(head, stream)
    compression = compression_of(head)
    if compression in ("gzip", "zstd"):
        content = Decompressed(content, compression, stream.descriptor.size, what)
    elif compression:
        raise Unsupported(f"{what} is compressed with {compression}: OCI has no such layers")
    plain = hashlib.sha256()
    while chunk := content.read(CHUNK_BYTES):
        plain.update(chunk)
    while stream.read():
        pass  # (what the library did not ask for is checked too)
    return Digest.parse(f"sha256:{plain.hexdigest()}")


class _Joined:
    """The bytes that were looked at, and then the rest."""

    def __init__(self, head: bytes, stream: VerifiedStream) -> None:
        self._head = head
        self._stream = stream

    def read(self, amount: int, /) -> bytes:
        if self._head:
            chunk, self._head = self._head[:amount], self._head[amount:]
            return chunk
        return self._stream.read(amount)

    def close(self) -> None:
        self._stream.close()
