"""`copy docker-archive: … --with`: an image gets its original digest back, proved, or does not."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.dockerarchives import Saved, docker_since_25, flat, platform_parts, saved
from tests.support.engines import Dockerd, run_dockerd, short_directory
from tests.support.faults import Flip, Rule
from tests.support.judge import contents_of, faults_of, names_of
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry

NAME = "reg.example.com/team/app:1.0"
MULTI = images.multi()
CONFIG, LAYERS = platform_parts(MULTI, "amd64")
SAVED = Saved(MULTI.blobs[CONFIG], tuple(gzip.decompress(MULTI.blobs[d]) for d in LAYERS))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What an engine saves of the amd64 image: its config and plain layers."""
    return flat(SAVED, [NAME]).write(tmp_path / "saved.tar")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """The layout that the image came from."""
    return images.write_layout(tmp_path / "layout", {NAME: MULTI})


def restored(archive: Path, *originals: str | Path, to: str = "out") -> Result:
    options = [word for place in originals for word in ("--with", str(place))]
    return ocimirror("copy", archive, f"oci:{archive.parent / to}", *options, "--json")


def image_of(result: Result) -> dict[str, Any]:
    assert result.code == 0, result.stderr
    (image,) = result.document["images"]
    return dict(image)


def test_index_and_manifests_are_the_original_ones_again(
    tmp_path: Path, archive: Path, layout: Path
) -> None:
    image = image_of(restored(archive, layout))
    assert image["digest"] == MULTI.root
    assert (image["synthesised"], image["sparse"]) == (False, False)
    assert names_of(tmp_path / "out") == {NAME: MULTI.root}
    assert contents_of(tmp_path / "out") == MULTI.contents
    assert f"image ID {CONFIG}: original" in image["notes"]
    assert f"index {MULTI.root}, manifest" in image["notes"][-1]


def test_what_docker_28_made_up_is_replaced_too(tmp_path: Path, layout: Path) -> None:
    archive = docker_since_25(SAVED, NAME).write(tmp_path / "saved.tar")
    result = ocimirror(
        "copy", f"docker-archive:{archive}", f"oci:{tmp_path}/out", "--with", layout, "--json"
    )
    assert image_of(result)["digest"] == MULTI.root


def test_where_other_platforms_are_absent_the_image_is_sparse(
    tmp_path: Path, archive: Path, layout: Path
) -> None:
    arguments = ("copy", layout, f"oci:{tmp_path}/sparse", "--platform", "linux/amd64")
    assert ocimirror(*arguments).code == 0
    image = image_of(restored(archive, f"oci:{tmp_path}/sparse"))
    assert (image["digest"], image["sparse"]) == (MULTI.root, True)
    assert ocimirror("verify", tmp_path / "out").code == 0


def test_other_platforms_that_have_lost_layers_stay_absent(
    tmp_path: Path, archive: Path, layout: Path
) -> None:
    for architecture in ("arm64", "arm"):
        layer = platform_parts(MULTI, architecture)[1][-1]
        images.blob_path(layout, layer).unlink()
    image = image_of(restored(archive, layout))
    assert (image["digest"], image["sparse"]) == (MULTI.root, True)
    assert ocimirror("verify", tmp_path / "out").code == 0


def test_layers_that_only_the_archive_has_are_taken_from_there(
    tmp_path: Path, layout: Path
) -> None:
    archive = tmp_path / "ours.tar"
    options = ("--platform", "linux/amd64")
    assert ocimirror("copy", layout, f"docker-archive:{archive}", *options).code == 0
    for layer in LAYERS:
        images.blob_path(layout, layer).unlink()
    image = image_of(restored(archive, layout))
    assert image["digest"] == MULTI.root
    assert set(LAYERS) < set(contents_of(tmp_path / "out"))


def test_layers_that_only_a_registry_has_are_fetched_once_for_a_docker_archive(
    tmp_path: Path, archive: Path, registry: StrictRegistry, proxy: Callable[..., Proxy]
) -> None:
    """In the run, where a fault is met with another try; not again while the tar is written."""
    images.push(registry, "team/app", "1.0", MULTI)
    again = Rule("GET", f"/blobs/{LAYERS[0]}", Flip(at=3), nth=2)
    place = f"docker://{proxy(registry, again).host}/team/app:1.0"
    result = ocimirror("copy", archive, f"docker-archive:{tmp_path}/out.tar", "--with", place)
    assert (result.code, again.seen) == (0, 1), result.stderr


def test_a_registry_gives_the_original_back(
    tmp_path: Path, archive: Path, registry: StrictRegistry
) -> None:
    images.push(registry, "team/app", "1.0", MULTI)
    image = image_of(restored(archive, f"docker://{registry.host}/team/app:1.0"))
    assert image["digest"] == MULTI.root
    assert contents_of(tmp_path / "out") == MULTI.contents


