"""Which manifest types are asked for: those that we read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ocimirror import Descriptor, Digest, Manifest, NetworkOptions, Registry
from tests.support import images
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry

TYPES = {
    images.OCI_INDEX,
    images.OCI_MANIFEST,
    images.DOCKER_LIST,
    images.DOCKER_MANIFEST,
    "application/vnd.oci.artifact.manifest.v1+json",
    "application/vnd.cncf.oras.artifact.manifest.v1+json",
}


def test_every_manifest_type_that_we_read_is_offered_on_requests(
    registry: StrictRegistry, proxy: Callable[..., Proxy]
) -> None:
    images.push(registry, "team/app", "1.0", images.single())
    front = proxy(registry)
    options = NetworkOptions(plain_http=frozenset({front.host}))
    with Registry(front.host, options) as place:
        image = place["team/app:1.0"]
        image.place.read_manifest(image.place.resolve(image.name))
    asked = [seen.headers["accept"] for seen in front.requests if "/manifests/" in seen.path]
    assert asked
    for accepted in asked:
        assert set(accepted.split(", ")) == {*TYPES, "*/*"}
        assert accepted.isascii()


@pytest.mark.parametrize("media_type", sorted(TYPES))
def test_a_type_that_is_asked_for_is_not_opaque(media_type: str) -> None:
    raw = b'{"schemaVersion":2,"manifests":[]}'
    if "index" not in media_type and "list" not in media_type:
        config = images.describe(b"{}", images.OCI_CONFIG)
        document = {"schemaVersion": 2, "config": config, "layers": []}
        raw = images.compact({} if "artifact" in media_type else document)
    descriptor = Descriptor(media_type, Digest.of(raw), len(raw), "manifest")
    assert not Manifest.parse(raw, descriptor).opaque
