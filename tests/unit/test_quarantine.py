"""Blobs on their way out of a layout, and what a crash on the way leaves."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ocimirror.errors import DamagedLayout, LocalStorageError, Locked, NotFound
from ocimirror.stores.exclusive import ExclusiveLayout
from ocimirror.stores.layout import Layout
from ocimirror.stores.registry import NetworkOptions
from ocimirror.workflows.gc import Collected, gc
from ocimirror.workflows.places import Places
from tests.support import images
from tests.support.judge import contents_of, faults_in, faults_of, leftovers_of, names_in, names_of
from tests.support.oslayers import Died, Dies, Refuses
from tests.support.powerloss import Recorder, disk_of
from tests.support.stores import blob_of

NAME = "registry.example.com/app:v1"
KEPT, GONE = images.multi(), images.docker_schema2()
LEFT = set(GONE.contents) - set(KEPT.contents)
DAY_S = 24 * 3600


def collect(directory: Path, grace_s: float = 0, *, dry_run: bool = False) -> Collected:
    with Places(NetworkOptions) as places:
        return gc(str(directory), grace_s, places, dry_run=dry_run)


def digests(files: list[object]) -> set[str]:
    return {str(file.digest) for file in files}  # type: ignore[attr-defined]


def put_aside(directory: Path) -> set[str]:
    """Return the digests in quarantine."""
    found = (directory / ".ocimirror" / "quarantine").glob("*/*")
    return {f"{path.parent.name}:{path.name}" for path in found}


def age(path: Path, seconds: float) -> None:
    stamp = time.time() - seconds
    os.utime(path, (stamp, stamp))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Write a layout with an image, and with the content of another that has no entry."""
    directory = images.write_layout(tmp_path / "layout", {NAME: GONE})
    images.write_layout(directory, {NAME: KEPT})
    return directory


def test_what_nothing_reaches_is_put_aside_and_then_deleted(layout: Path) -> None:
    first = collect(layout)
    assert digests(first.quarantined) == put_aside(layout) == LEFT
    assert digests(first.kept) == set(contents_of(layout)) == set(KEPT.contents)

    second = collect(layout)
    assert digests(second.deleted) == LEFT
    assert put_aside(layout) == set()
    assert faults_of(layout) == []


def test_a_blob_stays_as_long_as_the_grace_and_waits_as_long_again(layout: Path) -> None:
    old, young = GONE.root, LEFT - {GONE.root}
    age(images.blob_path(layout, old), 2 * DAY_S)

    assert digests(collect(layout, DAY_S).quarantined) == {old}
    waiting = collect(layout, DAY_S)
    assert digests(waiting.waiting) == {old}
    assert young <= digests(waiting.kept)

    age(layout / ".ocimirror" / "quarantine" / old.replace(":", "/"), 2 * DAY_S)
    assert digests(collect(layout, DAY_S).deleted) == {old}


def test_what_a_young_manifest_names_stays_however_old_it_is(layout: Path) -> None:
    for digest in LEFT - {GONE.root}:
        age(images.blob_path(layout, digest), 2 * DAY_S)
    assert collect(layout, DAY_S).quarantined == []


def test_what_a_manifest_of_unknown_type_may_name_stays(tmp_path: Path) -> None:
    layer = images.noise("layer", 1000)
    inner = images.compact({"refers": [str(blob_of(layer).digest)]})
    outer = images.compact({"what": {"ever": str(blob_of(inner).digest)}})
    directory = images.write_layout(tmp_path, {NAME: KEPT})
    for content in (layer, inner, outer):
        images.blob_path(directory, str(blob_of(content).digest)).write_bytes(content)
    entry = {
        "mediaType": images.UNKNOWN_CHILD,
        "digest": str(blob_of(outer).digest),
        "size": len(outer),
    }
    index = {"schemaVersion": 2, "manifests": [entry, KEPT.descriptor]}
    (directory / "index.json").write_bytes(images.compact(index))

    assert collect(directory).quarantined == []


