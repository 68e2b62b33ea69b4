"""A disk that refuses a step of a copy: exit 8, and nothing half-done has a name."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.judge import faults_of, leftovers_of, names_of
from tests.support.traced import killed, refused, stopped, traced

APP, OLD = "registry.example.com/app:v1", "registry.example.com/old:v1"
(IMAGE,) = images.shared_layers(1, 1, 200_000, 0)
(LARGE,) = images.shared_layers(1, 1, 2_000_000, 0)


def layer_of(graph: images.Graph) -> str:
    """Return the digest of the largest blob."""
    return max(graph.blobs, key=lambda digest: len(graph.blobs[digest]))


def partial_of(layout: Path, graph: images.Graph) -> Path:
    """Return where a layer is while it is written."""
    name = layer_of(graph).replace(":", "-")
    return layout / ".ocimirror" / "tmp" / f"{name}.partial"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a layout as the command leaves it, with one image."""
    source = images.write_layout(tmp_path_factory.mktemp("good") / "source", {OLD: images.single()})
    layout = source.with_name("layout")
    assert ocimirror("copy", f"oci:{source}", f"oci:{layout}").code == 0
    return layout


@pytest.fixture
def layout(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "layout")


@pytest.fixture
def copying(layout: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    """Return the command that copies an image into the layout."""
    source = images.write_layout(tmp_path / "source", {APP: IMAGE})
    return "copy", f"oci:{source}", f"oci:{layout}", "--jobs", "1", "--json"


def check_nothing_came(layout: Path, done: Result) -> None:
    assert done.code == 8, done.stdout
    assert not images.blob_path(layout, layer_of(IMAGE)).exists()
    assert leftovers_of(layout) == []
    assert names_of(layout) == {OLD: images.single().root}
    assert faults_of(layout) == []


STEPS = {
    "create": ("openat", ".ocimirror/tmp"),
    "write": ("write", "PARTIAL"),
    "sync": ("fsync", "PARTIAL"),
    "rename": ("renameat", "blobs/sha256"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.bar("R05")
def test_a_disk_error_is_a_local_storage_error_and_leaves_nothing(
    layout: Path, copying: tuple[str | Path, ...], tmp_path: Path, step: str
) -> None:
    call, where = STEPS[step]
    below = partial_of(layout, IMAGE) if where == "PARTIAL" else layout / where
    done = refused(call, copying, tmp_path / "trace", below=below)
    check_nothing_came(layout, done)
    (image,) = done.document["images"]
    assert "Input/output error" in image["error"]["message"]


@pytest.mark.bar("R05")
def test_a_file_that_could_not_be_synced_is_not_synced_again(
    layout: Path, copying: tuple[str | Path, ...], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    refused("fsync", copying, trace, below=partial_of(layout, IMAGE))
    assert trace.read_text().count("fsync(") == 1


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_a_full_disk_says_what_was_written_and_what_is_free(
    layout: Path, copying: tuple[str | Path, ...], tmp_path: Path, error: str
) -> None:
    below = partial_of(layout, IMAGE)
    done = refused("write", copying, tmp_path / "trace", below=below, error=error)
    check_nothing_came(layout, done)
    (image,) = done.document["images"]
    assert image["error"]["code"] == "no_space"
    found = re.search(r"after \d+ bytes, \d+ bytes free", image["error"]["message"])
    assert found is not None, image
    assert f": {os.strerror(getattr(errno, error))}" in image["error"]["message"]


@pytest.mark.parametrize("error", ["EROFS", "EACCES"])
def test_a_local_fault_is_told_apart_from_a_full_disk(
    layout: Path, copying: tuple[str | Path, ...], tmp_path: Path, error: str
) -> None:
    below = partial_of(layout, IMAGE)
    done = refused("write", copying, tmp_path / "trace", below=below, error=error)
    check_nothing_came(layout, done)
    (image,) = done.document["images"]
    assert image["error"]["code"] == "local_storage_error"
    assert f": {os.strerror(getattr(errno, error))}" in image["error"]["message"]


@pytest.mark.parametrize("step", ["sync", "rename", "sync of a directory"])
@pytest.mark.bar("R05")
def test_names_that_could_not_be_written_leave_a_valid_index(
    good: Path, layout: Path, tmp_path: Path, step: str
) -> None:
    new = "registry.example.com/app:v2"
    rehearsal = traced(
        shutil.copytree(good, tmp_path / "rehearsal"), "tag", tmp_path / "rehearsal", OLD, new
    )
    operation = "rename" if step == "rename" else "sync"
    steps = [done.path for done in rehearsal.steps if done.operation == operation]
    directory = step == "sync of a directory"
    first = next(n for n, path in enumerate(steps, 1) if path.endswith("/") is directory)
    call = "renameat" if step == "rename" else "fsync"

    done = refused(call, ("tag", layout, OLD, new), tmp_path / "trace", when=f"{first}+")

    assert done.code == 8
    assert names_of(layout)[OLD] == images.single().root
    assert faults_of(layout) == []


def test_a_writer_with_the_process_id_of_a_dead_one_is_not_in_its_way(
    layout: Path, copying: tuple[str | Path, ...], tmp_path: Path
) -> None:
    """In containers every run may be process 1, and the leftovers of the last one are young."""
    for call in ("write", "fsync"):
        killed(call, copying, tmp_path / "trace", partial_of(layout, IMAGE))
        assert leftovers_of(layout) == [partial_of(layout, IMAGE).name]
    assert ocimirror(*copying).code == 0
    assert names_of(layout)[APP] == IMAGE.root
    assert faults_of(layout) == []


def test_a_partial_file_is_not_taken_over_while_it_gets_its_name(
    layout: Path, tmp_path: Path
) -> None:
    """Right after the rename the file is still locked: another writer cannot have had it."""
    source = images.write_layout(tmp_path / "source", {APP: LARGE})
    before = set(layout.glob("blobs/*/*"))
    arguments = ("copy", f"oci:{source}", f"oci:{layout}", "--jobs", "1")
    with stopped("renameat", 1, arguments, tmp_path / "trace"):
        (blob,) = set(layout.glob("blobs/*/*")) - before
        with blob.open("rb+") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert faults_of(layout) == []
