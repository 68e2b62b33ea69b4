"""Uploading a blob in chunks, to registries that refuse one PUT.

The exception: GCR and its successor know no chunks at all. GHCR limits them to 4 MiB.

Spec: distribution-spec, pushing a blob in chunks (POST, PATCH, PUT).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ocimirror.errors import PushRejected, RegistryUnavailable
from ocimirror.model import mediatype
from ocimirror.registry import answers
from ocimirror.registry.url import redact
from ocimirror.stores.stream import VerifiedStream

if TYPE_CHECKING:
    from ocimirror.registry.messages import Response, Send

CHUNK_BYTES = 4 * 1024 * 1024
MAX_CHUNK_BYTES = 64 * 1024 * 1024  # what a registry may ask us to keep in memory
MAX_STUCK = 3
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})", re.ASCII)


class ChunkedUpload:
    """One upload session that takes a blob piece by piece.

    A chunk is kept until the registry says that it has it; what it says it has decides where the
    next one begins, since it may take fewer bytes than it was sent.

    Args:
        send: to the destination repository.
        follow: resolves the next upload location, under the policy.
        location: of the session.
        minimum: the registry's OCI-Chunk-Min-Length, 0 where it states none.
    """

    def __init__(
        self, send: Send, follow: Callable[[Response], str], location: str, minimum: int
    ) -> None:
        if minimum > MAX_CHUNK_BYTES:
            raise PushRejected(f"the registry wants chunks of at least {minimum} bytes")
        self.location = location
        self._send = send
        self._follow = follow
        self._size = max(CHUNK_BYTES, minimum)

    def send_all(self, stream: VerifiedStream) -> None:
        """Send the content; the closing PUT is the caller's.

        Raises:
            RegistryUnavailable: the session was lost; a fresh upload may succeed.
            PushRejected: chunks are refused too.
            IntegrityError: the stream failed its check, and its end was not sent.
        """
        position = 0
        while chunk := _whole(stream, self._size):
            self._send_chunk(position, chunk)
            position += len(chunk)

    def _send_chunk(self, position: int, chunk: bytes) -> None:
        sent = 0
        for _ in range(MAX_STUCK):
            begin = position + sent
            response = self._send(
                "PATCH",
                self.location,
                headers={
                    "Content-Type": mediatype.OCTET_STREAM,
                    "Content-Range": f"{begin}-{position + len(chunk) - 1}",
                },
                body=chunk[sent:],
            )
            if response.status == 416:
                response.close()
                response = self._send(
                    "GET", self.location
                )  # (it has more, or fewer, than we think)
            if response.status not in (202, 204):
                raise _refusal(response)
            response.drain()
            if response.headers.get("Location"):
                self.location = self._follow(response)
            sent = self._received(response, begin) - position
            if not 0 <= sent <= len(chunk):
                raise RegistryUnavailable(f"{response}: it is not where we are in the upload")
            if sent == len(chunk):
                return
        raise RegistryUnavailable(f"{redact(self.location)}: the upload does not go on")

    def _received(self, response: Response, begin: int) -> int:
        """Return how many bytes the registry has; an empty upload reads `0-0` as one byte does."""
        match = _RANGE.fullmatch(response.headers.get("Range", "").strip())
        if match is None:
            raise RegistryUnavailable(f"{response}: no Range says what was received")
        end = int(match[1])
        return 0 if end == 0 and begin == 0 else end + 1


def minimum_of(session: Response) -> int:
    """Return OCI-Chunk-Min-Length, 0 where it is absent or odd."""
    return answers.decimal(session.headers.get("OCI-Chunk-Min-Length", "")) or 0


def _whole(stream: VerifiedStream, size: int) -> bytes:
    pieces, left = [], size
    while left and (piece := stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _refusal(response: Response) -> RegistryUnavailable | PushRejected:
    _, message = response.explain()
    if response.status < 400 or response.status in (401, 404):
        return RegistryUnavailable(message)
    return PushRejected(message)