def test_the_original_may_have_another_name_there(tmp_path: Path, archive: Path) -> None:
    other = images.write_layout(
        tmp_path / "other", {"mirror.example.com/x:9": MULTI, "y.example.com/z:1": images.single()}
    )
    assert image_of(restored(archive, other))["digest"] == MULTI.root
    assert names_of(tmp_path / "out") == {NAME: MULTI.root}


def test_a_manifest_without_an_index_is_restored(tmp_path: Path) -> None:
    graph = images.single()
    document = json.loads(graph.raw)
    config = graph.blobs[document["config"]["digest"]]
    tars = [gzip.decompress(graph.blobs[layer["digest"]]) for layer in document["layers"]]
    archive = flat(Saved(config, tuple(tars)), [NAME]).write(tmp_path / "saved.tar")
    layout = images.write_layout(tmp_path / "layout", {NAME: graph})
    assert image_of(restored(archive, layout))["digest"] == graph.root


def test_what_refers_to_the_original_comes_along(tmp_path: Path, archive: Path) -> None:
    signature = images.with_subject(MULTI)
    layout = images.write_layout(tmp_path / "layout", {NAME: MULTI}, unnamed=[signature])
    assert image_of(restored(archive, layout))["referrers"] == 1
    assert signature.root in contents_of(tmp_path / "out")


def test_an_archive_with_the_original_has_nothing_to_restore(tmp_path: Path, layout: Path) -> None:
    archive = tmp_path / "both.tar"
    options = ("--profile", "docker", "--platform", "linux/amd64")
    assert ocimirror("copy", layout, f"oci-archive:{archive}", *options).code == 0
    source = f"docker-archive:{archive}"
    result = ocimirror("copy", source, f"oci:{tmp_path}/out", "--with", layout, "--json")
    assert "nothing to restore" in image_of(result)["notes"][-1]


# --- not proved ----------------------------------------------------------------------------------


def assert_not_restored(result: Result, archive: Path, *words: str) -> None:
    assert result.code == 9, result.stderr
    error = result.document["error"]
    assert error["code"] == "digest_not_preserved"
    assert all(word in error["message"] for word in words), error["message"]
    assert not (archive.parent / "out").exists()


def test_another_image_is_not_the_original(tmp_path: Path, archive: Path) -> None:
    other = images.write_layout(tmp_path / "other", {NAME: images.single()})
    assert_not_restored(restored(archive, other), archive, CONFIG, str(other))


def test_a_manifest_that_was_made_is_not_the_original(tmp_path: Path, archive: Path) -> None:
    assert restored(archive, to="made").code == 0
    assert_not_restored(restored(archive, f"oci:{tmp_path}/made"), archive, CONFIG)
    shutil.copytree(tmp_path / "made", tmp_path / "unmarked")
    index = tmp_path / "unmarked" / "index.json"
    document = json.loads(index.read_bytes())
    del document["manifests"][0]["annotations"]["dev.ocimirror.manifest"]
    index.write_text(json.dumps(document))
    assert_not_restored(restored(archive, f"oci:{tmp_path}/unmarked"), archive, CONFIG)


def test_a_layer_that_is_nowhere_is_named(tmp_path: Path, archive: Path, layout: Path) -> None:
    images.blob_path(layout, LAYERS[1]).unlink()
    assert_not_restored(restored(archive, layout), archive, LAYERS[1], "neither in")


def test_a_manifest_with_other_layers_is_not_the_original(tmp_path: Path) -> None:
    """The config is the image's, and the manifest is one layer short of it."""
    graph = images.single()
    document = json.loads(graph.raw)
    builder = images.Builder()
    config = builder.blob(graph.blobs[document["config"]["digest"]], images.OCI_CONFIG)
    layer = document["layers"][0]
    builder.blob(graph.blobs[layer["digest"]], layer["mediaType"])
    short = {**document, "config": config, "layers": [layer]}
    forged = builder.graph(builder.manifest(images.compact(short), images.OCI_MANIFEST))
    layout = images.write_layout(tmp_path / "layout", {NAME: forged})
    tars = [gzip.decompress(graph.blobs[layer["digest"]]) for layer in document["layers"]]
    raw = graph.blobs[config["digest"]]
    archive = flat(Saved(raw, tuple(tars)), [NAME]).write(tmp_path / "saved.tar")
    assert_not_restored(restored(archive, layout), archive, "1 layers")


def test_an_original_that_is_not_there_is_not_found(tmp_path: Path, archive: Path) -> None:
    assert restored(archive, f"oci:{tmp_path}/nothing").code == 4


def test_a_damaged_layer_of_the_original_is_an_integrity_error(
    tmp_path: Path, archive: Path, layout: Path
) -> None:
    blob = images.blob_path(layout, LAYERS[1])
    blob.write_bytes(blob.read_bytes()[::-1])
    result = restored(archive, layout)
    assert result.code == 5
    assert names_of(tmp_path / "out") == {}


