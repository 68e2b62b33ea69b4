"""A manifest for an image that comes without one: the same image gives the same bytes, always.

The bytes are those that Docker's graphdriver store writes itself when it saves (since it lists
layers there), so both give one digest. No registry knows it: there layers are compressed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.stores.entry import synthesised

LAYER_TYPES = {
    "": mediatype.OCI_LAYER,
    "gzip": f"{mediatype.OCI_LAYER}+gzip",
    "zstd": f"{mediatype.OCI_LAYER}+zstd",
}


def manifest_for(config: Descriptor, layers: Sequence[Descriptor]) -> Manifest:
    """Return an OCI image manifest of a config and its layers, marked as synthesised."""
    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": _document(config),
        "layers": [_document(layer) for layer in layers],
    }
    raw = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    descriptor = Descriptor(mediatype.OCI_MANIFEST, Digest.of(raw), len(raw), "manifest")
    return Manifest.parse(raw, synthesised(descriptor))


def is_made_up(manifest: Manifest, diff_ids: Sequence[Digest]) -> bool:
    """Whether an archive's own manifest is what Docker writes when it saves the image.

    That has uncompressed layers only, and exactly the bytes that we would write.
    """
    layers = manifest.blobs[1:]
    plain = all(layer.media_type == mediatype.OCI_LAYER for layer in layers)
    if not layers or not plain or [layer.digest for layer in layers] != list(diff_ids):
        return False
    return manifest.raw == manifest_for(manifest.blobs[0], layers).raw


def is_broken(manifest: Manifest, diff_ids: Sequence[Digest]) -> bool:
    """Whether a manifest cannot be of the config with these diff_ids.

    Docker 25 lists foreign layers only, and some later versions list them in any order.
    """
    layers = manifest.blobs[1:]
    plain = all(layer.media_type == mediatype.OCI_LAYER for layer in layers)
    listed = [layer.digest for layer in layers]
    return len(layers) != len(diff_ids) or (plain and listed != list(diff_ids))


def _document(descriptor: Descriptor) -> dict[str, object]:
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
