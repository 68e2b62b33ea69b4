"""The transcripts of README and of the explanation, run again: what they show still happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engines import require_root
from tests.support.programs import require_program
from tests.support.transcripts import play

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/explanation/docker-digests.md"])
def test_the_transcripts_of_a_page_are_what_the_engines_print(page: str) -> None:
    require_root()
    for program, package in (
        *(("dockerd", "docker.io"), ("containerd", "containerd"), ("podman", "podman")),
        *(("skopeo", "skopeo"), ("docker-registry", "docker-registry"), ("ip", "iproute2")),
        ("curl", "curl"),
    ):
        require_program(program, package)
    done = play(ROOT / page)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
