"""A peer below HTTP: it answers each request with bytes as a script gives them, and no server."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Script = Callable[[str, dict[str, str]], Iterator[bytes]]


def forever(first: bytes, again: bytes, pause_s: float) -> Iterator[bytes]:
    """Yield some bytes, and then others again and again."""
    yield first
    while True:
        yield again
        time.sleep(pause_s)


def answer(
    body: bytes = b"{}", headers: str = "", status: str = "200 OK", before: bytes = b""
) -> Iterator[bytes]:
    """Yield a whole answer; `headers` are lines that end with CRLF."""
    yield before
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    yield head.encode("latin-1") + body


@contextmanager
def raw_peer(
    script: Script,
    context: ssl.SSLContext | None = None,
    listener: socket.socket | None = None,
) -> Iterator[str]:
    """Run a peer until the block ends; yield its `host:port`.

    Args:
        script: is given `METHOD /target` and the header fields in lower case; what it yields is
            sent. The body of a request is read before, if it has a length.
        context: speaks TLS.
        listener: where it listens; else at a free port of loopback.
    """
    stopping = threading.Event()

    def converse(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            lines = connection.makefile("rb")
            while line := lines.readline().decode("latin-1").rpartition(" ")[0]:
                fields = {}
                while field := lines.readline().strip().decode("latin-1"):
                    name, _, value = field.partition(":")
                    fields[name.strip().lower()] = value.strip()
                lines.read(int(fields.get("content-length", "0")))
                for piece in script(line, fields):
                    if stopping.is_set():
                        return
                    connection.sendall(piece)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=converse, args=(connection,), daemon=True).start()

    with listener or socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        try:
            yield "{}:{}".format(*listener.getsockname()[:2])
        finally:
            stopping.set()
            listener.shutdown(socket.SHUT_RDWR)  # (a thread in `accept` would keep it open)
