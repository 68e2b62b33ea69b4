"""verify --in --deep, and what a killed load leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.engines.test_audit import audit
from tests.engines.test_load import HOST, into, load, only_receipt
from tests.support import images
from tests.support.command import PROGRAM, ocimirror

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


def test_an_engine_that_gives_no_content_back_is_not_said_to_be_hashed(
    dockerd, containerd, layout, repository
) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.single()})
    assert load(path, *into(dockerd)).code == 0
    for engine, host in (("docker", dockerd.host), ("cri", containerd.address)):
        result = audit(path, engine, "--host", host, "--deep")
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
