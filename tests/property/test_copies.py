"""Any content, copied anywhere, keeps every byte; damage is caught, and a killed copy converges."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ocimirror import Archive, ArchiveWriter, IntegrityError, Layout, MemoryStore
from tests.support import images
from tests.support.images import Graph
from tests.support.judge import contents_of, faults_of, names_of
from tests.support.stores import Reader, copy_all, copy_into_layout, failures, fill, memory
from tests.support.strategies import graphs

NAME = "registry.example.com/app:v1"


@contextlib.contextmanager
def fresh_directory() -> Iterator[Path]:
    """Make a directory for one example."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@given(graphs())
def test_any_image_keeps_every_byte_through_all_stores(graph: Graph) -> None:
    with fresh_directory() as directory, contextlib.ExitStack() as stack:
        enter = stack.enter_context
        first = enter(Layout(directory / "first", write=True, durable=False))
        assert failures(copy_all(memory({NAME: graph}), first, [NAME])) == []
        with ArchiveWriter(str(directory / "a.tar"), durable=False) as writer:
            assert failures(copy_all(first, writer, [NAME])) == []
            writer.commit()
        archive = enter(Archive(str(directory / "a.tar")))
        last = enter(Layout(directory / "last", write=True, durable=False))
        assert failures(copy_all(archive, last, [NAME])) == []
        end = MemoryStore()
        assert failures(copy_all(last, end, [NAME])) == []
        root = end.resolve(NAME)
        assert (str(root.digest), root.media_type) == (graph.root, graph.root_media_type)
        assert end.read_manifest(root).raw == graph.raw
        for layout in (directory / "first", directory / "last"):
            assert contents_of(layout) == graph.contents
            assert names_of(layout) == {NAME: graph.root}


@given(graphs(), st.data())
def test_any_flipped_bit_in_a_layout_is_caught_on_the_way_out(
    graph: Graph, data: st.DataObject
) -> None:
    digests = sorted(digest for digest, content in graph.contents.items() if content)
    digest = data.draw(st.sampled_from(digests))
    content = bytearray(graph.contents[digest])
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    with fresh_directory() as directory:
        images.write_layout(directory, {NAME: graph})
        images.blob_path(directory, digest).write_bytes(content)
        destination = MemoryStore()
        with Layout(str(directory)) as layout:
            (outcome,) = copy_all(layout, destination, [NAME])
    assert isinstance(outcome.error, IntegrityError)
    assert outcome.error.side == "source"
    assert destination.names() == []


MOVING = images.single()
OTHERS = {"registry.example.com/other:v1": images.docker_list(), NAME: MOVING}


def base_layout(directory: Path) -> Path:
    with Layout(directory, write=True, durable=False) as layout:
        fill(layout, OTHERS)
    return directory


class Mortal:
    """Kills its process before a certain change of the disk, or piece of content; never ours."""

    def __init__(self) -> None:
        self.left: int | None = None
        self._guard = threading.Lock()

    def step(self) -> None:
        """Count one."""
        if self.left is not None:
            with self._guard:
                self.left -= 1
                if self.left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Hear what Python is about to ask of the kernel (PEP 578)."""
        writes = event == "open" and bool(int(arguments[2] or 0) & (os.O_CREAT | os.O_RDWR))
        if writes or event in ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"):
            self.step()


MORTAL = Mortal()


class InPieces:
    """Gives content in two pieces and may die between them, when the first is written."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._reads = reader, 0

    def read(self, amount: int, /) -> bytes:
        self._reads += 1
        if self._reads == 2:
            MORTAL.step()
        return self._reader.read(min(amount, 200) if self._reads == 1 else amount)

    def close(self) -> None:
        self._reader.close()


class Source(MemoryStore):
    """A memory store that gives content in pieces."""

    def _open(self, *where: Any) -> InPieces:
        return InPieces(super()._open(*where))


def source_of(graph: Graph) -> Source:
    source = Source()
    fill(source, {NAME: graph})
    return source


def killed_after(steps: int, source: Source, directory: Path) -> bool:
    """Copy into a layout in another process until so many steps were made; return if it died."""
    child = os.fork()
    if not child:
        try:
            MORTAL.left = steps
            sys.addaudithook(MORTAL.hear)
            with Layout(directory, write=True, durable=False) as layout:
                os._exit(len(failures(copy_all(source, layout, [NAME]))))
        finally:
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def complaints_about(directory: Path, old: dict[str, str], new: str) -> list[str]:
    complaints = faults_of(directory)
    found = names_of(directory)
    for name, root in old.items():
        if found.get(name) not in ({root, new} if name == NAME else {root}):
            complaints.append(f"{name} is lost")
    if found.get(NAME) not in {old.get(NAME), new}:
        complaints.append(f"{NAME} is neither old nor new")
    return complaints


@given(graphs(), st.integers(0, 60))
def test_any_copy_that_was_killed_leaves_a_valid_layout_and_converges(
    graph: Graph, steps: int
) -> None:
    source = source_of(graph)
    with fresh_directory() as directory:
        base = base_layout(directory / "layout")
        killed_after(steps, source, base)
        old = {name: other.root for name, other in OTHERS.items()}
        assert complaints_about(base, old, graph.root) == []
        assert failures(copy_into_layout(source, base, [NAME])) == []
        assert names_of(base) == {**old, NAME: graph.root}
        assert faults_of(base) == []


def test_a_copy_may_be_killed_before_every_single_step(tmp_path: Path) -> None:
    """Also before those that make the layout; each time the next run finishes."""
    graph = images.multi()
    source = source_of(graph)
    base = base_layout(tmp_path / "base")
    old = {name: other.root for name, other in OTHERS.items()}
    for kind, known in (("new", {}), ("old", old)):
        for steps in itertools.count():
            directory = tmp_path / f"{kind}{steps}"
            if kind == "old":
                shutil.copytree(base, directory)
            died = killed_after(steps, source, directory)
            assert complaints_about(directory, known, graph.root) == [], (kind, steps)
            assert failures(copy_into_layout(source, directory, [NAME])) == [], (kind, steps)
            assert names_of(directory) == {**known, NAME: graph.root}
            assert faults_of(directory) == []
            shutil.rmtree(directory)
            if not died:
                break
        assert steps > 40
