"""What a user gets from `pip install ocimirror` alone: enough for pull, verify and push."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import images
from tests.support.command import environment
from tests.support.witness import Registry

ROOT = Path(__file__).parents[2]


def test_the_base_install_pulls_verifies_and_pushes(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run(
        [venv / "bin" / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", ROOT],
        check=True,
    )
    graph = images.multi()
    images.push(docker_registry, repository, "1.0", graph)
    host = docker_registry.host

    for arguments in (
        ("pull", f"{host}/{repository}:1.0", "./layout"),
        ("verify", "./layout"),
        ("push", "./layout", f"{host}/base"),
    ):
        subprocess.run(
            [venv / "bin" / "ocimirror", *arguments], check=True, cwd=tmp_path, env=environment()
        )

    assert docker_registry.get_manifest(f"base/{repository}", "1.0") == graph.raw
