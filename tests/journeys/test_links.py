"""--link-from: what another layout has is linked and not fetched; damage does not spread."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.judge import contents_of, faults_of, leftovers_of
from tests.support.proxy import Proxy
from tests.support.witness import Registry

Front = Callable[..., Proxy]
GRAPH = images.shared_layers(1, 3, 20_000, 0.0)[0]


@pytest.fixture
def name(docker_registry: Registry, repository: str) -> str:
    images.push(docker_registry, repository, "1.0", GRAPH)
    return f"{repository}:1.0"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return images.write_layout(tmp_path / "other", {"reg.example.com/app:1": GRAPH})


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def linked(layout: Path, other: Path) -> set[str]:
    return {
        digest
        for digest in GRAPH.contents
        if os.path.samefile(blob(layout, digest), blob(other, digest))
    }


def flip(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    return bytes(content)


def test_every_blob_of_the_other_layout_is_linked_and_none_is_fetched(
    name: str, other: Path, docker_registry: Registry, proxy: Front, tmp_path: Path
) -> None:
    front, layout = proxy(docker_registry), tmp_path / "layout"

    pulled = ocimirror("pull", f"{front.host}/{name}", layout, "--link-from", other, "--json")

    assert pulled.code == 0, pulled.stderr
    (image,) = pulled.document["images"]
    assert image["status"] == "copied"
    assert image["blobs"]["linked"] == len(GRAPH.blobs)
    assert image["blobs"]["copied"] == image["blobs"]["present"] == 0
    assert image["bytes"]["copied"] == len(GRAPH.raw)
    assert front.count("GET", "/blobs/") == 0
    assert linked(layout, other) == set(GRAPH.blobs)
    assert faults_of(layout) == leftovers_of(layout) == []


def test_copy_links_too_and_asks_the_layouts_in_their_order(
    name: str, other: Path, docker_registry: Registry, tmp_path: Path
) -> None:
    digest = next(iter(GRAPH.blobs))
    first = images.write_layout(tmp_path / "first", {"reg.example.com/app:1": GRAPH})
    for each in set(GRAPH.blobs) - {digest}:
        blob(first, each).unlink()
    source = f"docker://{docker_registry.host}/{name}"
    links = ("--link-from", first, "--link-from", f"oci:{other}")

    copied = ocimirror("copy", source, f"oci:{tmp_path}/layout", *links, "--json")

    assert copied.code == 0, copied.stderr
    assert copied.document["images"][0]["blobs"]["linked"] == len(GRAPH.blobs)
    assert os.path.samefile(blob(tmp_path / "layout", digest), blob(first, digest))


@pytest.mark.parametrize("damage", ["flipped", "short", "absent", "link", "fifo", "directory"])
def test_what_is_damaged_there_is_fetched_and_stays_there_as_it_is(
    damage: str, name: str, other: Path, docker_registry: Registry, tmp_path: Path
) -> None:
    digest = max(GRAPH.blobs, key=lambda each: len(GRAPH.blobs[each]))
    path = blob(other, digest)
    if damage == "flipped":
        flip(path)
    else:
        path.unlink()
    if damage == "short":
        path.write_bytes(b"short")
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(GRAPH.blobs[digest])
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "fifo":
        os.mkfifo(path)
    elif damage == "directory":
        path.mkdir()
    layout, full = tmp_path / "layout", f"{docker_registry.host}/{name}"

    pulled = ocimirror("pull", full, layout, "--link-from", other, "--json")

    assert pulled.code == 0, pulled.stderr
    blobs = pulled.document["images"][0]["blobs"]
    assert (blobs["copied"], blobs["linked"]) == (1, len(GRAPH.blobs) - 1)
    assert contents_of(layout) == GRAPH.contents
    assert faults_of(layout) == leftovers_of(layout) == []
    if damage == "flipped":
        assert path.read_bytes() != GRAPH.blobs[digest]


def test_repair_of_a_linked_twin_does_not_write_through(
    name: str, other: Path, docker_registry: Registry, tmp_path: Path
) -> None:
    layout, full = tmp_path / "layout", f"{docker_registry.host}/{name}"
    assert ocimirror("pull", full, layout, "--link-from", other).code == 0
    digest = max(GRAPH.blobs, key=lambda each: len(GRAPH.blobs[each]))
    damaged = flip(blob(layout, digest))
    before = blob(other, digest).stat()

    repaired = ocimirror("repair", layout)

    assert repaired.code == 0, repaired.stderr
    assert blob(layout, digest).read_bytes() == GRAPH.blobs[digest]
    assert blob(other, digest).read_bytes() == damaged  # (theirs to repair)
    after = blob(other, digest).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert linked(layout, other) == set(GRAPH.blobs) - {digest}


def test_deep_does_not_take_a_damaged_twin_back(
    name: str, other: Path, docker_registry: Registry, tmp_path: Path
) -> None:
    layout, full = tmp_path / "layout", f"{docker_registry.host}/{name}"
    assert ocimirror("pull", full, layout, "--link-from", other).code == 0
    digest = max(GRAPH.blobs, key=lambda each: len(GRAPH.blobs[each]))
    flip(blob(layout, digest))

    pulled = ocimirror("pull", full, layout, "--link-from", other, "--deep", "--json")

    assert pulled.code == 0, pulled.stderr
    assert pulled.document["images"][0]["blobs"]["copied"] == 1
    assert faults_of(layout) == leftovers_of(layout) == []


def test_gc_of_one_layout_leaves_the_linked_twins_of_the_other(
    name: str, other: Path, docker_registry: Registry, tmp_path: Path
) -> None:
    layout, full = tmp_path / "layout", f"{docker_registry.host}/{name}"
    assert ocimirror("pull", full, layout, "--link-from", other).code == 0
    assert ocimirror("remove", other, "reg.example.com/app:1").code == 0

    for _ in range(2):
        assert ocimirror("gc", other, "--grace", "0").code == 0

    assert contents_of(other) == {}
    assert ocimirror("verify", layout).code == 0


def test_another_file_system_is_no_error(
    name: str, docker_registry: Registry, tmp_path: Path
) -> None:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to write to")
    other = shared / f"ocimirror-{os.getpid()}"
    try:
        images.write_layout(other, {"reg.example.com/app:1": GRAPH})
        full = f"{docker_registry.host}/{name}"
        pulled = ocimirror("pull", full, tmp_path / "layout", "--link-from", other, "--json")
    finally:
        for path in sorted(other.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        other.rmdir()

    assert pulled.code == 0, pulled.stderr
    assert pulled.document["images"][0]["blobs"]["copied"] == len(GRAPH.blobs)


@pytest.mark.parametrize(
    "arguments",
    [
        ("pull", "127.0.0.1:1/app:1", "new", "--link-from", "absent"),
        ("pull", "127.0.0.1:1/app:1", "new", "--link-from", "oci:other:reg.example.com/app:1"),
        ("copy", "./other", "docker://127.0.0.1:1/app:1", "--link-from", "other"),
        ("copy", "./other", "oci-archive:new.tar", "--link-from", "other"),
    ],
)
def test_what_cannot_be_linked_from_or_to_is_exit_2(
    arguments: tuple[str, ...], other: Path, tmp_path: Path
) -> None:
    result = ocimirror(*arguments, cwd=tmp_path)

    assert result.code == 2, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
