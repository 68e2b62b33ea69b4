"""A small, strict and honest OCI registry (distribution spec 1.1), for tests and the demo.

It keeps to the letter where real registries are lenient: the parameters of an upload Location are
critical, chunks must come in order, a manifest's children must be there first, digests are
verified. What registries may choose is in `Options`, which may be changed while it runs. It has
no garbage collection and no quota. Only the standard library.

Standalone: `python -m tests.support.registry --port 5000 --directory D`.
"""

from __future__ import annotations

import argparse
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.httpd import Exchange, serve
from tests.support.registry_blobs import BlobRoutes
from tests.support.registry_http import Options, Refusal, Server
from tests.support.registry_manifests import ManifestRoutes
from tests.support.registry_storage import NAME, Storage
from tests.support.witness import Registry

if TYPE_CHECKING:
    from tests.support.certificates import Certificates

__all__ = ["Options", "StrictRegistry", "run_registry"]


@dataclass
class StrictRegistry(Registry):
    """A running registry of ours. `requests` leaves out those of the witness methods."""

    options: Options = field(default_factory=Options)
    requests: list[Exchange] = field(default_factory=list)

    def content_file(self, digest: str) -> Path:
        """Return the file with the bytes of a blob or manifest, for a test to damage."""
        return self.directory / "blobs" / digest.replace(":", "/")


class Handler(BlobRoutes, ManifestRoutes):
    """Answers the requests of one connection."""

    def answer(self) -> None:
        """Find the route of the request, check who asks and for what, and answer."""
        target = urlsplit(self.path)
        self.query = parse_qs(target.query)
        try:
            self._route(unquote(target.path))
        except Refusal as refusal:
            headers = {"Content-Type": "application/json", **refusal.headers}
            self.reply(refusal.status, refusal.body, headers)

    def _route(self, path: str) -> None:
        self.check_credentials()
        if path in ("/v2/", "/v2"):
            self.reply_json({})
            return
        for pattern, methods in ROUTES:
            if found := pattern.fullmatch(path):
                if self.command not in methods:
                    raise Refusal(405, "UNSUPPORTED")
                if not NAME.fullmatch(found[1]):
                    raise Refusal(400, "NAME_INVALID")
                methods[self.command](self, *found.groups())
                return
        self.reply(404, b"404 page not found\n", {"Content-Type": "text/plain"})


Route = Callable[..., None]
ROUTES: list[tuple[re.Pattern[str], dict[str, Route]]] = [
    (re.compile("/v2/(.+)/blobs/uploads/"), {"POST": Handler.start_upload}),
    (
        re.compile("/v2/(.+)/blobs/uploads/([^/]+)"),
        {
            "GET": Handler.upload_status,
            "PATCH": Handler.append,
            "PUT": Handler.finish_upload,
            "DELETE": Handler.cancel_upload,
        },
    ),
    (
        re.compile("/v2/(.+)/blobs/([^/]+)"),
        {"GET": Handler.blob, "HEAD": Handler.blob, "DELETE": Handler.delete_blob},
    ),
    (
        re.compile("/v2/(.+)/manifests/([^/]+)"),
        {
            "GET": Handler.manifest,
            "HEAD": Handler.manifest,
            "PUT": Handler.put_manifest,
            "DELETE": Handler.delete_manifest,
        },
    ),
    (re.compile("/v2/(.+)/tags/list"), {"GET": Handler.tags}),
    (re.compile("/v2/(.+)/referrers/([^/]+)"), {"GET": Handler.referrers}),
]


@contextmanager
def run_registry(
    directory: Path,
    options: Options | None = None,
    *,
    port: int = 0,
    certificates: Certificates | None = None,
) -> Iterator[StrictRegistry]:
    """Run a registry on loopback until the block ends.

    The same directory and port give the same registry again, without its open uploads.
    """
    options = options or Options()
    server = Server(Handler, Storage(directory), options, port, certificates)
    username, password = options.basic or (None, None)
    with serve(server):
        yield StrictRegistry(
            host=server.host,
            scheme=server.scheme,
            directory=directory,
            ca_file=certificates.ca_file if certificates else None,
            username=username,
            password=password,
            options=options,
            requests=server.requests,
        )


def main() -> None:
    """Run a registry until SIGTERM or SIGINT; the first line on stdout says where."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.registry")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--no-referrers", action="store_true")
    arguments = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    options = Options(referrers=not arguments.no_referrers)
    with run_registry(arguments.directory, options, port=arguments.port) as registry:
        print(f"listening on {registry.url}", flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
