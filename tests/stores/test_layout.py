"""The layout directory: what is written, what is refused, and who may be there at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocimirror import (
    DamagedLayout,
    Descriptor,
    IntegrityError,
    Layout,
    Locked,
    MemoryStore,
    MissingContent,
    NoSpace,
    NotFound,
    OciMirrorError,
    SizeMismatch,
    Stored,
    UsageError,
)
from tests.support import images
from tests.support.evil import _SPOILERS, MAY_PASS, REFERENCE, SHOWN_ESCAPED
from tests.support.judge import faults_of, leftovers_of, names_of
from tests.support.locks import locked
from tests.support.stores import OCTETS, blob_of, copy_all, fill, push_blob, stream_of

NAME = "registry.example.com/app:v1"
SINGLE = images.single()
CONTENT = images.noise("layout", 200_000)
NOBODY = 65534


def written(directory: Path) -> Path:
    with Layout(str(directory), write=True, durable=False) as layout:
        fill(layout, {NAME: SINGLE})
    return directory


def path_of(directory: Path, descriptor: Descriptor) -> Path:
    return images.blob_path(directory, str(descriptor.digest))


# --- what is made -------------------------------------------------------------------------------


def test_a_new_layout_is_a_valid_empty_one(tmp_path: Path) -> None:
    Layout(str(tmp_path / "a" / "b" / "layout"), write=True).close()
    assert faults_of(tmp_path / "a" / "b" / "layout") == []
    with Layout(str(tmp_path / "a" / "b" / "layout")) as layout:
        assert layout.names() == []


@pytest.mark.parametrize("left", [[], ["blobs"], ["blobs/sha256"], [".ocimirror"], ["oci-layout"]])
def test_a_layout_whose_making_was_interrupted_is_made(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        if name == "oci-layout":
            (tmp_path / name).write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
        else:
            (tmp_path / name).mkdir(parents=True)
    written(tmp_path)
    assert faults_of(tmp_path) == []


def test_a_directory_with_other_files_is_refused_as_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError) as caught:
        Layout(str(tmp_path), write=True)
    assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused_as_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("years of work")
    with pytest.raises(UsageError):
        Layout(str(tmp_path / "file"), write=True)
    assert (tmp_path / "file").read_text() == "years of work"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_blobs_without_an_index_are_refused(tmp_path: Path, algorithm: str) -> None:
    written(tmp_path)
    with Layout(str(tmp_path), write=True, durable=False) as layout:
        push_blob(layout, CONTENT, algorithm)
    (tmp_path / "index.json").unlink()
    if algorithm == "sha512":
        for path in tmp_path.glob("blobs/sha256/*"):
            path.unlink()
    with pytest.raises(DamagedLayout, match=r"no index\.json"):
        Layout(str(tmp_path), write=True)
    assert not (tmp_path / "index.json").exists()


def test_reading_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Layout(str(tmp_path / "nothing"))


def test_reading_a_directory_that_is_no_layout_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(DamagedLayout, match="oci-layout"):
        Layout(str(tmp_path))


def test_a_layout_without_blobs_directory_is_damaged(tmp_path: Path) -> None:
    written(tmp_path)
    shutil.rmtree(tmp_path / "blobs")
    with Layout(str(tmp_path)) as layout:
        with pytest.raises(OciMirrorError):
            layout.read_manifest(layout.resolve(NAME))
        with pytest.raises(OciMirrorError):
            list(layout.blob_files())


def test_files_under_blobs_are_listed_whatever_they_are(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "blobs" / "README").write_text("hello")
    (tmp_path / "blobs" / "sha256" / "not-a-digest").write_text("hello")
    with Layout(str(tmp_path)) as layout:
        listed = list(layout.blob_files())
    assert ("blobs/README", "README") in listed
    assert ("blobs/sha256/not-a-digest", "sha256:not-a-digest") in listed
    assert len(listed) == len(SINGLE.contents) + 2


def test_stray_files_under_blobs_do_not_keep_an_image_from_being_named(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "blobs" / ".DS_Store").write_text("hello")
    with Layout(str(tmp_path), write=True) as layout:
        fill(layout, {"registry.example.com/app:v2": images.artifact()})
    assert len(names_of(tmp_path)) == 2


# --- content ------------------------------------------------------------------------------------


def test_what_cannot_fit_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    huge = Descriptor(OCTETS, blob_of(b"huge").digest, 2**60)
    stream = stream_of(huge, b"huge")
    with Layout(str(tmp_path), write=True) as layout:
        with pytest.raises(NoSpace, match=rf"{2**60} bytes, \d+ are free"):
            layout.push(huge, stream)
    assert stream.fresh


def test_a_file_that_was_cut_short_is_fetched_anew(tmp_path: Path) -> None:
    with Layout(str(tmp_path), write=True, durable=False) as layout:
        descriptor = push_blob(layout, CONTENT)
        os.truncate(path_of(tmp_path, descriptor), 1000)
        assert layout.push(descriptor, stream_of(descriptor, CONTENT)) is Stored.COPIED
    assert faults_of(tmp_path) == []


def test_replacing_a_file_does_not_write_through_to_its_hard_linked_twin(tmp_path: Path) -> None:
    with Layout(str(tmp_path / "layout"), write=True, durable=False) as layout:
        descriptor = push_blob(layout, CONTENT)
        twin = tmp_path / "twin"
        os.link(path_of(tmp_path / "layout", descriptor), twin)
        inode = twin.stat().st_ino
        layout.push(descriptor, stream_of(descriptor, CONTENT), replace=True)
        assert twin.stat().st_ino == inode
        assert path_of(tmp_path / "layout", descriptor).stat().st_ino != inode
    assert twin.read_bytes() == CONTENT


def test_a_missing_file_is_missing_content(tmp_path: Path) -> None:
    written(tmp_path)
    path_of(tmp_path, blob_of(next(iter(SINGLE.blobs.values())))).unlink()
    with Layout(str(tmp_path)) as layout:
        outcomes = copy_all(layout, MemoryStore(), [NAME])
    assert isinstance(outcomes[0].error, MissingContent)
    assert outcomes[0].error.side == "source"


@pytest.mark.bar("R13")
def test_a_flipped_bit_is_caught_on_the_way_out(tmp_path: Path) -> None:
    with Layout(str(tmp_path), write=True, durable=False) as layout:
        descriptor = push_blob(layout, CONTENT)
        path_of(tmp_path, descriptor).write_bytes(b"\0" + CONTENT[1:])
        with pytest.raises(IntegrityError), layout.fetch(descriptor) as stream:
            stream.read_all(len(CONTENT))


def test_a_file_that_grows_while_it_is_read_is_caught(tmp_path: Path) -> None:
    with Layout(str(tmp_path), write=True, durable=False) as layout:
        descriptor = push_blob(layout, CONTENT)
        with layout.fetch(descriptor) as stream:
            stream.read(1000)
            with path_of(tmp_path, descriptor).open("ab") as file:
                file.write(b"more")
            with pytest.raises(SizeMismatch):
                stream.read_all(len(CONTENT))


def test_a_layout_that_is_only_read_is_not_changed(tmp_path: Path) -> None:
    images.write_layout(tmp_path, {NAME: SINGLE})
    before = {path: path.stat() for path in [tmp_path, *tmp_path.rglob("*")]}
    with Layout(str(tmp_path)) as layout:
        assert copy_all(layout, MemoryStore(), [NAME])[0].error is None
    after = {path: path.stat() for path in [tmp_path, *tmp_path.rglob("*")]}
    assert after.keys() == before.keys()
    assert [s.st_mtime_ns for s in after.values()] == [s.st_mtime_ns for s in before.values()]


# --- what is no regular file --------------------------------------------------------------------

REFUSED = sorted(set(_SPOILERS) - SHOWN_ESCAPED - MAY_PASS - {"layout-file-missing"})


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.bar("R43")
def test_nothing_of_a_hostile_layout_is_copied_under_a_name(
    evil: dict[str, Path], name: str
) -> None:
    destination = MemoryStore()
    try:
        with Layout(str(evil[name])) as layout:
            error = copy_all(layout, destination, [REFERENCE])[0].error
    except OciMirrorError as raised:
        error = raised
    assert isinstance(error, IntegrityError)
    assert destination.names() == []


@pytest.mark.parametrize(
    "name", sorted(n for n in REFUSED if "symlink" in n or "fifo" in n or "directory" in n)
)
@pytest.mark.bar("R43")
def test_a_writer_changes_nothing_outside_a_hostile_layout(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    directory = images.write_layout(tmp_path / "layout", {REFERENCE: SINGLE})
    _SPOILERS[name](directory, tmp_path / "outside")
    before = _all_below(tmp_path / "outside")
    with contextlib.suppress(IntegrityError), Layout(str(directory), write=True) as layout:
        copy_all(_memory(), layout, [NAME], deep=True)
    assert _all_below(tmp_path / "outside") == before


@pytest.mark.parametrize(
    "link", [".ocimirror", ".ocimirror/tmp", ".ocimirror/lock", ".ocimirror/index.lock"]
)
def test_a_link_among_our_own_files_leads_nowhere(tmp_path: Path, link: str) -> None:
    directory = images.write_layout(tmp_path / "layout", {REFERENCE: SINGLE})
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    os.utime(home / "thesis.tex", (0, 0))
    (directory / link).parent.mkdir(exist_ok=True)
    is_lock = link.endswith("lock")
    (directory / link).symlink_to(home / "made" if is_lock else home)
    with pytest.raises(OciMirrorError):
        with Layout(str(directory), write=True) as layout:
            fill(layout, {NAME: SINGLE})
    assert [path.name for path in home.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("write", [False, True])
def test_a_fifo_in_the_place_of_the_lock_does_not_block(tmp_path: Path, write: bool) -> None:
    directory = images.write_layout(tmp_path, {REFERENCE: SINGLE})
    (directory / ".ocimirror").mkdir()
    os.mkfifo(directory / ".ocimirror" / "lock")
    with Layout(str(directory), write=write) as layout:
        assert layout.names() == [REFERENCE]


# --- locks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.bar("R09")
def test_an_exclusive_lock_refuses_readers_and_writers(tmp_path: Path, write: bool) -> None:
    written(tmp_path)
    with locked(tmp_path), pytest.raises(Locked) as caught:
        Layout(str(tmp_path), write=write)
    assert caught.value.exit_code == 7
    Layout(str(tmp_path), write=write).close()


def test_readers_and_writers_share_a_layout(tmp_path: Path) -> None:
    written(tmp_path)
    with (
        Layout(str(tmp_path), write=True),
        Layout(str(tmp_path), write=True),
        Layout(str(tmp_path)),
    ):
        with pytest.raises(BlockingIOError), locked(tmp_path):
            pass


def test_waiting_for_the_lock_waits(tmp_path: Path) -> None:
    written(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path):
            opening = pool.submit(Layout, str(tmp_path), write=True, wait=True)
            time.sleep(0.05)
            assert not opening.done()
        opening.result(timeout=30).close()


def test_a_layout_that_could_not_be_opened_holds_no_lock(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "index.json").write_bytes(b"")
    with pytest.raises(DamagedLayout):
        Layout(str(tmp_path), write=True)
    with locked(tmp_path):
        pass


def test_closing_gives_the_lock_back(tmp_path: Path) -> None:
    written(tmp_path)
    with locked(tmp_path):
        pass


# --- leftovers ----------------------------------------------------------------------------------


def _leftover(directory: Path, name: str, age_s: float) -> Path:
    path = directory / ".ocimirror" / "tmp" / name
    path.write_bytes(b"half a blob")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


@pytest.mark.bar("R11")
def test_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    written(tmp_path)
    path = _leftover(tmp_path, "dead", 3600)
    Layout(str(tmp_path), write=True).close()
    assert not path.exists()


@pytest.mark.bar("R11")
def test_what_a_living_writer_writes_is_kept_however_old_it_is(tmp_path: Path) -> None:
    descriptor = blob_of(CONTENT)
    arrived, go_on = threading.Event(), threading.Event()

    def watch(count: int) -> None:
        arrived.set()
        assert go_on.wait(10)

    source = MemoryStore()
    push_blob(source, CONTENT)
    with Layout(str(tmp_path), write=True) as layout, ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(layout.push, descriptor, source.fetch(descriptor, watch))
        assert arrived.wait(10)
        (name,) = leftovers_of(tmp_path)
        os.utime(tmp_path / ".ocimirror" / "tmp" / name, (0, 0))
        Layout(str(tmp_path), write=True).close()
        assert leftovers_of(tmp_path) == [name]
        go_on.set()
        assert pushing.result(timeout=10) is Stored.COPIED
    assert faults_of(tmp_path) == []


def test_what_was_just_made_is_kept(tmp_path: Path) -> None:
    written(tmp_path)
    path = _leftover(tmp_path, "perhaps-not-locked-yet", 5)
    Layout(str(tmp_path), write=True).close()
    assert path.exists()


def test_a_reader_removes_nothing(tmp_path: Path) -> None:
    written(tmp_path)
    path = _leftover(tmp_path, "dead", 3600)
    Layout(str(tmp_path)).close()
    assert path.exists()


def test_two_objects_of_one_process_write_the_same_content_at_once(tmp_path: Path) -> None:
    descriptor = blob_of(CONTENT)
    start = threading.Barrier(2)

    def push(_: int) -> None:
        with Layout(str(tmp_path), write=True, durable=False) as layout:
            start.wait()
            layout.push(descriptor, stream_of(descriptor, CONTENT))
            fill(layout, {NAME: SINGLE})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(push, range(2)))
    assert faults_of(tmp_path) == []
    assert leftovers_of(tmp_path) == []


def _memory() -> MemoryStore:
    store = MemoryStore()
    fill(store, {NAME: SINGLE})
    return store


def _all_below(directory: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }
