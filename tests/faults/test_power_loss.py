"""Power is lost at each step of a pull: the layout is valid, and what was reported is there."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support import images
from tests.support.images import Graph
from tests.support.judge import faults_in, names_in
from tests.support.powerloss import Disk, disk_of
from tests.support.registry import StrictRegistry, run_registry
from tests.support.traced import Trace, traced

MOVING, STAYING = "moving:v1", "staying:v1"
OLD = {MOVING: images.single(), STAYING: images.artifact()}
# Two runs: a tag that moves and shares layers; then a new directory blobs/sha512.
RUNS: list[dict[str, Graph]] = [
    {MOVING: images.multi(), "new:v1": images.docker_schema2()},
    {"sha512:v1": images.sha512_layer()},
]
NEW = {name: graph for run in RUNS for name, graph in run.items()}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictRegistry]:
    """Offer what the layout is to have in the end."""
    with run_registry(tmp_path_factory.mktemp("registry")) as registry:
        for name, graph in NEW.items():
            repository, _, tag = name.partition(":")
            images.push(registry, repository, tag, graph)
        yield registry


def full(registry: StrictRegistry, graphs: dict[str, Graph]) -> dict[str, Graph]:
    """Return images under their whole names."""
    return {f"{registry.host}/{name}": graph for name, graph in graphs.items()}


@dataclass(frozen=True)
class Recorded:
    """Two runs of a command, and the disk before them."""

    directory: Path
    before: Disk
    old: dict[str, Graph]
    new: dict[str, Graph]
    trace: Trace

    def with_trace(self, trace: Trace) -> Recorded:
        """Return the same with other steps."""
        return replace(self, trace=trace)

    def reported_before(self, count: int) -> list[str]:
        """Return the names that were said to be done within the first steps."""
        lines = [line.split() for line in self.trace.marked_before(count)]
        place = f"oci:{self.directory}:"
        return [words[1].removeprefix(place) for words in lines if words[0] == "copied"]

    def states(self) -> Sequence[tuple[int, dict[str, bytes]]]:
        """Return (steps done, files of the layout) of every way that power may be lost."""
        disk = copy.deepcopy(self.before)
        states: dict[tuple[object, ...], tuple[int, dict[str, bytes]]] = {}
        prefix = f"{self.directory}/"
        for count in range(len(self.trace.steps) + 1):
            if count:
                self.trace.steps[count - 1].apply(disk)
            done = len(self.reported_before(count))
            for files in disk.after_power_loss(count, ignore="/.ocimirror/"):
                below = {path.removeprefix(prefix): files[path] for path in files}
                states.setdefault((done, *sorted(below.items())), (count, below))
        return list(states.values())

    def complaints(self) -> list[str]:
        """Return what is wrong with each state: damage, a lost name, or an empty promise."""
        wrong: list[str] = []
        for count, files in self.states():
            faults = faults_in(files)
            named = {} if faults else names_in(files)
            for name, graph in self.old.items():
                allowed = {graph.root, self.new.get(name, graph).root}
                if named.get(name) not in allowed:
                    faults.append(f"{name} is lost")
            for name in self.reported_before(count):
                if named.get(name) != self.new[name].root:
                    faults.append(f"{name} was reported and is not there")
            wrong += [f"after step {count}: {fault}" for fault in faults]
        return wrong


def record(
    registry: StrictRegistry, base: Path, below: str = "layout", *options: str | Path
) -> Recorded:
    """Pull all images in two runs while each change of what is below `base` is recorded."""
    directory = base / below
    before = disk_of(base)
    old = full(registry, OLD) if directory.exists() else {}
    trace = None
    for run in RUNS:
        pulled = traced(base, "pull", *full(registry, run), directory, "--jobs", "2", *options)
        assert pulled.result.code == 0, pulled.result.stderr
        trace = pulled if trace is None else trace.then(pulled)
    assert trace is not None
    recorded = Recorded(directory, before, old, full(registry, NEW), trace)
    assert set(recorded.reported_before(len(trace.steps))) == set(recorded.new)
    return recorded


def old_layout(registry: StrictRegistry, base: Path) -> Path:
    """Write a layout that holds two images already; return the directory around it."""
    images.write_layout(base / "layout", full(registry, OLD))
    return base


@pytest.fixture(scope="module")
def recorded(registry: StrictRegistry, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Record two pulls into a layout that holds images."""
    return record(registry, old_layout(registry, tmp_path_factory.mktemp("old")))


