"""Blobs that become hard links to the files of another layout: every step may fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.judge import contents_of, faults_in, faults_of, leftovers_of
from tests.support.powerloss import disk_of
from tests.support.traced import killed, refused, traced

NAME = "registry.example.com/app:v1"
(IMAGE,) = images.shared_layers(1, 2, 200_000, 0)
LAYER = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return images.write_layout(tmp_path / "other", {NAME: IMAGE})


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a layout as the command leaves it, with nothing in it that these tests copy."""
    base = tmp_path_factory.mktemp("empty")
    source = images.write_layout(base / "source", {"registry.example.com/old:v1": images.single()})
    assert ocimirror("copy", f"oci:{source}", f"oci:{base / 'layout'}").code == 0
    return base / "layout"


@pytest.fixture
def layout(empty: Path, tmp_path: Path) -> Path:
    return shutil.copytree(empty, tmp_path / "layout")


@pytest.fixture
def linking(layout: Path, other: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    """Return the command that copies the image into the layout, with links to the other one."""
    source = images.write_layout(tmp_path / "source", {NAME: IMAGE})
    command = ("copy", f"oci:{source}", f"oci:{layout}", "--link-from", other)
    return *command, "--jobs", "1", "--json"


def linked(layout: Path, other: Path) -> set[str]:
    """Return the digests whose file is the other layout's."""
    return {
        digest
        for digest in IMAGE.contents
        if images.blob_path(layout, digest).samefile(images.blob_path(other, digest))
    }


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("linkat", "EXDEV"),
        ("linkat", "EPERM"),
        ("linkat", "EMLINK"),
        ("fsync", "EIO"),
        ("renameat", "EIO"),
    ],
)
def test_where_a_step_is_refused_the_blob_is_copied(
    call: str,
    error: str,
    linking: tuple[str | Path, ...],
    layout: Path,
    other: Path,
    tmp_path: Path,
) -> None:
    """The first link is refused, or what follows it; the others succeed."""
    done = refused(call, linking, tmp_path / "trace", error=error, when="1")
    assert done.code == 0, done.stdout
    blobs = done.document["images"][0]["blobs"]
    assert (blobs["copied"], blobs["linked"]) == (1, len(IMAGE.blobs) - 1)
    assert len(linked(layout, other)) == len(IMAGE.blobs) - 1
    assert faults_of(layout) == leftovers_of(layout) == []


def test_a_run_that_dies_at_any_step_leaves_valid_layouts(
    linking: tuple[str | Path, ...], layout: Path, other: Path
) -> None:
    disk = disk_of(layout.parent)
    trace = traced(layout.parent, *linking)
    assert trace.result.document["images"][0]["blobs"]["linked"] == len(IMAGE.blobs)
    for step in trace.steps:
        step.apply(disk)
        files = disk.after_kill()
        for each in (layout, other):
            prefix = f"{each}/"
            below = {p.removeprefix(prefix): files[p] for p in files if p.startswith(prefix)}
            assert faults_in(below) == []
    assert sum(step.operation == "link" for step in trace.steps) == len(IMAGE.blobs)


@pytest.mark.parametrize("call", ["linkat", "fsync", "renameat", "unlinkat"])
def test_the_run_after_one_that_died_links(
    call: str, linking: tuple[str | Path, ...], layout: Path, other: Path, tmp_path: Path
) -> None:
    killed(call, linking, tmp_path / "trace")
    for path in (other / "blobs" / "sha256").iterdir():
        os.utime(path, (0, 0))  # (what the dead one left is old)
    assert ocimirror(*linking).code == 0
    assert linked(layout, other) == set(IMAGE.blobs)
    assert faults_of(layout) == leftovers_of(layout) == []
    assert contents_of(other) == IMAGE.contents


def test_what_is_a_link_to_the_same_file_already_stays_one(
    linking: tuple[str | Path, ...], layout: Path, other: Path
) -> None:
    for options, what in (((), "linked"), (("--deep",), "present"), ((), "present")):
        done = ocimirror(*linking, *options)
        assert done.code == 0, done.stdout
        (image,) = done.document["images"]
        assert image["blobs"][what] == len(IMAGE.blobs) or image["status"] == "unchanged"
        assert linked(layout, other) == set(IMAGE.blobs)
        assert leftovers_of(layout) == []


def test_what_is_damaged_and_no_link_becomes_one(
    linking: tuple[str | Path, ...], layout: Path, other: Path
) -> None:
    assert ocimirror(*linking).code == 0
    path = images.blob_path(layout, LAYER)
    path.unlink()
    path.write_bytes(IMAGE.blobs[LAYER][::-1])

    done = ocimirror(*linking, "--deep")

    assert done.document["images"][0]["blobs"]["linked"] == 1
    assert linked(layout, other) == set(IMAGE.blobs)
    assert leftovers_of(layout) == []


def test_a_manifest_is_written_and_not_linked(
    linking: tuple[str | Path, ...], layout: Path, other: Path
) -> None:
    assert ocimirror(*linking).code == 0
    assert linked(layout, other) == set(IMAGE.blobs)
    assert images.blob_path(layout, IMAGE.root).read_bytes() == IMAGE.raw


def test_the_layout_itself_is_no_other(other: Path, tmp_path: Path) -> None:
    images.blob_path(other, LAYER).write_bytes(b"damaged")
    source = images.write_layout(tmp_path / "source", {NAME: IMAGE})
    done = ocimirror("copy", f"oci:{source}", f"oci:{other}", "--link-from", other)
    assert done.code == 0, done.stderr
    assert contents_of(other) == IMAGE.contents
