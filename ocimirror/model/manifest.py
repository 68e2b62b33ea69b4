"""Manifests: the raw bytes beside a parsed view, and no serialiser.

A type that cannot be serialised again cannot change a digest. The view is read-only and covers
what a copy needs: children, subject, artifact type. Configs are blobs and are never parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ocimirror.errors import MalformedManifest, Unsupported
from ocimirror.model import mediatype, strictjson
from ocimirror.model.descriptor import Descriptor, annotations_of, text_of
from ocimirror.model.digest import Digest

_Children = tuple[tuple[Descriptor, ...], tuple[Descriptor, ...]]  # manifests, blobs
MAX_SIZE_BYTES = 4 * 1024 * 1024  # distribution-spec: registries SHOULD take at least 4 MiB


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest, index, or content of unknown type that registries keep among manifests.

    Attributes:
        raw: the bytes, exactly as they were received; the digest is of these.
        descriptor: media type, digest and size of `raw`.
        manifests: children that live under /manifests/, in document order.
        blobs: children that live under /blobs/: config, then layers, in document order.
        subject: the manifest this one is about; an edge up, never a child.
        opaque: the type is unknown. What looks like a descriptor in it is in `members`, until
            a source has said which of these are manifests, and which are blobs.
        members: descriptors in content of unknown type, each digest once, in document order.
        absent: members that the source does not have.
    """

    raw: bytes = field(repr=False)
    descriptor: Descriptor
    manifests: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    opaque: bool = False
    members: tuple[Descriptor, ...] = ()
    absent: tuple[Descriptor, ...] = ()

    @property
    def digest(self) -> Digest:
        """The digest of the raw bytes."""
        return self.descriptor.digest

    @property
    def media_type(self) -> str:
        """The media type, as the parent or the registry stated it."""
        return self.descriptor.media_type

    @property
    def _has_config(self) -> bool:
        return bool(self.blobs) and mediatype.is_image_manifest(self.media_type)

    @property
    def listed_type(self) -> str:
        """The artifactType that lists of referrers give it.

        An image manifest without one has its config's media type; an index without has none.
        """
        return self.artifact_type or (self.blobs[0].media_type if self._has_config else "")

    def as_referrer(self) -> dict[str, object]:
        """Return how a list of referrers names this manifest: with its type and all annotations.

        Spec: distribution-spec, listing referrers.
        """
        entry: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.descriptor.size,
        }
        if self.listed_type:
            entry["artifactType"] = self.listed_type
        if self.annotations:
            entry["annotations"] = dict(self.annotations)
        return entry

    @classmethod
    def parse(cls, raw: bytes, descriptor: Descriptor) -> Manifest:
        """Read a view out of bytes that already match their descriptor.

        Args:
            raw: the whole document.
            descriptor: where it was named; its media type decides how the bytes are read.

        Raises:
            MalformedManifest: not strict JSON, index and image manifest at once, a media type
                that contradicts the descriptor's, or a bad descriptor inside.
            Unsupported: Docker schema 1.

        Spec: image-spec manifest.md, image-index.md; type confusion is CVE-2021-41190.
        """
        what = f"manifest {descriptor.digest}"
        media_type = mediatype.known(descriptor.media_type) or _stated(raw, what)
        if media_type in mediatype.SCHEMA1:
            raise _schema1(what)
        if not media_type:
            return cls._of_unknown_type(raw, descriptor)
        if media_type != descriptor.media_type:
            descriptor = replace(descriptor, media_type=media_type)
        document = strictjson.loads(raw, what)
        if mediatype.is_artifact_manifest(media_type):
            return cls._artifact(raw, descriptor, document, what)
        if document.get("schemaVersion") == 1:
            raise _schema1(what)
        if document.get("schemaVersion") != 2 or type(document["schemaVersion"]) is not int:
            raise MalformedManifest(f"{what}: schemaVersion is not 2")
        _refuse_other_type(document, media_type, what)
        index = mediatype.is_index(media_type)
        wrong = ("config", "layers", "fsLayers") if index else ("manifests", "fsLayers")
        if any(document.get(key) is not None for key in wrong):
            raise MalformedManifest(f"{what}: both an index and an image manifest (ambiguous)")
        manifests, blobs = (_index_children if index else _image_children)(document, what)
        return cls(
            raw,
            descriptor,
            manifests=manifests,
            blobs=blobs,
            subject=_subject(document, what),
            artifact_type=_artifact_type(document, what),
            annotations=annotations_of(document, what),
        )

    @classmethod
    def _artifact(
        cls, raw: bytes, descriptor: Descriptor, document: Mapping[str, Any], what: str
    ) -> Manifest:
        """Read an artifact manifest, of OCI (image-spec 1.1.0-rc2) or of ORAS: one shape."""
        _refuse_other_type(document, descriptor.media_type, what)
        if any(document.get(key) is not None for key in ("config", "layers", "manifests")):
            raise MalformedManifest(f"{what}: both an artifact and an image (ambiguous)")
        entries = _list({"blobs": None, **document}, "blobs", what)
        return cls(
            raw,
            descriptor,
            blobs=tuple(Descriptor.parse(entry, place) for place, entry in entries),
            subject=_subject(document, what),
            artifact_type=text_of(document, "artifactType", what),
            annotations=annotations_of(document, what),
        )

    @classmethod
    def _of_unknown_type(cls, raw: bytes, descriptor: Descriptor) -> Manifest:
        what = f"content {descriptor.digest}"
        try:
            document = strictjson.loads(raw, what)
        except MalformedManifest:
            return cls(raw, descriptor, opaque=True)
        members = {m.digest: m for m in _members(document) if m.digest != descriptor.digest}
        subject = None
        with suppress(MalformedManifest):  # (only the shape of one)
            subject = _subject(document, what)
        return cls(raw, descriptor, subject=subject, opaque=True, members=tuple(members.values()))


