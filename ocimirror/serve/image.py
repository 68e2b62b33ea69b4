"""The page of one image: what it consists of, what is attached to it, how it is pulled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from ocimirror.errors import OciMirrorError
from ocimirror.model import mediatype, strictjson
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import attestation_of
from ocimirror.model.manifest import Manifest
from ocimirror.model.readable import size
from ocimirror.model.reference import attachment_tag, is_attachment_tag
from ocimirror.serve.answers import Refused
from ocimirror.serve.content import Content
from ocimirror.serve.markup import Content as Shown
from ocimirror.serve.markup import Html, code, element, join, table
from ocimirror.serve.shelf import Repository, Snapshot

_MOST_CHILDREN = 64
_MOST_ROWS = 200
_TYPES = {
    mediatype.OCI_INDEX: "index",
    mediatype.DOCKER_LIST: "index (Docker)",
    mediatype.OCI_MANIFEST: "image",
    mediatype.DOCKER_MANIFEST: "image (Docker)",
}


class ImagePage:
    """Makes the page of one image.

    Args:
        snapshot: all that is on offer.
        repository: where the image is.
        content: what the layouts hold.
        reached_as: host and name under which this client pulls the repository.
        secure: over TLS.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        repository: Repository,
        content: Content,
        reached_as: str,
        *,
        secure: bool,
    ) -> None:
        self._snapshot = snapshot
        self._repository = repository
        self._content = content
        self._reached_as = reached_as
        self._secure = secure

    async def made(self, tag: str, digest: Digest) -> Html:
        """Return the page.

        Args:
            tag: the tag it was asked for by; empty for a digest alone.
            digest: of its manifest.

        Raises:
            Refused: it is not there, damaged, or no manifest.
        """
        manifest = await self._manifest(Descriptor("", digest, 0, "manifest"))
        if manifest is None:
            raise Refused(404, "MANIFEST_UNKNOWN", f"There is no manifest {digest} here.")
        heading = join(shown_name(self._repository), f":{tag}" if tag else "")
        parts = [element("h1", heading), await self._facts(manifest), self._commands(tag, digest)]
        if manifest.manifests:
            parts.append(await self._platforms(manifest))
        if manifest.blobs:
            parts.append(_layers(manifest))
        parts.append(await self._attachments(digest))
        if manifest.annotations:
            rows: list[tuple[Shown, ...]] = [*sorted(manifest.annotations.items())]
            listed = table(("Annotation", "Value"), rows[:_MOST_ROWS])
            parts.append(element("details", element("summary", "Annotations"), listed))
        return join(*parts)

    async def _manifest(self, named: Descriptor) -> Manifest | None:
        """Read a manifest as far as it can be shown; one of unknown type shows as opaque."""
        found = await self._content.manifest(self._snapshot, self._repository, named.digest)
        if found is None:
            return None
        media_type, raw = found
        descriptor = Descriptor(media_type, named.digest, len(raw), "manifest")
        try:
            manifest = Manifest.parse(raw, descriptor)
        except OciMirrorError:
            return Manifest(raw, descriptor, opaque=True)
        if manifest.members:
            return await self._content.with_members(self._repository, manifest)
        return manifest

    async def _facts(self, manifest: Manifest) -> Html:
        facts: list[tuple[str, Shown]] = [
            ("Digest", code(str(manifest.digest))),
            ("Kind", shown_type(manifest.media_type)),
        ]
        if manifest.artifact_type:
            facts.append(("Artifact", manifest.artifact_type))
        if manifest.blobs:
            facts.append(("Size", size(sum(blob.size for blob in manifest.blobs))))
            facts += await self._from_config(manifest)
        if manifest.subject is not None:
            facts.append(("About", self._digest_link(manifest.subject.digest)))
        changed = max(layout.version.mtime_ns for layout in self._repository.layouts)
        since = "(of its layout; the image may be there longer)"
        facts.append(("Changed", join(when(changed), " ", element("span", since, class_="soft"))))
        return _definitions(facts)

    async def _from_config(self, manifest: Manifest) -> list[tuple[str, Shown]]:
        """Return the platform and the time of building that an image's config states."""
        config = manifest.blobs[0]
        if config.media_type not in (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG):
            return []
        raw = await self._content.document(self._snapshot, self._repository, config.digest)
        try:
            stated = strictjson.loads(raw or b"{}", "config")
        except OciMirrorError:
            return []
        parts = [stated.get(key) for key in ("os", "architecture", "variant")]
        platform = "/".join(part for part in parts if isinstance(part, str) and part)
        built = stated.get("created")
        facts: list[tuple[str, Shown]] = [("Platform", platform)] if platform else []
        return facts + ([("Built", built)] if isinstance(built, str) and built else [])

    def _commands(self, tag: str, digest: Digest) -> Html:
        """Return the commands that pull it, by tag and by digest."""
        name = self._reached_as
        podman = "" if self._secure else "--tls-verify=false "
        ctr = "" if self._secure else "--plain-http "
        original = self._repository.registry
        groups: list[Html] = []
        for how, reference in (("tag", f":{tag}" if tag else ""), ("digest", f"@{digest}")):
            if not reference:
                continue
            lines: list[tuple[str, Shown]] = [
                ("docker", code(f"docker pull {name}{reference}")),
                ("podman", code(f"podman pull {podman}{name}{reference}")),
                ("containerd", code(f"ctr images pull {ctr}{name}{reference}")),
            ]
            if original:
                command = code(f"crictl pull {original}/{self._repository.name}{reference}")
                how_to = join(
                    f"with this registry as a mirror of {original}; ",
                    element("code", "ocimirror hosts"),
                    " prints the settings",
                )
                told = element("span", how_to, class_="soft") if not groups else ""
                lines.append(("Kubernetes", join(command, told)))
            groups += [
                element("h2", f"Pull by {how}"),
                element("div", _definitions(lines), class_="commands"),
            ]
        return join(*groups)

    async def _platforms(self, index: Manifest) -> Html:
        rows: list[tuple[Shown, ...]] = []
        for number, child in enumerate(index.manifests[:_MOST_ROWS]):
            platform: Shown = str(child.platform) if child.platform else "any"
            about = attestation_of(child)
            if about is not None:
                of = next((str(c.platform) for c in index.manifests if str(c.digest) == about), "")
                platform = element("span", f"attestation, {of}" if of else "attestation")
            manifest, fault = None, "not here"
            if number < _MOST_CHILDREN:
                try:
                    manifest = await self._manifest(child)
                except Refused:
                    fault = "damaged"
            if manifest is None:
                rows.append(
                    (platform, element("span", fault, class_="note"), "", child_code(child))
                )
                continue
            total = sum(blob.size for blob in manifest.blobs)
            layers = max(0, len(manifest.blobs) - 1)
            digest = self._digest_link(child.digest)
            rows.append((platform, size(total), str(layers), digest))
        columns = ("Platform", "Size", "Layers", "Digest")
        return join(element("h2", "Platforms"), table(columns, rows, "- number number digest"))

    async def _attachments(self, digest: Digest) -> Html:
        """Return what refers to the image, by subject or by cosign's tags."""
        rows: list[tuple[Shown, ...]] = []
        try:
            listed = await self._content.referrers(self._repository, digest)
        except Refused:
            listed = []
            fault = "cannot be told: a list of referrers, or what it names, is damaged"
            rows.append((element("span", fault, class_="note"), ""))
        for found in listed:
            kind = str(found.get("artifactType") or found["mediaType"])
            rows.append((kind, self._digest_link(Digest.parse(str(found["digest"])))))
        prefix = attachment_tag(digest)
        for tag, (_, root) in self._repository.tags.items():
            if tag.startswith(f"{prefix}.") and is_attachment_tag(tag):
                kind = tag.rpartition(".")[2]
                rows.append((f"cosign {kind}", self._digest_link(root.digest)))
        if not rows:
            return Html("")
        attached = table(("Kind", "Digest"), rows[:_MOST_ROWS], "- digest")
        return join(element("h2", "Attachments"), attached)

    def _digest_link(self, digest: Digest) -> Html:
        return element("a", element("code", str(digest)), href=link(self._repository, f"@{digest}"))


