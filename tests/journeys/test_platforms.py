"""--platform: the index keeps its bytes, the other platforms stay absent, and all know why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.registry import StrictRegistry
from tests.support.witness import Registry

ARM64 = ("--platform", "linux/arm64")
PLATFORMS = images.PLATFORMS


@pytest.fixture
def name(docker_registry: Registry, repository: str) -> str:
    images.push(docker_registry, repository, "1.0", images.multi())
    return f"{docker_registry.host}/{repository}:1.0"


def platforms_in(layout: Path) -> dict[str, bool]:
    """Return which platforms' manifests are there."""
    document = ocimirror("inspect", layout, "--json").document
    return {m["platform"]: m["present"] for m in document["manifests"] if m["platform"]}


def image_of(result: Result) -> dict[str, object]:
    return result.document["images"][0]


def test_a_sparse_pull_keeps_the_index_and_takes_one_platform_with_its_attestation(
    name: str, tmp_path: Path
) -> None:
    graph = images.multi()

    pulled = ocimirror("pull", name, tmp_path / "layout", "--platform", "linux/amd64", "--json")

    assert image_of(pulled)["digest"] == graph.root
    assert image_of(pulled)["sparse"] is True
    present = platforms_in(tmp_path / "layout")
    assert present == {
        "linux/amd64": True,
        "linux/arm64": False,
        "linux/arm/v7": False,
        "unknown/unknown": True,
    }


