"""A small HTTP/1.1 server in a thread: what our registry, token server, proxy and canary share.

Only the standard library. Connections are kept alive, sent without Nagle's delay, and closed when
the server stops; request bodies (with a length or chunked) are read in bounded pieces.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.support.certificates import Certificates

PIECE_BYTES = 1 << 20
DRAIN_BYTES = 256 << 20
LINE_BYTES = 65536


class Exchange(NamedTuple):
    """One request and the status it got; `path` is the request target with its query."""

    method: str
    path: str
    status: int


class BrokenBody(ConnectionError):
    """The client stopped, or broke the framing, in the middle of a request body."""


class LoopbackServer(ThreadingHTTPServer):
    """An HTTP server on 127.0.0.1 with one thread a connection."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        handler: type[LoopbackHandler],
        *,
        port: int = 0,
        certificates: Certificates | None = None,
    ) -> None:
        self.stopping = threading.Event()
        self._context = certificates.server_context() if certificates else None
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", port), handler)

    @property
    def host(self) -> str:
        """Return "127.0.0.1:PORT"."""
        return f"127.0.0.1:{self.server_port}"

    @property
    def scheme(self) -> str:
        """Return "https" when the server has certificates."""
        return "http" if self._context is None else "https"

    @property
    def url(self) -> str:
        """Return scheme and host, without a slash at the end."""
        return f"{self.scheme}://{self.host}"

    def server_bind(self) -> None:
        """Bind without the reverse look-up of the standard library, which may wait for a DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; a TLS handshake is left to the connection's own thread."""
        connection, address = super().get_request()
        if self._context is not None:
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        with self._guard:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        with self._guard:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a traceback, except for what a client does by going away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Stop accepting and cut every connection that is still open."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._guard:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serve(server: LoopbackServer) -> Iterator[None]:
    """Run the server in a daemon thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()


class LoopbackHandler(BaseHTTPRequestHandler):
    """Reads requests and their bodies; a child class says what to answer in `answer`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "tests"
    pieces: Iterator[bytes]

    def answer(self) -> None:
        """Answer one request; the body waits in `self.pieces`."""
        raise NotImplementedError

    def setup(self) -> None:
        """Finish the TLS handshake before the first request is read."""
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent; servers keep their own records."""

    def _dispatch(self) -> None:
        self.pieces = self._read_body()
        try:
            self.answer()
            self._drain()
        except (OSError, EOFError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _dispatch  # noqa: N815

    def _drain(self) -> None:
        """Read what the answer left unread, so that the client is not reset while it sends."""
        if self.close_connection:
            return
        rest = DRAIN_BYTES
        for piece in self.pieces:
            rest -= len(piece)
            if rest < 0:
                self.close_connection = True
                return

    def _read_body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := self._chunk_size():
                yield from self._read_exactly(size)
                self.rfile.readline(LINE_BYTES)
            while self.rfile.readline(LINE_BYTES).strip():
                pass
            return
        length = self.headers.get("Content-Length", "0")
        if not length.isascii() or not length.isdecimal():
            raise BrokenBody(f"bad Content-Length {length!r}")
        yield from self._read_exactly(int(length))

    def _chunk_size(self) -> int:
        line = self.rfile.readline(LINE_BYTES).split(b";")[0].strip()
        try:
            return int(line, 16)
        except ValueError:
            raise BrokenBody(f"bad chunk size {line!r}") from None

    def _read_exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read1(min(size, PIECE_BYTES))
            if not piece:
                raise BrokenBody("the client stopped in the middle of its body")
            size -= len(piece)
            yield piece

    def read_body(self, limit: int) -> bytes | None:
        """Return the whole request body, or None when it is longer than the limit."""
        body = bytearray()
        for piece in self.pieces:
            body += piece
            if len(body) > limit:
                return None
        return bytes(body)

    def basic_credentials(self) -> tuple[str, str] | None:
        """Return user and password of an `Authorization: Basic` header, or None."""
        kind, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return user, password

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send a complete answer; a HEAD gets the headers only."""
        self.send_response(status)
        headers = dict(headers or {})
        if status not in (204, 304):
            headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(body)
