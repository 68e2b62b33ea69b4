"""A real HTTP/1.1 reverse proxy that misbehaves by script, and a canary that remembers.

The proxy forwards everything as it is, except that Location and Link headers with the upstream's
address get its own, so that clients stay with it, and that hop-by-hop headers are not passed on.
See `faults` for what its rules can do. Its records are complete before the client can know the
outcome.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.client
import os
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from tests.support.exchange import Hangup, Headers, Reply, Request, Rule, without
from tests.support.faults import Respond
from tests.support.httpd import LoopbackHandler, LoopbackServer, serve
from tests.support.witness import Registry

if TYPE_CHECKING:
    from tests.support.certificates import Certificates

HOP_BY_HOP = ("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "Expect")
PIECE_BYTES = 256 << 10
UPSTREAM_TIMEOUT_S = 300
CANARY_BODY_BYTES = 1 << 20


@dataclass
class Proxied:
    """One request that came to the proxy.

    `status` is 0 until a status line is sent. `headers` are the client's, names in lower case.
    `received_bytes` and `sent_bytes` count the bodies of request and reply.
    """

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass
class Proxy:
    """A running proxy. Rules may be added and removed while it runs."""

    host: str
    scheme: str
    ca_file: Path | None
    rules: list[Rule]
    requests: list[Proxied]

    @property
    def url(self) -> str:
        """Return scheme and host, without a slash at the end."""
        return f"{self.scheme}://{self.host}"

    def count(self, method: str, part: str = "") -> int:
        """Return how many requests had this method and this text in their path."""
        return sum(seen.method == method and part in seen.path for seen in self.requests)


class ReplyHandler(LoopbackHandler):
    """Sends a `Reply` exactly as it says, and hangs up when its body does."""

    def send_reply(self, reply: Reply, count: Callable[[int], None]) -> None:
        """Send the reply; `count` is told the length of each piece before it is sent."""
        self.send_response_only(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or reply.status in (204, 304) or reply.status < 200:
            return
        chunked = (reply.header("Transfer-Encoding") or "").lower() == "chunked"
        if not chunked and reply.header("Content-Length") is None:
            self.close_connection = True
        for piece in reply.body:
            if piece:
                count(len(piece))
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def hang_up(self, hangup: Hangup) -> None:
        """End the connection now, by FIN or RST; what was written before is delivered."""
        self.close_connection = True
        if not hangup.reset:
            return
        deadline = time.monotonic() + 1
        unsent = struct.pack("i", 1)
        while struct.unpack("i", unsent)[0] and time.monotonic() < deadline:
            unsent = fcntl.ioctl(self.connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
            time.sleep(0.0005)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


class _ProxyServer(LoopbackServer):
    """The listening server of a proxy."""

    def __init__(
        self,
        upstream: str,
        context: ssl.SSLContext | None,
        rules: list[Rule],
        port: int,
        certificates: Certificates | None,
    ) -> None:
        self.upstream, self.upstream_context, self.rules = upstream, context, rules
        self.requests: list[Proxied] = []
        super().__init__(_ProxyHandler, port=port, certificates=certificates)

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection to the upstream."""
        target = urlsplit(self.upstream)
        if self.upstream_context is None:
            return http.client.HTTPConnection(target.netloc, timeout=UPSTREAM_TIMEOUT_S)
        return http.client.HTTPSConnection(
            target.netloc, timeout=UPSTREAM_TIMEOUT_S, context=self.upstream_context
        )


class _ProxyHandler(ReplyHandler):
    """Forwards the requests of one client connection, each over a new one to the upstream."""

    def answer(self) -> None:
        """Forward one request, with the actions of the rules that apply."""
        server = cast(_ProxyServer, self.server)
        names = {name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers}
        record = Proxied(self.command, self.path, names)
        server.requests.append(record)
        request = Request(
            self.command,
            self.path,
            list(self.headers.items()),
            self._counted(record),
            server.stopping,
        )
        upstream = server.connect()
        try:
            actions = [rule.action for rule in list(server.rules) if rule.applies(request)]
            answers = (action.before(request) for action in actions)
            reply = next((answer for answer in answers if answer is not None), None)
            if reply is None:
                reply = self._forward(request, upstream)
            for action in actions:
                action.after(request, reply)
            record.status = reply.status
            self.send_reply(reply, lambda size: _add_sent(record, size))
        except Hangup as hangup:
            self.hang_up(hangup)
        finally:
            upstream.close()

    def _counted(self, record: Proxied) -> Iterator[bytes]:
        for piece in self.pieces:
            record.received_bytes += len(piece)
            yield piece

    def _forward(self, request: Request, upstream: http.client.HTTPConnection) -> Reply:
        server = cast(_ProxyServer, self.server)
        upstream.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        upstream.putheader("Host", urlsplit(server.upstream).netloc)
        for name, value in without(request.headers, "Host", *HOP_BY_HOP):
            upstream.putheader(name, value.encode("latin-1"))
        upstream.putheader("Connection", "close")
        upstream.endheaders()
        chunked = "chunked" in (request.header("Transfer-Encoding") or "").lower()
        for piece in request.body:
            # An upstream may answer and close before it has read all: then its answer counts.
            with contextlib.suppress(ConnectionError):
                upstream.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            with contextlib.suppress(ConnectionError):
                upstream.send(b"0\r\n\r\n")
        try:
            response = upstream.getresponse()
        except (http.client.HTTPException, OSError):
            raise Hangup from None
        headers = without(response.headers.items(), *HOP_BY_HOP)
        return Reply(response.status, self._rewritten(headers), _body(response))

    def _rewritten(self, headers: Headers) -> Headers:
        """Put the proxy in the place of the upstream in Location and Link."""
        server = cast(_ProxyServer, self.server)
        return [
            (name, value.replace(server.upstream + "/", server.url + "/", 1))
            if name.lower() in ("location", "link")
            else (name, value)
            for name, value in headers
        ]


