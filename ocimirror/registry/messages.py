"""One HTTP exchange as values: what is asked, who we are to whom, and what came back."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ocimirror.errors import (
    AuthenticationFailed,
    NotFound,
    OciMirrorError,
    RateLimited,
    RegistryRefused,
    RegistryUnavailable,
    RemoteError,
    SizeMismatch,
)
from ocimirror.registry import answers
from ocimirror.registry.url import Origin, UrlPolicy, Use, redact
from ocimirror.stores.stream import CHUNK_BYTES, Reader, VerifiedStream

MAX_ERROR_BYTES = 64 * 1024

# What may be over in a moment. 501 is an answer, and it will be the same one.
RETRIED = frozenset({408, 429, *range(500, 600)}) - {501}
_REFUSALS = {401: AuthenticationFailed, 403: AuthenticationFailed, 404: NotFound}


class Access(NamedTuple):
    """What a request must be allowed to do; without a repository, to know who we are."""

    repository: str = ""
    push: bool = False
    mount_from: str = ""

    def scopes(self) -> tuple[str, ...]:
        """Return it as scopes of the token protocol."""
        if not self.repository:
            return ()
        scope = f"repository:{self.repository}:pull" + (",push" if self.push else "")
        return (scope, f"repository:{self.mount_from}:pull") if self.mount_from else (scope,)


@dataclass(frozen=True, slots=True)
class Authorization:
    """The value of a header, and the only origin that it may be sent to."""

    origin: Origin
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked.

    Attributes:
        url: absolute; sent as it is.
        policy: judges where redirects may lead; GET and HEAD follow up to 5.
        headers: besides our own.
        body: a stream is sent once: what was consumed cannot be sent again.
        authorization: attached wherever its origin is asked, and nowhere else.
        use: what a redirect of this request is to the policy.
        brief: a courtesy: sent once, and waited for a few seconds only.
        closes_upload: the answer may take ten minutes: the registry has all bytes, and looks.
    """

    method: str
    url: str
    policy: UrlPolicy
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | VerifiedStream | None = field(default=None, repr=False)
    authorization: Authorization | None = None
    use: Use = "redirect"
    brief: bool = False
    closes_upload: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent more than once."""
        return self.body is None or isinstance(self.body, bytes)

    def __str__(self) -> str:
        return f"{self.method} {redact(self.url)}"


class Response:
    """One answer, its body unread: raw bytes of the wire, never decoded. A Reader.

    Close it or read it to the end: only then its connection can be used again.

    Attributes:
        headers: names in any case; a repeated field is joined by commas.
        url: where the answer came from, after redirects.
        elsewhere: that is another origin than was asked; it does not speak for the registry.
    """

    def __init__(
        self, request: Request, url: str, status: int, headers: Mapping[str, str], body: Reader
    ) -> None:
        self.url = url
        self.status = status
        self.headers = headers
        self.elsewhere = url != request.url and Origin.of(url) != Origin.of(request.url)
        self._request = request
        self._body = body

    def __str__(self) -> str:
        return f"{self._request}" + (f" (from {Origin.of(self.url)})" if self.elsewhere else "")

    def read(self, amount: int, /) -> bytes:
        """Return 1 to `amount` bytes as soon as some are there, none at the end.

        Raises:
            RegistryUnavailable: the connection broke, fell silent, or only trickles.
        """
        return self._body.read(amount)

    def read_all(self, limit: int) -> bytes:
        """Return the whole body of a small document, and close.

        Raises:
            SizeMismatch: it is longer than `limit` bytes.
        """
        parts, left = [], limit
        with closing(self):
            while chunk := self.read(min(CHUNK_BYTES, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise SizeMismatch(f"{self}: the answer is longer than {limit} bytes")
                parts.append(chunk)
        return b"".join(parts)

    def drain(self) -> None:
        """Discard a short body, so that the connection is kept, and close."""
        with suppress(OciMirrorError):
            self.read_all(MAX_ERROR_BYTES)

    def close(self) -> None:
        """Give the connection back; before the end of the body that closes it."""
        self._body.close()

    def explain(self) -> tuple[frozenset[str], str]:
        """Read the error document, and close; return its codes and one line to show."""
        body = b""
        with suppress(OciMirrorError):
            body = self.read_all(MAX_ERROR_BYTES)
        document = answers.ErrorDocument.parse(body, answers.content_type(self.headers))
        text = document.text
        status = f"{self.status} {http.client.responses.get(self.status, '')}".strip()
        return document.codes, f"{self}: {status}" + (f": {text}" if text else "")

    def failure(self) -> RemoteError:
        """Read the error document, and return the error that the status stands for."""
        codes, text = self.explain()
        error = self._failure_class()(text)
        if isinstance(error, NotFound):
            error.codes = codes
        if isinstance(error, RegistryUnavailable):
            error.retry_after_s = answers.retry_after_s(self.headers)
        return error

    def _failure_class(self) -> type[RemoteError]:
        if self.status == 429:
            return RateLimited
        if self.status in RETRIED or self.status < 400:
            return RegistryUnavailable
        if self.elsewhere and self.status in (400, 401, 403):
            return RegistryUnavailable  # a signed URL that expired: the registry gives a new one
        return _REFUSALS.get(self.status, RegistryRefused)


class Send(Protocol):
    """Sends a request to a path below one repository, or to a URL that the policy let through."""

    def __call__(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | VerifiedStream | None = None,
        mount_from: str = "",
        brief: bool = False,
        closes_upload: bool = False,
    ) -> Response:
        """Return the answer, whatever its status; see `RegistryHost.send`."""
        ...
