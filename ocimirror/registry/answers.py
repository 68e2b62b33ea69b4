"""What registries say in header fields and error documents, read strictly."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from ocimirror.errors import InvalidReference, RegistryUnavailable
from ocimirror.model.digest import Digest
from ocimirror.registry.url import redact
from ocimirror.shown import printable, without_secrets

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
# One link, then its parameters; brackets and quotes are often not those of RFC 8288.
_LINK = re.compile(r"""[\s,]*(?:<(?P<target>[^<>]*)>|(?P<bare>[^\s,;<>"']*[/?][^\s,;<>"']*))""")
_PARAMETER = re.compile(
    r"""\s*;\s*(?:(?P<name>[\w!#$&+.^`|~*-]+)\s*
        (?:=\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'
            |(?P<plain>(?:[^\s"',;<>][^\s",;<>]*)?)))?)?""",
    re.ASCII | re.VERBOSE,
)
_END_OF_LINK = re.compile(r"\s*(?:,|$)")
# A page that another of these names is another page, and not the next one.
_OTHER_PAGES = frozenset(
    ("first", "last", "prev", "previous", "self", "start", "up", "current", "canonical")
)
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


def encoded(headers: Mapping[str, str], size_bytes: int | None = None) -> bool:
    """Whether something, usually a proxy, may have applied a Content-Encoding nobody asked for.

    Args:
        headers: of an answer.
        size_bytes: of the content; a body that is announced to be as long was not encoded.
    """
    if headers.get("Content-Encoding", "").strip().lower() in ("identity", ""):
        return False
    return size_bytes is None or content_length(headers) != size_bytes


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


def next_page(headers: Mapping[str, str], url: str) -> str:
    """Return the target of `Link: <…>; rel="next"` (RFC 8288), or an empty string if it has none.

    Read without its brackets too, in single quotes, and as the only link without a relation.

    Args:
        headers: of a page.
        url: of that page.

    Raises:
        RegistryUnavailable: the field cannot be read: whether a page follows is not known.
    """
    field = headers.get("Link", "")
    try:
        links = list(_links(field))
        following = {target for target, relations in links if "next" in relations}
        for target, relations in links:
            if not relations and len(links) == 1:
                following.add(target)
            elif not relations or _is_odd(target, relations, url):
                raise ValueError("a link without a known relation")
        if len(following) > 1 or "" in following:
            raise ValueError("not one next page")
    except ValueError as error:
        shown = _QUERY.sub(r"\1?…", printable(field[:200]))
        raise RegistryUnavailable(
            f"{redact(url)}: the Link header cannot be read ({error}): {shown!r}",
            advice="The list may go on, so nothing is done with a part of it.",
        ) from error
    return following.pop() if following else ""


def _links(field: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the target and the relations of each link of a Link field."""
    position, rest = 0, field.rstrip(" \t,")
    while position < len(rest):
        link = _LINK.match(rest, position)
        if link is None:
            raise ValueError("not a link")
        position, relations = link.end(), ""
        while parameter := _PARAMETER.match(rest, position):
            position = parameter.end()
            if (parameter["name"] or "").lower() == "rel" and not relations:
                relations = parameter["double"] or parameter["single"] or parameter["plain"] or ""
        end = _END_OF_LINK.match(rest, position)
        if end is None:
            raise ValueError("not a parameter of a link")
        position = end.end()
        yield link["target"] or link["bare"] or "", relations.lower().split()


def _is_odd(target: str, relations: list[str], url: str) -> bool:
    """Whether a link leads to another page of the same list, nobody knows which."""
    if "next" in relations or not _OTHER_PAGES.isdisjoint(relations):
        return False
    return urlsplit(urljoin(url, target)).path == urlsplit(url).path


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
    return _QUERY.sub(r"\1?…", " ".join(without_secrets(text)[: 4 * _MAX_TEXT].split()))[:_MAX_TEXT]
