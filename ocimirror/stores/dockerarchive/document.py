"""manifest.json: which members of a docker-archive are an image, and how it is called."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ocimirror.errors import InvalidReference, MalformedManifest
from ocimirror.model import strictjson
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Reference
from ocimirror.stores.profiles import blob_path, repo_tags

MANIFEST_FILE = "manifest.json"
MAX_SIZE_BYTES = 16 * 1024 * 1024
_DIGEST_IN_NAME = re.compile(r"(?:.*[/:])?([0-9a-f]{64})(?:\.json)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SavedImage:
    """One image of manifest.json.

    Attributes:
        config, layers: member names, layers bottom first.
        references: what it is called, each with a tag.
    """

    config: str
    layers: tuple[str, ...]
    references: tuple[Reference, ...]

    @property
    def stated_id(self) -> Digest | None:
        """The image ID that the config's name states, as most tools name it."""
        match = _DIGEST_IN_NAME.fullmatch(self.config)
        return Digest.parse(f"sha256:{match[1]}") if match else None

    @property
    def by_content(self) -> bool:
        """Whether the config is a blob of an image layout, whose name has to be its digest."""
        return self.stated_id is not None and self.config == blob_path(self.stated_id)


def saved_images(raw: bytes, what: str) -> list[SavedImage | MalformedManifest]:
    """Parse manifest.json; keys that are not needed (Parent, LayerSources) are ignored.

    Returns:
        Each image, or what is wrong with it: no Config, say, or a tag that `docker load` refuses.

    Raises:
        MalformedManifest: not a list of images.
    """
    what = f"{MANIFEST_FILE} of {what}"
    document = strictjson.parse(raw, what)
    if not isinstance(document, list) or not document:
        raise MalformedManifest(f"{what} lists no images")
    return [_image_or_error(item, f"[{number}] of {what}") for number, item in enumerate(document)]


def document_of(config: str, name: str, layers: Sequence[str]) -> bytes:
    """Return manifest.json of one image.

    Args:
        config, layers: member names.
        name: what it is called; a tag is written only where it has a repository and a tag.
    """
    entry = {"Config": config, "RepoTags": repo_tags(name), "Layers": list(layers)}
    return json.dumps([entry], ensure_ascii=False, separators=(",", ":")).encode()


def _image_or_error(item: object, what: str) -> SavedImage | MalformedManifest:
    try:
        return _image(item, what)
    except MalformedManifest as error:
        return error


def _image(item: object, what: str) -> SavedImage:
    config = _value(item, "Config") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(config, str):
        raise MalformedManifest(f"{what} names no Config")
    return SavedImage(
        config,
        tuple(_texts(item, "Layers", what)),
        tuple(_reference(text, what) for text in dict.fromkeys(_texts(item, "RepoTags", what))),
    )


def _value(item: Mapping[str, object], key: str) -> object:
    """Return a key's value; its case does not matter, as in Go (Jib writes `config`)."""
    if key in item:
        return item[key]
    return next((value for other, value in item.items() if other.lower() == key.lower()), None)


def _texts(item: Mapping[str, object], key: str, what: str) -> list[str]:
    values = _value(item, key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise MalformedManifest(f"{what}: {key} is no list of strings")
    return values


def _reference(text: str, what: str) -> Reference:
    try:
        reference = Reference.parse(text)
    except InvalidReference as error:
        raise MalformedManifest(f"{what}: RepoTags: {error.message}") from error
    if not reference.tag or reference.digest:
        raise MalformedManifest(f"{what}: RepoTags: {text[:300]!r} is no repository with a tag")
    return reference
