"""Descriptors: media type, digest and size of content, as its parent states them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ocimirror.errors import InvalidReference, MalformedManifest
from ocimirror.model.digest import Digest
from ocimirror.model.mediatype import OCTET_STREAM
from ocimirror.model.platform import Platform

MAX_SIZE_BYTES = 2**63 - 1
Kind = Literal["manifest", "blob"]
# Layers are carried whatever their type; that of a manifest goes into a header.
_PRINTABLE = re.compile(r"[ -~]{0,1000}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a parent says of its content (image-spec descriptor.md).

    Two descriptors are equal when they name the same content as the same kind of thing;
    annotations and platform belong to the place where it is named.

    `kind` says which endpoint of a registry holds the content, /manifests/ or /blobs/. A media
    type cannot tell (any type may be a layer); the place where a parent names it can.
    """

    media_type: str
    digest: Digest
    size: int
    kind: Kind = "blob"
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    platform: Platform | None = field(default=None, compare=False)
    artifact_type: str = field(default="", compare=False)
    urls: tuple[str, ...] = field(default=(), compare=False)
    data: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, value: object, what: str, kind: Kind = "blob") -> Descriptor:
        """Parse a descriptor out of a parsed document; unknown keys are no error.

        Args:
            value: the JSON value where a descriptor is expected.
            what: names the place in errors ("layers[2] of sha256:…").
            kind: what that place holds.

        Raises:
            MalformedManifest: a required key is absent or of the wrong type, the size is
                negative, the digest is not one, or `data` contradicts digest or size.

        Spec: image-spec descriptor.md#properties.
        """
        if not isinstance(value, dict):
            raise MalformedManifest(f"{what} is not a descriptor")
        document = cast("dict[str, Any]", value)
        media_type = document.get("mediaType")
        form = _MEDIA_TYPE if kind == "manifest" else _PRINTABLE
        if not isinstance(media_type, str) or not form.fullmatch(media_type):
            raise MalformedManifest(f"{what}: bad mediaType {media_type!r:.200}")
        size = document.get("size")
        if type(size) is not int or not 0 <= size <= MAX_SIZE_BYTES:
            raise MalformedManifest(f"{what}: bad size {size!r:.200}")
        try:
            digest = Digest.parse(text_of(document, "digest", what))
        except InvalidReference as error:
            raise MalformedManifest(f"{what}: {error}") from error
        urls = document.get("urls") or []
        if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
            raise MalformedManifest(f"{what}: urls is not a list of strings")
        return cls(
            media_type=media_type,
            digest=digest,
            size=size,
            kind=kind,
            annotations=annotations_of(document, what),
            platform=_platform(document.get("platform"), what),
            artifact_type=text_of(document, "artifactType", what),
            urls=tuple(urls),
            data=_data(document, digest, size, what),
        )

    @property
    def key(self) -> tuple[Kind, Digest]:
        """What tells one piece of content from another in a registry or layout."""
        return self.kind, self.digest

    @property
    def header(self) -> str:
        """The media type as a header may carry it; the generic one if it is not one."""
        return self.media_type if _MEDIA_TYPE.fullmatch(self.media_type) else OCTET_STREAM

    def __str__(self) -> str:
        return f"{self.digest} ({self.media_type}, {self.size} bytes)"


def text_of(document: Mapping[str, Any], key: str, what: str) -> str:
    """Return a string property, empty where it is absent; MalformedManifest for another type."""
    value = document.get(key, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedManifest(f"{what}: {key} is not a string")
    return value


def annotations_of(document: Mapping[str, Any], what: str) -> dict[str, str]:
    """Return the annotations, empty where absent; MalformedManifest unless string to string."""
    value = document.get("annotations")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise MalformedManifest(f"{what}: annotations do not map strings to strings")
    return value


def _platform(value: object, what: str) -> Platform | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise MalformedManifest(f"{what}: platform is not an object")
    keys = ("os", "architecture", "variant", "os.version")
    return Platform(*(text_of(value, key, f"{what}: platform") for key in keys))


def _data(document: Mapping[str, Any], digest: Digest, size: int, what: str) -> bytes | None:
    """Decode embedded content, checked against digest and size (descriptor.md#properties)."""
    if document.get("data") is None:
        return None
    try:
        data = base64.b64decode(text_of(document, "data", what), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedManifest(f"{what}: data is not base64") from error
    if len(data) != size or (digest.verifiable and Digest.of(data, digest.algorithm) != digest):
        raise MalformedManifest(f"{what}: data does not match digest and size")
    return data
