"""What clients of a registry are answered.

Spec: distribution-spec, pull and content discovery; `_catalog` as docker-registry has it.
"""

from __future__ import annotations

import bisect
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import quote, urlencode

from ocimirror.errors import InvalidReference, OciMirrorError
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import attestation_of
from ocimirror.model.manifest import Manifest
from ocimirror.model.platform import sparse_text
from ocimirror.model.reference import is_tag
from ocimirror.serve.answers import Answer, Refused, Request, document_answer, not_modified
from ocimirror.serve.content import Content
from ocimirror.serve.names import Scope, find_repository, listed_names
from ocimirror.serve.ranges import wanted_range
from ocimirror.serve.shelf import Repository, Shelf
from ocimirror.stores.entry import platforms_of
from ocimirror.stores.layout.openblob import OpenBlob

logger = logging.getLogger(__name__)
MAX_PAGE = 10_000
_MOST_SAID = 1000
_MOST_LOOKED = 10_000
_MOST_LACKING = 100_000
_MAX_REFERRERS = 1000
_MAX_PAGE_BYTES = 3 * 1024 * 1024
_BY_REFERENCE = re.compile(r"/v2/(.+)/(manifests|blobs|referrers)/([^/]+)", re.DOTALL)
_TAGS = re.compile(r"/v2/(.+)/tags/list", re.DOTALL)
_FOREVER = {"Cache-Control": "max-age=31536000, immutable"}
_NOW = {"Cache-Control": "no-cache"}


