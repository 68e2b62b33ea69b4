"""history and verify --lock, as a user runs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import Result, environment, ocimirror
from tests.support.faults import Flip, Rule, SetHeader
from tests.support.images import Graph
from tests.support.mirrorfiles import (
    NIGHT_S,
    Record,
    Span,
    digest,
    lock_text,
    write_lock,
    write_state,
)
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry

DAY = 86400
MULTI, SINGLE = images.multi(), images.single()
SOURCE = "docker://docker.io/library/alpine:3.19"
TARGET = "docker://registry.example.com/library/alpine:3.19"
A, B = digest("a"), digest("b")


# --- history -----------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    spans = [
        Span(SOURCE, A, NIGHT_S, NIGHT_S + DAY),
        Span(SOURCE, B, NIGHT_S + 2 * DAY, NIGHT_S + 2 * DAY),
    ]
    return write_state(tmp_path / "ocimirror.state", spans, [(SOURCE, TARGET, B)])


@pytest.mark.parametrize(
    "reference", ["alpine:3.19", SOURCE, TARGET, "registry.example.com/library/alpine:3.19"]
)
def test_history_says_what_a_tag_stood_for_by_its_source_or_its_target(
    state: Path, reference: str
) -> None:
    shown = ocimirror("history", reference, "--state", state)
    assert shown.code == 0, shown.stderr
    assert shown.stdout == (
        f"{SOURCE}\n"
        "  FIRST SEEN            LAST SEEN             DIGEST\n"
        f"  2026-01-31T02:00:00Z  2026-02-01T02:00:00Z  {A}\n"
        f"  2026-02-02T02:00:00Z  2026-02-02T02:00:00Z  {B}\n"
    )


def test_history_has_a_document(state: Path) -> None:
    assert ocimirror("history", "alpine:3.19", "--state", state, "--json").document == {
        "schema": "ocimirror.history/v1",
        "exit_code": 0,
        "images": [
            {
                "source": SOURCE,
                "history": [
                    {
                        "digest": A,
                        "first_seen": "2026-01-31T02:00:00Z",
                        "last_seen": "2026-02-01T02:00:00Z",
                    },
                    {
                        "digest": str(B),
                        "first_seen": "2026-02-02T02:00:00Z",
                        "last_seen": "2026-02-02T02:00:00Z",
                    },
                ],
            }
        ],
    }


def test_history_of_what_was_never_seen_is_4_and_without_a_state_2(state: Path) -> None:
    assert ocimirror("history", "debian:12", "--state", state).code == 4
    assert ocimirror("history", "debian:12", "--state", "/nonexistent/state").code == 2
    assert ocimirror("history", "NOT A REFERENCE", "--state", state).code == 2
    state.write_bytes(b"garbage" * 1000)
    assert ocimirror("history", "alpine:3.19", "--state", state).code == 8


# --- verify --lock -----------------------------------------------------------------------------


def locked(source: str, graph: Graph) -> Record:
    return Record(f"docker://{source}", graph.root, 1, graph.root_media_type)


class Mirror:
    """A source, and a lock of what it has."""

    def __init__(self, registry: StrictRegistry, path: Path) -> None:
        images.push(registry, "one/app", "v1", MULTI)
        images.push(registry, "two/app", "v2", SINGLE)
        self.registry = registry
        self.host = registry.host
        self.one = locked(f"{self.host}/one/app:v1", MULTI)
        self.two = locked(f"{self.host}/two/app:v2", SINGLE)
        self.lock = write_lock(path / "ocimirror.lock", self.one, self.two)

    def verify(self, *arguments: str | Path) -> Result:
        return ocimirror("verify", "--lock", self.lock, *arguments, "--retries", "0")

    def layout(self, path: Path) -> Path:
        return images.write_layout(
            path, {f"{self.host}/one/app:v1": MULTI, f"{self.host}/two/app:v2": SINGLE}
        )


@pytest.fixture
def mirror(registry: StrictRegistry, tmp_path: Path) -> Mirror:
    return Mirror(registry, tmp_path)


def statuses(result: Result) -> list[str]:
    return [image["status"] for image in result.document["images"]]


def test_sources_that_stand_for_what_is_locked_are_kept(mirror: Mirror) -> None:
    mirror.registry.requests.clear()
    verified = mirror.verify("--json")
    assert verified.code == 0, verified.stderr
    assert verified.document["images"][0] == {
        "source": mirror.one.source,
        "location": mirror.one.source,
        "status": "kept",
        "digest": MULTI.root,
        "found": MULTI.root,
        "message": "",
        "error": None,
    }
    asked = [request for request in mirror.registry.requests if "/manifests/" in request.path]
    assert len(asked) == 2
    assert mirror.verify().stdout == f"ok  the sources against {mirror.lock}: 2 kept\n"
    assert mirror.verify("-q").stdout == ""


def test_a_source_that_moved_or_is_gone_is_4(mirror: Mirror) -> None:
    images.push(mirror.registry, "one/app", "v1", SINGLE)
    gone = replace(mirror.two, source=mirror.two.source.replace("v2", "v3"))
    write_lock(mirror.lock, mirror.one, gone)
    verified = mirror.verify("--json")
    assert (verified.code, statuses(verified)) == (4, ["moved", "absent"])
    assert verified.document["images"][0]["found"] == SINGLE.root
    told = mirror.verify().stdout
    assert f"locked: {MULTI.root}; it is {SINGLE.root}" in told
    assert "1 moved, 1 absent" in told


def test_a_registry_that_does_not_answer_is_3_and_the_others_are_compared(mirror: Mirror) -> None:
    away = replace(mirror.two, source="docker://127.0.0.1:1/two/app:v2")
    write_lock(mirror.lock, mirror.one, away)
    verified = mirror.verify("--json")
    assert (verified.code, sorted(statuses(verified))) == (3, ["failed", "kept"])


def test_a_layout_with_what_is_locked_is_hashed(mirror: Mirror, tmp_path: Path) -> None:
    layout = mirror.layout(tmp_path / "layout")
    verified = mirror.verify(layout, "--json")
    assert (verified.code, statuses(verified)) == (0, ["kept", "kept"])
    assert verified.document["checked"]["bytes"] > 1000


def test_a_damaged_blob_is_5_though_the_digests_are_kept(mirror: Mirror, tmp_path: Path) -> None:
    layout = mirror.layout(tmp_path / "layout")
    layer = next(d for d in SINGLE.blobs if d not in MULTI.contents)
    path = layout / "blobs" / layer.replace(":", "/")
    path.write_bytes(bytes(path.stat().st_size))
    verified = mirror.verify(layout, "--json")
    assert (verified.code, statuses(verified)) == (5, ["kept", "kept"])
    assert [fault["kind"] for fault in verified.document["faults"]] == ["corrupt"]


def test_a_layout_that_is_not_what_is_locked_is_9(mirror: Mirror, tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", {f"{mirror.host}/one/app:v1": SINGLE})
    verified = mirror.verify(layout, "--json")
    assert (verified.code, statuses(verified)) == (9, ["moved", "absent"])


def test_attachments_and_platforms_that_are_locked_must_be_there(
    mirror: Mirror, tmp_path: Path
) -> None:
    write_lock(mirror.lock, replace(mirror.one, attachments=(A,)), mirror.two)
    layout = mirror.layout(tmp_path / "layout")
    verified = mirror.verify(layout, "--json")
    assert (verified.code, statuses(verified)) == (9, ["incomplete", "kept"])
    assert A in verified.document["images"][0]["message"]
    sparse = tmp_path / "sparse"
    one = mirror.one.source.removeprefix("docker://")
    assert ocimirror("pull", one, sparse, "--platform", "linux/amd64").code == 0
    write_lock(mirror.lock, mirror.one)
    verified = mirror.verify(sparse, "--json")
    assert (verified.code, statuses(verified)) == (9, ["incomplete"])
    assert "platforms other than linux/amd64" in verified.document["images"][0]["message"]
    write_lock(mirror.lock, replace(mirror.one, platforms=("linux/amd64",)))
    assert mirror.verify(sparse).code == 0


@pytest.mark.parametrize("how", [[], ["--keep-host"]])
def test_a_registry_is_asked_by_the_names_that_push_gives(
    mirror: Mirror, tmp_path: Path, how: list[str]
) -> None:
    layout = mirror.layout(tmp_path / "layout")
    assert ocimirror("push", layout, f"{mirror.host}/copy", *how).code == 0
    verified = mirror.verify(f"docker://{mirror.host}/copy", "--json")
    assert (verified.code, statuses(verified)) == (0, ["kept", "kept"])
    assert verified.document["checked"]["manifests"] > 2
    images.push(mirror.registry, f"copy/{keep(mirror.host) if how else ''}one/app", "v1", SINGLE)
    verified = mirror.verify(f"docker://{mirror.host}/copy", "--json")
    assert (verified.code, statuses(verified)) == (9, ["moved", "kept"])


def test_a_manifest_that_is_another_is_a_fault_and_the_others_are_compared(
    mirror: Mirror, proxy: Callable[..., Proxy]
) -> None:
    front = proxy(
        mirror.registry,
        Rule("HEAD", "one/app/manifests/sha256:", SetHeader("Docker-Content-Digest", A)),
        Rule("GET", "one/app/manifests/sha256:", Flip(5)),
    )
    verified = mirror.verify(f"docker://{front.host}", "--json")
    assert (verified.code, statuses(verified)) == (5, ["failed", "kept"]), verified.stdout
    assert verified.document["images"][0]["error"]["code"] == "digest_mismatch"


def test_a_registry_needs_only_the_platforms_that_are_locked(
    mirror: Mirror, tmp_path: Path
) -> None:
    mirror.registry.options.sparse = True
    config, there = tmp_path / "sync.yaml", f"docker://{mirror.host}/copy"
    config.write_text(
        f"mirrors: [{{from: {mirror.host}/one/app, to: {mirror.host}/copy/one/app,"
        " platforms: [linux/amd64]}]\n"
    )
    assert ocimirror("sync", config, "--lock", mirror.lock).code == 0
    verified = mirror.verify(there, "--json")
    assert (verified.code, statuses(verified)) == (0, ["kept"]), verified.stdout
    write_lock(mirror.lock, replace(mirror.one, platforms=("linux/amd64", "linux/arm64")))
    verified = mirror.verify(there, "--json")
    assert (verified.code, {f["kind"] for f in verified.document["faults"]}) == (5, {"missing"})


def keep(host: str) -> str:
    return host.replace(":", "_") + "/"


def test_a_registry_can_be_named_with_the_repository_of_the_only_image(mirror: Mirror) -> None:
    images.push(mirror.registry, "elsewhere", "v1", MULTI)
    write_lock(mirror.lock, mirror.one)
    assert mirror.verify(f"docker://{mirror.host}/elsewhere").code == 0


def test_what_does_not_go_together_is_2(mirror: Mirror, tmp_path: Path) -> None:
    layout = mirror.layout(tmp_path / "layout")
    assert ocimirror("verify").code == 2
    assert ocimirror("verify", "--json").code == 2
    assert ocimirror("verify", "--lock", tmp_path / "absent").code == 2
    assert mirror.verify(f"oci:{layout}:v1").code == 2
    assert mirror.verify(layout, "--in", "docker").code == 2
    mirror.lock.write_text("<<<<<<< HEAD\n")
    refused = mirror.verify("--json")
    assert (refused.code, refused.document["error"]["code"]) == (2, "damaged_lock_file")


def test_what_a_sync_wrote_is_verified_and_told(mirror: Mirror, tmp_path: Path) -> None:
    config, layout = tmp_path / "sync.yaml", tmp_path / "layout"
    config.write_text(
        "mirrors:\n"
        f"  - {{from: {mirror.host}/one/app, to: '{mirror.host}/mirror/one/app'}}\n"
        f"  - {{from: {mirror.host}/one/app, to: 'oci:{layout}'}}\n"
    )
    mirror.lock.unlink()
    assert ocimirror("sync", config, "--lock", mirror.lock).code == 0
    first = mirror.lock.read_bytes()
    images.push(mirror.registry, "one/app", "v1", SINGLE)
    assert mirror.verify().code == 4
    for place in (f"docker://{mirror.host}/mirror", layout):
        assert mirror.verify(place).code == 0
    assert ocimirror("sync", config, "--lock", mirror.lock).code == 0
    assert mirror.lock.read_bytes() != first
    for place in ("", f"docker://{mirror.host}/mirror", layout):
        assert mirror.verify(*[place] * bool(place)).code == 0
    told = ocimirror(
        "history",
        f"{mirror.host}/mirror/one/app:v1",
        "--state",
        tmp_path / "sync.state",
        "--json",
    )
    (image,) = told.document["images"]
    assert image["source"] == mirror.one.source
    assert [span["digest"] for span in image["history"]] == [MULTI.root, SINGLE.root]


def test_verify_writes_nothing(mirror: Mirror, tmp_path: Path) -> None:
    layout = mirror.layout(tmp_path / "layout")
    shutil.copytree(layout, tmp_path / "before")
    mirror.registry.requests.clear()
    mirror.verify(layout)
    mirror.verify()
    found = sorted(path.relative_to(layout) for path in layout.rglob("*"))
    assert found == sorted(
        p.relative_to(tmp_path / "before") for p in layout.parent.glob("before/**/*")
    )
    assert {request.method for request in mirror.registry.requests} <= {"GET", "HEAD"}


# --- sync merge --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("sync", "merge"), ("sync-merge",)])
def test_merging_has_two_spellings_and_one_document(tmp_path: Path, words: tuple[str, ...]) -> None:
    lock, joined = tmp_path / "shard-1.lock", tmp_path / "ocimirror.lock"
    write_lock(lock, Record())
    merged = ocimirror(*words, lock, "--output", joined, "--json")
    assert merged.document["schema"] == "ocimirror.sync-merge/v1"
    assert joined.read_text() == lock_text([Record()])
    refused = ocimirror(*words, lock, "--json")
    assert (refused.code, refused.document["schema"]) == (2, "ocimirror.sync-merge/v1")


def test_a_configuration_called_merge_is_named_with_its_directory(tmp_path: Path) -> None:
    (tmp_path / "merge").write_text("mirrors:\n  - from: localhost:1/a\n    to: oci:layout\n")
    listed = ocimirror("sync", "./merge", "--dry-run", "--retries", "0", "--json", cwd=tmp_path)
    assert listed.document["config"] == "merge"
    assert ocimirror("sync", "merge", "--dry-run", cwd=tmp_path).code == 2


def test_the_package_is_the_command() -> None:
    command = [sys.executable, "-m", "ocimirror", "sync", "--help"]
    shown = subprocess.run(command, env=environment(), capture_output=True, check=True)
    assert shown.stdout.startswith(b"Usage: ocimirror sync ")
