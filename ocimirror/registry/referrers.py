"""What refers to a manifest: the referrers API, its fallback tag, and cosign's tags.

    api       GET /v2/<name>/referrers/<digest>             an index of descriptors
    fallback  the tag <algorithm>-<encoded>                 the same index, kept by clients
    cosign    the tags <algorithm>-<encoded>.sig .att .sbom  manifests without a subject

Spec: distribution-spec, listing referrers; pushing manifests with subject; referrers tag schema.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, cast

from ocimirror.errors import (
    AuthenticationFailed,
    MalformedManifest,
    NotFound,
    PushRejected,
    RegistryRefused,
    RegistryUnavailable,
)
from ocimirror.model import mediatype, strictjson
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import MAX_SIZE_BYTES, Manifest, sniff_media_type
from ocimirror.model.reference import COSIGN_SUFFIXES, attachment_tag
from ocimirror.registry import answers
from ocimirror.registry.encoding import read_json
from ocimirror.registry.messages import Response
from ocimirror.registry.pages import PagedList, read_pages
from ocimirror.registry.parts import Repository
from ocimirror.stores.store import Referrer

MAX_REFERRERS = 10_000  # of one subject; an endless list is CVE-2023-33958
MAX_REFERRERS_BYTES = 64 * 1024 * 1024
MAX_ROUNDS = 5
_NO_API = (400, 401, 403, 404, 405, 406, 501)
_WITHOUT = "--no-referrers copies the image without what refers to it."
_ACCEPT = {"Accept": ", ".join(mediatype.ACCEPTED)}
_ACCEPT_INDEX = {"Accept": mediatype.OCI_INDEX}
_GENERIC = ("", "application/json", "text/plain", mediatype.OCTET_STREAM)


class Referrers:
    """Finds and keeps the referrers of one repository. What was probed once is remembered."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._probing = threading.Lock()  # (one finds out whether there is an API)
        self._tags: frozenset[str] | None = None
        self._tags_known = False
        self._written: set[str] = set()
        self._has_api: bool | None = None
        self._indexed: bool | None = None
        self._kept: dict[str, dict[str, dict[str, object]]] = {}  # (by tag, then by digest)
        self.notes: list[str] = []

    @property
    def has_api(self) -> bool:
        """Whether the registry was seen to list referrers by itself."""
        return self._has_api is True

    def of(self, subject: Descriptor) -> list[Referrer]:
        """Return what is said to refer to a manifest; whoever reads one checks its subject.

        Raises:
            RemoteError: the registry failed while looking; that is never "none".
        """
        probed = self._has_api is not None or self._repository.host.has_referrers_api is False
        with nullcontext() if probed else self._probing:
            by_api = self._from_api(subject)
        # (Also beside the API: a registry that has got it lately may not list what the tag does.)
        found = [*(by_api or ()), *self._from_fallback_tag(subject)]
        distinct = {descriptor.digest: descriptor for descriptor in reversed(found)}
        listed = [Referrer("", descriptor) for descriptor in reversed(distinct.values())]
        return listed + list(self._cosign(subject))

    # --- the API -------------------------------------------------------------------------------

    def _from_api(self, subject: Descriptor) -> list[Descriptor] | None:
        """Return what the API lists, None where the registry has no API."""
        host = self._repository.host
        if host.has_referrers_api is False or self._has_api is False:
            return None
        path = f"referrers/{subject.digest}"

        def ask(page: str) -> Response:
            return self._repository.send("GET", page, headers=_ACCEPT_INDEX)

        try:
            response = ask(path)
        except AuthenticationFailed:
            # Harbor 2.7 answers 401 without a challenge (harbor #18305); this repository was
            # readable a moment ago.
            response = None
        first = None if response is None else _index_in(response)
        if response is None or first is None:
            if self._has_api:
                raise RegistryUnavailable(f"{path}: the referrers API gave no index")
            self._without_api(response)
            return None
        self._has_api = True
        left = MAX_REFERRERS_BYTES

        def read(page: Response) -> dict[str, Descriptor]:
            nonlocal left
            raw = first if page is response else _index_in(page)
            if raw is None:
                raise RegistryUnavailable(f"{page}: a page of referrers is not an index")
            if page.headers.get("OCI-Filters-Applied", "").strip():
                raise RegistryUnavailable(f"{page}: only a part of the referrers")
            left -= len(raw)
            if left < 0:
                raise RegistryUnavailable(f"{page}: more than {MAX_REFERRERS_BYTES} bytes")
            return {str(listed.digest): listed for listed in _entries(raw, f"{page}")}

        pages = PagedList(
            path=path,
            what="referrers",
            ask=ask,
            read=read,
            policy=host.policy,
            size=0,
            bound=MAX_REFERRERS,
            advice=_WITHOUT,
        )
        return list(read_pages(pages, response).values())

    def _without_api(self, response: Response | None) -> None:
        """Take in that the registry has no API; raise where its answer does not say so.

        Raises:
            RegistryRefused: any answer that says something else.
        """
        status = 401 if response is None else response.status
        if response is not None and status not in (200, *_NO_API):
            raise response.failure()
        self._has_api = False
        # (Only these say it of the whole registry; a 403 is about one repository.)
        if status in (404, 405, 501):
            self._repository.host.has_referrers_api = False
        if status not in (404, 501):
            what = "something else than an index" if status == 200 else str(status)
            self.notes.append(
                f"{self._repository.location}: the referrers API answered {what}; attachments were"
                " looked for by their tags, others may exist"
            )

    # --- tags ----------------------------------------------------------------------------------

    def _from_fallback_tag(self, subject: Descriptor) -> list[Descriptor]:
        tag = attachment_tag(subject.digest)
        if not self._may_exist(tag):
            return []
        response = self._repository.send("GET", f"manifests/{tag}", headers=_ACCEPT)
        if response.status == 404:
            response.drain()
            return []
        if response.status != 200:
            raise response.failure()
        raw = read_json(response, MAX_SIZE_BYTES)
        media_type = _type_of(raw, response)
        if not media_type:
            raise RegistryUnavailable(f"{response}: neither a list of referrers nor an image")
        if not mediatype.is_index(media_type):
            return []  # (an image that somebody called so)
        if Digest.of(raw, subject.digest.algorithm) == subject.digest:
            return []  # GitLab reads the tag as the digest, and answers with the image (oras #2148)
        found = _entries(raw, f"{response}")
        _bound(len(found), subject)
        return found

    def _cosign(self, subject: Descriptor) -> Iterator[Referrer]:
        for suffix in COSIGN_SUFFIXES:
            tag = attachment_tag(subject.digest) + suffix
            if self._may_exist(tag):
                try:
                    yield Referrer(tag, self._repository.resolve(tag))
                except NotFound:
                    continue

    def _may_exist(self, tag: str) -> bool:
        """Whether a tag is there, as one tags/list a run tells; True if there is none for us."""
        with self._lock:
            if not self._tags_known:
                try:
                    self._repository.names()  # (which tells `listed`)
                except NotFound as error:
                    # (docker-registry says so of a repository without tags. Any other 404 may be
                    # that of a registry that has no such list: each tag is asked for.)
                    if "NAME_UNKNOWN" in error.codes:
                        self.listed(())
                    self._tags_known = True
                except RegistryRefused:
                    self._tags_known = True
            return self._tags is None or tag in self._tags or tag in self._written

    def wrote(self, tag: str) -> None:
        """Take in a tag that was put since the tags were listed."""
        self._written.add(tag)

    def listed(self, names: Iterable[str]) -> None:
        """Take in all tags of the repository, whoever asked for them."""
        self._tags = frozenset(name for name in names if "-" in name)
        self._tags_known = True

    def indexes(self, manifest: Manifest) -> bool:
        """Whether a registry that says OCI-Subject lists what was put; looked at once a run."""
        if self._indexed is None and manifest.subject is not None:
            found = self._from_api(manifest.subject) or ()
            self._indexed = manifest.digest in {descriptor.digest for descriptor in found}
        return self._indexed is True

    # --- keeping the fallback tag ---------------------------------------------------------------

    def keep(self, manifest: Manifest) -> None:
        """Add a manifest to the fallback tag of its subject, at a registry that has no API.

        Other clients may write the same tag: it is read again after each write, and written at
        most five times. What this run added before, and another writer dropped, is added again.
        Two writers can still overwrite one another after the last of these steps.

        Raises:
            PushRejected: the tag is taken by something that is no list, or is read as the digest.
            RegistryUnavailable: another writer won every time.
        """
        assert manifest.subject is not None  # noqa: S101 - a programming error, not input
        subject = manifest.subject.digest
        tag = attachment_tag(subject)
        with self._lock:
            kept = self._kept.setdefault(tag, {})
            kept[str(manifest.digest)] = manifest.as_referrer()
            for written in range(MAX_ROUNDS + 1):
                document = self._fallback_document(tag, subject)
                entries = document["manifests"]
                present = {entry.get("digest") for entry in entries}
                missing = [entry for digest, entry in kept.items() if digest not in present]
                if not missing:
                    return
                if written == MAX_ROUNDS:
                    break
                entries += missing
                raw = json.dumps(document, separators=(",", ":")).encode()
                size = len(raw)
                index = Descriptor(mediatype.OCI_INDEX, Digest.of(raw), size, kind="manifest")
                self._repository.put_manifest(tag, raw, index, keeps_referrers=False)
        raise RegistryUnavailable(
            f"{self._repository.location}:{tag}: another writer won {MAX_ROUNDS} times"
        )

    def _fallback_document(self, tag: str, subject: Digest) -> dict[str, Any]:
        response = self._repository.send("GET", f"manifests/{tag}", headers=_ACCEPT_INDEX)
        if response.status == 404:
            response.drain()
            return {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}
        if response.status != 200:
            raise response.failure()
        raw = _index_in(response)
        stated = answers.content_digest(response.headers)
        if subject in (stated, raw and Digest.of(raw, subject.algorithm)):
            raise PushRejected(
                f"{response}: the registry reads this tag as the digest of the image (so does"
                " GitLab), and keeps no list of referrers",
                advice=_WITHOUT,
            )
        if raw is None:
            raise PushRejected(
                f"{response}: the referrers tag is taken by something else", advice=_WITHOUT
            )
        what = f"{response}"
        _entries(raw, what)
        document = cast("dict[str, Any]", strictjson.loads(raw, what))
        document["manifests"] = document.get("manifests") or []
        return document