class Registry:
    """Answers of one shelf.

    Args:
        shelf: what is on offer.
        content: what its layouts hold.
        look: looks at the layouts again; awaited before a name is called unknown.
        scope: whose repositories are served.
    """

    def __init__(
        self, shelf: Shelf, content: Content, look: Callable[[], Awaitable[None]], scope: Scope
    ) -> None:
        self._shelf = shelf
        self._content = content
        self._look = look
        self._scope = scope
        self._said: set[str] = set()
        self._looked: set[Digest] = set()
        self._lacking: dict[Digest, Digest] = {}
        """What an index names and is not here → that index."""

    async def answer(self, request: Request) -> Answer:
        """Answer a request below /v2/.

        Raises:
            Refused: the answer is an error.
        """
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, "UNSUPPORTED", "this registry is read-only", {"Allow": "GET, HEAD"})
        if request.path in ("/v2/", "/v2"):
            return document_answer({})
        if request.path == "/v2/_catalog":
            return self._catalog(request)
        match = _BY_REFERENCE.fullmatch(request.path)
        if match:
            name, kind, reference = match.groups()
            if kind == "manifests":
                return await self._manifest(request, name, reference)
            if kind == "referrers":
                return await self._referrers(request, name, _digest_of(reference))
            digest = _verifiable(_digest_of(reference), "BLOB_UNKNOWN")
            return await self._blob(request, await self._repository(request, name), digest)
        match = _TAGS.fullmatch(request.path)
        if match:
            return await self._tags(request, match[1])
        raise Refused(404, "UNSUPPORTED", f"no such endpoint: {request.path}")

    async def _repository(
        self, request: Request, name: str, wanted: Callable[[Repository], bool] = lambda _: True
    ) -> Repository:
        """Return a repository; where it is not there or not as wanted, look again before that."""
        ns = request.query.get("ns", "")
        try:
            found = find_repository(self._shelf.snapshot, name, ns, self._scope)
            if wanted(found):
                return found
        except Refused as refused:
            if refused.answer.status != 404:
                raise
        await self._look()
        try:
            return find_repository(self._shelf.snapshot, name, ns, self._scope)
        except Refused as refused:
            if refused.ambiguous and name not in self._said and len(self._said) < _MOST_SAID:
                self._said.add(name)
                logger.warning("not served: %s", refused)
            raise

    # --- manifests -----------------------------------------------------------------------------

    async def _manifest(self, request: Request, name: str, reference: str) -> Answer:
        if ":" in reference:
            digest = _verifiable(_digest_of(reference), "MANIFEST_UNKNOWN")
            repository = await self._repository(request, name)
        elif is_tag(reference):
            repository = await self._repository(request, name, lambda r: _current(r, reference))
            if reference not in repository.tags:
                raise Refused(404, "MANIFEST_UNKNOWN", f"no tag {reference} in {name}")
            digest = repository.tags[reference][1].digest
        else:
            raise Refused(404, "MANIFEST_UNKNOWN", f"neither a tag nor a digest: {reference}")
        found = await self._content.manifest(self._shelf.snapshot, repository, digest)
        if found is None:
            index = self._lacking.get(digest)
            why = f": of {index}, which names it, only a part is here (sparse)" if index else ""
            raise Refused(404, "MANIFEST_UNKNOWN", f"no manifest {digest}{why}")
        media_type, raw = found
        if mediatype.is_index(media_type) and digest not in self._looked:
            await self._look_for_children(repository, Descriptor(media_type, digest, len(raw)), raw)
        headers = {
            "Content-Type": media_type,
            "Docker-Content-Digest": str(digest),
            "ETag": f'"{digest}"',
            **(_FOREVER if ":" in reference else _NOW),
        }
        return Answer(304, headers) if not_modified(headers, request) else Answer(200, headers, raw)

    async def _look_for_children(
        self, repository: Repository, index: Descriptor, raw: bytes
    ) -> None:
        """Say, once, that an index is not whole; the start has said so of those that tell it."""
        if len(self._looked) >= _MOST_LOOKED:
            return
        self._looked.add(index.digest)
        try:
            manifest = Manifest.parse(raw, index)
        except OciMirrorError:
            return  # (`verify` reports it)
        absent = await self._content.absent(self._shelf.snapshot, repository, manifest)
        if len(self._lacking) < _MOST_LACKING:
            self._lacking |= {child.digest: index.digest for child in absent}
        tells = any(
            platforms_of(d) for _, d in repository.tags.values() if d.digest == index.digest
        )
        if absent and not tells and len(self._said) < _MOST_SAID:
            lacking = {child.digest for child in absent}
            here = dict.fromkeys(
                child.platform
                for child in manifest.manifests
                if child.digest not in lacking
                and child.platform is not None
                and attestation_of(child) is None
            )
            name = "/".join(part for part in (repository.registry, repository.name) if part)
            logger.warning("%s", sparse_text(f"{name}@{index.digest}", list(here)))

    async def _referrers(self, request: Request, name: str, subject: Digest) -> Answer:
        """Answer with a list, also of what is not here: 404 would say that there is no such API.

        (Only of a name that several registries have, nothing can be said.)
        """
        try:
            repository = await self._repository(request, name)
        except Refused as refused:
            if refused.answer.status != 404 or refused.ambiguous:
                raise
            found = []
        else:
            found = await self._content.referrers(repository, subject)
        wanted, last = request.query.get("artifactType", ""), request.query.get("last", "")
        headers = dict(_NOW)
        if wanted:
            found = [document for document in found if document.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        found = [document for document in found if str(document["digest"]) > last]
        count = _fitting(found)
        if len(found) > count:
            found = found[:count]
            headers["Link"] = _next(request, {"last": str(found[-1]["digest"])}, "artifactType")
        index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": found}
        return document_answer(index, media_type=mediatype.OCI_INDEX, headers=headers)

    # --- blobs ---------------------------------------------------------------------------------

    async def _blob(self, request: Request, repository: Repository, digest: Digest) -> Answer:
        file = await self._content.open(self._shelf.snapshot, repository, digest)
        if file is None:
            raise Refused(404, "BLOB_UNKNOWN", f"no blob {digest}")
        try:
            answer = await self._blob_answer(request, file)
        except BaseException:
            file.close()
            raise
        if answer.file is None:
            file.close()
        return answer

    async def _blob_answer(self, request: Request, file: OpenBlob) -> Answer:
        headers = {
            "Content-Type": mediatype.OCTET_STREAM,
            "Docker-Content-Digest": str(file.digest),
            "ETag": f'"{file.digest}"',
            "Accept-Ranges": "bytes",
            **_FOREVER,
        }
        if not_modified(headers, request):
            return Answer(304, headers)
        if request.method == "HEAD":
            return Answer(200, headers, length=file.size)
        wanted = wanted_range(request.headers, headers["ETag"], file.size)
        if wanted is not None and wanted[1] == 0:
            sizes = {"Content-Range": f"bytes */{file.size}"}
            raise Refused(416, "UNSUPPORTED", f"{file.digest} has {file.size} bytes", sizes)
        await self._content.prove(file)
        if wanted is None:
            return Answer(200, headers, file=file, length=file.size)
        start, length = wanted
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{file.size}"
        return Answer(206, headers, file=file, start=start, length=length)

    # --- lists ---------------------------------------------------------------------------------

    async def _tags(self, request: Request, name: str) -> Answer:
        repository = await self._repository(request, name, lambda r: _current(r))
        tags, headers = _page(list(repository.tags), request)
        return document_answer({"name": name, "tags": tags}, headers=headers)

    def _catalog(self, request: Request) -> Answer:
        names = listed_names(self._shelf.snapshot, request.query.get("ns", ""), self._scope)
        shown, headers = _page(names, request)
        return document_answer({"repositories": shown}, headers=headers)


def _fitting(referrers: Sequence[dict[str, object]]) -> int:
    """Return how many descriptors go into one page: clients read 4 MiB. At least one."""
    total = 0
    for count, document in enumerate(referrers[:_MAX_REFERRERS]):
        total += len(document_answer(document).body)
        if total > _MAX_PAGE_BYTES and count:
            return count
    return _MAX_REFERRERS


def _current(repository: Repository, tag: str = "") -> bool:
    """Whether what is known of a tag, or of all, is what its layouts' index.json has now."""
    if tag and tag not in repository.tags:
        return False
    return all(layout.current for layout in repository.layouts)


def _digest_of(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidReference as error:
        raise Refused(400, "DIGEST_INVALID", error.message) from error


def _verifiable(digest: Digest, unknown: str) -> Digest:
    if not digest.verifiable:
        raise Refused(404, unknown, f"{digest}: nothing is kept under this algorithm")
    return digest


def _page(names: Sequence[str], request: Request) -> tuple[Sequence[str], dict[str, str]]:
    """Return the part of a sorted list that is asked for, and the Link to the next."""
    asked, last = request.query.get("n"), request.query.get("last", "")
    if asked is not None and not re.fullmatch(r"[0-9]{1,18}", asked, re.ASCII):
        raise Refused(400, "UNSUPPORTED", f"not a number: n={asked}")
    count = MAX_PAGE if asked is None else min(int(asked), MAX_PAGE)
    start = bisect.bisect_right(names, last) if last else 0
    shown = names[start : start + count]
    if not shown or start + count >= len(names):
        return shown, {}
    return shown, {"Link": _next(request, {"n": str(count), "last": shown[-1]})}


def _next(request: Request, changed: dict[str, str], *kept: str) -> str:
    """Return a Link to the next page; `kept` are parameters that go with it."""
    same = {key: request.query[key] for key in ("ns", *kept) if key in request.query}
    return f'<{quote(request.path)}?{urlencode({**changed, **same})}>; rel="next"'
