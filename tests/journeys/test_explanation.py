"""The transcripts of the explanation pages, run again: what they show is still what happens."""

from __future__ import annotations

import pytest

from tests.support.engines import require_root
from tests.support.howto import PAGES
from tests.support.programs import require_program
from tests.support.transcripts import play


@pytest.mark.parametrize("page", ["docker-digests"])
def test_the_transcripts_of_a_page_are_what_the_engines_print(page: str) -> None:
    require_root()
    for program, package in (
        *(("dockerd", "docker.io"), ("containerd", "containerd"), ("podman", "podman")),
        *(("skopeo", "skopeo"), ("docker-registry", "docker-registry"), ("ip", "iproute2")),
        ("curl", "curl"),
    ):
        require_program(program, package)
    done = play(PAGES.parent / "explanation" / f"{page}.md")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
