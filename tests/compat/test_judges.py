"""skopeo, umoci, podman and oci-image-tool judge our layouts; skopeo judges what we pushed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.programs import require_program
from tests.support.witness import Registry

NAME = "reg.example.com/team/app:1.0"


def judge(*command: str | Path, home: Path) -> bytes:
    """Run a tool with a home of its own (skopeo remembers blobs there); return what it prints."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)}
    home.mkdir(exist_ok=True)
    done = subprocess.run([*map(str, command)], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def layout_of(graph: images.Graph, tmp_path: Path) -> Path:
    """Return a layout that ocimirror wrote."""
    images.write_layout(tmp_path / "given", {NAME: graph})
    ours = tmp_path / "ours"
    result = ocimirror("copy", tmp_path / "given", f"oci:{ours}")
    assert result.code == 0, result.stderr
    return ours


def test_the_files_of_a_layout_are_named_by_their_sha256(tmp_path: Path) -> None:
    ours = layout_of(images.multi(), tmp_path)
    files = list((ours / "blobs" / "sha256").iterdir())
    assert len(files) > 10
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name


@pytest.mark.parametrize("make", [images.single, images.multi, images.nested_index])
def test_skopeo_reads_our_layout_by_its_tag(make: object, tmp_path: Path) -> None:
    require_program("skopeo", "skopeo")
    graph = make()  # type: ignore[operator]
    ours = layout_of(graph, tmp_path)

    raw = judge("skopeo", "inspect", "--raw", f"oci:{ours}:1.0", home=tmp_path / "home")

    assert raw == graph.raw


def test_skopeo_copies_our_layout_with_its_digests(tmp_path: Path) -> None:
    require_program("skopeo", "skopeo")
    graph = images.multi()
    ours = layout_of(graph, tmp_path)

    judge(
        *("skopeo", "--insecure-policy", "copy", "--all", "--preserve-digests"),
        *(f"oci:{ours}:1.0", f"dir:{tmp_path / 'copied'}"),
        home=tmp_path / "home",
    )

    assert (tmp_path / "copied" / "manifest.json").read_bytes() == graph.raw


def test_umoci_reads_and_unpacks_our_layout(tmp_path: Path) -> None:
    require_program("umoci", "umoci")
    ours = layout_of(images.single(), tmp_path)
    home = tmp_path / "home"

    listed = judge("umoci", "ls", "--layout", ours, home=home)
    stat = judge("umoci", "stat", "--json", "--image", f"{ours}:1.0", home=home)
    judge("umoci", "unpack", "--rootless", "--image", f"{ours}:1.0", home / "bundle", home=home)

    assert listed.decode().split() == ["1.0"]
    assert json.loads(stat)["history"]
    assert (home / "bundle" / "rootfs").is_dir()


def test_oci_image_tool_validates_our_layout(tmp_path: Path) -> None:
    require_program("oci-image-tool", "oci-image-tool")
    ours = layout_of(images.single(), tmp_path)

    judge(
        *("oci-image-tool", "validate", "--type", "image", "--ref", "name=1.0", ours),
        home=tmp_path / "home",
    )


def test_podman_pulls_our_layout_and_knows_its_digest(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    require_program("podman", "podman")
    graph = images.single()
    ours = layout_of(graph, tmp_path)
    home = tmp_path / "home"
    run = tmp_path_factory.getbasetemp().parent / "podman"  # (podman wants a short path)
    podman = ("podman", "--root", home / "root", "--runroot", run)
    storage = ("--storage-driver", "vfs")

    judge(*podman, *storage, "pull", "-q", f"oci:{ours}:1.0", home=home)
    told = judge(*podman, *storage, "images", "--format", "{{.Digest}}", home=home)

    assert told.decode().split() == [graph.root]


@pytest.mark.parametrize("make", [images.multi, images.docker_list])
def test_skopeo_reads_what_we_pushed(
    make: object, docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    require_program("skopeo", "skopeo")
    graph = make()  # type: ignore[operator]
    images.write_layout(tmp_path / "given", {NAME: graph})
    target = f"{docker_registry.host}/{repository}:1.0"
    assert ocimirror("copy", tmp_path / "given", f"docker://{target}").code == 0

    judge(
        *("skopeo", "--insecure-policy", "copy", "--all", "--preserve-digests"),
        *("--src-tls-verify=false", f"docker://{target}", f"dir:{tmp_path / 'copied'}"),
        home=tmp_path / "home",
    )

    copied = {p.name for p in (tmp_path / "copied").iterdir()}
    assert (tmp_path / "copied" / "manifest.json").read_bytes() == graph.raw
    assert {digest.partition(":")[2] for digest in graph.blobs} <= copied


@pytest.mark.parametrize("archive", ["skopeo", "umoci"])
def test_we_copy_what_other_tools_wrote(archive: str, tmp_path: Path) -> None:
    (path,) = Path("fixtures/images").resolve().glob(f"{archive}*.tar")

    listed = ocimirror("list", path, "--json").document["images"]
    assert ocimirror("verify", path).code == 0
    result = ocimirror("copy", path, f"oci:{tmp_path / 'layout'}:reg.example.com/app:1", "--json")

    assert result.document["images"][0]["digest"] == listed[0]["digest"]
    assert ocimirror("verify", tmp_path / "layout").code == 0


def test_a_layout_that_skopeo_adds_to_keeps_our_names(tmp_path: Path) -> None:
    require_program("skopeo", "skopeo")
    ours = layout_of(images.multi(), tmp_path)
    images.write_layout(tmp_path / "more", {"reg.example.com/team/more:2": images.single()})

    judge(
        *("skopeo", "--insecure-policy", "copy", f"oci:{tmp_path / 'more'}:2", f"oci:{ours}:two"),
        home=tmp_path / "home",
    )
    again = ocimirror("copy", tmp_path / "more", f"oci:{ours}")

    assert again.code == 0, again.stderr
    names = {image["name"] for image in ocimirror("list", ours, "--json").document["images"]}
    assert names == {NAME, "two", "reg.example.com/team/more:2"}
    assert ocimirror("verify", ours).code == 0
