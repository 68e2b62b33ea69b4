"""`ocimirror pull` under fire: killed, stopped, many at once. The layout stays valid each time."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror
from tests.support.faults import Drip, Rule, Stall
from tests.support.proxy import run_proxy
from tests.support.witness import Registry

OLD = "reg.example.com/team/old:1"


def names_of(layout: Path) -> set[str]:
    return {image["name"] for image in ocimirror("list", layout, "--json").document["images"]}


def _attended() -> None:
    """Take signals, also where whoever runs the tests ignores them (nohup, a background job)."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [PROGRAM, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_attended,
    )


def push_large(registry: Registry, repository: str) -> str:
    """Push an image that takes a moment to pull; return its reference."""
    graphs = images.shared_layers(1, 8, 2_000_000, 0.0)
    images.push(registry, repository, "large", graphs[0])
    return f"{registry.host}/{repository}:large"


@pytest.mark.bar("R01")
def test_kill_9_at_twenty_moments_loses_nothing_and_the_next_run_finishes(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    name = push_large(docker_registry, repository)
    layout = tmp_path / "layout"
    images.write_layout(layout, {OLD: images.multi()})
    killed = 0
    for moment in range(20):
        process = start("pull", name, layout, "--jobs", "2")
        time.sleep(0.12 + 0.015 * moment)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL

        check = ocimirror("verify", layout, "--json")
        assert check.code == 0, check.stdout
        assert names_of(layout) >= {OLD}
    assert killed >= 5  # (a fast machine may finish before the later kills)

    assert ocimirror("pull", name, layout).code == 0
    assert ocimirror("verify", layout).code == 0
    assert names_of(layout) == {OLD, name}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.bar("R02")
def test_a_signal_stops_the_run_and_leaves_no_temporary_file(
    number: signal.Signals, docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    push_large(docker_registry, repository)
    layout = tmp_path / "layout"
    with run_proxy(docker_registry, Rule("GET", r"/blobs/", Drip(1000, 0.05))) as proxy:
        process = start("pull", f"{proxy.host}/{repository}:large", layout, "--json")
        while not proxy.count("GET", "/blobs/"):
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(number)
        stdout, _ = process.communicate(timeout=40)

    assert process.returncode == 128 + number
    document = json.loads(stdout)
    assert document["exit_code"] == 128 + number
    assert document["images"][0]["error"]["code"] == "interrupted"
    assert list((layout / ".ocimirror" / "tmp").iterdir()) == []
    assert ocimirror("verify", layout).code == 0


@pytest.mark.bar("R02")
def test_a_signal_stops_a_run_that_waits_for_a_silent_peer(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    push_large(docker_registry, repository)
    with run_proxy(docker_registry, Rule("GET", r"/blobs/", Stall(60, "reply"))) as proxy:
        process = start("pull", f"{proxy.host}/{repository}:large", tmp_path / "layout")
        while not proxy.count("GET", "/blobs/"):
            time.sleep(0.05)
        process.terminate()
        process.communicate(timeout=40)

    assert process.returncode == 143


@pytest.mark.bar("R07")
def test_twenty_pulls_at_once_into_one_layout_keep_twenty_names(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    graphs = images.shared_layers(20, 3, 20_000, 0.5)
    for number, graph in enumerate(graphs):
        images.push(docker_registry, repository, f"t{number}", graph)
    names = [f"{docker_registry.host}/{repository}:t{number}" for number in range(20)]

    processes = [start("pull", name, layout) for name in names]
    codes = [process.communicate() and process.returncode for process in processes]

    assert codes == [0] * 20
    assert names_of(layout) == set(names)
    assert ocimirror("verify", layout).code == 0
