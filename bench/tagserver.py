"""A registry that does nothing but answer: many small images, made in memory, read-only.

What is measured against it is the client: it answers some ten thousand requests a second. Every
repository has the same tags, t00000 and on; the first `moved` of them stand for other images.
GET /moved/N moves them, GET /counts tells how many requests of each kind came since the last time.

    python -m bench.tagserver TAGS
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter

from tests.support import images

_REQUEST = re.compile(rb"(GET|HEAD) (\S+) ")
_MANIFEST = re.compile(r"/v2/.+?/manifests/(.+)")
_BLOB = re.compile(r"/v2/.+?/blobs/(.+)")
_PAGE = 1000


class Content:
    """The images: a manifest, a config and two layers each, of which one is in all of them."""

    def __init__(self, count: int) -> None:
        self.tags = [f"t{number:05}" for number in range(count)]
        self._shared = b"a layer that all have" * 100
        self._blobs: dict[str, bytes] = {_digest(self._shared): self._shared}
        self._manifests: dict[str, bytes] = {}
        self._roots = [self._image(tag) for tag in self.tags]
        self._others: list[str] = []
        self.moved = 0

    def move(self, count: int) -> None:
        """Let the first tags stand for other images."""
        while len(self._others) < count:
            self._others.append(self._image(f"moved {len(self._others)}"))
        self.moved = count

    def manifest(self, name: str) -> tuple[str, bytes] | None:
        """Return digest and bytes of a manifest by tag or digest."""
        if not name.startswith("sha256:"):
            number = int(name[1:])
            if name not in self.tags[number : number + 1]:
                return None
            name = (self._others if number < self.moved else self._roots)[number]
        raw = self._manifests.get(name)
        return None if raw is None else (name, raw)

    def blob(self, digest: str) -> bytes | None:
        """Return a blob."""
        return self._blobs.get(digest)

    def _image(self, what: str) -> str:
        config = json.dumps({"architecture": "amd64", "os": "linux", "what": what}).encode()
        own = f"a layer of {what}".encode() * 20
        for blob in (config, own):
            self._blobs[_digest(blob)] = blob
        layers = [images.describe(raw, images.OCI_LAYER_GZIP) for raw in (self._shared, own)]
        document = {
            "schemaVersion": 2,
            "mediaType": images.OCI_MANIFEST,
            "config": images.describe(config, images.OCI_CONFIG),
            "layers": layers,
        }
        raw = images.compact(document)
        self._manifests[_digest(raw)] = raw
        return _digest(raw)


class Connection(asyncio.Protocol):
    """Answers one request after the other, each from memory."""

    def __init__(self, content: Content, counts: Counter[str]) -> None:
        self._content = content
        self._counts = counts
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            match = _REQUEST.match(head)
            if match is None:
                self._transport.close()
                return
            method, target = match[1].decode(), match[2].decode()
            headers, body = self._answer(method, target)
            sent = b"" if method == "HEAD" else body
            self._transport.write(headers + b"Content-Length: %d\r\n\r\n" % len(body) + sent)

    def _answer(self, method: str, target: str) -> tuple[bytes, bytes]:
        path, _, query = target.partition("?")
        if path == "/counts":
            told = json.dumps(self._counts).encode()
            self._counts.clear()
            return _ok("application/json"), told
        if path.startswith("/moved/"):
            self._content.move(int(path.rpartition("/")[2]))
            return _ok("text/plain"), b""
        if path.endswith("/tags/list"):
            self._counts["tags/list"] += 1
            return self._listed(path, query)
        if match := _MANIFEST.fullmatch(path):
            self._counts[f"{method} manifest"] += 1
            found = self._content.manifest(match[1])
            if found is not None:
                digest = f"Docker-Content-Digest: {found[0]}\r\n".encode()
                return _ok(images.OCI_MANIFEST) + digest, found[1]
        elif match := _BLOB.fullmatch(path):
            self._counts[f"{method} blob"] += 1
            blob = self._content.blob(match[1])
            if blob is not None:
                return _ok("application/octet-stream"), blob
        elif path == "/v2/":
            return _ok("application/json"), b"{}"
        return b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n", b'{"errors":[]}'

    def _listed(self, path: str, query: str) -> tuple[bytes, bytes]:
        last = re.search(r"last=t(\d+)", query)
        begin = int(last[1]) + 1 if last else 0
        tags = self._content.tags[begin : begin + _PAGE]
        more = b""
        if begin + _PAGE < len(self._content.tags):
            more = f'Link: <{path}?n={_PAGE}&last={tags[-1]}>; rel="next"\r\n'.encode()
        return _ok("application/json") + more, json.dumps({"tags": tags}).encode()


def _ok(media_type: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n".encode()


def _digest(raw: bytes) -> str:
    return str(images.describe(raw, "")["digest"])


async def _serve(count: int) -> None:
    content, counts = Content(count), Counter[str]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(content, counts), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
