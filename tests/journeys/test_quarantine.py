"""Blobs on their way out of a layout, and what a crash on the way leaves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.judge import contents_of, faults_in, faults_of, leftovers_of, names_in
from tests.support.locks import locked
from tests.support.powerloss import disk_of
from tests.support.traced import Trace, refused, stopped, traced

NAME = "registry.example.com/app:v1"
KEPT, GONE = images.multi(), images.docker_schema2()
LEFT = set(GONE.contents) - set(KEPT.contents)
DAY_S = 24 * 3600


def gc(directory: Path, *options: str) -> Result:
    return ocimirror("gc", directory, "--json", *options)


def collect(directory: Path, grace: str = "0", *options: str) -> dict[str, int]:
    """Collect; return how many blobs were kept, restored, put aside, waiting and deleted."""
    done = gc(directory, "--grace", grace, *options)
    assert done.code == 0, done.stderr
    return counts(done)


def counts(done: Result) -> dict[str, int]:
    whats = ("kept", "restored", "quarantined", "waiting", "deleted")
    return {what: done.document[what]["blobs"] for what in whats}


def put_aside(directory: Path) -> set[str]:
    """Return the digests in quarantine."""
    found = (directory / ".ocimirror" / "quarantine").glob("*/*")
    return {f"{path.parent.name}:{path.name}" for path in found}


def age(path: Path, seconds: float) -> None:
    stamp = time.time() - seconds
    os.utime(path, (stamp, stamp))


def name_only(layout: Path, *graphs: images.Graph) -> None:
    """Write index.json with these images and no others."""
    index = {"schemaVersion": 2, "manifests": [graph.descriptor for graph in graphs]}
    (layout / "index.json").write_bytes(images.compact(index))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Write a layout with an image, and with the content of another that has no entry."""
    directory = images.write_layout(tmp_path / "layout", {NAME: GONE})
    images.write_layout(directory, {NAME: KEPT})
    return directory


def test_what_nothing_reaches_is_put_aside_and_then_deleted(layout: Path) -> None:
    first = collect(layout)
    assert put_aside(layout) == LEFT
    assert first["quarantined"] == len(LEFT)
    assert set(contents_of(layout)) == set(KEPT.contents)
    assert first["kept"] == len(KEPT.contents)

    second = collect(layout)
    assert second["deleted"] == len(LEFT)
    assert put_aside(layout) == set()
    assert faults_of(layout) == []


def test_a_blob_stays_as_long_as_the_grace_and_waits_as_long_again(layout: Path) -> None:
    old, young = GONE.root, LEFT - {GONE.root}
    age(images.blob_path(layout, old), 2 * DAY_S)

    assert collect(layout, "24h")["quarantined"] == 1
    assert put_aside(layout) == {old}
    waiting = collect(layout, "24h")
    assert (waiting["waiting"], waiting["deleted"]) == (1, 0)
    assert young <= set(contents_of(layout))

    age(layout / ".ocimirror" / "quarantine" / old.replace(":", "/"), 2 * DAY_S)
    assert collect(layout, "24h")["deleted"] == 1
    assert put_aside(layout) == set()


def test_what_a_young_manifest_names_stays_however_old_it_is(layout: Path) -> None:
    for digest in LEFT - {GONE.root}:
        age(images.blob_path(layout, digest), 2 * DAY_S)
    assert collect(layout, "24h")["quarantined"] == 0


def test_what_a_manifest_of_unknown_type_may_name_stays(tmp_path: Path) -> None:
    layer = images.noise("layer", 1000)
    inner = images.compact({"refers": [images.digest_of(layer)]})
    outer = images.compact({"what": {"ever": images.digest_of(inner)}})
    directory = images.write_layout(tmp_path, {NAME: KEPT})
    for content in (layer, inner, outer):
        images.blob_path(directory, images.digest_of(content)).write_bytes(content)
    entry = images.describe(outer, images.UNKNOWN_CHILD)
    index = {"schemaVersion": 2, "manifests": [entry, KEPT.descriptor]}
    (directory / "index.json").write_bytes(images.compact(index))

    assert collect(directory)["quarantined"] == 0


def test_what_has_become_needed_is_put_back_be_it_a_manifest_or_a_layer(layout: Path) -> None:
    collect(layout)
    assert not LEFT & set(contents_of(layout))
    name_only(layout, KEPT, GONE)

    assert collect(layout)["restored"] == len(LEFT)
    assert put_aside(layout) == set()
    assert faults_of(layout) == []


def test_what_was_written_again_is_not_overwritten_from_quarantine(layout: Path) -> None:
    collect(layout)
    images.write_layout(layout, {NAME: KEPT, "registry.example.com/back:v1": GONE})
    written = {digest: images.blob_path(layout, digest).stat().st_ino for digest in LEFT}

    again = collect(layout)

    assert (again["restored"], again["deleted"]) == (0, len(LEFT))
    assert {d: images.blob_path(layout, d).stat().st_ino for d in LEFT} == written
    assert faults_of(layout) == []


def test_a_dry_run_tells_the_same_and_changes_nothing(layout: Path) -> None:
    files = sorted(path for path in layout.rglob("*"))
    planned = gc(layout, "--grace", "0", "--dry-run").document
    assert sorted(path for path in layout.rglob("*")) == files
    done = gc(layout, "--grace", "0").document
    assert planned == {**done, "dry_run": True}


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

    refused = gc(layout, "--grace", "0")

    assert refused.code == 5
    assert set(before) <= set(layout.rglob("*"))
    assert put_aside(layout) == set()


