"""The strict registry's manifests, tags and referrers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tests.support.registry_http import Refusal, RegistryHandler, checked_digest
from tests.support.registry_storage import (
    TAG,
    Manifest,
    digest_of,
    fields_of,
    subject_of,
)

MANIFEST_BYTES = 4 << 20
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = (
    INDEX,
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


class ManifestRoutes(RegistryHandler):
    """Answers under /v2/NAME/manifests/, /tags/ and /referrers/."""

    def manifest(self, name: str, reference: str) -> None:
        """GET or HEAD a manifest."""
        manifest = self._known_manifest(name, reference)
        named = {part.split(";")[0].strip() for part in self.headers.get("Accept", "").split(",")}
        if self.options.strict_accept and manifest.media_type not in named:
            raise Refusal(404, "MANIFEST_UNKNOWN", "not of a type named in Accept")
        headers = {"Content-Type": manifest.media_type, **self.digest_header(manifest.digest)}
        self.reply(200, manifest.data, headers)

    def put_manifest(self, name: str, reference: str) -> None:
        """PUT a manifest whose children are there."""
        data = self.read_body(MANIFEST_BYTES)
        if data is None:
            raise Refusal(413, "SIZE_INVALID", f"a manifest has at most {MANIFEST_BYTES} bytes")
        media_type = self.headers.get("Content-Type", "").split(";")[0].strip()
        manifest = Manifest(digest_of(data), media_type, data)
        if ":" in reference:
            algorithm = checked_digest(reference).partition(":")[0]
            manifest = manifest._replace(digest=digest_of(data, algorithm))
            if manifest.digest != reference:
                raise Refusal(400, "DIGEST_INVALID", f"the content is {manifest.digest}")
        elif not TAG.fullmatch(reference):
            raise Refusal(400, "MANIFEST_INVALID", "not a tag")
        subject = self._check_manifest(name, manifest)
        with self.storage.lock:
            if self.options.immutable_tags and reference in self.storage.tags(name):
                raise Refusal(400, "TAG_INVALID", "the tag exists and is immutable")
            self.storage.put_manifest(name, manifest)
            if ":" not in reference:
                self.storage.tag(name, reference, manifest.digest)
        headers = self.digest_header(manifest.digest)
        if subject and self.options.referrers:
            headers["OCI-Subject"] = subject
        headers["Location"] = self.location(f"/v2/{name}/manifests/{manifest.digest}")
        self.reply(201, b"", headers)

    def _check_manifest(self, name: str, manifest: Manifest) -> str | None:
        """Refuse a manifest that contradicts itself or lacks children; return its subject."""
        if not manifest.media_type:
            raise Refusal(400, "MANIFEST_INVALID", "no Content-Type")
        fields = fields_of(manifest.data)
        if not fields and manifest.media_type in MANIFEST_TYPES:
            raise Refusal(400, "MANIFEST_INVALID", "not a JSON object")
        if fields.get("mediaType", manifest.media_type) != manifest.media_type:
            raise Refusal(400, "MANIFEST_INVALID", "mediaType and Content-Type differ")
        if "manifests" in fields and ("layers" in fields or "config" in fields):
            raise Refusal(400, "MANIFEST_INVALID", "both an index and an image manifest")
        blobs = [fields.get("config"), *_list(fields, "layers"), *_list(fields, "blobs")]
        missing = [digest for digest in _children(blobs) if not self.storage.has_blob(name, digest)]
        if not self.options.sparse:
            missing += [
                digest
                for digest in _children(_list(fields, "manifests"))
                if not self.storage.has_manifest(name, digest)
            ]
        if missing:
            raise Refusal(404, "MANIFEST_BLOB_UNKNOWN", f"unknown to this repository: {missing[0]}")
        return subject_of(fields)

    def delete_manifest(self, name: str, reference: str) -> None:
        """DELETE a manifest by digest, or a tag."""
        self.check_deletable()
        manifest = self._known_manifest(name, reference)
        if ":" in reference:
            self.storage.delete_manifest(name, manifest)
        else:
            self.storage.untag(name, reference)
        self.reply(202)

    def tags(self, name: str) -> None:
        """GET the tags, a page at a time when asked or configured."""
        if not self.storage.has_repository(name):
            raise Refusal(404, "NAME_UNKNOWN")
        names = self.storage.tags(name)
        part, headers = self.page(names)
        self.reply_json({"name": name, "tags": names[part]}, headers=headers)

    def referrers(self, name: str, text: str) -> None:
        """GET the index of what has a manifest as its subject; the manifest need not exist."""
        if not self.options.referrers:
            self.reply(404, b"404 page not found\n", {"Content-Type": "text/plain"})
            return
        found = self.storage.referrers(name, checked_digest(text))
        headers = {}
        artifact_type = self.parameter("artifactType")
        if artifact_type is not None:
            found = [entry for entry in found if entry.get("artifactType") == artifact_type]
            headers["OCI-Filters-Applied"] = "artifactType"
        part, link = self.page([entry["digest"] for entry in found])
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found[part]}
        self.reply_json(index, INDEX, {**headers, **link})

    def _known_manifest(self, name: str, reference: str) -> Manifest:
        if ":" in reference:
            checked_digest(reference)
        elif not TAG.fullmatch(reference):
            raise Refusal(404, "MANIFEST_UNKNOWN")
        manifest = self.storage.manifest(name, reference)
        if manifest is None:
            raise self.unknown(name, "MANIFEST_UNKNOWN")
        return manifest


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    return value if isinstance(value, list) else []


def _children(descriptors: Iterable[Any]) -> Iterator[str]:
    """Yield the digests of the descriptors that have to be in the registry.

    Spec: image-spec layer.md, "Non-Distributable Layers": those are not uploaded.
    """
    for descriptor in descriptors:
        if not isinstance(descriptor, dict):
            continue
        media_type = str(descriptor.get("mediaType"))
        if "nondistributable" not in media_type and ".foreign." not in media_type:
            yield checked_digest(descriptor.get("digest"))
