"""The pages for people: what there is, under which digest, and how to pull it.

    /                                   repositories; with ?q=, images that match
    /HOST/REPOSITORY                    its tags (`-` for HOST where the tags name none)
    /HOST/REPOSITORY:TAG  …@DIGEST      one image: platforms, layers, attachments, commands

Lists are made of what index.json says alone; manifests are read for one image at a time.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode

from ocimirror.errors import InvalidReference
from ocimirror.model.digest import Digest
from ocimirror.model.reference import check_registry
from ocimirror.serve.answers import Answer, Refused, Request
from ocimirror.serve.content import Content
from ocimirror.serve.image import ImagePage, link, shown_name, shown_type, when
from ocimirror.serve.markup import HEADERS, Html, code, document, element, join, table
from ocimirror.serve.names import Scope, shortest_name
from ocimirror.serve.shelf import Repository, Shelf, Snapshot, counted

ROWS = 100
_MAX_ASKED = 200
T = TypeVar("T")
_PATH = re.compile(r"/([^/]+)/([^:@]+)(?::([^:@]+))?(?:@(.+))?")


class Pages:
    """Answers for people.

    Args:
        shelf: what is on offer.
        content: what its layouts hold.
        look: looks at the layouts again.
        address: where clients reach this server, unless their request says it better.
        secure: over TLS.
        scope: whose repositories are served.
    """

    def __init__(
        self,
        shelf: Shelf,
        content: Content,
        look: Callable[[], Awaitable[None]],
        address: str,
        *,
        secure: bool,
        scope: Scope,
    ) -> None:
        self._shelf = shelf
        self._content = content
        self._look = look
        self._address = address
        self._secure = secure
        self._scope = scope

    async def answer(self, request: Request) -> Answer:
        """Answer a request for a page; what is not there is a page too."""
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, "UNSUPPORTED", "pages are read only", {"Allow": "GET, HEAD"})
        await self._look()
        asked = request.query.get("q", "").strip()[:_MAX_ASKED]
        try:
            title, main = await self._page(request, asked)
            status = 200
        except Refused as refused:
            status, title = refused.answer.status, str(refused)
            main = join(
                element("h1", "Not here" if status == 404 else "Not possible"),
                element("p", title),
                element("p", element("a", "All repositories", href="/")),
            )
        return Answer(status, dict(HEADERS), document(title, asked, main))

    async def _page(self, request: Request, asked: str) -> tuple[str, Html]:
        snapshot = self._shelf.snapshot
        if request.path == "/":
            found = _served(snapshot, self._scope.only)
            return "ocimirror", _images(found, asked, request) if asked else self._home(
                snapshot, found, request
            )
        match = _PATH.fullmatch(request.path)
        host, name, tag, digest_text = match.groups() if match else ("", "", None, None)
        repository = snapshot.repositories.get(("" if host == "-" else host, name))
        if repository is None or (self._scope.only and repository.registry != self._scope.only):
            raise Refused(404, "NAME_UNKNOWN", f"There is no repository {request.path[1:]}.")
        if digest_text is not None:
            try:
                digest = Digest.parse(digest_text)
            except InvalidReference as error:
                raise Refused(400, "DIGEST_INVALID", error.message) from error
        elif tag is None:
            return name, _repository(repository, request)
        elif tag in repository.tags:
            digest = repository.tags[tag][1].digest
        else:
            raise Refused(404, "MANIFEST_UNKNOWN", f"There is no tag {tag} in {name}.")
        reached_as = (
            f"{self._reached_at(request)}/{shortest_name(snapshot, repository, self._scope)}"
        )
        page = ImagePage(snapshot, repository, self._content, reached_as, secure=self._secure)
        called = name + (f":{tag}" if tag else "") + (f"@{digest}" if digest_text else "")
        return called, await page.made(tag or "", digest)

    def _home(self, snapshot: Snapshot, found: Sequence[Repository], request: Request) -> Html:
        tags = sum(len(repository.tags) for repository in found)
        shown, pages = _slice(found, request)
        rows = [
            (
                element("a", shown_name(repository), href=link(repository)),
                str(len(repository.tags)),
                when(max(layout.version.mtime_ns for layout in repository.layouts)),
            )
            for repository in shown
        ]
        place = self._reached_at(request)
        return join(
            element("h1", "Repositories"),
            element(
                "p",
                f"{_count(len(found), 'repository', 'repositories')} with"
                f" {_count(tags, 'tag', 'tags')} in"
                f" {_count(len(snapshot.layouts), 'layout', 'layouts')}. Pull from here as ",
                element("code", f"{place}/REPOSITORY:TAG"),
                ".",
                class_="soft",
            ),
            table(("Repository", "Tags", "Layout changed"), rows, "- number tight")
            if rows
            else element("p", "There is nothing here yet."),
            pages,
        )

    def _reached_at(self, request: Request) -> str:
        """Return the host that this client reached us under."""
        try:
            return check_registry(request.headers.get("Host", ""))
        except InvalidReference:
            return self._address


def _served(snapshot: Snapshot, only: str) -> list[Repository]:
    found = snapshot.repositories.values()
    chosen = [repository for repository in found if not only or repository.registry == only]
    return sorted(chosen, key=lambda r: (counted(r.name), r.registry))


def _images(found: Sequence[Repository], asked: str, request: Request) -> Html:
    """What is found by a part of its full name, in any case."""
    wanted = asked.lower()
    matches = [
        (repository, tag)
        for repository in found
        for tag in repository.versions
        if wanted in f"{repository.registry}/{repository.name}:{tag}".lower()
        or wanted in str(repository.tags[tag][1].digest)
    ]
    shown, pages = _slice(matches, request)
    rows = [
        (
            element("a", shown_name(repository), f":{tag}", href=link(repository, f":{tag}")),
            code(str(repository.tags[tag][1].digest)),
        )
        for repository, tag in shown
    ]
    return join(
        element("h1", _count(len(matches), "image", "images")),
        element("p", "whose name, tag or digest contains “", asked, "”", class_="soft"),
        table(("Image", "Digest"), rows, "- digest") if rows else "",
        pages,
    )


def _repository(repository: Repository, request: Request) -> Html:
    tags = repository.versions
    attachments = len(repository.tags) - len(tags)
    shown, pages = _slice(tags, request)
    rows = [
        (
            element("a", tag, href=link(repository, f":{tag}")),
            shown_type(repository.tags[tag][1].media_type),
            code(str(repository.tags[tag][1].digest)),
        )
        for tag in shown
    ]
    others = f", and {_count(attachments, 'tag', 'tags')} of attachments" if attachments else ""
    return join(
        element("h1", shown_name(repository)),
        element("p", _count(len(tags), "tag", "tags"), others, class_="soft"),
        table(("Tag", "Kind", "Digest"), rows, "- tight digest") if rows else "",
        pages,
    )


def _slice(rows: Sequence[T], request: Request) -> tuple[Sequence[T], Html]:
    """Return the rows of the page that is asked for, and the links to the others."""
    asked = request.query.get("page", "1")
    pages = max(1, -(-len(rows) // ROWS))
    number = min(pages, max(1, int(asked))) if re.fullmatch("[0-9]{1,6}", asked, re.ASCII) else 1
    links: list[Html] = []
    for text, target in (("← Previous", number - 1), ("Next →", number + 1)):
        if 1 <= target <= pages:
            query = {**{k: v for k, v in request.query.items() if k == "q"}, "page": str(target)}
            href = f"{quote(request.path, safe='/:@')}?{urlencode(query)}"
            links.append(element("a", text, href=href))
    shown = rows[(number - 1) * ROWS : number * ROWS]
    if pages == 1:
        return shown, Html("")
    where = element("span", f"Page {number} of {pages}")
    return shown, element("nav", where, *links, class_="pages", aria_label="Pages")


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}".replace(",", "\N{NARROW NO-BREAK SPACE}")
