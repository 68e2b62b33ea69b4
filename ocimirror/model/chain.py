"""The one proof of what a digest stands for: index → manifest → config → layers, link by link.

Engines know an image by its config, and believe whatever is said of its digests. Where a digest is
given back to an image, nobody else checks that it is the image's own: without this proof, that is
forging digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ocimirror.errors import DigestNotPreserved, MalformedManifest
from ocimirror.model.config import ImageConfig
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Chain:
    """The way from a root down to one image manifest.

    Attributes:
        path: the root, then each index below it, down to the image manifest; that one alone if no
            index names it.
    """

    path: tuple[Manifest, ...]

    @property
    def root(self) -> Manifest:
        """What a name stands for: an index, or the image manifest itself."""
        return self.path[0]

    @property
    def manifest(self) -> Manifest:
        """The image manifest."""
        return self.path[-1]

    @property
    def image_id(self) -> Digest:
        """The digest of the config, which engines that keep no manifests call the image's ID."""
        return self.manifest.blobs[0].digest

    def prove(self, config: bytes) -> ImageConfig:
        """Prove that the root leads to the image with this config; return what the config says.

        Raises:
            DigestNotPreserved: a link of the chain does not hold; the message says which.
            MalformedManifest: the config is malformed, or of another number of layers.

        NOT proved: that a layer stands for its diff_id; whoever unpacks it finds out.
        """
        # (1) Every document has the digest that it is known by,
        for manifest in self.path:
            digest = Digest.of(manifest.raw, manifest.digest.algorithm)
            if digest != manifest.digest:
                text = f"a manifest has digest {digest}, wanted {manifest.digest}"
                raise DigestNotPreserved(text)
        # (2) each lists the next,
        for index, child in pairwise(self.path):
            if child.digest not in {listed.digest for listed in index.manifests}:
                raise DigestNotPreserved(f"index {index.digest} does not list {child.digest}")
        # (3) the last names this config, whose digest is the image ID,
        if Digest.of(config, self.image_id.algorithm) != self.image_id:
            text = f"manifest {self.manifest.digest} names config {self.image_id}, not this one"
            raise DigestNotPreserved(text)
        # (4) and which lists as many layers as the manifest.
        known = ImageConfig.parse(config, f"config {self.image_id}")
        layers_with_ids(self.manifest, known)
        return known


def layers_with_ids(manifest: Manifest, config: ImageConfig) -> list[tuple[Descriptor, Digest]]:
    """Return each layer of an image manifest, bottom first, with the diff_id of its config.

    Raises:
        MalformedManifest: they are of different numbers.
    """
    layers = manifest.blobs[1:]
    if len(layers) != len(config.diff_ids):
        raise MalformedManifest(
            f"manifest {manifest.digest} has {len(layers)} layers, and its config has"
            f" {len(config.diff_ids)} diff_ids"
        )
    return list(zip(layers, config.diff_ids, strict=True))


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """Return what engines call each layer, bottom first: the digest of it and of all below it.

    Spec: image-spec config.md#layer-chainid.
    """
    found: list[Digest] = []
    for diff_id in diff_ids:
        found.append(Digest.of(f"{found[-1]} {diff_id}".encode()) if found else diff_id)
    return found
