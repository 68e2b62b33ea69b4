"""Manifests that only their digest finds: nobody announced their type, so they are read."""

from __future__ import annotations

from ocimirror.errors import IntegrityError, MalformedManifest, NotFound, Unsupported
from ocimirror.model import mediatype, strictjson
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import MAX_SIZE_BYTES, Manifest, sniff_media_type
from ocimirror.stores.store import Source


def manifest_by_digest(source: Source, digest: Digest, size: int) -> Descriptor | None:
    """Return the descriptor of stored content if it is a manifest; None if it is not.

    Raises:
        NotFound: it is the config of an image: an image ID, which names no manifest.
    """
    if size > MAX_SIZE_BYTES:
        return None
    found = Descriptor(mediatype.OCTET_STREAM, digest, size, "manifest")
    with source.fetch(found) as stream:
        raw = stream.read_all(MAX_SIZE_BYTES)
    try:
        media_type = sniff_media_type(raw, str(digest))
    except MalformedManifest:
        return None  # (a layer)
    refuse_config(raw, f"{source.location}: {digest}")
    if not media_type and not Manifest.parse(raw, found).members:
        return None
    return Descriptor(media_type or found.media_type, digest, size, "manifest")


def proven(source: Source, digest: Digest, size: int | None) -> Manifest | None:
    """Return stored content as a manifest; None if it is none, absent or damaged.

    Content of unknown type counts if it says what it is, and names other content.
    """
    try:
        found = None if size is None else manifest_by_digest(source, digest, size)
        if found is None or found.media_type == mediatype.OCTET_STREAM:
            return None
        manifest = source.read_manifest(found)
    except (IntegrityError, NotFound, Unsupported):
        return None
    names_content = manifest.members or b'"schemaVersion"' in manifest.raw
    return manifest if names_content or not manifest.opaque else None


def refuse_config(raw: bytes, what: str) -> None:
    """Raise NotFound if these bytes, which nobody announced as a manifest, are an image config.

    Spec: image-spec config.md: `rootfs` with `diff_ids` is REQUIRED; a config has no `layers`.
    """
    try:
        document = strictjson.loads(raw, what)
    except MalformedManifest:
        return
    rootfs = document.get("rootfs")
    image = isinstance(document.get("layers"), list) and isinstance(document.get("config"), dict)
    if image or "manifests" in document:
        return  # (a manifest may have further members)
    if isinstance(rootfs, dict) and "diff_ids" in rootfs:
        raise NotFound(
            f"{what} is an image ID (the digest of a config), not an image",
            advice="Use the digest of the manifest: `ocimirror list` or `inspect` shows it.",
        )