@pytest.mark.bar("R03")
def test_a_layout_that_holds_images_survives_power_loss_at_every_step(recorded: Recorded) -> None:
    assert len(recorded.states()) > 200
    assert recorded.complaints() == []


@pytest.mark.bar("R03")
def test_a_layout_that_is_being_made_survives_power_loss_at_every_step(
    registry: StrictRegistry, tmp_path: Path
) -> None:
    assert record(registry, tmp_path, "new/and/deep/layout").complaints() == []


@pytest.mark.bar("R03")
def test_power_loss_right_after_a_report_finds_what_was_reported(recorded: Recorded) -> None:
    """The last step: every image was reported, and nothing that hangs in the air matters."""
    disk = copy.deepcopy(recorded.before)
    for step in recorded.trace.steps:
        step.apply(disk)
    wanted = {name: graph.root for name, graph in (recorded.old | recorded.new).items()}
    for files in disk.after_power_loss(seed=0):
        prefix = f"{recorded.directory}/"
        assert names_in({p.removeprefix(prefix): files[p] for p in files}) == wanted


def test_what_is_linked_from_a_layout_that_was_never_synced_survives_power_loss(
    registry: StrictRegistry, tmp_path: Path
) -> None:
    base = old_layout(registry, tmp_path / "base")
    other = images.write_layout(base / "other", full(registry, NEW))
    linked = record(registry, base, "layout", "--link-from", other)
    for path, number in linked.before.certain.items():
        if path.startswith(f"{other}/") and number >= 0:
            linked.before.synced[number] = b""
    assert any(path.stat().st_nlink > 1 for path in linked.directory.glob("blobs/*/*"))
    assert linked.complaints() == []
    # And the test would notice if what is linked was not synced.
    names = {step.path for step in linked.trace.steps if step.operation == "link"}
    unsynced = linked.trace.without("sync", lambda path: path in names)
    assert linked.with_trace(unsynced).complaints()


@pytest.mark.parametrize("directories", [False, True])
def test_these_tests_notice_a_sync_that_is_left_out(recorded: Recorded, directories: bool) -> None:
    trace = recorded.trace.without("sync", lambda path: path.endswith("/") is directories)
    assert recorded.with_trace(trace).complaints() != []


def test_these_tests_notice_that_nothing_is_synced(
    registry: StrictRegistry, tmp_path: Path
) -> None:
    base = old_layout(registry, tmp_path)
    assert record(registry, base, "layout", "--no-fsync").complaints() != []


@pytest.mark.bar("R03")
def test_what_another_writer_left_unsynced_is_synced_before_it_is_named(
    registry: StrictRegistry, tmp_path: Path
) -> None:
    """It said nothing to the disk yet: we name its blobs, so that we have to say it."""
    base = old_layout(registry, tmp_path / "base")
    layout = base / "layout"
    name, graph = f"{registry.host}/new:v1", NEW["new:v1"]
    disk = disk_of(base)
    for digest, content in graph.contents.items():
        path = images.blob_path(layout, digest)
        if not path.exists():
            path.write_bytes(content)
            disk.create(str(path))
            disk.write(str(path), content)

    trace = traced(base, "pull", name, layout, "--jobs", "1", "--json")

    (image,) = trace.result.document["images"]
    assert image["blobs"]["present"] == len(graph.blobs)
    states = Recorded(layout, disk, {}, {}, trace).states()
    with_name = [files for _, files in states if name in names_in(files)]
    assert with_name
    assert [fault for files in with_name for fault in faults_in(files)] == []


def test_the_index_is_kept_as_it_was_before_it_is_replaced(
    registry: StrictRegistry, tmp_path: Path
) -> None:
    """Killed between the two, index.json.prev is the one that was valid, never one still older."""
    base = old_layout(registry, tmp_path / "base")
    before = (base / "layout" / "index.json").read_bytes()
    trace = traced(base, "pull", *full(registry, RUNS[0]), base / "layout", "--jobs", "1")
    renamed = [Path(step.path).name for step in trace.steps if step.operation == "rename"]
    indexes = [name for name in renamed if name.startswith("index.json")]
    assert indexes == ["index.json.prev", "index.json"]
    assert (base / "layout" / "index.json.prev").read_bytes() == before