def _index_in(response: Response) -> bytes | None:
    """Read the index that an answer holds; None, drained, if it is another one.

    Harbor up to 2.9 sends it as application/json.
    """
    media_type = answers.content_type(response.headers).lower()
    if response.status != 200 or media_type not in (mediatype.OCI_INDEX, *_GENERIC):
        response.drain()
        return None
    raw = read_json(response, MAX_SIZE_BYTES)
    return raw if _type_of(raw, response) == mediatype.OCI_INDEX else None


def _type_of(raw: bytes, response: Response) -> str:
    """Return the manifest type of a body, announced or else stated; empty if it has none.

    Raises:
        RegistryUnavailable: it is announced as JSON and is none, or it is an error.
    """
    announced = answers.content_type(response.headers).lower()
    if announced not in _GENERIC:
        return mediatype.known(announced)
    try:
        document = strictjson.loads(raw, f"{response}: the answer")
        stated = sniff_media_type(raw, f"{response}: the answer")
    except MalformedManifest as error:
        if announced == "application/json" and not raw.lstrip().startswith(b"["):
            raise RegistryUnavailable(error) from error
        return ""
    if document.get("errors"):
        text = answers.ErrorDocument.parse(raw, "").text
        raise RegistryUnavailable(f"{response}: the answer is an error: {text}")
    return mediatype.known(stated)


def _entries(raw: bytes, what: str) -> list[Descriptor]:
    document = strictjson.loads(raw, what)
    entries = document.get("manifests")
    if entries is None and "manifests" in document:
        return []  # (as Go writes an empty list)
    if not isinstance(entries, list):
        raise MalformedManifest(f"{what}: the answer holds no list of manifests")
    return [Descriptor.parse(entry, what, "manifest") for entry in entries]


def _bound(count: int, subject: Descriptor) -> None:
    if count > MAX_REFERRERS:
        raise MalformedManifest(
            f"{subject.digest} has more than {MAX_REFERRERS} referrers", advice=_WITHOUT
        )
