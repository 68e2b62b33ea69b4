"""A list that comes page by page: read to its end, or an error; never a part of it.

The next page is what `Link` says (RFC 8288, distribution-spec, listing tags). Some registries stop
at 100 or 1,000 entries without it (ACR's catalog did, regclient #404), although they know `n` and
`last`: a first page that looks cut is followed by a request for what comes after its last entry.
Who has sent a Link is believed when it sends none; its own `last` may be no name at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote

from ocimirror.errors import MalformedManifest, NotFound, RegistryUnavailable
from ocimirror.model import strictjson
from ocimirror.registry import answers
from ocimirror.registry.messages import Response
from ocimirror.registry.url import UrlPolicy

MAX_PAGE_BYTES = 16 * 1024 * 1024
MAX_PAGE_VALUES = 1024 * 1024
MAX_PAGES = 20_000
MAX_EMPTY_PAGES = 100
MAX_ITEMS = 2_000_000
PAGE_SIZE = 1000

# What a registry answers that does not know `last`; without Link its page was the whole list.
_LAST_UNKNOWN = (400, 404, 405, 413, 414, 422, 501)
_FIRST_DIGITS = frozenset(("1", "2", "25", "3", "4", "5"))

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedList(Generic[T]):
    """What is listed, and how a page of it is asked for and read.

    Attributes:
        path: of the first page, without a query.
        what: what its entries are, in messages.
        ask: sends a GET to a path or to a URL that the policy let through.
        read: the entries of a page by the name that `last` would be given, in their order.
        policy: judges the URL of the next page.
        size: how many entries a page is to have; 0 leaves the first page to the registry.
        bound: how many entries there may be.
        advice: what to do if there are more.
    """

    path: str
    what: str
    ask: Callable[[str], Response]
    read: Callable[[Response], dict[str, T]]
    policy: UrlPolicy
    size: int = PAGE_SIZE
    bound: int = MAX_ITEMS
    advice: str = ""


def read_pages(listed: PagedList[T], first: Response | None = None) -> dict[str, T]:
    """Return every entry once, in the order of the registry.

    Args:
        listed: what to read.
        first: the answer to the first page, if it was asked for already.

    Raises:
        NotFound: the first page does not exist.
        RegistryUnavailable: a page or its Link cannot be read, or the list does not end.
        RemoteError: a page was refused.
    """
    items: dict[str, T] = {}
    seen: set[int] = set()  # (hashes: a URL may be as long as a header field)
    size, empty, looking = listed.size, 0, False
    url = f"{listed.path}?n={size}" if size else listed.path
    for _ in range(MAX_PAGES):
        begun = bool(seen) or looking
        response, first = first or listed.ask(url), None
        if response.status in (400, 413) and not seen and not looking and size > 50:
            # Quay and distribution 3 refuse a page that is longer than they like.
            response.drain()
            size //= 2
            url = f"{listed.path}?n={size}"
            continue
        if looking and response.status in _LAST_UNKNOWN:
            response.drain()
            return items
        if response.status != 200:
            failure = response.failure()
            if begun and isinstance(failure, NotFound):
                raise _gone(listed, failure) from failure
            raise failure
        page = listed.read(response)
        known = len(items)
        items.update(page)
        new = len(items) - known
        if len(items) > listed.bound:
            told = f"{response}: more than {listed.bound} {listed.what}"
            raise MalformedManifest(told, advice=listed.advice)
        target = answers.next_page(response.headers, response.url)
        if target:
            empty = 0 if page else empty + 1
            if (page and not new) or empty > MAX_EMPTY_PAGES:
                raise RegistryUnavailable(
                    f"{response}: a page of {listed.what} names nothing new, and yet a next page"
                )
            looking = False
            url = listed.policy.follow(response.url, target, "next page")
            if hash(url) in seen:
                raise RegistryUnavailable(f"{response}: pagination of {listed.what} loops")
            seen.add(hash(url))
        elif new and not seen and (looking or _may_be_cut(len(page), size)):
            looking = True
            last = quote(next(reversed(page)), safe="")
            url = f"{listed.path}?n={size or PAGE_SIZE}&last={last}"
        else:
            return items
    raise RegistryUnavailable(f"{listed.path}: more than {MAX_PAGES} pages of {listed.what}")


def _gone(listed: PagedList[T], error: NotFound) -> RegistryUnavailable:
    """Return the error of a page that another one led to: it says nothing of the whole list."""
    return RegistryUnavailable(f"a next page of {listed.what} does not exist: {error.message}")


def read_document(response: Response) -> dict[str, object]:
    """Read a page that is a JSON object; bounded in bytes and in the values that it holds.

    Raises:
        RegistryUnavailable: it is something else, as a proxy's page of HTML, an empty body, or
            errors with the status 200.
    """
    raw = response.read_all(MAX_PAGE_BYTES)
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_PAGE_VALUES:
        raise RegistryUnavailable(f"{response}: a page of more than {MAX_PAGE_VALUES} values")
    try:
        document = strictjson.loads(raw, f"{response}: the answer")
    except MalformedManifest as error:
        raise RegistryUnavailable(error) from error
    if document.get("errors"):
        text = answers.ErrorDocument.parse(raw, "").text
        raise RegistryUnavailable(f"{response}: the answer is an error: {text}")
    return document


def _may_be_cut(count: int, size: int) -> bool:
    """Whether a page without Link has a length that limits have: 10, 25, 100, 256, 5,000."""
    power = count >= 64 and count & (count - 1) == 0
    round_ = count >= 10 and str(count).rstrip("0") in _FIRST_DIGITS
    return count >= size > 0 or round_ or power
