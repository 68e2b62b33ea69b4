"""A disk that is really full: exit code 8, the numbers to act on, and nothing lost."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from ocimirror import Layout, NoSpace, copy_many
from tests.journeys.test_sync import SINGLE, offer, sync
from tests.support import images
from tests.support.judge import faults_of, names_of
from tests.support.stores import Failing, copy_all, failures, fill, named, request

T = TypeVar("T")
OLD = "registry.example.com/old:v1"
LAYER_BYTES = 700_000
BIG = images.shared_layers(1, 4, LAYER_BYTES, shared_fraction=0.0)
NAME = next(iter(named(BIG)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of two megabytes, with a layout that holds one image."""
    if os.getuid() != 0:
        message = "mounting a small tmpfs needs root"
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], check=True)
    try:
        with Layout(str(mount / "layout"), write=True) as layout:
            fill(layout, {OLD: images.single()})
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def source_of_big() -> Failing:
    source = Failing()
    fill(source, named(BIG))
    return source


def check_nothing_is_lost_and_finish(mount: Path) -> None:
    """Look at the layout, make room, and run again."""
    layout = mount / "layout"
    assert faults_of(layout) == []
    assert names_of(layout) == {OLD: images.single().root}
    subprocess.run(["mount", "-o", "remount,size=8m", mount], check=True)
    with Layout(str(layout), write=True) as store:
        assert failures(copy_all(source_of_big(), store, [NAME])) == []
    assert names_of(layout) == {OLD: images.single().root, NAME: BIG[0].root}
    assert faults_of(layout) == []


@pytest.mark.bar("R04")
def test_what_does_not_fit_is_refused_with_bytes_needed_and_free(small_disk: Path) -> None:
    with Layout(str(small_disk / "layout"), write=True) as store:
        (outcome,) = copy_all(source_of_big(), store, [NAME], jobs=1)
    assert isinstance(outcome.error, NoSpace)
    assert (outcome.error.exit_code, outcome.error.side) == (8, "destination")
    free = int(outcome.error.message.rpartition("bytes, ")[2].partition(" ")[0])
    assert f"needs {LAYER_BYTES} bytes" in outcome.error.message
    assert 0 < free < LAYER_BYTES
    check_nothing_is_lost_and_finish(small_disk)


@pytest.mark.bar("R04")
def test_a_disk_that_fills_up_meanwhile_says_what_was_written_and_is_free(
    small_disk: Path,
) -> None:
    """Four layers begin at once; each would have fit alone."""
    source, start = source_of_big(), threading.Barrier(4)

    def together(reader: T) -> T:
        start.wait(10)
        return reader

    layers = [digest for digest, data in BIG[0].blobs.items() if len(data) == LAYER_BYTES]
    for digest in layers:
        source.faults[digest].append(together)
    with Layout(str(small_disk / "layout"), write=True) as store:
        (outcome,) = copy_all(source, store, [NAME], jobs=6)
    assert isinstance(outcome.error, NoSpace)
    assert outcome.error.exit_code == 8
    assert "bytes free" in outcome.error.message
    check_nothing_is_lost_and_finish(small_disk)


@pytest.mark.bar("R04")
def test_an_index_that_does_not_fit_leaves_the_old_one(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    with Layout(str(small_disk / "layout"), write=True) as store:
        by_digest = request(source_of_big(), NAME, store, "")
        assert failures(copy_many([by_digest])) == []
        fill_up(small_disk)
        (outcome,) = copy_all(source_of_big(), store, [NAME])
    assert isinstance(outcome.error, NoSpace)
    (small_disk / "filler").unlink()
    check_nothing_is_lost_and_finish(small_disk)


def fill_up(mount: Path) -> None:
    """Leave nothing free."""
    with (mount / "filler").open("wb", buffering=0) as file:
        file.write(bytes(free_bytes(mount)))


def free_bytes(mount: Path) -> int:
    """Return what an ordinary user may still write."""
    found = os.statvfs(mount)
    return found.f_bavail * found.f_frsize


def test_a_state_that_is_full_ends_the_night_and_hides_no_report(
    registry, repository, small_disk, tmp_path
) -> None:
    for number in range(250):
        offer(registry, repository, f"v0.0.{number}-with-a-long-name-{'x' * 60}", SINGLE)
    file = tmp_path / "sync.yaml"
    file.write_text(
        f"""referrers: false
mirrors:
  - from: {registry.host}/{repository}
    to: oci:one
    prune: true
"""
    )
    (small_disk / "filler").write_bytes(bytes(free_bytes(small_disk) - 160_000))
    numbers = tmp_path / "numbers"
    result = sync(file, "--state", small_disk / "state", "--metrics-file", numbers)
    assert result.code == 8
    assert result.document["error"]["code"] == "no_space"
    done = [i for i in result.document["images"] if i["status"] == "copied"]
    assert len(done) + result.document["totals"]["deferred"] == 250
    assert "last_run_exit_code 8" in numbers.read_text()
    assert sync(file).code == 0
