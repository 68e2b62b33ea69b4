"""The program of the README, run as it stands but for the names of the two registries."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import environment
from tests.support.registry import StrictRegistry
from tests.support.witness import Registry

ROOT = Path(__file__).parents[2]


def program(page: str) -> str:
    """Return the one Python program of a page."""
    (found,) = re.findall(
        r"^```python\n(from ocimirror .*?)^```", (ROOT / page).read_text(), re.M | re.S
    )
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/reference/api.md"])
def test_the_program_of_the_documentation_works(
    page: str, docker_registry: Registry, registry: StrictRegistry, tmp_path: Path
) -> None:
    graph = images.multi()
    images.push(docker_registry, "team/app", "1.0", graph)
    text = program(page)
    assert len(text.splitlines()) <= 10
    text = text.replace("registry.example.com", docker_registry.host)
    text = text.replace("mirror.local:5000", registry.host)
    subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, env=environment(), check=True, timeout=120
    )
    assert registry.get_manifest("team/app", "1.0") == graph.manifests[graph.root][1]
