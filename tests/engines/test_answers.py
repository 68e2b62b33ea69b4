"""What an engine's client prints may be anything: it is read, or it is an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import Result, environment, ocimirror

INFO = '{"ServerVersion":"28","OSType":"linux","Architecture":"x86_64","DriverStatus":[]}'
NAME = "reg.example.com/app:1"


@pytest.fixture
def asked(tmp_path: Path):
    """Run `verify --in ENGINE` where its client prints something for each kind of question."""
    layout = images.write_layout(tmp_path / "layout", {NAME: images.single()})

    def ask(engine: str, program: str, answers: dict[str, bytes]) -> Result:
        cases = []
        for number, (words, content) in enumerate(answers.items()):
            (tmp_path / f"answer{number}").write_bytes(content)
            cases.append(f'*"{words}"*) exec cat {tmp_path}/answer{number};;')
        client = tmp_path / "bin" / program
        client.parent.mkdir(exist_ok=True)
        client.write_text(f'#!/bin/sh\ncase "$*" in {" ".join(cases)} esac\n')
        client.chmod(0o755)
        env = environment(PATH=f"{client.parent}:{os.environ['PATH']}")
        return ocimirror("verify", layout, "--in", engine, "--json", env=env)

    return ask


@pytest.mark.parametrize("answer", [b"[" * 100_000, b"[{}]", b'[{"Id":5}]', b"\xff\0"])
def test_an_image_that_docker_tells_nonsense_of_is_not_absent(asked, answer: bytes) -> None:
    result = asked("docker", "docker", {"info": INFO.encode(), "image inspect": answer})
    assert result.code == 4, result.document
    assert result.document["receipts"] == []
    assert "image inspect" in result.document["failures"][0]["error"]["message"]


@pytest.mark.parametrize("kind", ["images", "content"])
def test_a_list_of_containerd_without_its_title_is_no_empty_list(asked, kind: str) -> None:
    tables = {"images ls": b"REF TYPE DIGEST\n", "content ls": b"DIGEST\tSIZE\n"}
    whole = asked("containerd", "ctr", tables)
    assert whole.code == 9
    assert whole.document["receipts"][0]["tag"] == "lost"
    result = asked("containerd", "ctr", {**tables, f"{kind} ls": b""})
    assert result.code == 4, result.document
    assert result.document["receipts"] == []
