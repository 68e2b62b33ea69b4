"""The real engines pull from `ocimirror serve`, and what they hold has the original digests."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serve.conftest import Command, Serve
from tests.support.engines import (
    Containerd,
    Dockerd,
    Podman,
    podman_in,
    remove,
    run_containerd,
    run_dockerd,
)
from tests.support.images import Graph, multi, single, write_layout

GRAPH = multi()
NAME = "reg.example.com/team/app"


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory with a short name, for sockets."""
    made = Path(tempfile.mkdtemp(prefix="serve-"))
    yield made
    remove(made)


@pytest.fixture(scope="module")
def containerd(directory: Path) -> Iterator[Containerd]:
    with run_containerd(directory / "c") as engine:
        yield engine


@pytest.fixture(scope="module")
def dockerd(directory: Path) -> Iterator[Dockerd]:
    with run_dockerd(directory / "d") as engine:
        yield engine


@pytest.fixture
def podman(directory: Path) -> Podman:
    return podman_in(directory / "p" / uuid.uuid4().hex[:8])


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", {f"{NAME}:v1": GRAPH})


def native_manifest(graph: Graph) -> str:
    """Return the digest of the manifest for linux/amd64."""
    found: str = json.loads(graph.raw)["manifests"][0]["digest"]
    return found


def test_containerd_pulls_by_tag_and_by_digest(
    layout: Path, serve: Serve, containerd: Containerd
) -> None:
    host = serve(layout).host
    tagged, pinned = f"{host}/team/app:v1", f"{host}/team/app@{GRAPH.root}"
    for name in (tagged, pinned):
        containerd.ctr("content", "fetch", "--plain-http", "--all-platforms", name)
        containerd.ctr("images", "pull", "--plain-http", name)
    assert {tagged, pinned} <= set(containerd.names())
    for digest, content in GRAPH.contents.items():
        assert containerd.content(digest, "default") == content


def test_containerd_pulls_under_the_original_name(
    layout: Path, serve: Serve, containerd: Containerd, tmp_path: Path
) -> None:
    """With a hosts.toml, containerd asks the mirror with `ns=`."""
    client = serve(layout)
    hosts = tmp_path / "certs.d" / "reg.example.com"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(
        f'server = "{client.url}"\n[host."{client.url}"]\n  capabilities = ["pull", "resolve"]\n'
    )
    containerd.ctr("images", "pull", "--hosts-dir", str(hosts.parent), f"{NAME}:v1")
    assert f"{NAME}:v1" in containerd.names()
    assert f"{NAME}:v1" in containerd.ctr("images", "ls", f"target.digest=={GRAPH.root}")


def test_dockerd_pulls_by_tag_and_by_digest(layout: Path, serve: Serve, dockerd: Dockerd) -> None:
    repository = f"{serve(layout).host}/team/app"
    dockerd.docker("pull", f"{repository}:v1")
    config = json.loads(GRAPH.manifests[native_manifest(GRAPH)][1])["config"]["digest"]
    image = dockerd.inspect(f"{repository}:v1")
    assert image["Id"] == config
    assert image["RepoDigests"] == [f"{repository}@{GRAPH.root}"]
    dockerd.docker("rmi", f"{repository}:v1")
    for digest in (GRAPH.root, native_manifest(GRAPH)):
        dockerd.docker("pull", f"{repository}@{digest}")
        assert dockerd.inspect(f"{repository}@{digest}")["Id"] == config


def test_dockerd_pulls_from_a_server_that_stands_in_for_the_original_host(
    tmp_path: Path, directory: Path, serve_command: Callable[..., Command]
) -> None:
    """Its name and digest are then the original ones, on an engine that nothing was done to."""
    layout = write_layout(
        tmp_path / "layout", {f"{NAME}:v1": GRAPH, "docker.io/team/app:v1": single()}
    )
    made = ("--tls-generate", "reg.example.com", "--tls-directory", tmp_path / "tls")
    address = ("--listen", "127.7.7.7:443", "--only", "reg.example.com")
    ca_file = serve_command(layout, *address, *made).document["ca_file"]
    place = directory / "alias"
    trusted = place / "etc/docker/certs.d/reg.example.com"
    trusted.mkdir(parents=True)
    (trusted / "ca.crt").write_bytes(Path(ca_file).read_bytes())
    (place / "etc/hosts").write_text("127.0.0.1 localhost\n127.7.7.7 reg.example.com\n")
    with run_dockerd(place, isolated=True) as engine:
        engine.docker("pull", f"{NAME}:v1")
        assert engine.inspect(f"{NAME}:v1")["RepoDigests"] == [f"{NAME}@{GRAPH.root}"]


def test_podman_pulls_by_tag_and_by_digest(layout: Path, serve: Serve, podman: Podman) -> None:
    repository = f"{serve(layout).host}/team/app"
    podman.podman("pull", "--tls-verify=false", f"{repository}:v1")
    podman.podman("pull", "--tls-verify=false", f"{repository}@{GRAPH.root}")
    found = json.loads(podman.podman("image", "inspect", f"{repository}:v1"))[0]
    assert f"{repository}@{GRAPH.root}" in found["RepoDigests"]


def test_podman_trusts_the_generated_certificate(
    layout: Path, serve_command: Callable[..., Command], podman: Podman, tmp_path: Path
) -> None:
    made = ("--tls-generate", "127.0.0.1", "--tls-directory", tmp_path / "tls")
    command = serve_command(layout, *made)
    host = command.client.host
    certificates = tmp_path / "certs"
    certificates.mkdir()
    (certificates / "ca.crt").write_bytes(Path(command.document["ca_file"]).read_bytes())
    podman.podman("pull", "--cert-dir", str(certificates), f"{host}/team/app:v1")
    assert podman.podman("image", "exists", f"{host}/team/app@{GRAPH.root}") == ""
