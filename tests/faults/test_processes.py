"""Real processes: killed at any moment, and many at once in one layout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocimirror import Layout
from tests.support import images
from tests.support.images import Graph
from tests.support.judge import faults_of, leftovers_of, names_of
from tests.support.stores import copy_all, failures, named

ROOT = Path(__file__).parents[2]
KILLS = 24
RUN_S = 0.5  # about what a run takes that is not killed
STAYING = "registry.example.com/staying:v1"
SHARED = images.shared_layers(4, 3, 6000, shared_fraction=0.34)
NEW = named(SHARED)
OLD: dict[str, Graph] = {STAYING: images.multi(), next(iter(NEW)): images.single()}


def start(source: Path, destination: Path, pause_s: float, *names: str) -> subprocess.Popen[str]:
    """Start a copy that waits for a line on its standard input."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.slowcopy", source, destination, str(pause_s), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def go(process: subprocess.Popen[str]) -> None:
    """Wait until it is ready, and let it run."""
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


@dataclass
class Killed:
    """What a killed run left."""

    after_s: float
    exit_code: int
    reported: list[str]
    layout: Path
    leftovers: int
    before_the_next: list[str]
    complaints: list[str]


def kill_after(source: Path, base: Path, layout: Path, after_s: float) -> Killed:
    """Kill a copy after some time, look at the layout, and run another copy to its end."""
    shutil.copytree(base, layout)
    process = start(source, layout, 0.01, *NEW)
    go(process)
    time.sleep(after_s)
    process.kill()
    output, _ = process.communicate(timeout=10)
    reported = output.split()
    complaints = faults_of(layout)
    found = names_of(layout)
    for name, graph in OLD.items():
        if found.get(name) not in {graph.root, NEW.get(name, graph).root}:
            complaints.append(f"{name} is lost")
    complaints += [f"{name} was reported" for name in reported if found.get(name) != NEW[name].root]
    killed = Killed(
        after_s,
        process.returncode,
        reported,
        layout,
        len(leftovers_of(layout)),
        list(found),
        complaints,
    )
    with Layout(str(source)) as again, Layout(str(layout), write=True, durable=False) as store:
        complaints += failures(copy_all(again, store, list(NEW)))
    complaints += faults_of(layout)
    if names_of(layout) != {name: graph.root for name, graph in (OLD | NEW).items()}:
        complaints.append("the next run did not finish")
    return killed


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> list[Killed]:
    """Kill a copy at many moments, from its very start until it is done."""
    directory = tmp_path_factory.mktemp("killed")
    source = images.write_layout(directory / "source", NEW)
    base = images.write_layout(directory / "base", OLD)
    moments = [number * RUN_S / KILLS for number in range(KILLS)]
    with ThreadPoolExecutor(2) as pool:
        return list(
            pool.map(
                lambda n: kill_after(source, base, directory / f"layout{n}", moments[n]),
                range(KILLS),
            )
        )


@pytest.mark.bar("R01")
def test_a_layout_survives_kill_9_at_any_moment_and_the_next_run_finishes(
    killed: list[Killed],
) -> None:
    assert [(k.after_s, k.complaints) for k in killed if k.complaints] == []


def test_the_kills_came_while_there_was_something_to_kill(killed: list[Killed]) -> None:
    assert sum(k.exit_code == -9 for k in killed) >= 15
    assert sum(k.leftovers > 0 for k in killed) >= 5


@pytest.mark.bar("R07")
def test_twenty_processes_at_once_write_twenty_names_into_a_new_layout(tmp_path: Path) -> None:
    wanted = named(images.shared_layers(20, 3, 4000, shared_fraction=0.67))
    source = images.write_layout(tmp_path / "source", wanted)
    processes = [start(source, tmp_path / "layout", 0.002, name) for name in wanted]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(go, processes))
        results = list(pool.map(lambda p: (*p.communicate(timeout=60), p.returncode), processes))
    assert [error for _, error, code in results if code != 0] == []
    assert names_of(tmp_path / "layout") == {name: g.root for name, g in wanted.items()}
    assert faults_of(tmp_path / "layout") == []
    assert leftovers_of(tmp_path / "layout") == []


@pytest.mark.bar("R10")
def test_a_lock_of_a_killed_process_needs_no_cleaning(tmp_path: Path) -> None:
    source = images.write_layout(tmp_path / "source", NEW)
    process = start(source, tmp_path / "layout", 0.05, *NEW)
    go(process)
    while not (tmp_path / "layout" / ".ocimirror" / "lock").exists():
        time.sleep(0.005)
    process.kill()
    process.communicate(timeout=10)
    with Layout(str(tmp_path / "layout"), write=True):
        assert os.path.exists(tmp_path / "layout" / "index.json")
