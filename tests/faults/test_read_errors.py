"""A disk that cannot be read: exit 8, never "corrupt", and nothing is taken for absent."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror
from tests.support.programs import require_strace

APP, OTHER = "registry.example.com/app:v1", "registry.example.com/other:v2"
IMAGE, SECOND = images.multi(), images.docker_schema2()
CHILD = json.loads(IMAGE.contents[IMAGE.root])["manifests"][0]["digest"]
LAYER = json.loads(IMAGE.contents[CHILD])["layers"][0]["digest"]
BLOBS, QUARANTINE = "blobs/sha256", ".ocimirror/quarantine/sha256"
DOWN = "docker://127.0.0.1:1/mirror"
READ, OPEN, STAT = "read,pread64", "openat", "newfstatat,statx,stat,lstat"


def encoded(digest: str) -> str:
    return digest.removeprefix("sha256:")


def files_of(layout: Path) -> dict[str, bytes]:
    """Return what the layout holds, wherever below .ocimirror it was put."""
    paths = (path for path in layout.rglob("*") if path.is_file() and path.stat().st_size)
    return {path.relative_to(layout).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a layout of one image, and of another one in quarantine."""
    path = tmp_path_factory.mktemp("good") / "layout"
    layout = images.write_layout(path, {APP: IMAGE, OTHER: SECOND})
    assert ocimirror("remove", layout, OTHER).code == 0
    assert ocimirror("gc", layout, "--grace", "0").code == 0
    return layout


@pytest.mark.bar("R05")
@pytest.mark.parametrize(
    ("command", "path", "calls"),
    [
        (("verify",), f"{BLOBS}/{encoded(LAYER)}", READ),
        (("verify",), f"{BLOBS}/{encoded(CHILD)}", READ),
        (("verify",), BLOBS, STAT),
        (("list",), f"{BLOBS}/{encoded(CHILD)}", READ),
        (("list",), "index.json", STAT),
        (("gc",), f"{BLOBS}/{encoded(IMAGE.root)}", READ),
        (("gc", "--grace", "0"), ".ocimirror/index.json.damaged", STAT),
        (("repair", "--from", "GOOD"), f"{BLOBS}/{encoded(LAYER)}", READ),
        (("repair", "--rebuild-index"), f"{QUARANTINE}/{encoded(SECOND.root)}", OPEN),
        (("repair",), "index.json", READ),
        (("repair", "--from", DOWN), f"{BLOBS}/{encoded(LAYER)}", READ),
        (("push", "127.0.0.1:1/x"), f"{BLOBS}/{encoded(IMAGE.root)}", READ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value.partition(",")[0][-20:],
)
def test_what_cannot_be_read_is_8_and_stays(
    tmp_path: Path, good: Path, command: tuple[str, ...], path: str, calls: str
) -> None:
    strace = require_strace()
    layout = shutil.copytree(good, tmp_path / "layout")
    before = files_of(layout)
    # (Files below a directory that is held are opened by their last name.)
    paths = ["-P", str(layout / path), "-P", Path(path).name]
    name, *rest = (word.replace("GOOD", str(good)) for word in command)
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO"]

    done = subprocess.run(
        [
            strace,
            "-f",
            "-o",
            tmp_path / "trace",
            *paths,
            *inject,
            PROGRAM,
            name,
            layout,
            *rest,
            "--retries=0",
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert "(INJECTED)" in (tmp_path / "trace").read_text()
    assert done.returncode == 8, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "Input/output error" in said
    for wrong in ("bug", "corrupt", "Traceback", "is missing"):
        assert wrong not in said
    assert files_of(layout) == before
