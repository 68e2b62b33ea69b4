"""Connections that lead only where they may, and end an exchange in time.

A socket timeout ends silence only. Below the body a peer can also drip: header fields, 1xx
answers, chunk extensions and trailers, forever. So each socket knows a deadline, which is that of
the thread that reads from it, and all reading goes through the socket.

A name is resolved once for each connection. What it resolves to is judged, and then connected to:
no second look-up can give another address. A connection that is used again is judged again.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from ocimirror.errors import Interrupted

# How long a stop may go unnoticed; nobody can wait for a socket and an event at once.
_SLICE_S = 0.2


class Stalled(TimeoutError):
    """The peer sends, but what was waited for did not come in time."""


@dataclass(slots=True)
class _Limit:
    """Until when a thread reads.

    Attributes:
        until: on the monotonic clock; None while nothing is limited.
        window_s: how long it is for.
        stop: ends it before.
        head: a stop ends it while something comes, too.
        received: whether anything came.
    """

    until: float | None = None
    window_s: float = 0.0
    stop: threading.Event | None = None
    head: bool = False
    received: bool = False


class Gate(Protocol):
    """Judges the addresses that one URL leads to."""

    def admitted(self, addresses: Sequence[str]) -> list[str]:
        """Return those that may be connected to; raise an error of ours if none may."""
        ...

    def reached(self, address: str) -> None:
        """Take in which one it was."""
        ...


class _Limits(threading.local):
    def __init__(self) -> None:
        self.now = _Limit()
        self.gate: Gate | None = None


_limits = _Limits()


@contextmanager
def through(gate: Gate | None) -> Iterator[None]:
    """Let this thread connect, in the block, to what a gate admits; None admits everything."""
    before = _limits.gate
    _limits.gate = gate
    try:
        yield
    finally:
        _limits.gate = before


@contextmanager
def limited(
    seconds: float, stop: threading.Event | None = None, *, head: bool = False
) -> Iterator[None]:
    """End what this thread reads in the block after so many seconds, however much comes.

    The limit of the innermost block counts: an upload reads its source while it is being sent.

    Raises:
        Stalled: the time was up; TimeoutError if nothing had come at all.
        Interrupted: `stop`, else that of the block around this one, was set while nothing came.
    """
    before = _limits.now
    _limits.now = _Limit(time.monotonic() + seconds, seconds, stop or before.stop, head)
    try:
        yield
    finally:
        _limits.now = before


class _Reading:
    """Reads from a socket under the limit of the thread."""

    def recv(self, *arguments: Any) -> Any:
        """Receive as sockets do."""
        return self._within(super().recv, arguments)  # type: ignore[misc]

    def recv_into(self, *arguments: Any) -> Any:
        """Receive as sockets do."""
        return self._within(super().recv_into, arguments)  # type: ignore[misc]

    def _within(self, receive: Any, arguments: tuple[Any, ...]) -> Any:
        limit, sock = _limits.now, self
        if limit.until is None:
            return receive(*arguments)
        timeout_s: float | None = sock.gettimeout()  # type: ignore[attr-defined]
        silent_at = limit.until if timeout_s is None else time.monotonic() + timeout_s
        try:
            while True:
                now = time.monotonic()
                if limit.head and limit.stop is not None and limit.stop.is_set():
                    raise Interrupted("stopped before a registry had answered")
                if now >= min(silent_at, limit.until):
                    raise Stalled(limit.window_s) if limit.received else TimeoutError
                left_s = min(silent_at, limit.until) - now
                sock.settimeout(min(left_s, _SLICE_S))  # type: ignore[attr-defined]
                try:
                    received = receive(*arguments)
                except TimeoutError:
                    if limit.stop is not None and limit.stop.is_set():
                        raise Interrupted("stopped while a registry was silent") from None
                else:
                    limit.received = True
                    return received
        finally:
            sock.settimeout(timeout_s)  # type: ignore[attr-defined]


class _Socket(_Reading, socket.socket):
    """A TCP connection."""


class TlsSocket(_Reading, ssl.SSLSocket):
    """A TLS connection; for `SSLContext.sslsocket_class`."""


class _Answer(http.client.HTTPResponse):
    """An answer that begins with its final status.

    Spec: RFC 9110, 15.2: a client must be able to read 1xx answers, and may ignore them.
    """

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 100 <= status[1] < 200 or status[1] == http.client.SWITCHING_PROTOCOLS:
                return status
            http.client.parse_headers(self.fp)


class _Ending(HTTPConnection):
    """A connection whose handshakes, tunnel and answers all end in time."""

    response_class = _Answer
    _peer = ""

    def _new_conn(self) -> socket.socket:
        plain = self._dialled()
        timeout_s = plain.gettimeout()
        made = _Socket(plain.family, plain.type, plain.proto, fileno=plain.detach())
        made.settimeout(timeout_s)
        return made

    def _dialled(self) -> socket.socket:
        """Connect to one of the addresses of the host, in their order."""
        name, gate = self._dns_host, _limits.gate
        host, family = name.strip("[]").encode("ascii", "replace"), allowed_gai_family()
        try:
            found = socket.getaddrinfo(host, self.port, family, socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        failure: Exception = NewConnectionError(self, "its name has no address")
        try:
            for self._dns_host in gate.admitted(addresses) if gate else addresses:
                try:
                    plain = super()._new_conn()
                except (ConnectTimeoutError, NewConnectionError) as error:
                    failure = error
                else:
                    self._peer = self._dns_host
                    if gate:
                        gate.reached(self._peer)
                    return plain
        finally:
            self._dns_host = name
        raise failure

    def request(self, *arguments: Any, **options: Any) -> None:
        """Send a request, if it may go where this connection leads."""
        gate = _limits.gate
        if gate and self.sock is not None:
            gate.admitted([self._peer])
            gate.reached(self._peer)
        super().request(*arguments, **options)

    def connect(self) -> None:
        with limited(float(self.timeout or 0.0), head=True):
            super().connect()

    def getresponse(self) -> Any:
        """Return the answer; its head must be there within the time that silence may last."""
        with limited(float(self.timeout or 0.0), head=True):
            return super().getresponse()


class _Connection(_Ending):
    pass


class _TlsConnection(_Ending, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


POOLS = {"http": _Pool, "https": _TlsPool}
