"""docker-refs restore: what a layout proves of an image in Docker, and what it does not.

One layout and one data root hold every case, and one run of the command proves them all.
"""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.images import Builder, Graph, digest_of
from tests.support.images import gzip_stored as stored
from tests.support.images import zstd_stored as zstd

HOST = "registry.example.com"
TAR = images.noise("layer", 3_000_000)
ZEROS = bytes(20_000_000)
PLATFORM = images.PLATFORMS[0]

# What a layer is → what it unpacks to.
LAYERS = {
    "plain": (TAR, TAR),
    "empty": (b"", b""),
    "short": (b"abc", b"abc"),
    "gzip": (gzip.compress(TAR), TAR),
    "gzip-stored": (stored(TAR), TAR),
    "gzip-twice": (gzip.compress(TAR) + gzip.compress(b"more"), TAR + b"more"),
    "gzip-of-zeros": (gzip.compress(ZEROS), ZEROS),
    "gzip-of-nothing": (gzip.compress(b""), b""),
    "zstd": (zstd(TAR), TAR),
    "zstd-twice": (zstd(TAR) + zstd(b"more"), TAR + b"more"),
    "zstd-of-zeros": (images.zstd_zeros(20_000_000), bytes(-(-20_000_000 // (1 << 17)) << 17)),
}
BROKEN = {
    "cut-at-the-end": gzip.compress(TAR)[:-1],
    "cut": gzip.compress(TAR)[: 1 << 20],
    "followed-by-something": gzip.compress(TAR) + b"rest",
    "no-gzip": b"\x1f\x8b\x08" + bytes(range(200)),
    "no-zstd": zstd(TAR)[:9] + b"\xff" * 100,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "null": {"rootfs": None},
    "text": {"rootfs": {"diff_ids": "sha256:00"}},
    "no-digest": {"rootfs": {"diff_ids": ["sha256:00"]}},
    "number": {"rootfs": {"diff_ids": [1]}},
    "os-of-a-number": {"rootfs": {"diff_ids": []}, "os": 5},
}
GRAPHS = {
    "single": images.single(),
    "multi": images.multi(),
    "nested": images.nested_index(),
    "docker-list": images.docker_list(),
}
ONE, TWO = b"the first layer", b"the second layer"
OTHER_LAYERS: dict[str, tuple[list[bytes], str]] = {
    "fewer": ([ONE], "malformed_manifest"),
    "none": ([], "malformed_manifest"),
    "in-another-order": ([TWO, ONE], "integrity_error"),
    "another": ([ONE, b"another layer"], "integrity_error"),
}


def image(config: dict[str, Any], layers: Sequence[bytes]) -> Graph:
    """Make an image of a config and of layers, whether they belong together or not."""
    builder = Builder()
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": builder.blob(images.compact(config), images.OCI_CONFIG),
        "layers": [builder.blob(layer, images.OCI_LAYER) for layer in layers],
    }
    return builder.graph(builder.manifest(images.compact(document), images.OCI_MANIFEST))


def put(data_root: Path, graph: Graph) -> None:
    """Put the first image of a graph into Docker's data root, with the layers its config says."""
    driver = data_root / "image" / "overlay2"
    image_id = first_id(graph)
    raw = graph.blobs[image_id]
    (driver / "imagedb" / "content" / "sha256" / image_id[7:]).write_bytes(raw)
    rootfs = json.loads(raw).get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else []
    chain = ""
    for diff_id in diff_ids:
        chain = digest_of(f"{chain} {diff_id}".encode()) if chain else str(diff_id)
        layer = driver / "layerdb" / "sha256" / chain.partition(":")[2]
        layer.mkdir(parents=True, exist_ok=True)
        (layer / "diff").write_text(str(diff_id))


def path_in(graph: Graph) -> list[str]:
    """Return the way from the root down to the first image."""
    path = [graph.root]
    while children := json.loads(graph.manifests[path[-1]][1]).get("manifests"):
        path.append(children[0]["digest"])
    return path


def first_id(graph: Graph) -> str:
    return str(json.loads(graph.manifests[path_in(graph)[-1]][1])["config"]["digest"])


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Ask of every case what would be restored; return the answers by case."""
    directory = tmp_path_factory.mktemp("proofs")
    graphs: dict[str, Graph] = {f"graph-{name}": graph for name, graph in GRAPHS.items()}
    for name, (layer, tar) in LAYERS.items():
        graphs[f"layer-{name}"] = image(images.config_of([tar], PLATFORM), [layer])
    for name, layer in BROKEN.items():
        graphs[f"broken-{name}"] = image(images.config_of([TAR], PLATFORM), [layer])
    for name, config in CONFIGS.items():
        graphs[f"config-{name}"] = image(config, [])
    for name, (tars, _) in OTHER_LAYERS.items():
        graphs[f"layers-{name}"] = image(images.config_of(tars, PLATFORM), [ONE, TWO])
    damaged = {
        what: image(images.config_of([what.encode()], PLATFORM), [what.encode()])
        for what in ("manifest", "config", "layer")
    }
    other = image(images.config_of([b"not dockers"], PLATFORM), [b"not dockers"])
    lzma_layer = image(images.config_of([TAR], PLATFORM), [lzma.compress(TAR)])
    graphs |= {f"damaged-{what}": graph for what, graph in damaged.items()}
    graphs |= {"other-in-docker": other, "lzma": lzma_layer}

    data_root = directory / "docker"
    driver = data_root / "image" / "overlay2"
    (driver / "imagedb" / "content" / "sha256").mkdir(parents=True)
    (driver / "repositories.json").write_text('{"Repositories":{}}')
    for graph in graphs.values():
        put(data_root, graph)
    (driver / "layerdb" / "sha256" / digest_of(b"not dockers")[7:] / "diff").write_text("sha256:0")
    named = {f"{HOST}/{name}:1": graph for name, graph in graphs.items()}
    named[f"{HOST}/not-in-docker:1"] = image(images.config_of([b"absent"], PLATFORM), [b"absent"])
    layout = images.write_layout(directory / "layout", named)
    for what, graph in damaged.items():
        config, layer = graph.blobs
        digest = {"manifest": graph.root, "config": config, "layer": layer}[what]
        path = images.blob_path(layout, digest)
        path.write_bytes(bytes(reversed(path.read_bytes())))
    where = ("--host", f"unix://{directory}/none.sock", "--data-root", data_root)
    run = ocimirror("docker-refs", "restore", layout, *where, "--dry-run", "--json")
    assert run.code == 5, run.stderr
    return {found["name"].split("/")[1][:-2]: found for found in run.document["images"]}


def failed(found: dict[str, Any]) -> str:
    """Return the code of what an image was refused with; nothing of it would be restored."""
    assert (found["status"], found["digests"]) == ("failed", [])
    return str(found["error"]["code"])


@pytest.mark.parametrize("case", GRAPHS)
def test_a_chain_that_holds_is_proved(proved: dict[str, Any], case: str) -> None:
    graph, found = GRAPHS[case], proved[f"graph-{case}"]
    assert (found["status"], found["error"]) == ("planned", None)
    names = {digest["name"].partition("@")[2] for digest in found["digests"]}
    assert names == {graph.root, path_in(graph)[-1]}
    assert {digest["image_id"] for digest in found["digests"]} == {first_id(graph)}


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_has_the_digest_of_its_tar(proved: dict[str, Any], case: str) -> None:
    found = proved[f"layer-{case}"]
    assert (found["status"], found["error"]) == ("planned", None)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_compression_is_refused(proved: dict[str, Any], case: str) -> None:
    assert failed(proved[f"broken-{case}"]) == "damaged_layout"


def test_what_oci_layers_are_not_compressed_with_is_refused(proved: dict[str, Any]) -> None:
    assert failed(proved["lzma"]) == "unsupported"


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_of_another_shape_is_refused(proved: dict[str, Any], case: str) -> None:
    assert failed(proved[f"config-{case}"]) == "malformed_manifest"


@pytest.mark.parametrize("case", OTHER_LAYERS)
def test_a_manifest_with_other_layers_than_its_config_proves_nothing(
    proved: dict[str, Any], case: str
) -> None:
    assert failed(proved[f"layers-{case}"]) == OTHER_LAYERS[case][1]


@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
def test_bytes_under_a_digest_that_is_not_theirs_prove_nothing(
    proved: dict[str, Any], what: str
) -> None:
    assert failed(proved[f"damaged-{what}"]) == "digest_mismatch"


def test_an_image_that_docker_has_with_other_layers_is_not_this_one(
    proved: dict[str, Any],
) -> None:
    assert failed(proved["other-in-docker"]) == "damaged_engine_store"


def test_an_image_that_docker_does_not_have_gets_no_names(proved: dict[str, Any]) -> None:
    assert (proved["not-in-docker"]["status"], proved["not-in-docker"]["digests"]) == ("absent", [])
