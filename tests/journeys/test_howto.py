"""The how-to pages, run as they are printed.

Between the section on a machine with a network and the others the source registry goes away.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM
from tests.support.dockerservice import DockerService
from tests.support.engines import (
    Containerd,
    remove,
    require_root,
    run_containerd,
    short_directory,
    start_dockerd,
    stop_dockerd,
)
from tests.support.howto import PAGES, Page
from tests.support.images import Graph
from tests.support.runnable import SAYS, manifest_of, runnable
from tests.support.servers import free_port, run_docker_registry

CONNECTED = "On a machine with a network"
NODE = "On a node, without any registry"
CLUSTER = "From a mirror, for all nodes"


@pytest.fixture(scope="module")
def image() -> Graph:
    require_root()
    return runnable()


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    directory = short_directory(tmp_path_factory, "c")
    with run_containerd(directory) as containerd:
        yield containerd
    remove(directory)


@contextmanager
def source_registry(tmp_path: Path, image: Graph) -> Iterator[str]:
    """Run the registry of the reader's image; yield the image's name."""
    with run_docker_registry(tmp_path / "source") as registry:
        images.push(registry, "team/app", "1.0", image)
        yield f"{registry.host}/team/app:1.0"


def programs_of(tmp_path: Path, systemctl: str) -> Path:
    """Put a systemctl for this test into a directory: nothing here runs systemd."""
    directory = tmp_path / "programs"
    directory.mkdir()
    program = directory / "systemctl"
    program.write_text(systemctl)
    program.chmod(0o755)
    return directory


# --- Docker -------------------------------------------------------------------------------------


@pytest.fixture
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerService]:
    directory = short_directory(tmp_path_factory, "d")
    daemon = start_dockerd(directory)
    service = DockerService(daemon)
    try:
        yield service
    finally:
        service.end()
        stop_dockerd(daemon)
        remove(directory)


def docker_page(tmp_path: Path, docker: DockerService, **values: str) -> Page:
    """Return the page as it is run on the machine of that daemon, which has systemd."""
    etc = docker.daemon.directory / "etc-docker"
    etc.mkdir()
    (etc / "daemon.json").symlink_to(docker.daemon.config_file)
    Path("/etc/docker").mkdir(exist_ok=True)
    return Page(
        "docker",
        tmp_path,
        values,
        [
            *("mount -t tmpfs tmpfs /run", "mkdir -p /run/systemd/system"),
            f"mount --bind {etc} /etc/docker",
        ],
        {"DOCKER_HOST": docker.daemon.host},
        programs_of(tmp_path, docker.systemctl),
    )


def test_the_page_for_docker_gives_a_loaded_image_its_digests_back(
    tmp_path: Path, docker: DockerService, image: Graph
) -> None:
    with source_registry(tmp_path, image) as name:
        page = docker_page(tmp_path, docker, IMAGE=name)
        page.run(CONNECTED)
    printed = page.run("On the Docker host, by an archive and a restart")
    assert image.root in printed
    assert manifest_of(image) in printed
    assert printed.splitlines()[-2:] == [SAYS, SAYS]


def test_the_page_for_docker_loads_into_one_that_runs(
    tmp_path: Path, docker: DockerService, image: Graph
) -> None:
    with source_registry(tmp_path, image) as name:
        page = docker_page(tmp_path, docker, IMAGE=name)
        page.run(CONNECTED)
    printed = page.run("On the Docker host, while Docker runs")
    assert image.root in printed
    assert manifest_of(image) in printed
    assert printed.splitlines()[-1] == SAYS


def test_the_page_for_docker_pulls_images_of_docker_hub_from_a_mirror(
    tmp_path: Path, docker: DockerService, image: Graph
) -> None:
    page = docker_page(tmp_path, docker, IMAGE="-", MIRROR=f"127.0.0.1:{free_port()}")
    images.write_layout(tmp_path / "layout", {"docker.io/library/alpine:3.19": image})
    printed = page.run("Images of Docker Hub, from a mirror")
    assert printed.splitlines()[-1] == f"[alpine@{image.root}]"


# --- containerd ---------------------------------------------------------------------------------


def node_page(name: str, tmp_path: Path, containerd: Containerd, **values: str) -> Page:
    """Return a page as it is run on a node, whose containerd is that of the test."""
    sockets = [f"/run/{below}containerd" for below in ("", "k3s/")]
    rancher = tmp_path / "rancher"
    rancher.mkdir()
    for directory in ("/etc/containerd", "/etc/rancher"):
        Path(directory).mkdir(exist_ok=True)
    return Page(
        name,
        tmp_path,
        values,
        [
            "mount -t tmpfs tmpfs /run",
            *(f"mkdir -p {path}" for path in sockets),
            *(f"ln -s {containerd.address} {path}/containerd.sock" for path in sockets),
            f"mount --bind {containerd.directory} /etc/containerd",
            f"mount --bind {rancher} /etc/rancher",
        ],
        {"CONTAINERD_SNAPSHOTTER": "native"},
        programs_of(tmp_path, f'#!/bin/sh\necho "$*" >> {tmp_path}/systemctl.log\n'),
    )


def test_the_page_for_kubernetes_serves_a_node_from_a_layout_and_from_a_mirror(
    tmp_path: Path, containerd: Containerd, image: Graph
) -> None:
    with run_docker_registry(tmp_path / "mirror") as mirror:
        with source_registry(tmp_path, image) as name:
            url = f"http://{mirror.host}"
            page = node_page("kubernetes", tmp_path, containerd, IMAGE=name, MIRROR=url)
            page.run(CONNECTED)
        page.run(NODE)
        assert {name, f"{name[:-4]}@{image.root}"} <= set(containerd.names("k8s.io"))
        for known in containerd.names("k8s.io"):
            containerd.ctr("images", "rm", "--sync", known, namespace="k8s.io")
        page.run(CLUSTER)
        assert name in containerd.names("k8s.io")
        assert image.root in containerd.ctr("images", "ls", namespace="k8s.io")


def test_the_page_for_k3s_writes_what_k3s_reads(
    tmp_path: Path, containerd: Containerd, image: Graph
) -> None:
    with run_docker_registry(tmp_path / "mirror") as mirror:
        with source_registry(tmp_path, image) as name:
            url = f"http://{mirror.host}"
            page = node_page("k3s", tmp_path, containerd, IMAGE=name, MIRROR=url)
            page.run(CONNECTED)
        page.run(NODE)
        assert name in containerd.names("k8s.io")
        page.run(CLUSTER)
        written = (tmp_path / "rancher" / "k3s" / "registries.yaml").read_text()
        host = name.partition("/")[0]
        assert written == f'mirrors:\n  "{host}":\n    endpoint:\n      - "{url}"\n'
        assert (tmp_path / "systemctl.log").read_text() == "restart k3s\n"
        assert mirror.get_manifest("team/app", "1.0") == image.raw


# --- a nightly mirror ---------------------------------------------------------------------------

SYSTEMCTL = r"""#!/bin/sh
echo "$*" >> LOG
[ "$1" = start ] || exit 0
unit=/etc/systemd/system/$2
command=$(sed -n '/^ExecStart=/,/[^\\]$/p' "$unit" | sed 's/^ExecStart=//; s/\\$//' | tr '\n' ' ')
mkdir -p /var/lib/ocimirror
cd /var/lib/ocimirror
exec env "$(sed -n 's/^Environment=//p' "$unit")" $command
"""


def mirror_page(tmp_path: Path, source: str, mirror: str) -> Page:
    """Return the page as it is run on a machine of its own: /etc, /var/lib and /usr/local/bin."""
    shutil.copytree("/etc", tmp_path / "etc", symlinks=True)
    for name in ("lib", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "ocimirror").symlink_to(PROGRAM)
    (tmp_path / "deploy").symlink_to(PAGES.parents[1] / "deploy")
    return Page(
        "nightly",
        tmp_path,
        {"SOURCE": f"{source}/team/app", "MIRROR": mirror},
        [
            f"mount --bind {tmp_path}/etc /etc",
            f"mount --bind {tmp_path}/lib /var/lib",
            f"mount --bind {tmp_path}/bin /usr/local/bin",
        ],
        programs=programs_of(tmp_path, SYSTEMCTL.replace("LOG", f"{tmp_path}/systemctl.log")),
    )


def test_the_page_for_a_nightly_mirror_fills_one_and_tells_of_it(
    tmp_path: Path, image: Graph
) -> None:
    with (
        run_docker_registry(tmp_path / "source") as source,
        run_docker_registry(tmp_path / "mirror") as mirror,
    ):
        for tag in ("0.9", "1.0", "1.1", "1.2-rc1", "latest"):
            images.push(source, "team/app", tag, image)
        page = mirror_page(tmp_path, source.host, mirror.host)
        assert "entries: 1" in page.run("The configuration")
        looked = page.run("Look first")
        assert "exclude  " in looked
        assert "2 images: 2 planned" in looked
        page.run("Every night")
        assert sorted(mirror.tags("team/app")) == ["1.0", "1.1"]
        told = page.run("In the morning")
        assert image.root in told
        assert told.count("2 kept") == 2
        kept = tmp_path / "lib" / "ocimirror"
        assert {path.suffix for path in kept.iterdir()} == {".state", ".lock", ".html", ".prom"}
        assert "prune at most 20 after 14d" in page.run("What is gone at the source")
        assert "application/vnd.ocimirror.lock.v1+json" in page.run("The mirror's own record")
    assert "enable --now ocimirror-sync.timer" in (tmp_path / "systemctl.log").read_text()
