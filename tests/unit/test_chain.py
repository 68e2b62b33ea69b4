"""The proof that a digest belongs to an image: each link of the chain is looked at."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ocimirror.errors import DigestNotPreserved
from ocimirror.model.chain import prove_chain
from ocimirror.model.config import ImageConfig
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from tests.support import images
from tests.support.stores import manifests_of

MULTI = images.multi()
NESTED = images.nested_index()


def path_in(graph: images.Graph) -> list[Manifest]:
    """Return the way from the root down to the first image."""
    known = {manifest.digest: manifest for manifest in manifests_of(graph)}
    path = [known[Digest.parse(graph.root)]]
    while path[-1].manifests:
        path.append(known[path[-1].manifests[0].digest])
    return path


def parts_of(graph: images.Graph) -> tuple[list[Manifest], bytes, Digest, tuple[Digest, ...]]:
    path = path_in(graph)
    image_id = path[-1].blobs[0].digest
    config = graph.blobs[str(image_id)]
    return path, config, image_id, ImageConfig.parse(config, "config").diff_ids


@pytest.mark.parametrize("graph", [images.single(), MULTI, NESTED, images.docker_list()])
def test_a_chain_that_holds_is_proved(graph: images.Graph) -> None:
    prove_chain(*parts_of(graph))


def test_an_index_that_lists_others_proves_nothing() -> None:
    path, *rest = parts_of(MULTI)
    other = path_in(images.docker_list())[0]
    with pytest.raises(DigestNotPreserved, match="does not list"):
        prove_chain([other, path[-1]], *rest)


def test_bytes_under_a_digest_that_is_not_theirs_prove_nothing() -> None:
    path, *rest = parts_of(MULTI)
    forged = replace(path[0], raw=path[0].raw + b"\n")
    with pytest.raises(DigestNotPreserved, match="a manifest has digest"):
        prove_chain([forged, path[-1]], *rest)


def test_a_manifest_of_another_config_proves_nothing() -> None:
    path, config, image_id, diff_ids = parts_of(MULTI)
    with pytest.raises(DigestNotPreserved, match="names config"):
        prove_chain(path, config + b"\n", image_id, diff_ids)


def test_an_image_with_another_id_is_not_this_one() -> None:
    path, config, _, diff_ids = parts_of(MULTI)
    with pytest.raises(DigestNotPreserved, match="wanted sha256"):
        prove_chain(path, config, Digest.of(b"another"), diff_ids)


@pytest.mark.parametrize("change", [lambda ids: ids[:1], lambda ids: ids[::-1], lambda ids: ()])
def test_other_layers_are_another_image(change: object) -> None:
    path, config, image_id, diff_ids = parts_of(MULTI)
    assert callable(change)
    with pytest.raises(DigestNotPreserved, match="has layers"):
        prove_chain(path, config, image_id, change(diff_ids))


def test_a_manifest_with_fewer_layers_than_its_config_is_not_of_this_image() -> None:
    path, config, image_id, diff_ids = parts_of(images.single())
    document = json.loads(path[0].raw)
    document["layers"].pop()
    raw = images.compact(document)
    descriptor = Descriptor(path[0].media_type, Digest.of(raw), len(raw), "manifest")
    with pytest.raises(DigestNotPreserved, match="has 1 layers"):
        prove_chain([Manifest.parse(raw, descriptor)], config, image_id, diff_ids)