def test_what_has_become_needed_is_put_back_be_it_a_manifest_or_a_layer(layout: Path) -> None:
    collect(layout)
    before = contents_of(layout)
    assert not LEFT & set(before)
    index = {"schemaVersion": 2, "manifests": [KEPT.descriptor, GONE.descriptor]}
    (layout / "index.json").write_bytes(images.compact(index))

    assert digests(collect(layout).restored) == LEFT
    assert put_aside(layout) == set()
    assert faults_of(layout) == []


def test_what_was_written_again_is_not_overwritten_from_quarantine(layout: Path) -> None:
    collect(layout)
    images.write_layout(layout, {NAME: KEPT, "registry.example.com/back:v1": GONE})

    again = collect(layout)

    assert again.restored == []
    assert digests(again.deleted) == LEFT
    assert faults_of(layout) == []


def test_a_dry_run_tells_the_same_and_changes_nothing(layout: Path) -> None:
    files = sorted(path for path in layout.rglob("*"))
    planned = collect(layout, dry_run=True)
    assert sorted(path for path in layout.rglob("*")) == files
    assert planned == collect(layout)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "link"])
@pytest.mark.parametrize("which", ["root", "child"])
def test_where_a_needed_manifest_is_damaged_nothing_is_removed(
    layout: Path, damage: str, which: str
) -> None:
    manifests = list(KEPT.manifests)
    path = images.blob_path(layout, manifests[-1] if which == "root" else manifests[0])
    raw = path.read_bytes()
    path.unlink()
    if damage == "link":
        path.with_name("elsewhere").write_bytes(raw)
        path.symlink_to("elsewhere")
    elif damage != "remove":
        path.write_bytes(raw[:-1] if damage == "truncate" else raw[:-1] + b"]")
    before = sorted(layout.rglob("*"))

    with pytest.raises(DamagedLayout) as caught:
        collect(layout)

    assert caught.value.exit_code == 5
    assert set(before) <= set(layout.rglob("*"))
    assert put_aside(layout) == set()


def test_a_torn_index_removes_nothing(layout: Path) -> None:
    (layout / "index.json").write_bytes((layout / "index.json").read_bytes()[:-5])
    with pytest.raises(DamagedLayout):
        collect(layout)
    assert set(contents_of(layout)) == set(KEPT.contents) | LEFT


def test_files_that_are_no_blobs_are_told_and_stay(layout: Path) -> None:
    strays = ["blobs/README", "blobs/sha256/abc", "blobs/sha256/dir", "blobs/sha256/" + "0" * 64]
    (layout / strays[0]).write_bytes(b"x")
    (layout / strays[1]).write_bytes(b"x")
    (layout / strays[2]).mkdir()
    (layout / strays[3]).symlink_to("abc")

    assert sorted(collect(layout).strays) == sorted(strays)
    assert all((layout / stray).exists() for stray in strays)


def test_what_dead_writers_left_is_removed_at_once(layout: Path) -> None:
    temporary = layout / ".ocimirror" / "tmp"
    temporary.mkdir(parents=True)
    (temporary / "index.json.0123456789abcdef").write_bytes(b"half")
    (temporary / f"sha256-{'0' * 64}.partial").write_bytes(b"to be continued")

    collect(layout)

    assert leftovers_of(layout) == [f"sha256-{'0' * 64}.partial"]


@pytest.mark.parametrize("link", [".ocimirror/quarantine", ".ocimirror/quarantine/sha256"])
def test_a_link_in_the_place_of_the_quarantine_leads_nowhere(
    layout: Path, tmp_path: Path, link: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ("f" * 64)).write_bytes(b"somebody's")
    (outside / "sha256").mkdir()
    (outside / "sha256" / ("f" * 64)).write_bytes(b"somebody's")
    (layout / link).parent.mkdir(parents=True, exist_ok=True)
    (layout / link).symlink_to(outside)
    before = sorted(outside.rglob("*"))

    with pytest.raises(DamagedLayout):
        collect(layout)

    assert sorted(outside.rglob("*")) == before
    assert set(contents_of(layout)) == set(KEPT.contents) | LEFT


