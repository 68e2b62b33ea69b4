"""What clients of a registry are answered.

Spec: distribution-spec, pull and content discovery; `_catalog` as docker-registry has it.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TypeVar
from urllib.parse import urlencode

from ocimirror.errors import InvalidReference, OciMirrorError
from ocimirror.model import mediatype
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import MAX_SIZE_BYTES, sniff_media_type
from ocimirror.model.reference import is_tag
from ocimirror.serve.answers import Answer, Refused, Request, document_answer, not_modified
from ocimirror.serve.files import BlobFile, Identity, Proofs, open_blob
from ocimirror.serve.names import find_repository, listed_names
from ocimirror.serve.ranges import wanted_range
from ocimirror.serve.shelf import Repository, ServedLayout, Shelf, Snapshot

logger = logging.getLogger(__name__)
T = TypeVar("T")
MAX_PAGE = 10_000
_CACHE_BYTES = 64 * 1024 * 1024
_BY_REFERENCE = re.compile(r"/v2/(.+)/(manifests|blobs|referrers)/([^/]+)", re.DOTALL)
_TAGS = re.compile(r"/v2/(.+)/tags/list", re.DOTALL)
_API = {"Docker-Distribution-API-Version": "registry/2.0"}
_FOREVER = {"Cache-Control": "max-age=31536000, immutable"}


class ManifestCache:
    """Verified manifests by the identity of their files; bounded."""

    def __init__(self) -> None:
        self._raw: OrderedDict[tuple[Identity, Digest], bytes] = OrderedDict()
        self._bytes = 0

    def find(self, file: BlobFile) -> bytes | None:
        """Return the content of a file that was read before and has not changed since."""
        return self._raw.get((file.identity, file.digest))

    def keep(self, file: BlobFile, raw: bytes) -> None:
        """Keep verified content; the oldest goes where there is too much."""
        if (file.identity, file.digest) not in self._raw:
            self._raw[file.identity, file.digest] = raw
            self._bytes += len(raw)
            while self._bytes > _CACHE_BYTES:
                self._bytes -= len(self._raw.popitem(last=False)[1])


class Registry:
    """Answers of one shelf. Used from one event loop.

    Args:
        shelf: what is on offer.
        executor: where content is read and hashed.
    """

    def __init__(self, shelf: Shelf, executor: Executor) -> None:
        self._shelf = shelf
        self._executor = executor
        self._proofs = Proofs()
        self._manifests = ManifestCache()
        self._hashing: dict[tuple[Identity, Digest], asyncio.Future[None]] = {}

    async def answer(self, request: Request) -> Answer:
        """Answer a request below /v2/.

        Raises:
            Refused: the answer is an error.
        """
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, "UNSUPPORTED", "this registry is read-only", {"Allow": "GET, HEAD"})
        if request.path in ("/v2/", "/v2"):
            return self._finished(document_answer({}))
        if request.path == "/v2/_catalog":
            return self._finished(self._catalog(request))
        match = _BY_REFERENCE.fullmatch(request.path)
        if match:
            name, kind, reference = match.groups()
            repository = find_repository(self._shelf.snapshot, name, request.query.get("ns", ""))
            if kind == "manifests":
                return self._finished(await self._manifest(request, repository, reference))
            return self._finished(await self._blob(request, repository, reference))
        match = _TAGS.fullmatch(request.path)
        if match:
            return self._finished(self._tags(request, match[1]))
        raise Refused(404, "UNSUPPORTED", f"no such endpoint: {request.path}")

    def _finished(self, answer: Answer) -> Answer:
        answer.headers.update(_API)
        return answer

    # --- manifests -----------------------------------------------------------------------------

    async def _manifest(self, request: Request, repository: Repository, reference: str) -> Answer:
        snapshot = self._shelf.snapshot
        digest = _digest_of(reference) if ":" in reference else None
        if digest is None:
            if not is_tag(reference):
                raise Refused(400, "TAG_INVALID", f"not a tag: {reference}")
            named = repository.tags.get(reference)
            if named is None:
                raise Refused(404, "MANIFEST_UNKNOWN", f"no tag {reference} in {repository.name}")
            digest = named[1].digest
        file = _open_first(_layouts(snapshot, repository), digest)
        if file is None:
            raise Refused(404, "MANIFEST_UNKNOWN", f"no manifest {digest}")
        with file:
            raw = await self._verified(file)
        media_type = _media_type(snapshot, repository, digest, raw)
        if media_type is None:
            raise Refused(404, "MANIFEST_UNKNOWN", f"{digest} is no manifest")
        headers = {
            "Content-Type": media_type,
            "Docker-Content-Digest": str(digest),
            "ETag": f'"{digest}"',
            **(_FOREVER if ":" in reference else {"Cache-Control": "no-cache"}),
        }
        if not_modified(headers, request):
            return Answer(304, headers)
        return Answer(200, headers, raw)

    async def _verified(self, file: BlobFile) -> bytes:
        """Return the content of a manifest; hashed where it was not read before."""
        raw = self._manifests.find(file)
        if raw is None:
            if file.size > MAX_SIZE_BYTES:
                raise Refused(404, "MANIFEST_UNKNOWN", f"{file.digest} is too large for a manifest")
            raw = await self._run(lambda: self._proofs.read(file, MAX_SIZE_BYTES))
            self._manifests.keep(file, raw)
        return raw

    # --- blobs ---------------------------------------------------------------------------------

    async def _blob(self, request: Request, repository: Repository, reference: str) -> Answer:
        digest = _digest_of(reference)
        file = _open_first(_layouts(self._shelf.snapshot, repository), digest)
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

    async def _blob_answer(self, request: Request, file: BlobFile) -> Answer:
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
        await self._proved(file)
        wanted = wanted_range(request.headers, headers["ETag"], file.size)
        if wanted is None:
            return Answer(200, headers, file=file, length=file.size)
        start, length = wanted
        if length == 0:
            raise Refused(
                416,
                "RANGE_INVALID",
                f"{file.digest} has {file.size} bytes",
                {"Content-Range": f"bytes */{file.size}"},
            )
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{file.size}"
        return Answer(206, headers, file=file, start=start, length=length)

    async def _proved(self, file: BlobFile) -> None:
        """Hash the file where that was not done yet, once for all who wait for it."""
        try:
            if self._proofs.known(file):
                return
            await self._run(lambda: self._proofs.prove(file))
        except OciMirrorError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: OciMirrorError) -> Refused:
        logger.warning("not served: %s", error.message)
        return Refused(500, "UNKNOWN", error.message)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except OciMirrorError as error:
            raise self._damaged(error) from error

    # --- lists ---------------------------------------------------------------------------------

    def _tags(self, request: Request, name: str) -> Answer:
        repository = find_repository(self._shelf.snapshot, name, request.query.get("ns", ""))
        tags, headers = _page(list(repository.tags), request)
        return document_answer({"name": name, "tags": tags}, headers=headers)

    def _catalog(self, request: Request) -> Answer:
        names = listed_names(self._shelf.snapshot, request.query.get("ns", ""))
        shown, headers = _page(names, request)
        return document_answer({"repositories": shown}, headers=headers)


def _digest_of(text: str) -> Digest:
    try:
        digest = Digest.parse(text)
    except InvalidReference as error:
        raise Refused(400, "DIGEST_INVALID", error.message) from error
    if not digest.verifiable:
        raise Refused(404, "BLOB_UNKNOWN", f"{digest}: nothing is kept under this algorithm")
    return digest


def _layouts(snapshot: Snapshot, repository: Repository) -> Iterator[ServedLayout]:
    """Yield where content is looked for: the layouts of the repository, then all others."""
    yield from repository.layouts
    yield from (layout for layout in snapshot.layouts if layout not in repository.layouts)


def _open_first(layouts: Iterable[ServedLayout], digest: Digest) -> BlobFile | None:
    for layout in layouts:
        try:
            file = open_blob(layout.path, digest)
        except OciMirrorError as error:
            logger.warning("%s", error.message)
            continue
        if file is not None:
            return file
    return None


def _media_type(
    snapshot: Snapshot, repository: Repository, digest: Digest, raw: bytes
) -> str | None:
    """Return what index.json says of a root, else what the document says of itself."""
    for layout in _layouts(snapshot, repository):
        if digest in layout.media_types:
            return layout.media_types[digest]
    try:
        return sniff_media_type(raw, str(digest)) or None
    except OciMirrorError:
        return None


def _page(names: Sequence[str], request: Request) -> tuple[Sequence[str], dict[str, str]]:
    """Return the part of a sorted list that is asked for, and the Link to the next."""
    asked, last = request.query.get("n"), request.query.get("last", "")
    if asked is not None and not re.fullmatch(r"[0-9]{1,18}", asked, re.ASCII):
        raise Refused(400, "PAGINATION_NUMBER_INVALID", f"not a number: n={asked}")
    count = MAX_PAGE if asked is None else min(int(asked), MAX_PAGE)
    start = bisect.bisect_right(names, last) if last else 0
    shown = names[start : start + count]
    if not shown or start + count >= len(names):
        return shown, {}
    following = {"n": str(count), "last": shown[-1]}
    if "ns" in request.query:
        following["ns"] = request.query["ns"]
    return shown, {"Link": f'<{request.path}?{urlencode(following)}>; rel="next"'}
