"""VerifiedStream: the only door out of and into every store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ocimirror.errors import DigestMismatch, SizeMismatch, blamed_on
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Hasher
from ocimirror.stores.hashthread import HashThread, beside

CHUNK_BYTES = 512 * 1024  # measured with four transfers at once: faster than 256 KiB and than 1 MiB

Watch = Callable[[int], None]


class Reader(Protocol):
    """Raw, unverified bytes below a VerifiedStream."""

    def read(self, amount: int, /) -> bytes:
        """Return 1 to `amount` bytes, or none at the end."""
        ...

    def close(self) -> None:
        """Release what the reader holds; may be called early."""
        ...


class VerifiedStream:
    """The bytes of one descriptor, checked against it on the way.

    The last chunk is withheld until size and digest match and one more byte is absent, so there
    is no verify() to forget: having received `descriptor.size` bytes means they are right. A
    stream is read once; a retry is a fresh fetch. It opens lazily, at the first read.

    It has `read` and `len()`, and no `__iter__`: requests then sends a Content-Length.

    Args:
        descriptor: what the bytes must be.
        open_reader: opens the raw bytes from a position on; called at most once.
        origin: who handed this stream out, for a destination that can do better than read it.
        watch: told the number of bytes of each chunk; raises to stop.

    Spec: image-spec descriptor.md#verification (size before digest).
    """

    def __init__(
        self,
        descriptor: Descriptor,
        open_reader: Callable[[int], Reader],
        *,
        origin: object = None,
        watch: Watch | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.origin = origin
        self.verified = False
        self.resumed_bytes = 0
        self._open_reader = open_reader
        self._watch = watch
        self._reader: Reader | None = None
        self._left = descriptor.size
        self._closed = False
        with blamed_on("source"):
            self._hash: Hasher = descriptor.digest.hasher()
            if descriptor.size == 0:
                # requests does not read a body of length 0, so it is verified here.
                self._compare()

    def __len__(self) -> int:
        return self.descriptor.size

    @property
    def fresh(self) -> bool:
        """Whether nothing was read yet, so that whoever reads on receives all of it."""
        return self._reader is None and not self._closed

    def resume(self, prefix: Reader, size: int) -> None:
        """Take the first bytes from what the destination kept of an earlier try.

        They are hashed like the rest: a prefix of something else fails the whole at its end.

        Args:
            prefix: gives exactly `size` bytes; it stays the caller's to close.
            size: at most the whole; nothing was read from the stream yet.

        Raises:
            DigestMismatch: the prefix is the whole, and not what the descriptor says.
        """
        if not self.fresh or self.resumed_bytes or not 0 < size <= self._left:
            raise ValueError(f"a stream of {self.descriptor} cannot be resumed at {size}")
        while self.resumed_bytes < size:
            chunk = prefix.read(min(CHUNK_BYTES, size - self.resumed_bytes))
            if not chunk:
                raise SizeMismatch(f"what was kept of {self.descriptor.digest} is too short")
            self._hash.update(chunk)
            self.resumed_bytes += len(chunk)
        self._left -= size
        if self._left == 0:
            self._compare()

    def read(self, amount: int = CHUNK_BYTES) -> bytes:
        """Return the next 1 to `amount` bytes, none after the last.

        A negative amount is one chunk, never "everything": reads are bounded.

        Raises:
            SizeMismatch, DigestMismatch: before the last chunk is handed out.
        """
        if self._left == 0:
            if not self.verified:
                raise DigestMismatch(f"{self.descriptor.digest} was not verified", side="source")
            return b""
        if amount == 0:
            return b""
        with blamed_on("source"):
            return self._next(amount if amount > 0 else CHUNK_BYTES)

    def _next(self, amount: int) -> bytes:
        if self._closed:
            raise ValueError("read from a closed VerifiedStream")
        if self._reader is None:
            self._reader = self._open_reader(self.resumed_bytes)
            self._hash = beside(self._hash, self.descriptor.size)
        chunk = self._reader.read(min(amount, self._left))
        if len(chunk) > self._left:
            raise self._too_long()
        if not chunk:
            raise SizeMismatch(
                f"{self.descriptor.digest}: ended after {self.descriptor.size - self._left} bytes,"
                f" wanted {self.descriptor.size}"
            )
        if self._watch is not None:
            self._watch(len(chunk))
        self._hash.update(chunk)
        self._left -= len(chunk)
        if self._left == 0:
            if self._reader.read(1):
                raise self._too_long()
            self._compare()
        return chunk

    def _too_long(self) -> SizeMismatch:
        return SizeMismatch(f"{self.descriptor.digest}: longer than {self.descriptor.size} bytes")

    def _compare(self) -> None:
        encoded = self._hash.hexdigest()
        wanted = self.descriptor.digest
        if encoded != wanted.encoded:
            raise DigestMismatch(
                f"content has digest {wanted.algorithm}:{encoded}, wanted {wanted}"
            )
        self.verified = True

    def read_all(self, limit: int) -> bytes:
        """Return everything, verified; for documents that are small by contract.

        Raises:
            SizeMismatch: the descriptor announces more than `limit` bytes.
        """
        if self.descriptor.size > limit:
            raise SizeMismatch(
                f"{self.descriptor.digest}: {self.descriptor.size} bytes, limit {limit}",
                side="source",
            )
        parts = []
        while chunk := self.read():
            parts.append(chunk)
        return b"".join(parts)

    def close(self) -> None:
        """Release the source's resources; idempotent."""
        self._closed = True
        if isinstance(self._hash, HashThread):
            self._hash.close()
        if self._reader is not None:
            self._reader.close()

    def __enter__(self) -> VerifiedStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
