"""RegistryRepository: one repository of a registry as a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO

from ocimirror.errors import (
    DigestMismatch,
    DigestNotPreserved,
    InvalidReference,
    MalformedManifest,
    NotFound,
    OciMirrorError,
    PushRejected,
    RegistryRefused,
    RegistryUnavailable,
    RemoteError,
    SizeMismatch,
    Unsupported,
)
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor, Kind
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import MAX_SIZE_BYTES, Manifest
from ocimirror.registry import answers
from ocimirror.registry.claims import confirm_manifest, has_size, is_about_digest
from ocimirror.registry.encoding import UnchangedBody, altered, read_json
from ocimirror.registry.listing import list_tags
from ocimirror.registry.messages import Access, Response
from ocimirror.registry.parallel import CONNECTIONS, WORTH_BYTES, ParallelBody
from ocimirror.registry.parts import Host
from ocimirror.registry.paths import ACCEPT, checked_name, may_be_a_blob, path_of, type_of
from ocimirror.registry.referrers import Referrers
from ocimirror.registry.resume import ResumedBody
from ocimirror.registry.uploads import STORED, Uploads, check_stored, rejection
from ocimirror.stores.bydigest import refuse_config
from ocimirror.stores.store import Referrer, Store, Stored, skipped, verified
from ocimirror.stores.stream import Reader, VerifiedStream


class RegistryRepository(Store):
    """One repository. Made by `RegistryHost.repository`; the host's connections carry it.

    What was seen to be present or absent in this run is not asked again. A pull asks for pull
    rights only; from the first push on, requests ask for both.
    """

    names_prove_closure = may_refuse_sparse = names_with_root = True
    local = False

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.location = f"docker://{host.registry}/{name}"
        self._seen: dict[tuple[Kind, Digest, int], bool] = {}
        self._by_head: set[Digest] = set()
        self._heads_lie = False
        self._pushes = False
        self._put: set[Digest] = set()
        self._uploads = Uploads(self)
        self._referring = Referrers(self)

    @property
    def refuses_sparse(self) -> bool:
        """Whether this registry was seen to refuse an index with absent children."""
        return self.host.refuses_sparse

    @refuses_sparse.setter
    def refuses_sparse(self, refuses: bool) -> None:
        """Remember it for all repositories of the registry."""
        self.host.refuses_sparse = refuses

    # --- reading -------------------------------------------------------------------------------

    def _resolve(self, name: str) -> Descriptor:
        """HEAD, which rate limits seldom count; confirmed by GET where it cannot be relied on."""
        try:
            wanted = checked_name(name)
        except InvalidReference as error:
            raise NotFound(f"{self.location}: no image {name!r:.300}") from error
        head = self._head(f"manifests/{name}", ACCEPT)
        return self._announced(head, wanted) or self._read_and_hash(name, wanted)

    def _announced(self, head: Response, wanted: Digest | None) -> Descriptor | None:
        """Return what a HEAD says, or None where a GET has to tell.

        Nexus answers 404 to HEAD and 200 to GET, Harbor 412, Artifactory a generic type, ECR and
        Red Hat no digest; a compressed length (oras-go #1176) is not the manifest's.
        """
        size = answers.content_length(head.headers)
        media_type = answers.content_type(head.headers)
        stated = answers.content_digest(head.headers)
        digest = wanted or stated
        told = head.status == 200 and size and mediatype.known(media_type)
        if not told or answers.encoded(head.headers) or self._heads_lie:
            return None
        if digest is None or not digest.verifiable or stated not in (None, digest):
            return None
        self._by_head.add(digest)
        return self._descriptor(media_type, digest, size or 0)

    def _read_and_hash(self, name: str, wanted: Digest | None) -> Descriptor:
        response = self._get(f"manifests/{name}", ACCEPT)
        raw = read_json(response, MAX_SIZE_BYTES)
        stated = wanted or answers.content_digest(response.headers)
        digest = Digest.of(raw, stated.algorithm if stated and stated.verifiable else "sha256")
        if stated and stated.verifiable and stated != digest:
            raise DigestMismatch(f"{response}: content has digest {digest}, wanted {stated}")
        media_type = answers.content_type(response.headers)
        if not mediatype.known(media_type):
            refuse_config(raw, f"{self.location}@{digest}")
            media_type = type_of(raw, media_type, f"{response}")
        return self._descriptor(media_type, digest, len(raw))

    def _descriptor(self, media_type: str, digest: Digest, size: int) -> Descriptor:
        media_type = mediatype.known(media_type) or media_type
        self._refuse_schema1(media_type, digest)
        return Descriptor(media_type, digest, size, kind="manifest")

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        if position:
            if descriptor.kind == "manifest":
                return skipped(self._opened(descriptor), position)
            return self._resumed(descriptor, None, position)
        if may_be_a_blob(descriptor):
            # Asked first: docker-registry answers 500 to a blob's digest among manifests.
            with suppress(RegistryRefused):
                return self._opened(replace(descriptor, kind="blob"))
        return self._opened(descriptor)

    def _opened(self, descriptor: Descriptor) -> Reader:
        response = self._get(*path_of(descriptor))
        try:
            self._refuse_other(response, descriptor)
        except OciMirrorError:
            response.close()
            raise
        if answers.encoded(response.headers, descriptor.size):
            return UnchangedBody(response, descriptor)
        return response if descriptor.kind == "manifest" else self._resumed(descriptor, response)

    def _resumed(
        self, descriptor: Descriptor, response: Response | None, position: int = 0
    ) -> Reader:
        path, accept = path_of(descriptor)
        transport, size = self.host.transport, descriptor.size
        options = transport.options
        url = response.url if response else str(self.host.endpoint)

        def ask(position: int, length: int = 0) -> Response:
            end = position + length - 1 if length else ""
            at = {"Range": f"bytes={position}-{end}"} if position else {}
            return self.send("GET", path, headers={"Accept": accept, **at})

        def read_on(response: Response | None, position: int) -> ResumedBody:
            return ResumedBody(
                response,
                size,
                position,
                ask=ask,
                tries=transport.tries(url),
            )

        body = read_on(response, position)
        alone = size - position < WORTH_BYTES or options.bytes_per_second or options.jobs == 1
        if alone or (response and response.headers.get("Accept-Ranges") != "bytes"):
            return body
        return ParallelBody(
            body,
            size,
            position,
            ask=ask,
            again=lambda position: read_on(None, position),
            connections=min(CONNECTIONS, options.jobs),
        )

    def _get(self, path: str, accept: str, *, brief: bool = False) -> Response:
        """Return the answer to a GET of content."""
        response = self.send("GET", path, headers={"Accept": accept}, brief=brief)
        if response.status != 200:
            raise response.failure()
        return response

    def _refuse_other(self, response: Response, descriptor: Descriptor) -> None:
        """Refuse what is announced as something else than the descriptor says, before reading."""
        length = answers.content_length(response.headers)
        if length is not None and length != descriptor.size:
            if answers.encoded(response.headers):
                raise altered(response)
            if descriptor.digest in self._by_head:
                # From now on GET tells; whoever resolves the name again gets it right.
                self._heads_lie = True
                raise RegistryUnavailable(
                    f"{response}: {length} bytes, and HEAD announced {descriptor.size}"
                )
            raise SizeMismatch(f"{response}: {length} bytes, wanted {descriptor.size}")
        if descriptor.kind == "blob":
            return
        # distribution-spec, pulling manifests; the type confusion is CVE-2021-41190.
        media_type = mediatype.known(answers.content_type(response.headers))
        self._refuse_schema1(media_type, descriptor.digest)
        if media_type and mediatype.known(descriptor.media_type) not in ("", media_type):
            raise MalformedManifest(
                f"{response}: it is sent as {media_type}, and was named as {descriptor.media_type}"
            )

    def _refuse_schema1(self, media_type: str, digest: Digest) -> None:
        if media_type in mediatype.SCHEMA1:
            raise Unsupported(f"{self.location}@{digest} is offered as Docker schema 1 only")

    def _exists(self, descriptor: Descriptor) -> bool:
        seen = self._seen.get((*descriptor.key, descriptor.size))
        if seen is not None:
            return seen
        if may_be_a_blob(descriptor) and self._exists(replace(descriptor, kind="blob")):
            return True
        head = self._head(*path_of(descriptor))
        exists = head.status == 200 and has_size(head, descriptor)
        if not exists and not self._pushes:  # (where we push, the push will tell)
            exists = self._gives(descriptor)
        self._saw(descriptor, exists)
        return exists

    def _gives(self, descriptor: Descriptor) -> bool:
        """Whether GET answers with it; of its content nothing is read. 404 alone means "absent"."""
        try:
            response = self._get(*path_of(descriptor))
        except NotFound:
            return False
        response.close()
        return has_size(response, descriptor)

    def _kind_of(self, member: Descriptor) -> Kind | None:
        """Ask both endpoints; what can only be a layer is not asked for among manifests."""
        if mediatype.known(member.media_type):
            return "manifest" if self._exists(replace(member, kind="manifest")) else None
        # Asked first: docker-registry answers 500 to a blob's digest among manifests.
        blob = self._exists(member)
        if blob and (mediatype.is_blob_in_index(member.media_type) or member.size > MAX_SIZE_BYTES):
            return "blob"
        with suppress(RemoteError if blob else NotFound):
            self._get(f"manifests/{member.digest}", ACCEPT, brief=blob).close()
            return "manifest"
        return "blob" if blob else None

    def _head(self, path: str, accept: str) -> Response:
        response = self.send("HEAD", path, headers={"Accept": accept})
        response.drain()
        return response

    def _saw(self, descriptor: Descriptor, exists: bool) -> None:
        self._seen[*descriptor.key, descriptor.size] = exists
        if exists and descriptor.kind == "blob":
            self.host.blobs.setdefault(descriptor.digest, self.name)

    def _referrers(self, descriptor: Descriptor) -> list[Referrer]:
        return self._referring.of(descriptor)

    def notes_on_referrers(self) -> list[str]:
        """Return what made the answers of `referrers` uncertain."""
        return list(self._referring.notes)

    def _names(self) -> list[str]:
        names = list_tags(self)
        self._referring.listed(names)
        return names

    # --- writing -------------------------------------------------------------------------------

    def _named(self, name: str, descriptor: Descriptor) -> bool:
        self._pushes = True
        checked_name(name)
        algorithm = descriptor.digest.algorithm
        head = self._head(f"manifests/{name}", ACCEPT)
        digest = answers.content_digest(head.headers) if head.status == 200 else None
        if digest is None or digest.algorithm != algorithm:
            try:
                raw = self._get(f"manifests/{name}", ACCEPT).read_all(MAX_SIZE_BYTES)
            except (RegistryRefused, SizeMismatch):
                return False  # (The push will tell.)
            digest = Digest.of(raw, algorithm)
        # (A tag's content proves no digest but the registry's own.)
        return digest == descriptor.digest and (algorithm == "sha256" or self._exists(descriptor))

    def _ingest(self, descriptor: Descriptor, stream: VerifiedStream, replace: bool) -> Stored:
        self._pushes = True
        if descriptor.kind == "blob":
            stored = self._uploads.bring(descriptor, stream, replace=replace)
        elif not replace and self._exists(descriptor):
            return Stored.PRESENT
        else:
            self._put_child(stream.read_all(MAX_SIZE_BYTES), descriptor)
            stored = Stored.COPIED
        self._saw(descriptor, True)
        return stored

    def _put_child(self, raw: bytes, descriptor: Descriptor) -> None:
        """Put a manifest by digest; where its type is unknown to the registry too, as a blob."""
        try:
            self.put_manifest(str(descriptor.digest), raw, descriptor)
        except PushRejected:
            if not may_be_a_blob(descriptor):
                raise
            blob = replace(descriptor, kind="blob")
            self._uploads.bring(blob, VerifiedStream(blob, lambda _: BytesIO(raw)), replace=True)

    def put_manifest(
        self, name: str, raw: bytes, descriptor: Descriptor, *, keeps_referrers: bool = True
    ) -> None:
        """Put manifest bytes under a tag or their digest, and see to it that they are found.

        A registry that does not answer a subject with OCI-Subject leaves it to the client to keep
        the fallback tag (distribution-spec, pushing manifests with subject).

        Raises:
            DigestNotPreserved: it keeps something else, or takes no digest of this algorithm.
        """
        foreign = descriptor.digest.algorithm != "sha256"
        if foreign and ":" not in name and not self._exists(descriptor):
            # A tag alone would be found by the registry's own digest, and not by this one.
            self.put_manifest(str(descriptor.digest), raw, descriptor, keeps_referrers=False)
            self._saw(descriptor, True)
        headers = {"Content-Type": descriptor.header}
        response = self.send("PUT", f"manifests/{name}", headers=headers, body=raw)
        if response.status not in STORED:
            refusal = rejection(response)
            odd = may_be_a_blob(descriptor)
            if foreign and ":" in name and not odd and is_about_digest(response, refusal):
                raise DigestNotPreserved(
                    f"{self.location} does not keep {descriptor.digest}: {refusal.message}",
                    advice=f"It takes no {descriptor.digest.algorithm} digests; sha256 ones are"
                    " taken by every registry.",
                ) from refusal
            raise refusal
        response.drain()
        self._put.add(descriptor.digest)
        if ":" not in name:
            self._referring.wrote(name)
        if keeps_referrers and b'"subject"' in raw:
            manifest = Manifest.parse(raw, descriptor)
            told = "OCI-Subject" in response.headers and self._referring.indexes(manifest)
            if manifest.subject is not None and not told:
                self._referring.keep(manifest)
        stated = answers.content_digest(response.headers)
        if stated and stated.verifiable:
            check_stored(response, Digest.of(raw, stated.algorithm))
        if stated is None or not stated.verifiable or (":" in name and stated != descriptor.digest):
            head = self._head(f"manifests/{name}", ACCEPT)
            what = f"{self.location}{'@' if ':' in name else ':'}{name}"
            confirm_manifest(what, raw, head, lambda: self._get(f"manifests/{name}", ACCEPT))

    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        self._pushes = True
        for name, manifest in names:
            descriptor = manifest.descriptor
            if name and not checked_name(name):
                self.put_manifest(name, manifest.raw, descriptor)
                self._saw(descriptor, True)
            elif not name and descriptor.digest not in self._put and not self._referring.has_api:
                # It was there already. Whether its subject's list has it is not known: another
                # writer of the fallback tag may have won.
                self._put_child(manifest.raw, descriptor)
            else:
                self._ingest(descriptor, verified(manifest), replace=False)

    # --- one request ---------------------------------------------------------------------------

    def send(
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
        """Send to a path below the repository, or to a URL that the policy let through.

        Any status is an answer; see `RegistryHost.send`.
        """
        url = target if "://" in target.partition("?")[0] else f"/v2/{self.name}/{target}"
        access = Access(self.name, self._pushes, mount_from if mount_from != self.name else "")
        return self.host.send(
            method,
            url,
            access,
            headers=headers,
            body=body,
            brief=brief,
            closes_upload=closes_upload,
        )