def test_verify_list_and_later_runs_know_a_sparse_image_from_a_damaged_one(
    name: str, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    assert ocimirror("pull", name, layout, *ARM64).code == 0

    assert ocimirror("verify", layout).code == 0
    listed = ocimirror("list", layout, "--json")
    assert listed.document["images"][0]["platforms"] == ["linux/arm64"]
    again = ocimirror("pull", name, layout, *ARM64, "--json")
    assert image_of(again)["status"] == "unchanged"

    manifest = json.loads(images.multi().raw)["manifests"]
    arm64 = next(m for m in manifest if m["platform"]["architecture"] == "arm64")
    (layout / "blobs" / arm64["digest"].replace(":", "/")).unlink()
    damaged = ocimirror("verify", layout, "--json")
    assert [fault["digest"] for fault in damaged.document["faults"]] == [arm64["digest"]]


def test_another_platform_joins_and_all_make_it_whole(name: str, tmp_path: Path) -> None:
    layout = tmp_path / "layout"

    def annotation() -> str | None:
        (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
        return entry["annotations"].get("dev.ocimirror.platforms")

    ocimirror("pull", name, layout, *ARM64)
    assert annotation() == "linux/arm64"
    ocimirror("pull", name, layout, "--platform", "linux/amd64")
    assert annotation() == "linux/arm64,linux/amd64"
    assert ocimirror("verify", layout).code == 0
    ocimirror("pull", name, layout)
    assert annotation() is None
    assert all(platforms_in(layout).values())


def test_arm_means_v7_and_a_platform_that_is_not_there_is_exit_4(name: str, tmp_path: Path) -> None:
    assert ocimirror("pull", name, tmp_path / "a", "--platform", "linux/arm").code == 0
    absent = ocimirror("pull", name, tmp_path / "b", "--platform", "linux/s390x", "--json")

    assert absent.code == 4
    assert "linux/arm64" in image_of(absent)["error"]["diagnostics"]  # type: ignore[index]


@pytest.fixture
def sparse(name: str, tmp_path: Path) -> Path:
    assert ocimirror("pull", name, tmp_path / "sparse", *ARM64).code == 0
    return tmp_path / "sparse"


def test_a_registry_that_takes_sparse_indexes_gets_one(
    sparse: Path, registry: StrictRegistry
) -> None:
    registry.options.sparse = True
    graph = images.multi()

    pushed = ocimirror("push", sparse, registry.host, "--json")

    assert pushed.code == 0, pushed.stderr
    assert "may refuse" in pushed.stderr
    repository = str(image_of(pushed)["destination"]).partition("/")[2].partition("/")[2]
    repository = repository.split("/", 1)[1].rpartition(":")[0]
    assert registry.get_manifest(repository, "1.0") == graph.raw


@pytest.mark.parametrize("options", [("--platform", "linux/arm/v7"), ()])
def test_what_a_sparse_copy_left_out_comes_later(
    options: tuple[str, ...], name: str, registry: StrictRegistry
) -> None:
    registry.options.sparse = True
    target = f"docker://{registry.host}/app:1.0"
    assert ocimirror("copy", f"docker://{name}", target, *ARM64).code == 0
    assert image_of(ocimirror("copy", f"docker://{name}", target, *ARM64, "--json"))["status"] == (
        "unchanged"
    )

    copied = ocimirror("copy", f"docker://{name}", target, *options, "--json")

    assert (copied.code, image_of(copied)["status"]) == (0, "copied")
    for child in json.loads(images.multi().raw)["manifests"]:
        wanted = not options or child["platform"]["architecture"] in ("arm", "arm64")
        assert registry.has_manifest("app", child["digest"]) == wanted
    again = ocimirror("copy", f"docker://{name}", target, *options, "--json")
    assert image_of(again)["status"] == "unchanged"


def test_children_are_asked_for_once_a_repository_or_if_one_lacks_some(
    registry: StrictRegistry, tmp_path: Path
) -> None:
    graphs = {}
    for tag in ("1", "2", "3"):
        builder = images.Builder()
        children = [images.add_image(builder, (tag, p["architecture"]), p) for p in PLATFORMS]
        graphs[f"reg.example.com/app:{tag}"] = builder.graph(builder.index(children))
    images.write_layout(tmp_path / "layout", graphs)
    lacking = [json.loads(graph.raw)["manifests"][0]["digest"] for graph in graphs.values()][:2]
    registry.options.sparse = True

    def push() -> tuple[list[str], int]:
        registry.requests.clear()
        done = ocimirror("push", tmp_path / "layout", registry.host, "--json", "-j", "1").document
        asked = sum("/manifests/sha256:" in each.path for each in registry.requests)
        return [image["status"] for image in done["images"]], asked

    assert push()[0] == ["copied"] * 3
    assert push() == (["unchanged"] * 3, len(PLATFORMS))
    for digest in lacking:
        registry.delete_manifest("app", digest)
    assert push()[0] == ["copied", "copied", "unchanged"]
    assert all(registry.has_manifest("app", digest) for digest in lacking)


def test_a_registry_that_refuses_is_exit_4_and_says_what_helps(
    sparse: Path, registry: StrictRegistry
) -> None:
    pushed = ocimirror("push", sparse, registry.host, "--json")

    error = image_of(pushed)["error"]
    assert (pushed.code, error["code"]) == (4, "sparse_refused")  # type: ignore[index]
    assert "--sparse full" in error["diagnostics"]  # type: ignore[index]


def test_sparse_full_copies_every_platform_where_the_registry_refuses(
    name: str, docker_registry: Registry, repository: str
) -> None:
    target = f"docker://{docker_registry.host}/full/{repository}:1.0"

    copied = ocimirror("copy", f"docker://{name}", target, *ARM64, "--sparse", "full", "--json")

    assert copied.code == 0, copied.stderr
    assert image_of(copied)["notes"]
    assert image_of(copied)["sparse"] is False
    for digest, (_, raw) in images.multi().manifests.items():
        assert docker_registry.get_manifest(f"full/{repository}", digest) == raw


def test_sparse_child_names_the_one_manifest_and_says_that_its_digest_is_another(
    sparse: Path, docker_registry: Registry, repository: str
) -> None:
    graph = images.multi()
    target = f"docker://{docker_registry.host}/child/{repository}:1.0"

    copied = ocimirror("copy", sparse, target, *ARM64, "--sparse", "child", "--json")

    assert copied.code == 0, copied.stderr
    child = image_of(copied)["digest"]
    assert graph.manifests[child][1] == docker_registry.get_manifest(  # type: ignore[index]
        f"child/{repository}", "1.0"
    )
    assert graph.root in image_of(copied)["notes"][0]  # type: ignore[index]


def test_the_answer_of_a_registry_is_learned_once(
    docker_registry: Registry, repository: str, registry: StrictRegistry, tmp_path: Path
) -> None:
    names = []
    for number, graph in enumerate(images.shared_layers(1, 1, 5000, 0.0) and [images.multi()] * 2):
        images.push(docker_registry, f"{repository}/{number}", "1.0", graph)
        names.append(f"{docker_registry.host}/{repository}/{number}:1.0")
    layout = tmp_path / "layout"
    assert ocimirror("pull", *names, layout, *ARM64).code == 0

    assert ocimirror("push", layout, registry.host, "--jobs", "1").code == 4

    refused = [r for r in registry.requests if r.method == "PUT" and r.status >= 400]
    assert len(refused) == 1


def test_child_with_several_platforms_is_a_usage_error(tmp_path: Path) -> None:
    result = ocimirror(
        *("copy", "docker://example.com/a:1", f"oci:{tmp_path}/x", "--sparse", "child"),
        *("--platform", "linux/amd64", *ARM64),
    )
    assert result.code == 2


def test_a_sparse_name_becomes_whole_though_another_name_brought_the_content(
    name: str, tmp_path: Path
) -> None:
    layout, other = tmp_path / "layout", name.replace(":1.0", "@" + images.multi().root)
    assert ocimirror("pull", other, layout).code == 0
    assert ocimirror("pull", name, layout, *ARM64).code == 0

    assert ocimirror("pull", name, layout).code == 0

    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert not [e for e in entries if "dev.ocimirror.platforms" in e["annotations"]]


def test_verify_looks_at_what_each_of_two_sparse_names_asked_for(name: str, tmp_path: Path) -> None:
    layout, other = tmp_path / "layout", name.replace(":1.0", "@" + images.multi().root)
    assert ocimirror("pull", other, layout, "--platform", "linux/amd64").code == 0
    assert ocimirror("pull", name, layout, *ARM64).code == 0
    manifests = json.loads(images.multi().raw)["manifests"]
    arm64 = next(m for m in manifests if m["platform"]["architecture"] == "arm64")
    (layout / "blobs" / arm64["digest"].replace(":", "/")).unlink()

    assert ocimirror("verify", layout).code == 5


@pytest.mark.parametrize("command", ["pull", "copy"])
def test_a_lone_image_for_none_of_the_platforms_is_exit_4(
    command: str, registry: StrictRegistry, tmp_path: Path
) -> None:
    images.push(registry, "app", "1.0", images.single())
    source = f"{registry.host}/app:1.0"
    where = (
        (source, tmp_path / "l")
        if command == "pull"
        else (f"docker://{source}", f"oci:{tmp_path}/l")
    )

    asked = ocimirror(command, *where, "--platform", "linux/s390x", "--json")
    error = image_of(asked)["error"]
    assert (asked.code, error["code"]) == (4, "not_found")  # type: ignore[index]
    assert "linux/amd64" in error["diagnostics"]  # type: ignore[index]

    two = ocimirror(command, *where, "--platform", "linux/s390x", "--platform", "linux/amd64")
    assert two.code == 0
    assert "nothing for linux/s390x" in two.stderr


def test_a_lone_image_is_for_the_variant_that_its_config_says(tmp_path: Path) -> None:
    builder = images.Builder()
    config = images.config_of([], {"os": "linux", "architecture": "arm", "variant": "v7"})
    document = {
        "schemaVersion": 2,
        "config": builder.blob(images.compact(config), images.OCI_CONFIG),
        "layers": [],
    }
    graph = builder.graph(builder.manifest(images.compact(document), images.OCI_MANIFEST))
    layout = images.write_layout(tmp_path / "layout", {"a.example.com/app:1.0": graph})
    where = ("copy", f"oci:{layout}:a.example.com/app:1.0", f"oci:{tmp_path}/out")

    other = ocimirror(*where, "--platform", "linux/arm/v6")
    assert other.code == 4
    assert "is for linux/arm/v7." in other.stderr
    assert ocimirror(*where, "--platform", "linux/arm/v7").code == 0


@pytest.mark.parametrize("command", ["pull", "copy", "push"])
def test_a_lone_image_that_is_there_already_is_compared_with_the_platforms_too(
    command: str, registry: StrictRegistry, tmp_path: Path
) -> None:
    images.push(registry, "app", "1.0", images.single())
    source, layout = f"{registry.host}/app:1.0", tmp_path / "layout"
    where = {
        "pull": ("pull", source, layout),
        "copy": ("copy", f"docker://{source}", f"docker://{registry.host}/mirror/app:1.0"),
        "push": ("copy", f"oci:{layout}", f"docker://{registry.host}/mirror/app:1.0"),
    }
    assert ocimirror(*where["pull"]).code == 0
    assert ocimirror(*where["push"]).code == 0

    other = ocimirror(*where[command], "--platform", "linux/s390x", "--json")
    error = image_of(other)["error"]
    assert (other.code, error["code"]) == (4, "not_found")  # type: ignore[index]
    assert "linux/amd64" in error["diagnostics"]  # type: ignore[index]

    right = ocimirror(*where[command], "--platform", "linux/amd64", "--json")
    assert image_of(right)["status"] == "unchanged"