@pytest.mark.parametrize("number", [0, -1], ids=["manifest", "index"])
def test_a_damaged_manifest_of_the_original_proves_nothing(
    tmp_path: Path, archive: Path, layout: Path, number: int
) -> None:
    blob = images.blob_path(layout, list(MULTI.manifests)[number])
    raw = blob.read_bytes()
    blob.write_bytes(raw[:-1] + (b" " if raw[-1:] == b"\n" else b"\n"))
    result = restored(archive, layout)
    assert result.code == 9, result.stderr
    assert not (tmp_path / "out").exists()


# --- the whole way -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    with run_dockerd(short_directory(tmp_path_factory, "d")) as daemon:
        yield daemon


def test_what_docker_saved_gets_its_digest_back(
    tmp_path: Path, layout: Path, dockerd: Dockerd
) -> None:
    loaded, archive = tmp_path / "load.tar", tmp_path / "saved.tar"
    options = ("--platform", "linux/amd64")
    assert ocimirror("copy", layout, f"docker-archive:{loaded}", *options).code == 0
    dockerd.docker("load", "-i", str(loaded))
    dockerd.docker("save", "-o", str(archive), NAME)
    assert image_of(restored(archive, to="made"))["digest"] != MULTI.root
    assert image_of(restored(archive, layout))["digest"] == MULTI.root
    assert faults_of(tmp_path / "out") == []
    assert saved().image_id != CONFIG


# --- what is said to be the original -------------------------------------------------------------


def archive_with(tmp_path: Path, raw: bytes) -> Path:
    """What `podman save` and others write: a layout with a manifest of their own."""
    graph = images.single()
    builder = images.Builder()
    builder.blobs.update(graph.blobs)
    root = builder.manifest(raw, images.OCI_MANIFEST)
    return images.write_layout(tmp_path / "theirs", {NAME: builder.graph(root)})


def test_with_proves_by_the_other_place_and_not_by_the_looks(tmp_path: Path) -> None:
    single = images.single()
    document = json.loads(single.raw)
    theirs = archive_with(tmp_path, images.compact(document))
    place = images.write_layout(tmp_path / "place", {NAME: single})
    other = images.write_layout(tmp_path / "other", {NAME: MULTI})

    result = ocimirror("copy", theirs, f"oci:{tmp_path}/out", "--with", place, "--json")
    refused = ocimirror("copy", theirs, f"oci:{tmp_path}/no", "--with", other, "--json")
    same = ocimirror("copy", place, f"oci:{tmp_path}/same", "--with", place, "--json")

    assert image_of(result)["digest"] == single.root
    assert "proved and restored" in image_of(result)["notes"][-1]
    assert refused.code == 9
    assert "nothing to restore" in image_of(same)["notes"][-1]


def test_an_index_is_confirmed_or_refused(tmp_path: Path, layout: Path) -> None:
    other = images.write_layout(tmp_path / "other", {NAME: images.single()})

    same = ocimirror("copy", layout, f"oci:{tmp_path}/same", "--with", layout, "--json")
    refused = ocimirror("copy", layout, f"oci:{tmp_path}/no", "--with", other, "--json")

    assert image_of(same)["digest"] == MULTI.root
    assert refused.code == 9


def test_new_is_cleared_once_a_registry_returns_the_digest(
    tmp_path: Path, archive: Path, registry: StrictRegistry
) -> None:
    made = ocimirror("copy", archive, f"oci:{tmp_path}/out", "--json")
    assert image_of(made)["synthesised"]
    target = f"docker://{registry.host}/team/app:1.0"
    assert ocimirror("copy", f"oci:{tmp_path}/out", target).code == 0

    again = ocimirror("copy", target, f"oci:{tmp_path}/out:{NAME}", "--json")
    confirmed = ocimirror("copy", archive, f"oci:{tmp_path}/new", "--with", target, "--json")

    for image in (image_of(again), image_of(confirmed)):
        assert not image["synthesised"]
        assert "NEW" not in str(image["notes"])
    for out in ("out", "new"):
        assert "NEW" not in ocimirror("list", tmp_path / out).stdout


@pytest.mark.parametrize("place", ["layout", "registry"])
def test_an_index_is_restored_above_a_manifest_that_is_as_it_would_be_made(
    place: str, tmp_path: Path, archive: Path, registry: StrictRegistry
) -> None:
    made = image_of(ocimirror("copy", archive, f"oci:{tmp_path}/made:{NAME}", "--json"))["digest"]
    blobs = contents_of(tmp_path / "made")
    manifest = blobs.pop(made)
    child = images.describe(manifest, images.OCI_MANIFEST)
    index = images.compact(
        {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [child]}
    )
    manifests = {
        made: (images.OCI_MANIFEST, manifest),
        images.digest_of(index): (images.OCI_INDEX, index),
    }
    graph = images.Graph(blobs, manifests, images.digest_of(index), images.OCI_INDEX)
    originals: str | Path = images.write_layout(tmp_path / "layout", {NAME: graph})
    if place == "registry":
        images.push(registry, "app", "1.0", graph)
        originals = f"docker://{registry.host}/app:1.0"

    image = image_of(restored(archive, originals))

    assert (image["digest"], image["synthesised"]) == (graph.root, False)
    assert contents_of(tmp_path / "out") == graph.contents