def test_a_torn_index_removes_nothing(layout: Path) -> None:
    (layout / "index.json").write_bytes((layout / "index.json").read_bytes()[:-5])
    assert gc(layout, "--grace", "0").code == 5
    assert set(contents_of(layout)) == set(KEPT.contents) | LEFT


def test_files_that_are_no_blobs_are_told_and_stay(layout: Path) -> None:
    strays = ["blobs/README", "blobs/sha256/abc", "blobs/sha256/dir", "blobs/sha256/" + "0" * 64]
    (layout / strays[0]).write_bytes(b"x")
    (layout / strays[1]).write_bytes(b"x")
    (layout / strays[2]).mkdir()
    (layout / strays[3]).symlink_to("abc")

    done = gc(layout, "--grace", "0")

    assert sorted(done.document["strays"]) == sorted(strays)
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

    assert gc(layout, "--grace", "0").code == 5

    assert sorted(outside.rglob("*")) == before
    assert set(contents_of(layout)) == set(KEPT.contents) | LEFT


def test_nobody_else_may_be_at_work(layout: Path, tmp_path: Path) -> None:
    with locked(layout, shared=True):  # (as readers and writers do)
        assert gc(layout, "--grace", "0").code == 7
        assert gc(layout, "--dry-run").code == 7
    with stopped("renameat", 1, ("gc", layout, "--grace", "0"), tmp_path / "trace"):
        assert ocimirror("tag", layout, NAME, "registry.example.com/app:v2").code == 7
        assert ocimirror("verify", layout).code == 7


def test_a_directory_that_is_no_layout_stays_as_it_is(tmp_path: Path) -> None:
    assert gc(tmp_path / "absent").code == 4
    (tmp_path / "empty").mkdir()
    assert gc(tmp_path / "empty").code == 5
    assert list((tmp_path / "empty").iterdir()) == []


# --- a run that is cut off ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a layout as the fixture `layout` does; blobs are old, and the root is the youngest."""
    directory = images.write_layout(tmp_path_factory.mktemp("base") / "layout", {NAME: GONE})
    for number, digest in enumerate([*GONE.blobs, *GONE.manifests]):
        age(images.blob_path(directory, digest), 9 * DAY_S - number)
    return images.write_layout(directory, {NAME: KEPT})


@pytest.fixture(scope="module")
def taken(base: Path) -> tuple[Path, Trace, list[dict[str, bytes]], list[dict[str, bytes]]]:
    """Trace two runs, which put aside and delete; return what a kill and a power loss leave."""
    disk = disk_of(base)
    killed: list[dict[str, bytes]] = []
    lost: list[dict[str, bytes]] = []
    trace = traced(base, "gc", base, "--grace", "0")
    trace = trace.then(traced(base, "gc", base, "--grace", "0"))
    for number, step in enumerate(trace.steps):
        step.apply(disk)
        killed.append(below(base, disk.after_kill()))
        lost += (below(base, files) for files in disk.after_power_loss(number, ".ocimirror/tmp/"))
    assert put_aside(base) == set()
    return base, trace, killed, lost


def below(layout: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    return {path.removeprefix(f"{layout}/"): content for path, content in files.items()}


def digests_in(files: dict[str, bytes], part: str) -> set[str]:
    """Return the digests of the files below `blobs/` or the quarantine."""
    found = (path.removeprefix(part) for path in files if path.startswith(part))
    return {path.replace("/", ":") for path in found}


def test_whenever_a_run_dies_the_layout_is_valid_and_no_manifest_lacks_its_content(
    taken: tuple[Path, Trace, list[dict[str, bytes]], list[dict[str, bytes]]],
) -> None:
    states = taken[2]
    assert len(states) > 3 * len(LEFT)
    for files in states:
        assert faults_in(files) == []
        assert names_in(files) == {NAME: KEPT.root}
        present = digests_in(files, "blobs/")
        assert GONE.root not in present or set(GONE.contents) <= present


def test_power_loss_at_every_step_leaves_the_layout_valid(
    taken: tuple[Path, Trace, list[dict[str, bytes]], list[dict[str, bytes]]],
) -> None:
    for files in taken[3]:
        assert faults_in(files) == []
        assert names_in(files) == {NAME: KEPT.root}


def test_a_blob_is_stamped_before_it_is_put_aside_so_that_it_waits_its_whole_time(
    taken: tuple[Path, Trace, list[dict[str, bytes]], list[dict[str, bytes]]],
) -> None:
    """Killed between the two, the run before would have left it old: the next one deletes it."""
    base, trace, _, _ = taken
    done = [(step.operation, step.path) for step in trace.steps]
    for digest in LEFT:
        blob = images.blob_path(base, digest)
        aside = base / ".ocimirror" / "quarantine" / digest.replace(":", "/")
        assert done.index(("touch", str(blob))) < done.index(("rename", str(aside)))


def restoring(layout: Path) -> Iterator[dict[str, bytes]]:
    """Yield what a kill leaves at each step of a run that puts back what has become needed."""
    collect(layout)
    name_only(layout, KEPT, GONE)
    disk = disk_of(layout)
    for step in traced(layout, "gc", layout, "--grace", "0").steps:
        step.apply(disk)
        yield below(layout, disk.after_kill())


def test_whenever_a_run_that_puts_back_dies_nothing_is_lost(layout: Path) -> None:
    for files in restoring(layout):
        waiting = digests_in(files, ".ocimirror/quarantine/")
        assert waiting | digests_in(files, "blobs/") == set(KEPT.contents) | LEFT
    assert faults_of(layout) == []


def test_a_disk_that_refuses_is_a_local_storage_error(layout: Path, tmp_path: Path) -> None:
    done = refused("renameat", ("gc", layout, "--grace", "0"), tmp_path / "trace")
    assert done.code == 8
    assert faults_of(layout) == []