def _layers(manifest: Manifest) -> Html:
    rows: list[tuple[Shown, ...]] = []
    for number, blob in enumerate(manifest.blobs[:_MOST_ROWS]):
        kind = "config" if number == 0 else _short_type(blob.media_type)
        rows.append((kind, size(blob.size), child_code(blob)))
    columns = ("Config and layers", "Size", "Digest")
    return join(element("h2", "Layers"), table(columns, rows, "- number digest"))


def _definitions(pairs: Sequence[tuple[str, Shown]]) -> Html:
    parts = (join(element("dt", name), element("dd", value)) for name, value in pairs)
    return element("dl", *parts)


def child_code(descriptor: Descriptor) -> Html:
    """Return a digest to copy."""
    return code(str(descriptor.digest))


def shown_type(media_type: str) -> str:
    """Return a manifest's media type in a word where it has one."""
    return _TYPES.get(media_type, media_type)


def _short_type(media_type: str) -> str:
    for prefix in ("application/vnd.oci.image.", "application/vnd.docker.image."):
        if media_type.startswith(prefix):
            return media_type.removeprefix(prefix).removeprefix("layer.v1.")
    return media_type


def shown_name(repository: Repository) -> Html:
    """Return the full name of a repository, its host in a softer tone."""
    host = f"{repository.registry}/" if repository.registry else ""
    return join(element("span", host, class_="host"), repository.name)


def link(repository: Repository, reference: str = "") -> str:
    """Return where a repository, or with `:TAG` or `@DIGEST` an image, is shown."""
    return quote(f"/{repository.registry or '-'}/{repository.name}{reference}", safe="/:@")


def when(time_ns: int) -> str:
    """Return a time as people read it."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
