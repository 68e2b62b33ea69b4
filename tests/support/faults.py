"""What the proxy can do to an exchange: one action a class, each named by rules.

All actions of all rules that match a request are applied, in the order of the rules; the first
that answers in the place of the upstream is the last to see the request.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.support.exchange import (
    Action,
    Framing,
    Hangup,
    Reply,
    Request,
    Rule,
    ended_early,
    pause,
    split_at,
    then_hang_up,
    without,
)

__all__ = [
    "Action",
    "Call",
    "Chunked",
    "Cut",
    "CutUpload",
    "Drip",
    "Endless",
    "Flip",
    "Gzip",
    "Hangup",
    "IgnoreRange",
    "NoLength",
    "OtherRange",
    "Redirect",
    "Request",
    "Reset",
    "Respond",
    "Rule",
    "SetHeader",
    "SetRequestHeader",
    "SetStatus",
    "Stall",
    "WrongContentRange",
    "WrongLength",
]

PIECE_BYTES = 64 << 10


@dataclass
class Respond(Action):
    """Answer in the place of the upstream; a function makes a body piece by piece, chunked."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[], Iterable[bytes]] = b""

    def before(self, request: Request) -> Reply | None:
        """Return the answer."""
        reply = Reply(self.status, list(self.headers.items()), iter(()))
        if isinstance(self.body, bytes):
            reply.body = iter([self.body])
            if reply.header("Content-Length") is None and self.status not in (204, 304):
                reply.frame("length", len(self.body))
        else:
            reply.body = iter(self.body())
            if reply.header("Content-Length") is None:
                reply.frame("chunked")
        return reply


@dataclass
class Redirect(Action):
    """Redirect to a URL, or to what a function makes of the request (a signed URL, say)."""

    url: str | Callable[[Request], str]
    status: int = 307

    def before(self, request: Request) -> Reply | None:
        """Return the redirect."""
        url = self.url if isinstance(self.url, str) else self.url(request)
        return Respond(self.status, {"Location": url}).before(request)


@dataclass
class Call(Action):
    """Call a function before forwarding, or with `answered` once the upstream has answered."""

    function: Callable[[Request], object]
    answered: bool = False

    def before(self, request: Request) -> Reply | None:
        """Call the function."""
        if not self.answered:
            self.function(request)
        return None

    def after(self, request: Request, reply: Reply) -> None:
        """Call the function."""
        if self.answered:
            self.function(request)


@dataclass
class Cut(Action):
    """End the connection after so many bytes of the reply's body; None: before its status line.

    With `forward=False` the upstream never sees the request.
    """

    after_bytes: int | None = None
    reset: bool = False
    forward: bool = True

    def before(self, request: Request) -> Reply | None:
        """Hang up, if the request is not to be forwarded."""
        if not self.forward:
            raise Hangup(reset=self.reset)
        return None

    def after(self, request: Request, reply: Reply) -> None:
        """Hang up, now or in the middle of the body."""
        if self.after_bytes is None:
            raise Hangup(reset=self.reset)
        reply.body = ended_early(reply.body, self.after_bytes, self.reset)


def Reset(after_bytes: int | None = None, *, forward: bool = True) -> Cut:
    """Return the action that cuts with a RST in the place of a FIN."""
    return Cut(after_bytes, reset=True, forward=forward)


@dataclass
class CutUpload(Action):
    """End the connection, and that to the upstream, after so many bytes of the request's body."""

    after_bytes: int
    reset: bool = False

    def before(self, request: Request) -> Reply | None:
        """Let the body hang up on its own."""
        request.body = ended_early(request.body, self.after_bytes, self.reset)
        return None


@dataclass
class WrongLength(Action):
    """Announce a Content-Length that is longer (or, below zero, shorter) by `by` bytes.

    The body stays whole; then the connection is cut.
    """

    by: int

    def after(self, request: Request, reply: Reply) -> None:
        """Change the header."""
        length = int(reply.header("Content-Length") or 0) + self.by
        reply.frame("length", length)
        if request.method != "HEAD":
            reply.body = then_hang_up(reply.body)


@dataclass
class NoLength(Action):
    """Send no Content-Length; the body is ended by closing, after `after_bytes` if given."""

    after_bytes: int | None = None

    def after(self, request: Request, reply: Reply) -> None:
        """Change the framing."""
        reply.frame("close")
        if self.after_bytes is not None:
            reply.body = ended_early(reply.body, self.after_bytes, reset=False)


@dataclass
class Chunked(Action):
    """Send the same body chunked, without Content-Length."""

    def after(self, request: Request, reply: Reply) -> None:
        """Change the framing."""
        reply.frame("chunked")


