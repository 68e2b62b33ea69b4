"""Digests: `algorithm:encoded`, valid and safe in paths and URLs by construction."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from ocimirror.errors import InvalidReference, Unsupported

# image-spec descriptor.md#digests; the length caps keep both parts usable as file names.
_GRAMMAR = re.compile(
    r"(?=[^:]{1,64}:)([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]{1,200})", re.ASCII
)
_REGISTERED = {"sha256": 64, "sha512": 128}
_LOWER_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


class Hasher(Protocol):
    """A running hash, as hashlib makes them."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the lower-case hexadecimal hash of everything added."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest. Make one with `parse` or `of`; both only give valid ones."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse `algorithm:encoded`.

        An algorithm we do not know is valid (and not `verifiable`) when it fits the grammar.

        Raises:
            InvalidReference: the text is not a digest.

        Spec: image-spec descriptor.md#digests.
        """
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise InvalidReference(f"not a digest: {text[:300]!r}")
        algorithm, encoded = match.groups()
        length = _REGISTERED.get(algorithm)
        if length is not None and (len(encoded) != length or not _LOWER_HEX.fullmatch(encoded)):
            raise InvalidReference(
                f"not a digest: {text[:300]!r} ({algorithm} is {length} lower-case hex digits)"
            )
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """Compute the digest of content that is in memory."""
        return cls(algorithm, hashlib.new(algorithm, content, usedforsecurity=True).hexdigest())

    @property
    def verifiable(self) -> bool:
        """Whether we can recompute it (sha256 and sha512)."""
        return self.algorithm in _REGISTERED

    def hasher(self) -> Hasher:
        """Return a fresh running hash of this algorithm.

        Raises:
            Unsupported: an algorithm we cannot compute; what cannot be verified is not copied.
        """
        if not self.verifiable:
            raise Unsupported(
                f"{self}: digest algorithm {self.algorithm} cannot be verified",
                advice="Only content that can be verified is copied: sha256 and sha512.",
            )
        return hashlib.new(self.algorithm)

    @property
    def short(self) -> str:
        """The first twelve characters, for progress lines only."""
        return self.encoded[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


def digest_or_none(text: object) -> Digest | None:
    """Return a digest, None for anything that is not the text of one."""
    try:
        return Digest.parse(text) if isinstance(text, str) else None
    except InvalidReference:
        return None
