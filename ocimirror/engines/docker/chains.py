"""From an image's name down to what Docker knows it by: proved from a layout, byte for byte.

An engine that keeps only configs cannot tell whether a digest belongs to an image. A layout can,
and nobody else checks it: dockerd believes whatever its reference store says.
"""

from __future__ import annotations

from ocimirror.engines.docker.diffid import diff_id_of
from ocimirror.engines.docker.root import DockerRoot
from ocimirror.errors import DigestMismatch, ForeignLayer, IntegrityError, Unsupported
from ocimirror.model import mediatype
from ocimirror.model.chain import Chain, layers_with_ids
from ocimirror.model.config import MAX_SIZE_BYTES as MAX_CONFIG_BYTES
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.stores.store import Source
from ocimirror.stores.stream import Watch


def prove(source: Source, chain: Chain, docker: DockerRoot, watch: Watch | None = None) -> None:
    """Prove from a layout that a chain's digests are those of an image in Docker.

    Args:
        source: the layout that the chain is from.
        chain: what is to be proved.
        docker: where the image is.
        watch: told of each chunk that is read; raises to stop.

    Raises:
        IntegrityError: some step does not hold, or content that it needs is not in the layout.
        DigestNotPreserved: the root does not lead to this image.
        ForeignLayer, Unsupported: it cannot be shown.
    """
    # (1) Docker has the config that the manifest names,
    with source.fetch(chain.manifest.blobs[0], watch) as stream:
        raw = stream.read_all(MAX_CONFIG_BYTES)
    if docker.config(chain.image_id) != raw:
        raise DigestMismatch(f"image {chain.image_id}: Docker has another config than the layout")
    # (2) and the root leads to it.
    config = chain.prove(raw)
    # (3) Each layer of the manifest has its digest, and is the layer that the config says.
    for layer, diff_id in layers_with_ids(chain.manifest, config):
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
