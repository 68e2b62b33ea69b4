"""What registries say in header fields and error documents, read strictly."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from ocimirror.errors import InvalidReference
from ocimirror.model.digest import Digest

_DECIMAL = re.compile(r"[0-9]{1,19}", re.ASCII)
# One parameter, or one scheme with what follows it (RFC 9110, 11.2 and 5.6.2).
_CHALLENGE_PART = re.compile(
    r"""
    [\s,]*
    (?: (?P<name> [\w!#$%&'*+.^`|~-]+ ) \s*=\s*
        (?: "(?P<quoted> (?: [^"\\] | \\. )* )" | (?P<plain> [^\s,"]* ) )
      | (?P<scheme> [\w!#$%&'*+.^`|~-]+ ) (?: \s+ [\w.~+/-]+=* (?= \s* (?: , | $ ) ) )?
    )
    \s* (?: , | (?=\s) | $ )
    """,
    re.ASCII | re.VERBOSE,
)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.ASCII)
_LINK = re.compile(r'<([^<>]*)>((?:[^<>"]|"[^"]*")*)')
_PARAMETER = re.compile(r';\s*([\w-]+)\s*=\s*(?:"([^"]*)"|([^\s",;]*))', re.ASCII)
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S*")
_MAX_TEXT = 500


def decimal(text: str) -> int | None:
    """Return a number that is written in plain digits; None for anything else int() would take."""
    return int(text) if _DECIMAL.fullmatch(text) else None


def content_length(headers: Mapping[str, str]) -> int | None:
    """Return the announced length of the body, or None where there is none to rely on."""
    text = headers.get("Content-Length", "")
    chunked = "Transfer-Encoding" in headers
    return int(text) if _DECIMAL.fullmatch(text) and not chunked else None


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Return the first and the last position of a 206, and the size of the whole.

    None where Content-Range is absent or odd (RFC 9110, 14.4).
    """
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    return match and (int(match[1]), int(match[2]), int(match[3]))


def content_digest(headers: Mapping[str, str]) -> Digest | None:
    """Return Docker-Content-Digest, or None where it is absent or no digest."""
    with suppress(InvalidReference):
        return Digest.parse(headers.get("Docker-Content-Digest", ""))
    return None


def content_type(headers: Mapping[str, str]) -> str:
    """Return the media type without parameters, which clients SHOULD ignore."""
    return headers.get("Content-Type", "").partition(";")[0].strip()


def encoded(headers: Mapping[str, str]) -> bool:
    """Whether something, usually a proxy, applied a Content-Encoding we did not ask for."""
    return headers.get("Content-Encoding", "").strip().lower() not in ("identity", "")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long to wait: seconds or a date (RFC 9110, 10.2.3); None for anything else.

    A date is compared with the Date of the same answer, so that our clock does not matter.
    """
    text = headers.get("Retry-After", "").strip()
    if _DECIMAL.fullmatch(text):
        return float(text)
    until = _timestamp(text)
    if until is None:
        return None
    now = _timestamp(headers.get("Date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _timestamp(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def next_page(headers: Mapping[str, str]) -> str:
    """Return the target of `Link: <…>; rel="next"` (RFC 8288), or an empty string."""
    for target, parameters in _LINK.findall(headers.get("Link", "")):
        for name, quoted, plain in _PARAMETER.findall(parameters):
            if name.lower() == "rel" and "next" in (quoted or plain).lower().split():
                return str(target)
    return ""


class Challenge(NamedTuple):
    """One challenge of a WWW-Authenticate field; scheme and names in lower case."""

    scheme: str
    parameters: dict[str, str]

    def anywhere(self) -> Challenge:
        """Return it without its scope, which is that of one request."""
        rest = {name: value for name, value in self.parameters.items() if name != "scope"}
        return Challenge(self.scheme, rest)


def challenges(header: str) -> Iterator[Challenge]:
    """Parse the challenges of WWW-Authenticate, several fields joined by commas (RFC 9110, 11.6.1).

    What does not fit the grammar ends the parsing: nothing is guessed.
    """
    found: Challenge | None = None
    position = 0
    while part := _CHALLENGE_PART.match(header, position):
        position = part.end()
        if part["scheme"]:
            if found:
                yield found
            found = Challenge(part["scheme"].lower(), {})
        elif found:
            quoted = part["quoted"]
            value = part["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found.parameters.setdefault(part["name"].lower(), value)
    if found:
        yield found


class ErrorDocument(NamedTuple):
    """The body of a refusal: `errors[].code`, and something to show (distribution-spec)."""

    codes: frozenset[str]
    text: str

    @classmethod
    def parse(cls, body: bytes, media_type: str) -> ErrorDocument:
        """Read whatever a registry, or a proxy before it, sent; never fails."""
        try:
            errors = json.loads(body)["errors"]
            pairs = [(_text(each, "code"), _text(each, "message")) for each in errors]
        except (ValueError, LookupError, TypeError, RecursionError):
            plain = media_type in ("text/plain", "") and body.strip()
            return cls(frozenset(), _shown(body.decode("utf-8", "replace")) if plain else "")
        text = "; ".join(": ".join(filter(None, pair)) for pair in pairs if any(pair))
        return cls(frozenset(code for code, _ in pairs if code), _shown(text))


def _text(error: object, key: str) -> str:
    value = error.get(key) if isinstance(error, dict) else None
    return value if isinstance(value, str) else ""


def _shown(text: str) -> str:
    return _QUERY.sub(r"\1?…", " ".join(text[: 4 * _MAX_TEXT].split()))[:_MAX_TEXT]
