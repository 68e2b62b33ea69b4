"""A request and its reply on their way through the proxy, and the rules that pick actions for them.

The headers of a reply say how its body is framed: with Content-Length, chunked with
Transfer-Encoding, and with neither it is ended by closing the connection. Positions in a body are
those of its bytes, without chunk sizes.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Literal

Headers = list[tuple[str, str]]
Framing = Literal["length", "chunked", "close"]
ABSURD_LENGTH = 10**15


class Hangup(Exception):
    """End the connection here: with a FIN, or with a RST."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__("reset" if reset else "cut")
        self.reset = reset


@dataclass
class Request:
    """A request on its way to the upstream registry. `path` has the query."""

    method: str
    path: str
    headers: Headers
    body: Iterator[bytes]
    stopping: threading.Event

    def header(self, name: str) -> str | None:
        """Return the value of a header, the first of its name."""
        return value_of(self.headers, name)


@dataclass
class Reply:
    """A reply on its way to the client."""

    status: int
    headers: Headers
    body: Iterator[bytes]

    def header(self, name: str) -> str | None:
        """Return the value of a header, the first of its name."""
        return value_of(self.headers, name)

    def set_header(self, name: str, value: str | None) -> None:
        """Replace a header, or with None remove it."""
        self.headers = without(self.headers, name)
        if value is not None:
            self.headers.append((name, value))

    def frame(self, framing: Framing, length: int = ABSURD_LENGTH) -> None:
        """Change how the end of the body is announced."""
        self.set_header("Content-Length", str(length) if framing == "length" else None)
        self.set_header("Transfer-Encoding", "chunked" if framing == "chunked" else None)


class Action:
    """Does nothing; the other actions do one thing each."""

    def before(self, request: Request) -> Reply | None:
        """Act before forwarding; a reply is an answer in the place of the upstream's."""
        return None

    def after(self, request: Request, reply: Reply) -> None:
        """Act on the upstream's reply before any of it is sent on."""


@dataclass
class Rule:
    """Which exchanges an action is for.

    Args:
        method: A regular expression for the whole method: "GET", "GET|HEAD", ".*".
        path: A regular expression found anywhere in the request target, query included.
        action: What to do.
        nth: Which of the matching requests, counted from 1: one, or those in a range or set;
            None for all.
        when: A further condition.

    `seen` counts the requests that matched, `fired` those the action was for.
    """

    method: str
    path: str
    action: Action
    nth: int | Container[int] | None = None
    when: Callable[[Request], bool] | None = None
    seen: int = 0
    fired: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def applies(self, request: Request) -> bool:
        """Count the request if it matches; say whether the action is for it."""
        if not re.fullmatch(self.method, request.method) or not re.search(self.path, request.path):
            return False
        if self.when is not None and not self.when(request):
            return False
        with self._guard:
            self.seen += 1
            nth = (self.nth,) if isinstance(self.nth, int) else self.nth
            chosen = nth is None or self.seen in nth
            self.fired += chosen
        return chosen


def without(headers: Headers, *names: str) -> Headers:
    """Return the headers that have none of the names."""
    lower = {name.lower() for name in names}
    return [(name, value) for name, value in headers if name.lower() not in lower]


def value_of(headers: Headers, wanted: str) -> str | None:
    """Return the value of a header, the first of its name."""
    return next((value for name, value in headers if name.lower() == wanted.lower()), None)


def pause(request: Request, seconds: float) -> None:
    """Wait; hang up when the proxy stops meanwhile."""
    if request.stopping.wait(seconds):
        raise Hangup


def split_at(body: Iterator[bytes], at: int) -> Iterator[bytes | None]:
    """Yield the body with a None after its first `at` bytes (or at its end, if it is shorter)."""
    rest: int | None = at
    for piece in body:
        if rest is None:
            yield piece
        elif len(piece) < rest:
            rest -= len(piece)
            yield piece
        else:
            yield piece[:rest]
            yield None
            yield piece[rest:]
            rest = None
    if rest is not None:
        yield None


def ended_early(body: Iterator[bytes], after_bytes: int, reset: bool) -> Iterator[bytes]:
    """Yield the first bytes of a body, then hang up."""
    for piece in split_at(body, after_bytes):
        if piece is None:
            raise Hangup(reset=reset)
        yield piece


def then_hang_up(body: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a body, then hang up."""
    yield from body
    raise Hangup
