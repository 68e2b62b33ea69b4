"""Nights that are killed, at fifteen moments: nothing is torn, and nothing is fetched twice."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.journeys.test_sync import locked, offer, statuses, sync
from tests.support import images
from tests.support.command import ocimirror, started
from tests.support.faults import Call, Rule
from tests.support.forks import Forked
from tests.support.images import Graph
from tests.support.judge import faults_of
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry

pytestmark = pytest.mark.timeout(300)

DURING = 11
LATE_S = (0.0, 0.01, 0.03, 0.06)
"""How long after the last request: state and lock file are written then."""
SHARED = images.shared_layers(4, 3, 200_000, 0.34)
FIRST = {"1.0": images.single(), "1.1": SHARED[0], "1.2": images.docker_schema2()}
SECOND = {"1.0": SHARED[1], "1.1": SHARED[0], "2.0": images.multi(), "2.1": SHARED[2]}
BLOBS = {digest for graph in SECOND.values() for digest in graph.blobs}


def roots(graphs: dict[str, Graph]) -> dict[str, str]:
    """Return what a lock file says of them."""
    return {tag: graph.root for tag, graph in graphs.items()}


@dataclass
class Trigger:
    """Counts requests, and kills a process at one of them or some time after it."""

    seen: int = 0
    at: int = 0
    late_s: float = 0.0
    process: Forked | None = None
    guard: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, _: object) -> None:
        """Count a request."""
        with self.guard:
            self.seen += 1
            now = self.process is not None and self.seen == self.at
        if now and self.process is not None:
            time.sleep(self.late_s)
            self.process.send_signal(signal.SIGKILL)


@dataclass
class Mirror:
    """A source and a place to mirror it to."""

    source: StrictRegistry
    front: Proxy
    repository: str
    directory: Path
    target: str
    has_blob: Callable[[str], bool]

    @property
    def file(self) -> Path:
        """The configuration; state and lock file are beside it."""
        return self.directory / "sync.yaml"

    def begin(self) -> None:
        """Do a first night, and change what the source offers."""
        self.directory.mkdir()
        source = f"{self.front.host}/{self.repository}"
        self.file.write_text(f"mirrors:\n  - from: {source}\n    to: {self.target}\n")
        self.offer(FIRST)
        assert sync(self.file).code == 0
        assert locked(self.file) == roots(FIRST)
        self.offer(SECOND)

    def offer(self, graphs: dict[str, Graph]) -> None:
        """Let the source have these tags and no others."""
        for tag, graph in graphs.items():
            offer(self.source, self.repository, tag, graph)
        for tag in set(self.source.tags(self.repository)) - set(graphs):
            self.source.delete_manifest(self.repository, tag)

    def night(self, trigger: Trigger) -> int:
        """Do a night until it ends or is killed."""
        with trigger.guard:
            trigger.seen, trigger.process = 0, started("sync", self.file, "--quiet")
        code = trigger.process.wait(120)
        trigger.process = None
        return code

    def fetched(self) -> list[str]:
        """Return the blobs that were asked of the source since the last look."""
        asked = [r.path for r in self.front.requests if (r.method, "/blobs/" in r.path) == GET]
        self.front.requests.clear()
        return [path.rpartition("/")[2] for path in asked]


GET = "GET", True


@pytest.fixture(params=["layout", "registry"])
def mirror(request, docker_registry, registry, proxy, repository, tmp_path):
    """Make a mirror for each moment; all requests are counted by one trigger."""
    trigger = Trigger()
    counting = Rule(".*", "/", Call(trigger))
    front, back = proxy(registry, counting), proxy(docker_registry, counting)

    def make(number: int) -> Mirror:
        directory = tmp_path / f"{number}"
        if request.param == "layout":
            blobs = directory / "layout" / "blobs"
            target = f"oci:{directory}/layout"

            def has_blob(digest: str) -> bool:
                return (blobs / digest.replace(":", "/")).exists()

        else:
            there = f"{repository}/mirror{number}"
            target = f"{back.host}/{there}"

            def has_blob(digest: str) -> bool:
                return docker_registry.has_blob(there, digest)

        return Mirror(registry, front, repository, directory, target, has_blob)

    return trigger, make


def test_a_night_that_is_killed_at_any_moment_is_made_up_for(mirror) -> None:
    trigger, make = mirror
    whole = make(0)
    whole.begin()
    assert whole.night(trigger) == 0
    requests = trigger.seen
    moments = [(1 + n * requests // DURING, 0.0) for n in range(DURING)]
    moments += [(requests, late_s) for late_s in LATE_S]
    killed = 0
    for number, (at, late_s) in enumerate(moments, 1):
        one = make(number)
        one.begin()
        trigger.at, trigger.late_s = at, late_s
        code = one.night(trigger)
        killed += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL)
        look_and_go_on(one)
    assert killed >= DURING


def look_and_go_on(one: Mirror) -> None:
    """Whatever a killed night left is whole, and the next one brings it to its end."""
    assert locked(one.file) in (roots(FIRST), roots(SECOND))
    state = one.directory / "sync.state"
    told = ocimirror("history", f"{one.front.host}/{one.repository}:1.0", "--state", state)
    assert (told.code, told.stderr) == (0, "")
    with contextlib.closing(sqlite3.connect(state)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    stored = {digest for digest in BLOBS if one.has_blob(digest)}
    if one.target.startswith("oci:"):
        assert faults_of(Path(one.target.removeprefix("oci:"))) == []

    one.fetched()
    again = sync(one.file)
    assert again.code == 0, again.stderr
    assert locked(one.file) == roots(SECOND)
    fetched = one.fetched()
    assert stored.isdisjoint(fetched)
    assert len(fetched) == len(set(fetched))
    assert all(one.has_blob(digest) for digest in BLOBS)
    assert not list(one.directory.glob("*.damaged-*"))
    assert set(statuses(sync(one.file)).values()) == {"unchanged"}
    assert one.fetched() == []
