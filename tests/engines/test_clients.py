"""The client of an engine: what its last words mean, and that it can always be stopped."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, ocimirror
from tests.support.images import Graph
from tests.support.recorded import Answer, Fails, Runs, recorded

NAME = "reg.example.com/app:1"
INFO = b'{"ServerVersion":"28","OSType":"linux","Architecture":"x86_64","DriverStatus":[]}'
DOCKER: Mapping[str, Answer] = {"info --format {{json .}}": INFO}
CTR = "--connect-timeout 3s"

# What ends a run, and what one image only.
SAID: list[tuple[str, str, int]] = [
    (
        "Cannot connect to the Docker daemon at unix:///x. Is it running?",
        "engine_unavailable",
        4,
    ),
    (
        "permission denied while trying to connect to the Docker daemon socket",
        "engine_unavailable",
        4,
    ),
    ('ctr: failed to dial "/x": context deadline exceeded', "engine_unavailable", 4),
    (
        "rpc error: code = Unavailable desc = error reading from server: EOF",
        "engine_unavailable",
        4,
    ),
    ("write /dev/stdout: no space left on device", "no_space", 8),
    ("Error: writing blob: write /var/tmp/x: no space left on device", "no_space", 8),
]
SAID_OF_ONE: list[tuple[str, str]] = [
    ("Error response from daemon: open /x/blobs/json: no such file or directory", "engine_failed"),
    ("Error response from daemon: dial tcp: connect: connection refused", "engine_failed"),
    ("Error: lchown /x: permission denied", "engine_failed"),
    (
        'Error response from daemon: file integrity checksum failed for "a"',
        "damaged_engine_store",
    ),
]
LOGGED = 'time="2026" level=info msg="unpacking"\nno such thing'


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Write a layout of one image, whose layers fill a pipe."""
    return images.write_layout(tmp_path / "L", {NAME: large()})


def large() -> Graph:
    """Make an image of 4 MB."""
    return images.shared_layers(1, 1, 4_000_000, shared_fraction=0.0)[0]


@pytest.mark.parametrize(("words", "code", "exit_code"), SAID)
def test_last_words_that_end_a_run(
    tmp_path: Path, layout: Path, words: str, code: str, exit_code: int
) -> None:
    env = recorded(tmp_path / "bin", "docker", DOCKER, otherwise=Fails(words))
    failed = ocimirror("verify", layout, "--in", "docker", "--json", env=env)
    assert failed.code == exit_code
    assert failed.document["error"]["code"] == code
    assert words in failed.document["error"]["message"]


def test_last_words_that_are_of_one_image(tmp_path: Path) -> None:
    names = {f"reg.example.com/{n}:1": words for n, (words, _) in enumerate(SAID_OF_ONE)}
    logged = "reg.example.com/logged:1"
    layout = images.write_layout(tmp_path / "L", dict.fromkeys([*names, logged], images.single()))
    fails = {f"image inspect {n}": Fails(words) for n, words in {**names, logged: LOGGED}.items()}
    env = recorded(tmp_path / "bin", "docker", {**DOCKER, **fails})
    failed = ocimirror("verify", layout, "--in", "docker", "--json", env=env)
    told = {f["image"]: f["error"] for f in failed.document["failures"]}
    assert [told[name]["code"] for name in names] == [code for _, code in SAID_OF_ONE]
    # (What a client logs of its progress is no reason.)
    assert re.search(r"\(its default socket\): no such thing$", told[logged]["message"])


def test_a_client_that_ends_early_is_asked_why(tmp_path: Path, layout: Path) -> None:
    env = recorded(tmp_path / "bin", "docker", {**DOCKER, "load": Fails("no room for it", 3)})
    failed = ocimirror("load", layout, "--into", "docker", "--json", env=env)
    assert failed.code == 4
    (failure,) = failed.document["failures"]
    assert failure["error"]["code"] == "engine_failed"
    assert "no room for it" in failure["error"]["message"]


def test_every_byte_arrives_at_a_client_that_reads_slowly(tmp_path: Path, layout: Path) -> None:
    take = Runs(f"sleep 0.2; exec cat > {tmp_path}/it")
    env = recorded(tmp_path / "bin", "docker", {**DOCKER, "load": take})
    ocimirror("load", layout, "--into", "docker", env=env)
    with tarfile.open(tmp_path / "it") as archive:
        carried = [archive.extractfile(member) for member in archive if member.isfile()]
        read = {images.digest_of(file.read()) for file in carried if file is not None}
    manifest = json.loads(large().raw)
    layers = [layer["digest"] for layer in manifest["layers"]]
    assert {manifest["config"]["digest"], *layers} <= read


def stopped(tmp_path: Path, env: dict[str, str], *arguments: str | Path) -> tuple[int, str]:
    """Run a command, tell it to stop once its client has begun, and return how it ended."""
    run = subprocess.Popen(
        [PROGRAM, *map(str, arguments)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not (tmp_path / "began").exists():
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=100)
    return run.returncode, said.decode()


def test_a_client_that_reads_nothing_can_be_stopped(tmp_path: Path, layout: Path) -> None:
    hangs = Runs(f"touch {tmp_path}/began; exec sleep 600")
    env = recorded(tmp_path / "bin", "docker", {**DOCKER, "load": hangs})
    code, said = stopped(tmp_path, env, "load", layout, "--into", "docker")
    assert code == 143
    assert "stopped" in said


@pytest.mark.parametrize("prints", [True, False])
@pytest.mark.parametrize(
    ("command", "of_a_layer"), [("save", False), ("save", True), ("verify", True)]
)
def test_a_client_that_never_ends_can_be_stopped(
    tmp_path: Path, layout: Path, command: str, of_a_layer: bool, prints: bool
) -> None:
    graph = large()
    begin = f"touch {tmp_path}/began; "
    endless = "while :; do echo x; sleep 0.01; done" if prints else "exec sleep 600"
    listed = [f"{digest}\t1 kB\t1 minute\t-\n" for digest in graph.contents]
    answers: dict[str, Answer] = {
        f"{CTR} version": b"Server:\n  Version: 2.0\n",
        f"{CTR} images ls": f"REF TYPE DIGEST\n{NAME} x {graph.root}\n".encode(),
        f"{CTR} content ls": f"DIGEST\tSIZE\n{''.join(listed)}".encode(),
    }
    for digest, content in graph.contents.items():
        is_large = len(content) > 1_000_000
        hangs = is_large if of_a_layer else digest == graph.root
        answers[f"{CTR} content get {digest}"] = Runs(begin + endless) if hangs else content
    env = recorded(tmp_path / "bin", "ctr", answers)
    words = {
        "save": ["save", NAME, tmp_path / "to", "--from", "containerd"],
        "verify": ["verify", layout, "--in", "containerd", "--deep"],
    }
    code, said = stopped(tmp_path, env, *words[command])
    assert code == 143, said
