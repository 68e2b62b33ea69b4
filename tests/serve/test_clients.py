"""Real clients pull from `ocimirror serve`."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serve.conftest import Command
from tests.support.images import Graph, multi, single, write_layout
from tests.support.programs import require_program

HUB = "docker.io/library/alpine:3.19"
PRIVATE = "reg.example.com:5000/team/app:v1"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", {HUB: multi(), PRIVATE: single()})


def skopeo_copy(source: str, directory: Path) -> dict[str, bytes]:
    """Copy an image whole; return the files that it became, by their sha256."""
    program = require_program("skopeo", "skopeo")
    command = [program, "copy", "--all", "--preserve-digests", "--src-tls-verify=false"]
    subprocess.run([*command, source, f"dir:{directory}"], check=True, capture_output=True)
    files = [path.read_bytes() for path in directory.iterdir()]
    return {f"sha256:{hashlib.sha256(raw).hexdigest()}": raw for raw in files}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, serve_module: Callable[..., Command]) -> str:
    layout = tmp_path_factory.mktemp("served") / "layout"
    return serve_module(write_layout(layout, {HUB: multi(), PRIVATE: single()})).client.host


@pytest.mark.parametrize(
    ("name", "graph"),
    [
        ("library/alpine:3.19", multi()),
        (f"docker.io/library/alpine@{multi().root}", multi()),
        ("team/app:v1", single()),
        (f"reg.example.com_5000/team/app@{single().root}", single()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_skopeo_pulls_by_tag_and_by_digest(
    name: str, graph: Graph, host: str, tmp_path: Path
) -> None:
    copied = skopeo_copy(f"docker://{host}/{name}", tmp_path / "copied")
    assert graph.contents.items() <= copied.items()


def test_the_command_serves_until_it_is_told_to_stop(
    layout: Path, serve_command: Callable[..., Command]
) -> None:
    command = serve_command(layout)
    assert command.client.tags("library/alpine") == ["3.19"]
    assert command.stop() == (0, "")
