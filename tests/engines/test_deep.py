"""verify --in --deep, and what a killed load leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.engines.test_audit import audit
from tests.engines.test_load import HOST, into, load, only_receipt
from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror

pytestmark = pytest.mark.timeout(120)


def test_rotten_content_of_containerd_is_found_by_hashing(containerd, layout, repository) -> None:
    builder = images.Builder()
    graph = builder.graph(images.add_image(builder, repository, images.PLATFORMS[0]))
    path, space = layout({f"{HOST}/{repository}:v1": graph}), repository.replace("/", "-")
    options = [*into(containerd)[2:], "--namespace", space]
    assert load(path, *into(containerd), *options[2:]).code == 0
    whole = audit(path, "containerd", *options, "--deep")
    assert whole.code == 0, whole.document
    assert f"{len(graph.contents)} hashed" in only_receipt(whole)["evidence"][-1]
    layer = max(graph.contents, key=lambda digest: len(graph.contents[digest]))
    (blob,) = containerd.directory.glob(f"root/*/blobs/sha256/{layer.partition(':')[2]}")
    content = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert audit(path, "containerd", *options).code == 0
    rotten = audit(path, "containerd", *options, "--deep")
    assert rotten.code == 5
    (failure,) = rotten.document["failures"]
    assert layer in failure["error"]["message"]
    blob.write_bytes(content)


def deep(path, *options, **more) -> tuple[int, str]:
    """Run `verify --in … --deep` on one image; return the exit code, and what it says of it."""
    result = ocimirror("verify", path, "--in", *map(str, options), "--deep", "--json", **more)
    failures = result.document["failures"]
    if failures:
        return result.code, failures[0]["error"]["message"]
    return result.code, only_receipt(result)["evidence"][-1]


def rot(directory) -> list:
    """Change a byte in a file of each unpacked layer; return what puts it back."""
    files = sorted(directory.glob("*/etc/os-release"))
    assert files
    before = [(file, file.read_bytes()) for file in files]
    for file, content in before:
        file.write_bytes(b"X" + content[1:])
    return before


def test_a_rotten_layer_of_docker_is_found_by_hashing(dockerd, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.multi()})
    assert load(path, *into(dockerd)).code == 0
    asked = ("docker", "--host", dockerd.host)
    hashed = "docker save: config and 2 layers (unpacked contents) hashed"
    assert deep(path, *asked) == (0, hashed)
    for file, content in (before := rot(dockerd.data_root / "vfs" / "dir")):
        assert file.read_bytes() != content
    try:
        code, said = deep(path, *asked)
        saved = ocimirror("save", f"{HOST}/{repository}:v1", path, "--from", *asked, "--json")
    finally:
        for file, content in before:
            file.write_bytes(content)
    assert code == 5, said
    assert "docker gives back not all of it" in said
    assert saved.code == 5
    name = f"{HOST}/{repository}:v1"
    image_id = dockerd.docker("image", "inspect", "--format", "{{.Id}}", name).strip()
    dockerd.docker("image", "rm", "--force", image_id)  # (with the names that other tests gave it)
    code, said = deep(path, *asked)
    assert code == 9
    assert "nothing to hash" in said


def test_a_rotten_layer_of_podman_is_found_by_hashing(
    podman, podman_environment, layout, repository
) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.multi()})
    assert load(path, "--into", "podman", env=podman_environment).code == 0
    hashed = "podman save: config and 2 layers (unpacked contents) hashed"
    assert deep(path, "podman", env=podman_environment) == (0, hashed)
    rot(podman.directory / "root" / "vfs" / "dir")
    code, said = deep(path, "podman", env=podman_environment)
    assert code == 5, said
    assert "podman gives back not all of it" in said


def test_what_docker_gives_back_is_compared_with_what_it_should_be(
    dockerd, layout, repository, tmp_path
) -> None:
    """Docker looks at checksums of single files only, and one of its stores stops halfway."""
    name = f"{HOST}/{repository}:v1"
    path = layout({name: images.single()})
    assert load(path, *into(dockerd)).code == 0
    whole = tmp_path / "whole.tar"
    dockerd.docker("save", "-o", str(whole), name)
    answers = {
        "another layer": (whole.read_bytes().replace(b"NAME=", b"name=", 1), 5, "instead of"),
        "cut off": (whole.read_bytes()[:9000], 5, "in the middle of a member"),
        "no tar": (b"garbage" * 1000, 5, "no whole tar"),
    }
    real = shutil.which("docker")
    for what, (printed, code, words) in answers.items():
        (tmp_path / "printed").write_bytes(printed)
        (tmp_path / "docker").write_text(
            f'#!/bin/sh\n[ "$3" = save ] && exec cat {tmp_path}/printed\nexec {real} "$@"\n'
        )
        (tmp_path / "docker").chmod(0o755)
        env = environment(PATH=f"{tmp_path}:{os.environ['PATH']}")
        found, said = deep(path, "docker", "--host", dockerd.host, env=env)
        assert (found, words in said) == (code, True), (what, found, said)


def test_an_engine_that_gives_no_content_back_is_not_said_to_be_hashed(
    containerd, layout, repository
) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.single()})
    result = audit(path, "cri", "--host", containerd.address, "--deep")
    assert result.code == 2, result.document
    assert "--deep" in result.document["failures"][0]["error"]["message"]


def test_what_a_killed_load_into_podman_left_goes_with_the_next_one(
    podman, podman_environment, layout, repository, tmp_path
) -> None:
    (graph,) = images.shared_layers(1, 3, 20_000_000, shared_fraction=0.0)
    path = layout({f"{HOST}/{repository}:v1": graph})
    words = [PROGRAM, "load", str(path), "--into", "podman"]
    process = subprocess.Popen(words, env=podman_environment, stderr=subprocess.DEVNULL)
    temporary = tmp_path / "tmp"

    def archives() -> list[str]:
        return [n for n in os.listdir(temporary) if n.startswith("ocimirror-") and ".tar" in n]

    while not archives():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert archives()
    result = ocimirror("load", path, "--into", "podman", env=podman_environment)
    assert result.code == 0, result.stderr
    assert archives() == []
