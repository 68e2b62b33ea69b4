"""Power is lost at each step of a copy: the layout is valid, and what was reported is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ocimirror.copy.copy import copy
from ocimirror.copy.outcome import Options, Outcome, Silent
from ocimirror.stores.layout import Layout
from ocimirror.stores.links import LinkingLayout
from tests.support import images
from tests.support.images import Graph
from tests.support.judge import faults_in, names_in
from tests.support.powerloss import Disk, Recorder, disk_of
from tests.support.stores import failures, fill, memory, request

MOVING = "registry.example.com/moving:v1"
STAYING = "registry.example.com/staying:v1"
OLD = {MOVING: images.single(), STAYING: images.artifact()}
# Two runs: a tag that moves and shares layers; then a new directory blobs/sha512.
RUNS: list[dict[str, Graph]] = [
    {MOVING: images.multi(), "registry.example.com/new:v1": images.docker_schema2()},
    {"registry.example.com/sha512:v1": images.sha512_image()},
]
NEW = {name: graph for run in RUNS for name, graph in run.items()}


class Reporting(Silent):
    """Tells the recorder of each image that is said to be done."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def finished(self, outcome: Outcome) -> None:
        assert outcome.error is None
        self._recorder.mark(outcome.request.new_name)


def recorded(
    directory: Path,
    recorder: Recorder,
    *,
    durable: bool = True,
    link_from: Sequence[str] = (),
) -> Recorder:
    """Copy all images into a layout while each change of the disk is recorded."""
    with LinkingLayout(str(directory), link_from, durable=durable, os_layer=recorder) as layout:
        for run in RUNS:
            requests = [request(memory(run), name, layout) for name in run]
            assert failures(copy(requests, Options(jobs=2), Reporting(recorder))) == []
    return recorder


def found_after_each_step(
    disk: Disk, recorder: Recorder, directory: Path
) -> Sequence[tuple[int, dict[str, bytes]]]:
    """Return (steps done, files below the layout) of every way that power may be lost."""
    states: dict[tuple[object, ...], tuple[int, dict[str, bytes]]] = {}
    prefix = f"{directory}/"
    for count in range(len(recorder.steps) + 1):
        if count:
            recorder.steps[count - 1](disk)
        done = len(recorder.marked_before(count))
        for files in disk.after_power_loss(seed=count):
            below = {
                path.removeprefix(prefix): content
                for path, content in files.items()
                if path.startswith(prefix) and "/.ocimirror/" not in path
            }
            states.setdefault((done, *sorted(below.items())), (count, below))
    return list(states.values())


def complaints(
    states: Sequence[tuple[int, dict[str, bytes]]], recorder: Recorder, old: dict[str, Graph]
) -> list[str]:
    """Return what is wrong with each state: damage, a lost name, or an empty promise."""
    wrong: list[str] = []
    for count, files in states:
        faults = faults_in(files)
        named = {} if faults else names_in(files)
        for name, graph in old.items():
            allowed = {graph.root, NEW[name].root if name in NEW else graph.root}
            if named.get(name) not in allowed:
                faults.append(f"{name} is lost")
        for name in recorder.marked_before(count):
            if named.get(name) != NEW[name].root:
                faults.append(f"{name} was reported and is not there")
        wrong += [f"after step {count}: {fault}" for fault in faults]
    return wrong


@pytest.fixture
def old_layout(tmp_path: Path) -> Path:
    """Write a layout that holds two images already."""
    directory = tmp_path / "layout"
    with Layout(str(directory), "write") as layout:
        fill(layout, OLD)
    return directory


@pytest.mark.bar("R03")
def test_a_layout_that_holds_images_survives_power_loss_at_every_step(old_layout: Path) -> None:
    disk = disk_of(old_layout)
    recorder = recorded(old_layout, Recorder())
    states = found_after_each_step(disk, recorder, old_layout)
    assert len(states) > 200
    assert complaints(states, recorder, OLD) == []