def _stated(raw: bytes, what: str) -> str:
    """Return the known type that content of unknown type says it is; empty if it says none."""
    try:
        stated = strictjson.loads(raw, what).get("mediaType")
    except MalformedManifest:
        return ""
    return mediatype.known(stated) if isinstance(stated, str) else ""


def _refuse_other_type(document: Mapping[str, Any], media_type: str, what: str) -> None:
    stated = text_of(document, "mediaType", what)
    if stated and mediatype.known(stated) != media_type:
        raise MalformedManifest(f"{what}: it says {stated}, and was announced as {media_type}")


def _members(document: Mapping[str, Any]) -> Iterator[Descriptor]:
    """Yield what is shaped like a descriptor anywhere in a document, its subject excepted."""
    unread: list[object] = [{key: value for key, value in document.items() if key != "subject"}]
    while unread:
        value = unread.pop()
        if isinstance(value, dict):
            if {"mediaType", "digest", "size"} <= value.keys():
                with suppress(MalformedManifest):  # (only the shape of one)
                    yield Descriptor.parse(value, "a member")
            unread += reversed(value.values())
        elif isinstance(value, list):
            unread += reversed(value)


def sniff_media_type(raw: bytes, what: str) -> str:
    """Return the media type that a document states or, where it states none, has the shape of.

    For bytes that nobody announced: a layout rebuilt from its blobs, a reply whose Content-Type
    is generic. An empty string means unknown.
    """
    document = strictjson.loads(raw, what)
    stated = text_of(document, "mediaType", what)
    if stated:
        return mediatype.known(stated) or stated
    if document.get("schemaVersion") == 1 and "fsLayers" in document:
        return mediatype.DOCKER_SCHEMA1
    if isinstance(document.get("manifests"), list):
        return mediatype.OCI_INDEX
    if isinstance(document.get("layers"), list):
        return mediatype.OCI_MANIFEST
    return ""


def _schema1(what: str) -> Unsupported:
    return Unsupported(
        f"{what} is Docker schema 1: its digest does not cover its bytes, and today's engines"
        " do not read it",
        advice="Pull and push it once with a current docker to get a schema 2 image.",
    )


def _index_children(document: Mapping[str, Any], what: str) -> _Children:
    manifests, blobs = [], []
    for place, entry in _list(document, "manifests", what):
        descriptor = Descriptor.parse(entry, place, "manifest")
        if mediatype.is_blob_in_index(descriptor.media_type):
            blobs.append(replace(descriptor, kind="blob"))
        else:
            manifests.append(descriptor)
    return tuple(manifests), tuple(blobs)


def _image_children(document: Mapping[str, Any], what: str) -> _Children:
    if "config" not in document:
        raise MalformedManifest(f"{what}: an image manifest without a config")
    config = Descriptor.parse(document["config"], f"config of {what}")
    layers = _list(document, "layers", what)
    return (), (config, *(Descriptor.parse(entry, place) for place, entry in layers))


def _list(document: Mapping[str, Any], key: str, what: str) -> list[tuple[str, object]]:
    """Return (place, entry) pairs; null is an empty list, as Go programs write it."""
    if key not in document:
        raise MalformedManifest(f"{what}: no {key}")
    entries = [] if document[key] is None else document[key]
    if not isinstance(entries, list):
        raise MalformedManifest(f"{what}: {key} is not a list")
    return [(f"{key}[{number}] of {what}", entry) for number, entry in enumerate(entries)]


def _subject(document: Mapping[str, Any], what: str) -> Descriptor | None:
    if document.get("subject") is None:
        return None
    return Descriptor.parse(document["subject"], f"subject of {what}", "manifest")


def _artifact_type(document: Mapping[str, Any], what: str) -> str:
    """The artifact type; where it is absent, the config's media type (distribution-spec)."""
    stated = text_of(document, "artifactType", what)
    config = document.get("config")
    if stated or not isinstance(config, dict):
        return stated
    config_type = text_of(config, "mediaType", f"config of {what}")
    return "" if config_type in (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG) else config_type
