"""verify: absent, unreadable, unknown and damaged are four things."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror
from tests.support.faults import Respond, Rule, SetHeader
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry

Front = Callable[..., Proxy]
GRAPH = images.multi()
LAYER = max(GRAPH.blobs, key=lambda digest: len(GRAPH.blobs[digest]))
CHILD = next(digest for digest in GRAPH.manifests if digest != GRAPH.root)


@pytest.fixture
def filled(registry: StrictRegistry) -> StrictRegistry:
    images.push(registry, "app", "1", GRAPH)
    return registry


def verified(front: Proxy | StrictRegistry) -> tuple[int, list[tuple[str, str]]]:
    result = ocimirror("verify", f"docker://{front.host}/app:1", "--json", "--retries", "1")
    faults = result.document.get("faults", [])
    return result.code, [(fault["kind"], fault["digest"]) for fault in faults]


@pytest.mark.parametrize("what", ["/blobs/", "/manifests/", ""])
@pytest.mark.parametrize("status", [400, 403, 404, 405, 412, 500, 501])
def test_what_head_does_not_answer_is_asked_by_get(
    status: int, what: str, filled: StrictRegistry, proxy: Front
) -> None:
    front = proxy(filled, Rule("HEAD", what, Respond(status)))
    assert verified(front) == (0, [])


@pytest.mark.parametrize("length", ["0", "7"])
def test_a_length_that_only_head_has_wrong_is_asked_by_get(
    length: str, filled: StrictRegistry, proxy: Front
) -> None:
    front = proxy(filled, Rule("HEAD", "/blobs/", SetHeader("Content-Length", length)))
    assert verified(front) == (0, [])


def test_what_neither_head_nor_get_finds_is_missing(filled: StrictRegistry, proxy: Front) -> None:
    front = proxy(filled, Rule("HEAD|GET", f"/{LAYER}", Respond(404)))
    assert verified(front) == (5, [("missing", LAYER)])
    front.rules[:] = [Rule("HEAD|GET", f"/{CHILD}", Respond(404))]
    assert verified(front) == (5, [("missing", CHILD)])


def test_content_of_another_length_has_a_wrong_size(filled: StrictRegistry, proxy: Front) -> None:
    front = proxy(filled, Rule("HEAD|GET", f"/blobs/{LAYER}", Respond(200, {}, b"another")))
    assert verified(front) == (5, [("wrong_size", LAYER)])


@pytest.mark.parametrize(("status", "code"), [(403, 4), (400, 4), (500, 3), (503, 3), (429, 3)])
@pytest.mark.parametrize("digest", [LAYER, CHILD])
def test_what_cannot_be_read_is_neither_missing_nor_there(
    digest: str, status: int, code: int, filled: StrictRegistry, proxy: Front
) -> None:
    front = proxy(filled, Rule("HEAD|GET", f"/{digest}", Respond(status, {"Retry-After": "0"})))
    assert verified(front) == (code, [("unreadable", digest)])


def test_all_faults_are_told_and_damage_counts_most(filled: StrictRegistry, proxy: Front) -> None:
    other = next(digest for digest in GRAPH.manifests if digest not in (GRAPH.root, CHILD))
    spoilt = bytes(len(GRAPH.manifests[CHILD][1]))
    front = proxy(
        filled,
        Rule("HEAD|GET", f"/{other}", Respond(403)),
        Rule("GET", f"/{CHILD}", Respond(200, {}, spoilt)),
    )
    code, faults = verified(front)
    assert (code, set(faults)) == (5, {("unreadable", other), ("corrupt", CHILD)})


# --- layouts and archives ------------------------------------------------------------------------


def as_nobody(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command without root's right to read everything."""
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    without = ("--bounding-set=-all", "--inh-caps=-all", "--reuid=0", "--regid=0", "--clear-groups")
    return subprocess.run(
        [setpriv, *without, PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "digest"),
    [
        (c, d)
        for c in ("verify", "gc")
        for d in (LAYER, CHILD, GRAPH.root)
        if (c, d) != ("gc", LAYER)
    ],
)
def test_a_file_that_cannot_be_read_is_exit_8_and_not_missing(
    command: str, digest: str, tmp_path: Path
) -> None:
    images.write_layout(tmp_path / "layout", {"reg.example.com/app:1": GRAPH})
    blob = images.blob_path(tmp_path / "layout", digest)
    blob.chmod(0)
    os.chown(blob, 65534, 65534)
    told = as_nobody(command, tmp_path / "layout")
    assert told.returncode == 8, told.stdout + told.stderr
    assert "missing" not in told.stdout
    if command == "verify":
        assert f"unreadable  {digest}" in told.stdout
        assert "repair" not in told.stdout
        blob.unlink()
        assert as_nobody("verify", tmp_path / "layout").returncode == 5


def test_an_archive_that_cannot_be_read_is_exit_8(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {"reg.example.com/app:1": GRAPH})
    archive = images.write_archive(tmp_path / "images.tar", tmp_path / "layout")
    archive.chmod(0)
    os.chown(archive, 65534, 65534)
    told = as_nobody("verify", f"oci-archive:{archive}")
    assert told.returncode == 8, told.stdout + told.stderr
