"""Whose password is hashed next: clients take turns, so that one who guesses delays no other."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import OrderedDict, deque
from collections.abc import AsyncIterator

from ocimirror.serve.answers import Refused

WORKERS = 2
_MOST_WAITING = 32
_MOST_CLIENTS = 512


class Turns:
    """Turns of at most WORKERS at once, one for each client. Used from one event loop.

    Clients take turns, and so do the names that one client gives (behind a proxy, all are one).
    Who waits is bounded: by client, and in all.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, _Line] = OrderedDict()
        self._running: set[str] = set()

    @contextlib.asynccontextmanager
    async def turn(self, address: str, name: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends.

        Raises:
            Refused: 429, too many wait already.
        """
        client = client_of(address)
        line = self._waiting.get(client)
        if line is None:
            if len(self._waiting) >= _MOST_CLIENTS:
                raise _too_many()
            line = self._waiting[client] = _Line()
        if line.count >= _MOST_WAITING:
            raise _too_many()
        turn = asyncio.get_running_loop().create_future()
        line.add(name, turn)
        self._start()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._end(client)
            raise
        try:
            yield
        finally:
            self._end(client)

    def _end(self, client: str) -> None:
        self._running.discard(client)
        self._start()

    def _start(self) -> None:
        for client in list(self._waiting):
            if len(self._running) >= WORKERS:
                return
            if client in self._running:
                continue
            turn = self._waiting[client].next()
            if turn is None:
                del self._waiting[client]
                continue
            self._waiting.move_to_end(client)
            self._running.add(client)
            turn.set_result(None)


class _Line:
    """Who waits of one client, by the names that were given."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self.count = 0

    def add(self, name: str, turn: asyncio.Future[None]) -> None:
        self._names.setdefault(name, deque()).append(turn)
        self.count += 1

    def next(self) -> asyncio.Future[None] | None:
        """Take the next who still waits, another name each time; None for nobody."""
        while self._names:
            name, turns = self._names.popitem(last=False)
            turn = turns.popleft()
            self.count -= 1
            if turns:
                self._names[name] = turns
            if not turn.done():
                return turn
        return None


def client_of(address: str) -> str:
    """Return what counts as one client: an address, of IPv6 the network that one site has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _too_many() -> Refused:
    return Refused(429, "TOOMANYREQUESTS", "too many log-ins at once", {"Retry-After": "1"})
