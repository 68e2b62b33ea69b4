"""The content that tests use is what it says: digests, names, and what real tools make of it."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tarfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from fixtures import make
from tests.support import evil, images, strategies
from tests.support.images import Graph
from tests.support.programs import require_program
from tests.support.registry import StrictRegistry
from tests.support.witness import Registry, WitnessError

NAME = "registry.example.com/team/app:v1"
SINGLE = "sha256:be54d4c330d05138a11f3a2b21d60912e8f8c3f3ab0a3748ed383512bfc60a57"


def children_of(raw: bytes) -> list[dict[str, Any]]:
    """Return the descriptors that a manifest names, `subject` apart."""
    document = json.loads(raw)
    config = [document["config"]] if "config" in document else []
    return [*config, *document.get("layers", []), *document.get("manifests", [])]


def assert_closed(graph: Graph) -> None:
    """Check digests, sizes, order and completeness, and that nothing is there for no reason."""
    for digest, data in graph.contents.items():
        assert images.digest_of(data, digest.partition(":")[0]) == digest
    seen = set(graph.blobs)
    reached = {graph.root}
    for digest, (_, raw) in graph.manifests.items():
        for child in children_of(raw):
            reached.add(child["digest"])
            if child["digest"] not in graph.absent:
                assert child["digest"] in seen, "a child comes after its parent, or never"
                assert child["size"] == len(graph.contents[child["digest"]])
        seen.add(digest)
    assert reached == graph.contents.keys() | graph.absent
    assert graph.root_media_type == graph.manifests[graph.root][0]
    assert list(graph.manifests)[-1] == graph.root


def run(*command: str | Path) -> str:
    """Run a tool; return what it says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", images.ALL)
def test_every_graph_is_closed_and_its_digests_recompute(name: str) -> None:
    assert_closed(images.ALL[name]())


def test_other_graphs_are_closed() -> None:
    for graph in [
        images.deep_index(9),
        evil.index_bomb(20, 10),
        images.decompression_bomb(10**6),
        images.with_subject(images.multi(), 3),
        *images.shared_layers(3, 4, 5000, 0.5),
    ]:
        assert_closed(graph)
    assert images.schema1().raw.startswith(b'{\n   "schemaVersion": 1,')


def test_the_bytes_are_the_same_on_every_machine() -> None:
    assert images.single().root == SINGLE


def test_odd_bytes_change_when_they_are_encoded_anew() -> None:
    raw = images.odd_bytes().raw
    document = json.loads(raw)
    assert "mediaType" not in document
    for indent in (None, 1, 2, 3, "\t"):
        assert json.dumps(document, indent=indent).encode() != raw
    assert b"\t" in raw
    assert b"\r\n" in raw
    assert raw.endswith(b"\n")


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65_535, 65_536, 131_070, 1_000_000])
def test_shared_layers_have_their_exact_size(size: int) -> None:
    first, second = images.shared_layers(2, 3, size, 0.67)
    document = json.loads(first.raw)
    config = json.loads(first.blobs[document["config"]["digest"]])
    assert [layer["size"] for layer in document["layers"]] == [size] * 3
    for layer, diff_id in zip(document["layers"], config["rootfs"]["diff_ids"], strict=True):
        data = first.blobs[layer["digest"]]
        tar = gzip.decompress(data) if size >= 4096 else data
        assert images.digest_of(tar) == diff_id
    if size > 1:
        assert len(first.blobs.keys() & second.blobs.keys()) == 2


def test_a_layout_names_its_images_as_containerd_does(tmp_path: Path) -> None:
    referrer = images.with_subject()
    images.write_layout(
        tmp_path, {NAME: images.single(), "localhost:5000/b@sha256:00": images.multi()}, [referrer]
    )
    first, second, third = json.loads((tmp_path / "index.json").read_bytes())["manifests"]
    assert first["annotations"] == {
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": "v1",
    }
    assert second["annotations"]["org.opencontainers.image.ref.name"] == "@sha256:00"
    assert third == referrer.descriptor
    for digest, data in {**images.multi().contents, **referrer.contents}.items():
        assert images.blob_path(tmp_path, digest).read_bytes() == data


@pytest.mark.parametrize("name", ["single", "multi"])
def test_skopeo_reads_and_verifies_our_layout(name: str, tmp_path: Path) -> None:
    require_program("skopeo", "skopeo")
    graph = images.ALL[name]()
    layout = images.write_layout(tmp_path / "layout", {NAME: graph})
    target = f"dir:{tmp_path / 'copy'}"
    run("skopeo", "copy", "--all", "--preserve-digests", f"oci:{layout}:v1", target)
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == graph.raw


def test_umoci_unpacks_our_image(tmp_path: Path) -> None:
    require_program("umoci", "umoci")
    layout = images.write_layout(tmp_path / "layout", {NAME: images.single()})
    run("umoci", "unpack", "--rootless", "--image", f"{layout}:v1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/etc/os-release").read_text().startswith("NAME=")


def test_umoci_lists_our_index(tmp_path: Path) -> None:
    require_program("umoci", "umoci")
    layout = images.write_layout(tmp_path, {NAME: images.multi()})
    assert run("umoci", "ls", "--layout", layout) == "v1\n"


def test_oci_image_tool_validates_our_image(tmp_path: Path) -> None:
    require_program("oci-image-tool", "oci-image-tool")
    layout = images.write_layout(tmp_path, {NAME: images.single()})
    run("oci-image-tool", "validate", "--type", "image", "--ref", "name=v1", layout)


@pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not among the packages of the tests")
def test_zstd_reads_our_frames(tmp_path: Path) -> None:
    data = images.noise("zstd", 300_000)
    (tmp_path / "data.zst").write_bytes(images.zstd_stored(data))
    run("zstd", "-d", "-q", tmp_path / "data.zst")
    assert (tmp_path / "data").read_bytes() == data


def assert_kept(registry: Registry, repository: str, graph: Graph) -> None:
    """Check that a registry gives every byte back."""
    assert registry.get_manifest(repository, "v1") == graph.raw
    for digest, (media_type, raw) in graph.manifests.items():
        answer = registry.manifest_answer(repository, digest)
        assert (answer.body, answer.headers["Content-Type"]) == (raw, media_type)
    for digest, data in graph.blobs.items():
        assert registry.get_blob(repository, digest) == data


@pytest.mark.parametrize("name", images.DOCKER_REGISTRY_OK)
def test_docker_registry_keeps(name: str, docker_registry: Registry, repository: str) -> None:
    graph = images.ALL[name]()
    images.push(docker_registry, repository, "v1", graph)
    assert_kept(docker_registry, repository, graph)


@pytest.mark.parametrize("name", sorted(images.ALL.keys() - set(images.DOCKER_REGISTRY_OK)))
def test_docker_registry_does_not_keep(
    name: str, docker_registry: Registry, repository: str
) -> None:
    graph = images.ALL[name]()
    with pytest.raises(WitnessError):
        images.push(docker_registry, repository, "v1", graph)
        assert_kept(docker_registry, repository, graph)


@pytest.mark.parametrize("name", images.ALL)
def test_our_strict_registry_keeps(name: str, registry: StrictRegistry) -> None:
    graph = images.ALL[name]()
    # It looks for the children of an index among manifests only; these have some among the blobs.
    registry.options.sparse = name in {"unknown_child", "buildkit_cache"}
    images.push(registry, "test/all", "v1", graph)
    assert_kept(registry, "test/all", graph)


@given(graph=strategies.graphs())
@settings(max_examples=50, deadline=None)
def test_any_generated_graph_is_closed(graph: Graph) -> None:
    assert_closed(graph)
    assert max(len(data) for data in (b"", *graph.blobs.values())) <= strategies.LAYER_BYTES


@given(graph=strategies.graphs(docker_registry=True))
@settings(max_examples=20, deadline=None)
def test_docker_registry_keeps_any_graph_generated_for_it(
    docker_registry: Registry, graph: Graph
) -> None:
    repository = f"test/{uuid.uuid4().hex}"
    images.push(docker_registry, repository, "v1", graph)
    assert_kept(docker_registry, repository, graph)


# fixtures/


def test_the_fixtures_are_what_make_makes() -> None:
    made = {**make.evil_manifests(), **make.evil_archives(), **make.evil_docker_archives()}
    assert {path.name for path in make.EVIL.iterdir()} == made.keys()
    for name, (_, data) in made.items():
        assert (make.EVIL / name).read_bytes() == data, name
    for name, (_, build) in make.HAND_MADE.items():
        assert (make.IMAGES / name).read_bytes() == build(), name


def test_the_readme_has_a_line_for_each_fixture() -> None:
    readme = (make.HERE / "README.md").read_text()
    for path in [*make.EVIL.iterdir(), *make.IMAGES.iterdir()]:
        assert f"\n- `{path.name}`: " in readme


def test_the_evil_archives_are_good_but_for_one_thing(tmp_path: Path) -> None:
    require_program("skopeo", "skopeo")
    (tmp_path / "good.tar").write_bytes(make.archive())
    raw = run("skopeo", "inspect", "--raw", f"oci-archive:{tmp_path / 'good.tar'}:v1")
    assert raw.encode() == make.GRAPH.raw
    assert children_of(make.text(make.manifest()))[1]["digest"] == images.digest_of(make.LAYER)


def test_the_evil_tables_name_files_that_exist(tmp_path: Path) -> None:
    layouts = evil.evil_layouts(tmp_path)
    archives = evil.EVIL_ARCHIVES.keys() | evil.EVIL_DOCKER_ARCHIVES.keys()
    assert archives >= evil.MAY_PASS
    assert evil.EVIL_MANIFESTS.keys() >= evil.REFUSED_ON_COPY
    assert evil.EVIL_MANIFESTS.keys() == evil.MEDIA_TYPES.keys()
    assert archives | layouts.keys() >= evil.SHOWN_ESCAPED
    assert archives | evil.EVIL_MANIFESTS.keys() >= evil.EXPECTED_WORDS.keys()


@pytest.mark.parametrize("path", sorted(make.IMAGES.iterdir()), ids=lambda path: path.name)
def test_the_blobs_of_a_tools_archive_have_their_digests(path: Path) -> None:
    blobs = 0
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is not None and "blobs/sha256/" in member.name:
                assert images.digest_of(stream.read()) == f"sha256:{Path(member.name).name}"
                blobs += 1
    assert blobs or "docker-archive" in path.name


def test_the_archives_of_skopeo_and_containerd_hold_our_image() -> None:
    for name in ("skopeo-oci-archive.tar", "ctr-export.tar"):
        with tarfile.open(make.IMAGES / name) as archive:
            stream = archive.extractfile("index.json")
            assert stream is not None
            (entry,) = json.load(stream)["manifests"]
        assert entry["digest"] == images.multi().root


def test_the_image_fixtures_stay_small() -> None:
    assert sum(path.stat().st_size for path in make.IMAGES.iterdir()) < 1 << 20
