"""The proof that a name by digest belongs to an image that an engine knows by its ID only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ocimirror.errors import DigestNotPreserved
from ocimirror.model.config import ImageConfig
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest


def prove_chain(
    path: Sequence[Manifest], config: bytes, image_id: Digest, diff_ids: Sequence[Digest]
) -> None:
    """Prove that a root leads to an image: index, manifest, config, image ID, layers.

    Nobody else checks this where a digest is given back to an image: without it, that is forging
    digests.

    Args:
        path: the root, then each index below it, down to the image manifest; one for no index.
        config: the config's bytes.
        image_id: what the engine or the docker-archive knows the image by.
        diff_ids: its layers there, bottom first.

    Raises:
        DigestNotPreserved: a link of the chain does not hold; the message says which.

    NOT proved: that a compressed layer stands for its diff_id; who unpacks it finds out.
    """
    # (1) Every document has the digest that it is known by,
    for manifest in path:
        digest = Digest.of(manifest.raw, manifest.digest.algorithm)
        if digest != manifest.digest:
            raise DigestNotPreserved(f"a manifest has digest {digest}, wanted {manifest.digest}")
    # (2) each lists the next,
    for index, child in pairwise(path):
        if child.digest not in {listed.digest for listed in index.manifests}:
            raise DigestNotPreserved(f"index {index.digest} does not list {child.digest}")
    # (3) the last names this config, (4) whose digest is the image ID,
    manifest = path[-1]
    stated = manifest.blobs[0].digest if manifest.blobs else None
    if stated is None or Digest.of(config, stated.algorithm) != stated:
        raise DigestNotPreserved(f"manifest {manifest.digest} names config {stated}, not this one")
    if Digest.of(config, image_id.algorithm) != image_id:
        raise DigestNotPreserved(
            f"manifest {manifest.digest} is of image {stated}, wanted {image_id}"
        )
    # (5) which lists these layers, (6) and the manifest has as many.
    known = ImageConfig.parse(config, f"config {stated}").diff_ids
    if known != tuple(diff_ids):
        raise DigestNotPreserved(
            f"image {image_id} has layers {_some(diff_ids)}, not {_some(known)}"
        )
    if len(manifest.blobs) - 1 != len(known):
        raise DigestNotPreserved(
            f"manifest {manifest.digest} has {len(manifest.blobs) - 1} layers, and image"
            f" {image_id} {len(known)}"
        )


def _some(digests: Sequence[Digest]) -> str:
    shown = ", ".join(map(str, digests[:3])) or "none"
    return f"{shown} and {len(digests) - 3} more" if len(digests) > 3 else shown
