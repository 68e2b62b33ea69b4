"""A directory of a layout that is replaced by a link during a run redirects no write."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.traced import stopped

APP, OTHER, THIRD = (f"registry.example.com/{name}:v1" for name in ("app", "other", "third"))
QUARANTINE = ".ocimirror/quarantine"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a layout of three images."""
    path = tmp_path_factory.mktemp("good") / "layout"
    graphs = {APP: images.multi(), OTHER: images.docker_schema2(), THIRD: images.single()}
    return images.write_layout(path, graphs)


@pytest.fixture(scope="module")
def used(good: Path) -> Path:
    """Write one with something in quarantine, something to put there, and something abandoned."""
    path = shutil.copytree(good, good.with_name("used"))
    for command in (("remove", OTHER), ("gc", "--grace", "0"), ("remove", THIRD)):
        assert ocimirror(command[0], path, *command[1:]).code == 0
    abandoned = path / ".ocimirror" / "tmp" / "old"
    abandoned.write_bytes(b"x")
    os.utime(abandoned, (1, 1))
    return path


def state_of(directory: Path) -> dict[str, tuple[int, int]]:
    """Return everything below a directory, with what tells whether it was written."""
    found = {}
    for path in (directory, *directory.rglob("*")):
        status = path.stat()
        found[str(path)] = status.st_mtime_ns, 0 if path.is_dir() else status.st_size
    return found


@pytest.mark.bar("R43")
@pytest.mark.parametrize(
    ("command", "part", "call", "when"),
    [
        (("gc", "L", "--grace", "0"), "", "fsync", 1),
        (("gc", "L", "--grace", "0"), ".ocimirror", "fsync", 1),
        (("gc", "L", "--grace", "0"), QUARANTINE, "fsync", 1),
        (("gc", "L", "--grace", "0"), f"{QUARANTINE}/sha256", "unlink,unlinkat", 2),
        (("gc", "L", "--grace", "0"), "blobs/sha256", "fsync", 1),
        (("tag", "L", APP, "new"), "", "flock", 2),
        (("tag", "L", APP, "new"), ".ocimirror/tmp", "flock", 3),
        (("remove", "L", APP), ".ocimirror", "flock", 3),
        (("repair", "L", "--from", "GOOD"), "", "renameat,rename", 1),
        (("repair", "L", "--from", "GOOD"), "blobs", "renameat,rename", 2),
        (("copy", f"oci:GOOD:{OTHER}", "oci-archive:L/out.tar"), "", "fsync", 1),
        (("copy", f"oci:GOOD:{OTHER}", "docker-archive:L/out.tar"), "", "fsync", 1),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value).replace(",", "-"),
)
def test_a_directory_that_is_replaced_by_a_link_redirects_no_write(
    tmp_path: Path,
    good: Path,
    used: Path,
    command: tuple[str, ...],
    part: str,
    call: str,
    when: int,
) -> None:
    layout = shutil.copytree(used, tmp_path / "L")
    if command[0] == "repair":
        (layout / "index.json").write_bytes(b"")
        (layout / "oci-layout").write_bytes(b"")
    arguments = [word.replace("GOOD", str(good)) for word in command]
    codes = (8,) if not part else (0, 5, 8)
    with stopped(call, when, arguments, tmp_path / "trace", cwd=tmp_path, codes=codes):
        # (The other directory has all that the replaced one has: nothing fails by accident.)
        elsewhere = shutil.copytree(layout / part, tmp_path / "elsewhere")
        before = state_of(elsewhere)
        (layout / part).rename(tmp_path / "held")
        (layout / part).symlink_to(elsewhere)
    assert state_of(elsewhere) == before