@pytest.mark.bar("R03")
def test_a_layout_that_is_being_made_survives_power_loss_at_every_step(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "and" / "deep" / "layout"
    disk = disk_of(tmp_path)
    recorder = recorded(directory, Recorder())
    states = found_after_each_step(disk, recorder, directory)
    assert complaints(states, recorder, {}) == []


@pytest.mark.bar("R03")
def test_power_loss_right_after_a_report_finds_what_was_reported(old_layout: Path) -> None:
    """The last step: every image was reported, and nothing that hangs in the air matters."""
    disk = disk_of(old_layout)
    recorder = recorded(old_layout, Recorder())
    for step in recorder.steps:
        step(disk)
    for files in disk.after_power_loss(seed=0):
        below = {p.removeprefix(f"{old_layout}/"): content for p, content in files.items()}
        assert names_in(below) == {STAYING: OLD[STAYING].root} | {
            name: graph.root for name, graph in NEW.items()
        }


class UnsyncedLinks(Recorder):
    """A disk that says it synced what it only linked, and did not."""

    def sync_file(self, path: str) -> None:
        pass


@pytest.mark.parametrize("kind", [Recorder, UnsyncedLinks])
def test_what_is_linked_from_a_layout_that_was_never_synced_survives_power_loss(
    old_layout: Path, kind: type[Recorder]
) -> None:
    other = old_layout.parent / "other"
    images.write_layout(other, NEW)
    disk = disk_of(old_layout.parent)
    for path, number in disk.certain.items():
        if path.startswith(f"{other}/") and number >= 0:
            disk.synced[number] = b""
    recorder = recorded(old_layout, kind(), link_from=[str(other)])
    states = found_after_each_step(disk, recorder, old_layout)
    assert any(path.stat().st_nlink > 1 for path in old_layout.glob("blobs/*/*"))
    assert (complaints(states, recorder, OLD) == []) is (kind is Recorder)


class Unsynced(Recorder):
    """A disk that says it synced a file, and did not."""

    def sync(self, fd: int) -> None:
        pass


class UnsyncedDirectories(Recorder):
    """A disk that says it synced a directory, and did not."""

    def sync_directory(self, path: str) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "durable"), [(Recorder, False), (Unsynced, True), (UnsyncedDirectories, True)]
)
def test_these_tests_notice_a_sync_that_is_left_out(
    old_layout: Path, kind: type[Recorder], durable: bool
) -> None:
    disk = disk_of(old_layout)
    recorder = recorded(old_layout, kind(), durable=durable)
    states = found_after_each_step(disk, recorder, old_layout)
    assert complaints(states, recorder, OLD) != []


class Other(Recorder):
    """The disk while another process of ours, not yet done, has renamed a blob into place."""

    def leave_unsynced(self, layout: Path, digest: str, content: bytes) -> None:
        temporary = str(layout / ".ocimirror" / "tmp" / digest)
        fd = self.create(temporary)
        self.write(fd, content)
        self.close(fd)
        self.rename(temporary, str(images.blob_path(layout, digest)))


@pytest.mark.bar("R03")
def test_what_another_writer_left_unsynced_is_synced_before_it_is_named(old_layout: Path) -> None:
    """It said nothing to the disk yet: we name its blobs, so that we have to say it."""
    name, graph = "registry.example.com/other:v1", images.docker_schema2()
    disk, recorder = disk_of(old_layout), Other()
    for digest, content in graph.contents.items():
        recorder.leave_unsynced(old_layout, digest, content)
    with Layout(str(old_layout), "write", os_layer=recorder) as layout:
        wanted = [request(memory({name: graph}), name, layout)]
        (outcome,) = copy(wanted, Options(jobs=1), Silent())
        assert outcome.error is None
        assert outcome.blobs["present"] == len(graph.blobs)
    states = found_after_each_step(disk, recorder, old_layout)
    with_name = [files for _, files in states if name in names_in(files)]
    assert with_name
    assert [fault for files in with_name for fault in faults_in(files)] == []


class Order(Recorder):
    """Keeps the names that files get, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.renamed: list[str] = []

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        self.renamed.append(Path(new).name)


def test_the_index_is_kept_as_it_was_before_it_is_replaced(old_layout: Path) -> None:
    """Killed between the two, index.json.prev is the one that was valid, never one still older."""
    order, before = Order(), (old_layout / "index.json").read_bytes()
    with Layout(str(old_layout), "write", os_layer=order) as layout:
        wanted = [request(memory(RUNS[0]), name, layout) for name in RUNS[0]]
        assert failures(copy(wanted, Options(jobs=1), Silent())) == []
    indexes = [name for name in order.renamed if name.startswith("index.json")]
    assert indexes == ["index.json.prev", "index.json"]
    assert (old_layout / "index.json.prev").read_bytes() == before
