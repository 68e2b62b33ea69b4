"""Blobs that become hard links to the files of another layout: every step may fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocimirror.model.descriptor import Descriptor
from ocimirror.stores.disk.oslayer import OsLayer
from ocimirror.stores.layout.layout import Layout
from ocimirror.stores.layout.links import LinkingLayout
from ocimirror.stores.store import Stored
from tests.support import images
from tests.support.judge import faults_of, leftovers_of
from tests.support.oslayers import Died, Dies, Refuses
from tests.support.stores import blob_of, push_blob, stream_of

CONTENT = images.noise("links", 200_000)
BLOB = blob_of(CONTENT)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    with Layout(str(tmp_path / "other"), write=True) as layout:
        push_blob(layout, CONTENT)
    return tmp_path / "other"


def path_of(layout: Path, descriptor: Descriptor = BLOB) -> Path:
    return images.blob_path(layout, str(descriptor.digest))


def pushed(layout: Path, other: Path, os_layer: OsLayer | None = None, **how: bool) -> Stored:
    with LinkingLayout(str(layout), [str(other)], os_layer=os_layer) as store:
        return store.push(BLOB, stream_of(BLOB, CONTENT), **how)


@pytest.mark.parametrize("operation", ["link", "sync_file", "rename"])
def test_where_a_step_is_refused_the_blob_is_copied(
    operation: str, other: Path, tmp_path: Path
) -> None:
    """EXDEV, EPERM and EMLINK are refusals of the first."""
    layout, refusals = tmp_path / "layout", iter([True])

    def once(done: str, path: str) -> bool:
        return done == operation and BLOB.digest.encoded in path and next(refusals, False)

    assert pushed(layout, other, Refuses(once)) is Stored.COPIED

    assert path_of(layout).read_bytes() == CONTENT
    assert path_of(layout).stat().st_nlink == 1
    assert leftovers_of(layout) == []


def test_a_run_that_dies_at_any_step_leaves_a_valid_layout_and_the_next_one_links(
    other: Path, tmp_path: Path
) -> None:
    steps = 0
    while True:
        layout = tmp_path / f"layout{steps}"
        with Layout(str(layout), write=True):
            pass
        try:
            pushed(layout, other, Dies(steps))
        except Died:
            pass
        else:
            break
        assert not path_of(layout).exists() or path_of(layout).read_bytes() == CONTENT
        assert pushed(layout, other) in (Stored.LINKED, Stored.PRESENT)
        assert faults_of(layout) == []
        assert path_of(other).read_bytes() == CONTENT
        steps += 1
    assert steps >= 3


def test_a_link_that_a_killed_run_left_is_removed_by_the_next(other: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    with Layout(str(layout), write=True):
        pass
    left = layout / ".ocimirror" / "tmp" / "left"
    os.utime(path_of(other), (0, 0))
    os.link(path_of(other), left)

    pushed(layout, other)

    assert leftovers_of(layout) == []


def test_what_is_a_link_to_the_same_file_already_stays_one(other: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    assert pushed(layout, other) is Stored.LINKED
    assert pushed(layout, other) is Stored.PRESENT
    assert pushed(layout, other, replace=True) is Stored.LINKED
    assert path_of(layout).samefile(path_of(other))
    assert leftovers_of(layout) == []


def test_a_manifest_is_written_and_not_linked(other: Path, tmp_path: Path) -> None:
    graph = images.single()
    images.write_layout(other, {"registry.example.com/app:v1": graph})
    descriptor = Descriptor.parse(graph.descriptor, "it", "manifest")
    with LinkingLayout(str(tmp_path / "layout"), [str(other)]) as store:
        assert store.push(descriptor, stream_of(descriptor, graph.raw)) is Stored.COPIED


def test_the_layout_itself_is_no_other(other: Path) -> None:
    path_of(other).write_bytes(b"damaged")
    assert pushed(other, other) is Stored.COPIED
    assert path_of(other).read_bytes() == CONTENT