def test_nobody_else_may_be_at_work(layout: Path) -> None:
    with Layout(str(layout), write=True):
        with pytest.raises(Locked):
            collect(layout)
    with Layout(str(layout)):  # (there is a lock now)
        with pytest.raises(Locked):
            collect(layout, dry_run=True)
    with ExclusiveLayout(str(layout), write=True):
        with pytest.raises(Locked):
            Layout(str(layout), write=True)


def test_a_directory_that_is_no_layout_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        collect(tmp_path / "absent")
    with pytest.raises(DamagedLayout):
        collect(tmp_path)
    assert list(tmp_path.iterdir()) == []


def run_with(os_layer: object, layout: Path) -> None:
    """Put everything aside that nothing reaches, on a disk of ours."""
    with ExclusiveLayout(str(layout), write=True, os_layer=os_layer) as opened:  # type: ignore[arg-type]
        files = opened.quarantine.stored()[0]
        opened.quarantine.take([f for f in files if str(f.digest) in LEFT])
        opened.quarantine.put_back(opened.quarantine.waiting())
        opened.quarantine.take([f for f in files if str(f.digest) in LEFT])
        opened.quarantine.delete(opened.quarantine.waiting())


def test_whenever_a_run_dies_the_layout_is_valid_and_no_manifest_lacks_its_content(
    layout: Path, tmp_path: Path
) -> None:
    for steps in range(200):
        # (Written root last, as a copy writes.)
        for number, digest in enumerate([*GONE.blobs, *GONE.manifests]):
            path = images.blob_path(layout, digest)
            if digest in LEFT:
                path.write_bytes(GONE.contents[digest])
                age(path, 1000 - number)
        dies = Dies(steps)
        try:
            run_with(dies, layout)
        except Died:
            assert faults_of(layout) == []
            assert names_of(layout) == {NAME: KEPT.root}
            present = set(contents_of(layout))
            assert GONE.root not in present or set(GONE.contents) <= present
        if not dies.dead:
            break
    assert steps > 3 * len(LEFT)
    assert put_aside(layout) == set()


def test_power_loss_at_every_step_leaves_the_layout_valid(layout: Path) -> None:
    Layout(str(layout), write=True).close()
    disk = disk_of(layout)
    recorder = Recorder()
    run_with(recorder, layout)
    for count in range(len(recorder.steps) + 1):
        if count:
            recorder.steps[count - 1](disk)
        for files in disk.after_power_loss(seed=count):
            below = {p.removeprefix(f"{layout}/"): content for p, content in files.items()}
            assert faults_in(below) == []
            assert names_in(below) == {NAME: KEPT.root}


def test_a_disk_that_refuses_is_a_local_storage_error(layout: Path) -> None:
    with pytest.raises(LocalStorageError):
        run_with(Refuses(lambda operation, path: "quarantine" in path), layout)
    assert faults_of(layout) == []


class Watching(Recorder):
    """Looks at what a run that is killed before a step would leave in quarantine."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.old: list[str] = []

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        now = time.time()
        found = (self.directory / ".ocimirror" / "quarantine").glob("*/*")
        self.old += [path.name for path in found if now - path.stat().st_mtime > DAY_S]


def test_a_blob_is_stamped_before_it_is_put_aside_so_that_it_waits_its_whole_time(
    layout: Path,
) -> None:
    """Killed between the two, the run before would have left it old: the next one deletes it."""
    for digest in LEFT:
        age(images.blob_path(layout, digest), 9 * DAY_S)
    watching = Watching(layout)
    with ExclusiveLayout(str(layout), write=True, os_layer=watching) as exclusive:
        stored, _ = exclusive.quarantine.stored()
        exclusive.quarantine.take([file for file in stored if str(file.digest) in LEFT])
    assert put_aside(layout) == LEFT
    assert watching.old == []
