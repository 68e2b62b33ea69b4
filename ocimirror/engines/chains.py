"""From an image's name down to what an engine knows it by: index → manifest → config → diff_ids.

An engine that keeps only configs cannot tell whether a digest belongs to an image. A layout can,
byte for byte, and nobody else checks it: dockerd believes whatever its reference store says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ocimirror.engines.diffid import diff_id_of
from ocimirror.engines.docker.root import DockerRoot
from ocimirror.errors import (
    DigestMismatch,
    ForeignLayer,
    IntegrityError,
    MalformedManifest,
    OciMirrorError,
    Unsupported,
)
from ocimirror.model import mediatype
from ocimirror.model.config import MAX_SIZE_BYTES as MAX_CONFIG_BYTES
from ocimirror.model.config import ImageConfig
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Seen
from ocimirror.model.manifest import Manifest
from ocimirror.stores.layout.entry import Entry
from ocimirror.stores.reach import reach
from ocimirror.stores.store import Source
from ocimirror.stores.stream import Watch


@dataclass(frozen=True, slots=True)
class Chain:
    """One image manifest below an entry of a layout.

    Attributes:
        root: the index, or the manifest itself where no index names it.
        manifest: verified, and reached from the root.
    """

    root: Descriptor
    manifest: Manifest

    @property
    def image_id(self) -> Digest:
        """The digest of the config, which Docker with a graphdriver calls the image's ID."""
        return self.manifest.blobs[0].digest

    @property
    def digests(self) -> tuple[Digest, ...]:
        """The digests that name it: the root's and the manifest's, once where they are one."""
        return tuple(dict.fromkeys((self.root.digest, self.manifest.digest)))


def chains(source: Source, entry: Entry) -> Iterator[Chain]:
    """Yield the image manifests that an entry reaches; their bytes and their index's are verified.

    Raises:
        IntegrityError: a manifest that was asked for is absent or damaged.
    """
    seen: set[Seen] = set()
    for manifest in reach(source, entry.descriptor, seen, _failed):
        if mediatype.is_image_manifest(manifest.media_type) and manifest.blobs:
            yield Chain(entry.descriptor, manifest)


def _failed(error: OciMirrorError, _: Descriptor) -> None:
    raise error


def prove(source: Source, chain: Chain, docker: DockerRoot, watch: Watch | None = None) -> None:
    """Prove from a layout that a chain's digests are those of an image in Docker.

    The steps before these, that the root's and the manifest's bytes have their digests and that
    the one names the other, are how `chains` came to them.

    Args:
        source: the layout that the chain is from.
        chain: what is to be proved.
        docker: where the image is.
        watch: told of each chunk that is read; raises to stop.

    Raises:
        IntegrityError: some step does not hold, or content that it needs is not in the layout.
        ForeignLayer, Unsupported: it cannot be shown.
    """
    config_descriptor, *layers = chain.manifest.blobs
    what = f"image {chain.image_id}"
    # (1) The manifest names the config, whose bytes have the image's ID for a digest,
    with source.fetch(config_descriptor, watch) as stream:
        raw = stream.read_all(MAX_CONFIG_BYTES)
    # (2) in Docker too.
    if docker.config(chain.image_id) != raw:
        raise DigestMismatch(f"{what}: Docker has another config than the layout")
    config = ImageConfig.parse(raw, what)
    # (3) Each layer of the manifest has its digest, and is the layer that the config says.
    if len(layers) != len(config.diff_ids):
        raise MalformedManifest(
            f"{what}: {len(layers)} layers in manifest {chain.manifest.digest},"
            f" {len(config.diff_ids)} in its config"
        )
    for layer, diff_id in zip(layers, config.diff_ids, strict=True):
        _prove_layer(source, layer, diff_id, watch)
    # (4) And those are the layers that Docker has.
    docker.check_layers(config, chain.image_id)


def _prove_layer(source: Source, layer: Descriptor, diff_id: Digest, watch: Watch | None) -> None:
    if mediatype.is_foreign(layer.media_type) and not source.exists(layer):
        raise ForeignLayer(
            f"layer {layer.digest} is not in the layout, so its content cannot be compared",
            advice="Without it the manifest's digest cannot be proved.",
        )
    if diff_id.algorithm != "sha256":
        raise Unsupported(f"the diff_id {diff_id} of layer {layer.digest} is not of sha256")
    with source.fetch(layer, watch) as stream:
        found = diff_id_of(stream)
    if found != diff_id:
        raise IntegrityError(f"layer {layer.digest} unpacks to {found}, its config says {diff_id}")