@dataclass
class Flip(Action):
    """Flip the lowest bit of one byte of the body."""

    at: int

    def after(self, request: Request, reply: Reply) -> None:
        """Change the body."""
        reply.body = self._flipped(reply.body)

    def _flipped(self, body: Iterator[bytes]) -> Iterator[bytes]:
        position = 0
        for piece in body:
            if position <= self.at < position + len(piece):
                changed = bytearray(piece)
                changed[self.at - position] ^= 1
                yield bytes(changed)
            else:
                yield piece
            position += len(piece)


@dataclass
class Drip(Action):
    """Send the body (after its first `after_bytes`) in small pieces with pauses between."""

    piece_bytes: int = 1
    pause_s: float = 0.1
    after_bytes: int = 0

    def after(self, request: Request, reply: Reply) -> None:
        """Change the body."""
        reply.body = self._dripped(reply.body, request)

    def _dripped(self, body: Iterator[bytes], request: Request) -> Iterator[bytes]:
        free = self.after_bytes
        for piece in body:
            if free:
                yield piece[:free]
            rest, free = piece[free:], max(0, free - len(piece))
            for start in range(0, len(rest), self.piece_bytes):
                yield rest[start : start + self.piece_bytes]
                pause(request, self.pause_s)


@dataclass
class Stall(Action):
    """Say nothing for so long, then go on.

    When: "request" before forwarding, "reply" before the status line, or after the headers and
    so many bytes of the body (0: headers only).
    """

    seconds: float = 3600
    when: Literal["request", "reply"] | int = "reply"

    def before(self, request: Request) -> Reply | None:
        """Stall before forwarding."""
        if self.when == "request":
            pause(request, self.seconds)
        return None

    def after(self, request: Request, reply: Reply) -> None:
        """Stall before or in the reply."""
        if self.when == "reply":
            pause(request, self.seconds)
        elif isinstance(self.when, int):
            reply.body = self._stalled(reply.body, request, self.when)

    def _stalled(self, body: Iterator[bytes], request: Request, at: int) -> Iterator[bytes]:
        for piece in split_at(body, at):
            if piece is None:
                pause(request, self.seconds)
            else:
                yield piece


@dataclass
class SetHeader(Action):
    """Replace a header of the reply, or with None remove it."""

    name: str
    value: str | None

    def after(self, request: Request, reply: Reply) -> None:
        """Change the header."""
        reply.set_header(self.name, self.value)


@dataclass
class SetStatus(Action):
    """Change the status of the reply and nothing else."""

    status: int

    def after(self, request: Request, reply: Reply) -> None:
        """Change the status."""
        reply.status = self.status


@dataclass
class SetRequestHeader(Action):
    """Replace a header of the request on its way upstream, or with None remove it."""

    name: str
    value: str | None

    def before(self, request: Request) -> Reply | None:
        """Change the header."""
        request.headers = without(request.headers, self.name)
        if self.value is not None:
            request.headers.append((self.name, self.value))
        return None


def IgnoreRange() -> SetRequestHeader:
    """Return the action that has a Range request answered with 200 and the whole."""
    return SetRequestHeader("Range", None)


@dataclass
class OtherRange(Action):
    """Answer a Range request truthfully, but for a range that begins `by` bytes later."""

    by: int

    def before(self, request: Request) -> Reply | None:
        """Change the Range header."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.header("Range") or "")
        if asked is None:
            return None
        value = f"bytes={int(asked[1]) + self.by}-{asked[2]}"
        return SetRequestHeader("Range", value).before(request)


def WrongContentRange(value: str | None) -> SetHeader:
    """Return the action that sends the right bytes with another Content-Range, or with none."""
    return SetHeader("Content-Range", value)


@dataclass
class Gzip(Action):
    """Compress the body as a meddling middlebox does, with Content-Encoding."""

    def after(self, request: Request, reply: Reply) -> None:
        """Change body and headers."""
        reply.frame("chunked")
        reply.set_header("Content-Encoding", "gzip")
        reply.body = self._compressed(reply.body)

    def _compressed(self, body: Iterator[bytes]) -> Iterator[bytes]:
        compressor = zlib.compressobj(wbits=31)
        for piece in body:
            yield compressor.compress(piece)
        yield compressor.flush()


@dataclass
class Endless(Action):
    """After the body send zeros without end; "length" announces 10**15 bytes."""

    framing: Framing = "chunked"

    def after(self, request: Request, reply: Reply) -> None:
        """Change body and framing."""
        reply.frame(self.framing)
        reply.body = self._endless(reply.body, request)

    def _endless(self, body: Iterator[bytes], request: Request) -> Iterator[bytes]:
        yield from body
        while not request.stopping.is_set():
            yield bytes(PIECE_BYTES)
