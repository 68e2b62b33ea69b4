"""The engines of these tests, each started once; a test keeps to images of its own name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimirror import Layout
from tests.support.command import environment
from tests.support.engines import (
    Containerd,
    Dockerd,
    Podman,
    podman_in,
    remove,
    run_containerd,
    run_dockerd,
    short_directory,
)
from tests.support.images import Graph
from tests.support.stores import fill


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """The containerd of Debian, with CRI."""
    directory = short_directory(tmp_path_factory, "c")
    with run_containerd(directory) as engine:
        yield engine
    remove(directory)


@pytest.fixture(scope="session")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """The dockerd of Debian, whose /etc/hosts and /etc/docker are its own."""
    directory = short_directory(tmp_path_factory, "d")
    with run_dockerd(directory, isolated=True) as engine:
        yield engine
    remove(directory)


@pytest.fixture
def podman() -> Iterator[Podman]:
    """The Podman of Debian on an empty storage; its path may have 50 characters."""
    directory = Path(tempfile.mkdtemp(prefix="podman-"))
    yield podman_in(directory)
    remove(directory)


@pytest.fixture
def podman_environment(podman: Podman, tmp_path: Path) -> dict[str, str]:
    """The environment in which `podman` is that one."""
    file = tmp_path / "storage.conf"
    root, run = podman.directory / "root", podman.directory / "run"
    file.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{root}"\nrunroot = "{run}"\n')
    (tmp_path / "tmp").mkdir()
    return environment(tmp_path, CONTAINERS_STORAGE_CONF=str(file), TMPDIR=str(tmp_path / "tmp"))


@pytest.fixture
def layout(tmp_path: Path):
    """Make a layout with these images: `layout({"reg.example.com/app:v1": graph})`."""

    def make(named: dict[str, Graph]) -> Path:
        path = tmp_path / "layout"
        with Layout(path, write=True) as store:
            fill(store, named)
        return path

    return make
