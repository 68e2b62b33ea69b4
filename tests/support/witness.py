"""A registry as tests see it: where it is, and a plain client that shares no code with ocimirror.

The client is an independent witness: `http.client` and `hashlib`, whole bodies in memory, one
connection a request. It is for looking at a registry before and after, not for load.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from tests.support.httpd import Exchange

ACCEPT = ", ".join(
    [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "*/*",
    ]
)
ACCESS_LINE = re.compile(r'"([A-Z]+) (\S+) HTTP/[\d.]+" (\d{3}) .*"([^"]*)"$')
USER_AGENT = "witness"


class Answer(NamedTuple):
    """What a registry answered, the body in full."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class WitnessError(AssertionError):
    """A registry answered what the witness did not expect."""


@dataclass
class Registry:
    """A running registry and, in its methods, a plain client of it.

    `access_log` is a file only when the registry was started with one; `pid` only when it is a
    process of its own.
    """

    host: str
    scheme: str
    directory: Path
    ca_file: Path | None = None
    username: str | None = None
    password: str | None = None
    access_log: Path | None = None
    pid: int | None = None

    @property
    def url(self) -> str:
        """Return scheme and host, without a slash at the end."""
        return f"{self.scheme}://{self.host}"

    def put_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> str:
        """Upload a blob in one PUT; return its digest."""
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        started = self._expect(202, "POST", f"/v2/{repository}/blobs/uploads/")
        location = urljoin(self.url + "/", started.headers["Location"])
        location += ("&" if "?" in location else "?") + urlencode({"digest": digest})
        self._expect(
            201, "PUT", location, body=data, headers={"Content-Type": "application/octet-stream"}
        )
        return digest

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Push a manifest to a tag or digest; return its sha256 digest, computed here."""
        path = f"/v2/{repository}/manifests/{reference}"
        self._expect(201, "PUT", path, body=data, headers={"Content-Type": media_type})
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def get_manifest(self, repository: str, reference: str) -> bytes:
        """Return the bytes of a manifest."""
        return self.manifest_answer(repository, reference).body

    def manifest_answer(self, repository: str, reference: str) -> Answer:
        """Return the whole answer to a manifest GET, whose status must be 200."""
        path = f"/v2/{repository}/manifests/{reference}"
        return self._expect(200, "GET", path, headers={"Accept": ACCEPT})

    def has_manifest(self, repository: str, reference: str) -> bool:
        """Say whether a tag or manifest digest is there."""
        path = f"/v2/{repository}/manifests/{reference}"
        return self._found(self.request("HEAD", path, headers={"Accept": ACCEPT}))

    def get_blob(self, repository: str, digest: str) -> bytes:
        """Return the bytes of a blob, unverified."""
        return self._expect(200, "GET", f"/v2/{repository}/blobs/{digest}").body

    def has_blob(self, repository: str, digest: str) -> bool:
        """Say whether a blob is there."""
        return self._found(self.request("HEAD", f"/v2/{repository}/blobs/{digest}"))

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository, sorted, following pages; [] when it is unknown."""
        found: list[str] = []
        path: str | None = f"/v2/{repository}/tags/list"
        while path:
            answer = self.request("GET", path)
            if answer.status == 404:
                break
            if answer.status != 200:
                raise WitnessError(f"GET {path}: {answer.status} {answer.body[:500]!r}")
            found += json.loads(answer.body)["tags"] or []
            link = re.match(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
            path = link and link[1]
        return sorted(found)

    def delete_manifest(self, repository: str, reference: str) -> None:
        """Delete a manifest by digest (or, where the registry allows it, a tag)."""
        self._expect(202, "DELETE", f"/v2/{repository}/manifests/{reference}")

    def delete_blob(self, repository: str, digest: str) -> None:
        """Delete a blob from a repository."""
        self._expect(202, "DELETE", f"/v2/{repository}/blobs/{digest}")

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request, with credentials when there are any; whatever the status, return it.

        `path` is a path or an URL. Redirects are not followed.
        """
        sent = dict(headers or {})
        if self.username is not None:
            sent["Authorization"] = self._basic()
        answer = self._send(method, path, body, sent)
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status == 401 and challenge.startswith("Bearer "):
            sent["Authorization"] = f"Bearer {self._token(challenge)}"
            answer = self._send(method, path, body, sent)
        return answer

    def accesses(self) -> list[Exchange]:
        """Return the requests in the access log so far, without the witness's own."""
        if self.access_log is None:
            raise WitnessError("this registry was started without an access log")
        log = self.access_log
        marker = f"/v2/?marker={log.stat().st_size}"  # once it is in the log, so is all before it
        self._send("GET", marker, None, {})
        while f"{marker} " not in (text := log.read_text()):
            time.sleep(0.002)
        lines = (ACCESS_LINE.search(line) for line in text.splitlines())
        return [
            Exchange(line[1], line[2], int(line[3]))
            for line in lines
            if line and line[4] != USER_AGENT
        ]

    def _expect(
        self,
        status: int,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        answer = self.request(method, path, body=body, headers=headers)
        if answer.status != status:
            text = f"{method} {path}: wanted {status}, got {answer.status} {answer.body[:500]!r}"
            raise WitnessError(text)
        return answer

    def _found(self, answer: Answer) -> bool:
        if answer.status not in (200, 404):
            raise WitnessError(f"HEAD: got {answer.status}")
        return answer.status == 200

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        target = urlsplit(urljoin(self.url + "/", path))
        connection: http.client.HTTPConnection
        if target.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca_file and str(self.ca_file))
            connection = http.client.HTTPSConnection(target.netloc, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection(target.netloc, timeout=30)
        headers = {"User-Agent": USER_AGENT, **headers}
        try:
            connection.request(
                method, target._replace(scheme="", netloc="").geturl(), body, headers
            )
            response = connection.getresponse()
            try:
                content = response.read()
            except http.client.IncompleteRead as error:
                if response.status != 416:
                    raise
                content = error.partial  # docker-registry 2.8.2 announces the length of the blob
            return Answer(response.status, response.headers, content)
        finally:
            connection.close()

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def _token(self, challenge: str) -> str:
        values = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = values.pop("realm")
        headers = {} if self.username is None else {"Authorization": self._basic()}
        answer = self._send("GET", f"{realm}?{urlencode(values)}", None, headers)
        if answer.status != 200:
            raise WitnessError(f"token server: {answer.status} {answer.body[:500]!r}")
        return str(json.loads(answer.body)["token"])
