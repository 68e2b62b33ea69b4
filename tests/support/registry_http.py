"""What the strict registry's routes share: its options, its error answers, and the small parts
of an answer that appear everywhere.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from tests.support.httpd import Exchange, LoopbackHandler, LoopbackServer
from tests.support.registry_storage import DIGEST, Storage
from tests.support.witness import USER_AGENT

if TYPE_CHECKING:
    from tests.support.certificates import Certificates


@dataclass
class Options:
    """What a registry may choose; the values here are the most capable choice."""

    referrers: bool = True  # False: 404, and no OCI-Subject on a push
    mount: bool = True  # False: 202, an upload session instead
    single_post: bool = True  # False: 202 to POST with a digest, an upload session instead
    delete: bool = True  # False: 405
    ranges: bool = True  # False: 200 and the whole blob to a Range request
    digest_header: bool = True  # False: no Docker-Content-Digest
    sparse: bool = False  # True: accept an index whose manifests are not all there
    immutable_tags: bool = False  # True: 400 to a PUT of a tag that exists, whatever the digest
    strict_accept: bool = False  # True: 404 to a manifest whose type is not named in Accept
    absolute_locations: bool = False
    patch_limit_bytes: int | None = None  # 416 to a longer PATCH (4 MiB: as GHCR)
    chunk_min_bytes: int | None = None  # announced, and asked of all PATCHes but the last
    page_size: int | None = None  # the longest page of tags and referrers
    basic: tuple[str, str] | None = None  # the one user and password


class Refusal(Exception):
    """An error answer: status, code and message as the specification has them."""

    def __init__(
        self, status: int, code: str, message: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        error = {"code": code, "message": message or code.replace("_", " ").lower()}
        self.body = json.dumps({"errors": [{**error, "detail": None}]}).encode()


class Server(LoopbackServer):
    """The listening server, with what its handlers need."""

    def __init__(
        self,
        handler: type[RegistryHandler],
        storage: Storage,
        options: Options,
        port: int,
        certificates: Certificates | None,
    ) -> None:
        self.storage, self.options = storage, options
        self.requests: list[Exchange] = []
        super().__init__(handler, port=port, certificates=certificates)


class RegistryHandler(LoopbackHandler):
    """The parts of an answer; child classes have the routes."""

    query: dict[str, list[str]]

    @property
    def storage(self) -> Storage:
        """Return the server's storage."""
        return cast(Server, self.server).storage

    @property
    def options(self) -> Options:
        """Return the server's options as they are now."""
        return cast(Server, self.server).options

    def send_response(self, code: int, message: str | None = None) -> None:
        """Record the exchange before the client can see the answer."""
        if self.command and self.headers.get("User-Agent") != USER_AGENT:
            exchange = Exchange(self.command, self.path, code)
            cast(Server, self.server).requests.append(exchange)
        super().send_response(code, message)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")

    def parameter(self, name: str) -> str | None:
        """Return a parameter of the query, the first of its name."""
        return self.query.get(name, [None])[0]

    def content_length(self) -> int | None:
        """Return the length the request announces, if it does."""
        text = self.headers.get("Content-Length")
        return int(text) if text and text.isascii() and text.isdecimal() else None

    def location(self, path: str) -> str:
        """Return a Location: relative, or with scheme and host where the options say so."""
        if not self.options.absolute_locations:
            return path
        server = cast(Server, self.server)
        return f"{server.scheme}://{self.headers.get('Host') or server.host}{path}"

    def digest_header(self, digest: str) -> dict[str, str]:
        """Return the Docker-Content-Digest header, where it is not switched off."""
        return {"Docker-Content-Digest": digest} if self.options.digest_header else {}

    def reply_json(
        self,
        document: object,
        media_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer 200 with a JSON document."""
        body = json.dumps(document).encode()
        self.reply(200, body, {"Content-Type": media_type, **(headers or {})})

    def page(self, names: list[str]) -> tuple[slice, dict[str, str]]:
        """Return which of the sorted names to answer, and the Link header if there are more.

        Spec: distribution-spec, "Listing Tags": `last` is not part of the page, and need not
        exist.
        """
        asked, last = self.parameter("n"), self.parameter("last")
        if asked is not None and not (asked.isascii() and asked.isdecimal()):
            raise Refusal(400, "PAGINATION_NUMBER_INVALID")
        limits = [limit for limit in (self.options.page_size, asked) if limit is not None]
        start = 0 if last is None else bisect_right(names, last)
        if not limits:
            return slice(start, None), {}
        limit = min(int(limit) for limit in limits)
        end = start + limit
        if limit == 0 or end >= len(names):
            return slice(start, end), {}
        query = {key: values[0] for key, values in self.query.items()}
        query |= {"n": str(limit), "last": names[end - 1]}
        path = self.path.partition("?")[0]
        link = f'<{self.location(path)}?{urlencode(query)}>; rel="next"'
        return slice(start, end), {"Link": link}

    def check_credentials(self) -> None:
        """Refuse a request without the user and password, where the options have them."""
        wanted = self.options.basic
        if wanted is not None and self.basic_credentials() != wanted:
            challenge = {"WWW-Authenticate": 'Basic realm="strict registry"'}
            raise Refusal(401, "UNAUTHORIZED", "authentication required", challenge)

    def check_deletable(self) -> None:
        """Refuse a deletion, where the options say so."""
        if not self.options.delete:
            raise Refusal(405, "UNSUPPORTED", "deletion is switched off")

    def unknown(self, name: str, code: str) -> Refusal:
        """Return the 404 for something in a repository, or for the repository itself."""
        known = self.storage.has_repository(name)
        return Refusal(404, code if known else "NAME_UNKNOWN")


def checked_digest(text: Any) -> str:
    """Return the text if it is a digest that this registry can verify."""
    if not isinstance(text, str) or not DIGEST.fullmatch(text):
        raise Refusal(400, "DIGEST_INVALID", "not a sha256 or sha512 digest")
    return text