def _add_sent(record: Proxied, size: int) -> None:
    record.sent_bytes += size


def _body(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the upstream's body; hang up where the upstream did."""
    rest = response.length
    try:
        while rest != 0 and (piece := response.read1(PIECE_BYTES)):
            yield piece
            rest = None if rest is None else rest - len(piece)
    except (http.client.HTTPException, OSError):
        raise Hangup from None
    if rest:
        raise Hangup


@contextmanager
def run_proxy(
    upstream: Registry | str,
    *rules: Rule,
    port: int = 0,
    certificates: Certificates | None = None,
) -> Iterator[Proxy]:
    """Run a proxy on loopback in front of a registry, or of any URL without a path.

    The upstream's CA is taken from the registry. `certificates` make the proxy itself speak TLS.
    """
    url = upstream if isinstance(upstream, str) else upstream.url
    context = None
    if url.startswith("https:"):
        ca_file = None if isinstance(upstream, str) else upstream.ca_file
        context = ssl.create_default_context(cafile=ca_file and str(ca_file))
    server = _ProxyServer(url.rstrip("/"), context, list(rules), port, certificates)
    with serve(server):
        yield Proxy(
            host=server.host,
            scheme=server.scheme,
            ca_file=certificates.ca_file if certificates else None,
            rules=server.rules,
            requests=server.requests,
        )


@dataclass(frozen=True, slots=True)
class Visit:
    """One request that came to a canary, with the first MiB of its body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Script = Respond | Callable[[Visit], Respond]


@dataclass
class Canary:
    """A running canary. `script` answers everything, and may be changed while it runs."""

    host: str
    scheme: str
    script: Script
    visits: list[Visit] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return scheme and host, without a slash at the end."""
        return f"{self.scheme}://{self.host}"

    def saw(self, secret: str) -> bool:
        """Say whether a secret came in any request: plain, escaped, or in Basic credentials."""
        for visit in self.visits:
            values = [visit.path, *visit.headers.values(), visit.body.decode("latin-1")]
            for encoded in visit.headers.get("authorization", "").split()[1:]:
                with contextlib.suppress(ValueError):
                    values.append(base64.b64decode(encoded).decode("utf-8", "replace"))
            if any(secret in value or secret in unquote(value) for value in values):
                return True
        return False


class _CanaryServer(LoopbackServer):
    """The listening server of a canary."""

    canary: Canary


class _CanaryHandler(ReplyHandler):
    """Remembers and answers."""

    def answer(self) -> None:
        """Remember a request, then answer by the script."""
        server = cast(_CanaryServer, self.server)
        headers = {name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers}
        body = b""
        for piece in self.pieces:
            body += piece[: CANARY_BODY_BYTES - len(body)]
        visit = Visit(self.command, self.path, headers, body)
        server.canary.visits.append(visit)
        script = server.canary.script
        respond = script if isinstance(script, Respond) else script(visit)
        request = Request(self.command, self.path, [], iter(()), server.stopping)
        reply = respond.before(request)
        if reply is not None:
            self.send_reply(reply, lambda _: None)


@contextmanager
def run_canary(
    script: Script | None = None, *, port: int = 0, certificates: Certificates | None = None
) -> Iterator[Canary]:
    """Run a canary on loopback; without a script it answers 200 and nothing more."""
    server = _CanaryServer(_CanaryHandler, port=port, certificates=certificates)
    server.canary = Canary(server.host, server.scheme, script or Respond(200))
    with serve(server):
        yield server.canary
