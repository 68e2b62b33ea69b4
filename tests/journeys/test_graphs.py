"""How far a small document may lead: every command follows indexes the same bounded way."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.journeys.test_sync import offer, statuses, sync
from tests.support import images
from tests.support.command import ocimirror
from tests.support.dockerarchives import Saved, flat
from tests.support.images import Builder, Graph

NAME = "reg.example.com/team/app:1.0"
OTHER_PLATFORM = {"os": "linux", "architecture": "s390x"}


def nested(levels: int, repeats: int, *, artifact: bool = False) -> Graph:
    """Make indexes of which each names the one below so many times: `repeats ** levels` ways."""
    builder = Builder()
    if artifact:
        layer = builder.blob(b"a note", "text/plain")
        node = images.add_artifact(builder, "application/vnd.example.note", [layer])
    else:
        node = images.add_image(builder, "app")
    for _ in range(levels):
        node = builder.index([node] * repeats)
    return builder.graph(node)


@pytest.mark.bar("R41")
@pytest.mark.parametrize(
    "command",
    [
        ("verify", "{layout}"),
        ("list", "{layout}"),
        ("inspect", "oci:{layout}:{name}"),
        ("gc", "{layout}"),
        ("copy", "oci:{layout}:{name}", "oci:{out}"),
        ("copy", "oci:{layout}:{name}", "oci-archive:{out}", "--profile", "docker"),
        ("copy", "oci:{layout}:{name}", "docker-archive:{out}"),
    ],
    ids=" ".join,
)
def test_what_is_named_in_billions_of_ways_is_read_once(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    layout = images.write_layout(tmp_path / "layout", {NAME: nested(7, 30)})
    line = [word.format(layout=layout, name=NAME, out=tmp_path / "out") for word in command]
    done = ocimirror(*line, timeout_s=60)
    assert done.code == 0, done.stderr


@pytest.mark.bar("R41")
def test_artifacts_that_are_named_in_billions_of_ways_are_told_from_images(tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", {NAME: nested(7, 30, artifact=True)})
    done = ocimirror("load", layout, "--into", "podman", timeout_s=60)
    assert done.code == 4
    assert "engines run images, not artifacts" in done.stderr


@pytest.mark.bar("R41")
def test_more_manifests_than_any_image_has_are_refused_before_they_are_read(tmp_path: Path) -> None:
    builder = Builder()
    parts = []
    for part in range(5):
        numbers = range(part * 20_100, (part + 1) * 20_100)
        digests = (f"sha256:{number:064x}" for number in numbers)
        children = [{"mediaType": images.OCI_MANIFEST, "digest": d, "size": 2} for d in digests]
        parts.append(builder.index(children))
    graph = builder.graph(builder.index(parts))
    layout = images.write_layout(tmp_path / "layout", {NAME: graph})
    index = json.loads((layout / "index.json").read_text())
    tag = {"org.opencontainers.image.ref.name": "lost"}
    lost = {"mediaType": images.OCI_MANIFEST, "digest": f"sha256:{0:064x}", "size": 2}
    index["manifests"].append({**lost, "annotations": tag})
    (layout / "index.json").write_text(json.dumps(index))

    verified = ocimirror("verify", layout, "--json")
    assert verified.code == 5
    bomb, missing = verified.document["faults"]
    assert (bomb["image"], missing["image"]) == (NAME, "lost")
    assert "more than 100000 manifests" in bomb["message"]
    assert missing["kind"] == "missing"
    assert verified.document["checked"]["manifests"] < 10


def test_an_image_that_an_index_names_twice_is_one_image(tmp_path: Path) -> None:
    builder = Builder()
    image = images.add_image(builder, "app", OTHER_PLATFORM)
    named = {**image, "platform": OTHER_PLATFORM}
    layout = images.write_layout(
        tmp_path / "layout", {NAME: builder.graph(builder.index([named, named]))}
    )
    done = ocimirror("copy", f"oci:{layout}:{NAME}", f"docker-archive:{tmp_path}/out.tar")
    assert done.code == 0, done.stderr


def test_two_images_for_one_platform_are_not_one_image(tmp_path: Path) -> None:
    builder = Builder()
    two = [images.add_image(builder, name, OTHER_PLATFORM) for name in ("app", "other")]
    named = [{**image, "platform": OTHER_PLATFORM} for image in two]
    layout = images.write_layout(tmp_path / "layout", {NAME: builder.graph(builder.index(named))})
    out = tmp_path / "out.tar"
    done = ocimirror(
        "copy", f"oci:{layout}:{NAME}", f"docker-archive:{out}", "--platform", "linux/s390x"
    )
    assert (done.code, out.exists()) == (2, False)
    assert "linux/s390x is 2 images" in done.stderr


def test_an_image_that_is_named_for_two_platforms_is_found_for_each(tmp_path: Path) -> None:
    builder = Builder()
    image = images.add_image(builder, "scripts")
    platforms = ({"os": "linux", "architecture": "amd64"}, OTHER_PLATFORM)
    index = builder.index([{**image, "platform": platform} for platform in platforms])
    layout = images.write_layout(tmp_path / "layout", {NAME: builder.graph(index)})
    for number, platform in enumerate(("linux/amd64", "linux/s390x")):
        archive = f"docker-archive:{tmp_path}/{number}.tar"
        done = ocimirror("copy", f"oci:{layout}:{NAME}", archive, "--platform", platform)
        assert done.code == 0, (platform, done.stderr)


def test_what_one_image_has_too_deep_belongs_to_another_all_the_same(tmp_path: Path) -> None:
    builder = Builder()
    image = images.add_image(builder, "app")
    report = images.add_artifact(builder, "application/vnd.example.report", [], subject=image)
    node = inner = builder.index([image, report])
    for _ in range(8):
        node = builder.index([node])
    graphs = {"deep": builder.graph(node), "inner": builder.graph(inner)}
    layout = images.write_layout(tmp_path / "layout", graphs)

    shown = ocimirror("inspect", f"oci:{layout}:inner", "--json").document
    found = [each["digest"] for each in shown["manifests"][0]["referrers"]]
    assert found == [report["digest"]]
    assert ocimirror("inspect", f"oci:{layout}:deep").code == 5

    layer = json.loads(builder.manifests[image["digest"]][1])["layers"][0]["digest"]
    images.blob_path(layout, layer).unlink()
    faults = ocimirror("verify", layout, "--json").document["faults"]
    assert {(fault["kind"], fault["image"]) for fault in faults} == {
        ("malformed", "deep"),
        ("missing", "inner"),
    }


@pytest.mark.parametrize(("indexes", "code"), [(7, 0), (8, 9)])
def test_originals_are_looked_for_as_deep_as_they_can_be_copied(
    indexes: int, code: int, tmp_path: Path
) -> None:
    graph = images.deep_index(indexes)
    image = next(json.loads(raw) for _, raw in graph.manifests.values() if b'"layers"' in raw)
    layers = tuple(gzip.decompress(graph.blobs[each["digest"]]) for each in image["layers"])
    saved = Saved(graph.blobs[image["config"]["digest"]], layers)
    archive = flat(saved, [NAME]).write(tmp_path / "saved.tar")
    layout = images.write_layout(tmp_path / "layout", {NAME: graph})
    done = ocimirror("copy", archive, f"oci:{tmp_path}/out", "--with", layout, "--json")
    assert done.code == code, done.stderr
    if code == 0:
        assert done.document["images"][0]["digest"] == graph.root


@pytest.mark.parametrize("indexes", [7, 8])
def test_prune_deletes_nothing_where_an_index_leads_too_far(
    indexes: int, registry, docker_registry, repository, tmp_path: Path
) -> None:
    file = tmp_path / "sync.yaml"
    source, target = (f"{at.host}/{repository}" for at in (registry, docker_registry))
    file.write_text(f"mirrors:\n  - from: {source}\n    to: {target}\n    prune: {{grace: 0s}}\n")
    for tag, image in (("1.0", images.single()), ("2.0", images.multi())):
        offer(registry, repository, tag, image)
    assert sync(file).code == 0
    images.push(docker_registry, repository, "deep", images.deep_index(indexes))
    registry.delete_manifest(repository, "2.0")
    result = sync(file)
    if indexes == 7:
        assert (result.code, "pruned" in statuses(result).values()) == (0, True)
    else:
        assert (result.code, "pruned" in statuses(result).values()) == (5, False)
        assert "nested deeper" in result.raw.decode()
