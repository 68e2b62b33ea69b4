"""A forward proxy that is every host itself: what would be asked on the internet is asked here."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tests.support.certificates import Certificates
from tests.support.exchange import Request
from tests.support.faults import Respond
from tests.support.httpd import LoopbackServer, serve
from tests.support.proxy import ReplyHandler

Script = Callable[[str, str, dict[str, str]], Respond]


@dataclass
class Internet:
    """A running one.

    Attributes:
        url: of the proxy.
        ca_file: signed the certificate that all hosts show.
        script: answers `(method, URL, header fields in lower case)`; may be changed.
        seen: method and URL of each request, in order.
    """

    url: str
    ca_file: Path
    script: Script
    seen: list[tuple[str, str]] = field(default_factory=list)

    def asked(self, host: str) -> list[str]:
        """Return the URLs at a host that were asked for."""
        return [url for _, url in self.seen if url.split("/")[2] == host]


class _Server(LoopbackServer):
    internet: Internet
    context: ssl.SSLContext


class _Handler(ReplyHandler):
    """Answers for whatever host was asked for; CONNECT leads to the same, over TLS."""

    _tunnel = ""

    def do_CONNECT(self) -> None:
        """Open a tunnel that ends here."""
        self.send_response_only(200)
        self.end_headers()
        self._tunnel = "https://" + self.path.removesuffix(":443")
        context = cast(_Server, self.server).context
        try:
            self.connection = context.wrap_socket(self.connection, server_side=True)
        except OSError:
            self.close_connection = True
            return
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)  # type: ignore[assignment]
        self.close_connection = False

    def answer(self) -> None:
        """Remember a request, then answer by the script."""
        server = cast(_Server, self.server)
        url = self._tunnel + self.path
        fields = {name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers}
        for _ in self.pieces:
            pass
        server.internet.seen.append((self.command, url))
        respond = server.internet.script(self.command, url, fields)
        reply = respond.before(Request(self.command, url, [], iter(()), server.stopping))
        if reply is not None:
            self.send_reply(reply, lambda _: None)

    def finish(self) -> None:
        """Close the tunnel too."""
        super().finish()
        if self._tunnel:
            with contextlib.suppress(OSError):
                self.connection.close()


@contextmanager
def run_internet(certificates: Certificates) -> Iterator[Internet]:
    """Run one on loopback until the block ends; every host answers 404 until its script is set."""
    server = _Server(_Handler)
    server.context = certificates.server_context()
    server.internet = Internet(server.url, certificates.ca_file, lambda *_: Respond(404))
    with serve(server):
        yield server.internet
