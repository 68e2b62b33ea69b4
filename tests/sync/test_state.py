"""The state: what is remembered, by whom it is written, and what damage costs.

Nights run over files that a test wrote or damaged; what is remembered is read by the next night,
by `history`, and out of the file.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.command import PROGRAM, Result, environment, ocimirror
from tests.support.faults import Call, Rule
from tests.support.images import Graph
from tests.support.mirrorfiles import NIGHT_S, Span, digest, write_state
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry, run_registry

SINGLE, OTHER = images.single(), images.docker_schema2()
A, B = digest("a"), digest("b")
DAY = 86400


@dataclass
class Mirror:
    """A directory with a configuration, and the registry that it mirrors."""

    registry: StrictRegistry
    directory: Path

    @property
    def state(self) -> Path:
        return self.directory / "sync.state"

    def source(self, tag: str = "v1", repository: str = "app") -> str:
        return f"{self.registry.host}/{repository}:{tag}"

    def offer(self, tag: str = "v1", graph: Graph = SINGLE, repository: str = "app") -> None:
        images.push(self.registry, repository, tag, graph)

    def configure(self, *mirrors: str) -> None:
        """Write the configuration; what is mirrored is `app`, unless it is said."""
        lines = mirrors or (f"{{from: {self.registry.host}/app, to: 'oci:layout'}}",)
        text = "".join(f"  - {line}\n" for line in lines)
        (self.directory / "sync.yaml").write_text(f"mirrors:\n{text}")

    def night(self, *options: str | Path) -> Result:
        config = self.directory / "sync.yaml"
        return ocimirror("sync", config, "--retries", "0", "--json", *options)

    def history(self, tag: str = "v1", repository: str = "app") -> Result:
        name = self.source(tag, repository)
        return ocimirror("history", name, "--state", self.state, "--json")

    def sql(self, statement: str, *values: object) -> list[Any]:
        """Change or read what the state knows."""
        with closing(sqlite3.connect(self.state)) as connection, connection:
            return connection.execute(statement, values).fetchall()


@pytest.fixture
def mirror(registry: StrictRegistry, tmp_path: Path) -> Mirror:
    found = Mirror(registry, tmp_path)
    found.offer()
    found.configure()
    return found


def spans(result: Result) -> list[dict[str, str]]:
    """Return the history of the only image of it."""
    assert result.code == 0, result.stderr
    (image,) = result.document["images"]
    return list(image["history"])


def digests(result: Result) -> list[str]:
    return [span["digest"] for span in spans(result)]


def done(result: Result) -> Result:
    assert result.code == 0, result.stderr
    return result


# --- what is remembered -------------------------------------------------------------------------


def test_what_is_complete_is_known_to_the_next_run_until_something_else_is(mirror: Mirror) -> None:
    host = mirror.registry.host
    mirror.configure(f"{{from: {host}/app, to: {host}/mirror}}")
    third = images.multi()

    def replaced(graph: Graph) -> list[str]:
        """Let somebody else move the target, and the source move; return what a night says."""
        mirror.offer(graph=images.attested("by somebody else", 0), repository="mirror")
        mirror.offer(graph=graph)
        (image,) = done(mirror.night()).document["images"]
        return [note for note in image["notes"] if "was not put there by this mirror" in note]

    done(mirror.night())
    for graph, known in ((OTHER, SINGLE), (third, OTHER)):
        (note,) = replaced(graph)
        assert f"this mirror had put {known.root} there" in note
    mirror.sql("UPDATE complete SET source = 'docker://quay.io/another:v1'")
    (note,) = replaced(SINGLE)
    assert "this mirror had put" not in note


def test_the_history_of_a_tag_says_from_when_until_when(mirror: Mirror) -> None:
    for graph in (SINGLE, SINGLE, OTHER, SINGLE):
        mirror.offer(graph=graph)
        if mirror.state.exists():
            mirror.sql(f"UPDATE history SET since = since - {DAY}, until = until - {DAY}")
        done(mirror.night())
    first, second, third = spans(mirror.history())
    told = [span["digest"] for span in (first, second, third)]
    assert told == [SINGLE.root, OTHER.root, SINGLE.root]
    assert first["first_seen"][:10] < first["last_seen"][:10] < second["first_seen"][:10]
    for span in (second, third):
        assert span["first_seen"] == span["last_seen"]
    assert mirror.history("v2").code == 4


def test_a_quarantine_counts_from_when_a_tag_first_had_a_digest(mirror: Mirror) -> None:
    now = int(time.time())
    histories = {
        "kept": [(SINGLE.root, 10), (B, 5), (SINGLE.root, 1)],
        "moved": [(B, 10), (SINGLE.root, 1)],
        "new": [],
    }
    seen = []
    for tag, history in histories.items():
        mirror.offer(tag)
        source = f"docker://{mirror.source(tag)}"
        seen += [Span(source, value, now - days * DAY, now) for value, days in history]
    seen.append(Span(f"docker://{mirror.source('new', 'other')}", SINGLE.root, now - 10 * DAY))
    write_state(mirror.state, seen)
    rule = "tags: {exclude: [v1], min_age: {age: 7d, by: first_seen}}"
    mirror.configure(f"{{from: {mirror.registry.host}/app, to: 'oci:layout', {rule}}}")
    planned = mirror.night("--dry-run").document
    assert [image["source"] for image in planned["images"]] == [f"docker://{mirror.source('kept')}"]
    young = [d["source"] for d in planned["attrition"] if d["filter"] == "min_age"]
    assert young == [f"docker://{mirror.source(tag)}" for tag in ("moved", "new")]


def test_a_clock_that_goes_back_shortens_no_span(mirror: Mirror) -> None:
    future = int(time.time()) // DAY * DAY + 30 * DAY
    write_state(mirror.state, [Span(f"docker://{mirror.source()}", SINGLE.root, future, future)])
    before = spans(mirror.history())
    done(mirror.night())
    assert spans(mirror.history()) == before


def test_only_what_this_mirror_made_is_its_own_until_it_is_pruned(mirror: Mirror) -> None:
    host = mirror.registry.host
    mirror.offer(repository="mirror")
    mirror.offer("v2")

    def own(grace: str = "7d") -> tuple[dict[str, Any], list[dict[str, Any]]]:
        prune = f"prune: {{grace: {grace}}}"
        mirror.configure(f"{{from: {host}/app, to: {host}/mirror, {prune}}}")
        night = done(mirror.night()).document
        lock = json.loads((mirror.directory / "sync.lock").read_text())
        return night, lock["own"]

    (made,) = own()[1]
    assert made == {
        "target": f"docker://{host}/mirror:v2",
        "source": f"docker://{host}/app:v2",
        "digest": SINGLE.root,
        "gone_since": None,
    }
    mirror.offer("v2", OTHER)
    assert own()[1] == [{**made, "digest": OTHER.root}]
    mirror.registry.delete_manifest("app", "v2")
    night, (gone,) = own()
    assert gone["gone_since"] == night["started"]
    mirror.offer("v2")
    assert own()[1] == [made]
    mirror.registry.delete_manifest("app", "v2")
    night, left = own("0s")
    assert ([item["action"] for item in night["pruning"]], left) == (["deleted"], [])
    # (What it was is remembered, and that it was copied is not.)
    assert digests(mirror.history("v2")) == [SINGLE.root, OTHER.root, SINGLE.root]
    assert mirror.history("v2", "mirror").code == 4


def test_runs_are_kept_with_what_came_of_them(mirror: Mirror) -> None:
    done(mirror.night())
    mirror.configure(f"{{from: {mirror.registry.host}/absent, to: 'oci:layout'}}")
    assert mirror.night().code == 4
    columns = "number, exit_code, copied, unchanged, failed, ended >= started"
    rows = mirror.sql(f"SELECT {columns} FROM run ORDER BY number")
    assert rows == [(1, 0, 1, 0, 0, 1), (2, 4, 0, 0, 0, 1)]


def test_each_entry_remembers_its_last_success(mirror: Mirror) -> None:
    host = mirror.registry.host
    mirror.offer(repository="other")
    mirror.configure(*(f"{{from: {host}/{name}, to: 'oci:{name}'}}" for name in ("app", "other")))
    done(mirror.night())
    mirror.sql("UPDATE success SET time = ?", NIGHT_S)
    mirror.registry.delete_manifest("other", "v1")
    night = mirror.night().document
    assert {entry["name"]: entry["last_success"] for entry in night["entries"]} == {
        f"{host}/app": night["ended"],
        f"{host}/other": "2026-01-31T02:00:00Z",
    }


def test_hostile_names_are_values_and_nothing_else(mirror: Mirror) -> None:
    name = "it's'); DROP TABLE complete; --\u202e"
    mirror.configure(f'{{from: {mirror.registry.host}/app, to: "oci:{name}"}}')
    for status in ("copied", "unchanged"):
        (image,) = done(mirror.night()).document["images"]
        assert (image["status"], name in image["destination"]) == (status, True)
    ((target,),) = mirror.sql("SELECT target FROM complete")
    assert name in target
    assert digests(mirror.history()) == [SINGLE.root]


# --- readers, writers and threads ---------------------------------------------------------------


def test_a_second_run_is_told_that_the_first_is_at_work(mirror: Mirror) -> None:
    with Path(f"{mirror.state}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = mirror.night()
    assert (refused.code, refused.document["error"]["code"]) == (7, "locked")
    assert not mirror.state.exists()
    done(mirror.night())
    done(mirror.night())


def test_a_reader_sees_what_is_committed_while_a_run_is_at_work(
    mirror: Mirror, proxy: Callable[..., Proxy]
) -> None:
    mirror.offer(repository="slow")
    gate = threading.Event()
    front = proxy(mirror.registry, Rule("GET", "/blobs/", Call(lambda _: gate.wait(60))))
    entry = f"{{from: {mirror.registry.host}/app, to: 'oci:layout'}}"
    mirror.configure(entry)
    done(mirror.night())
    mirror.offer(graph=OTHER)
    mirror.configure(entry, f"{{from: {front.host}/slow, to: 'oci:slow'}}")
    command = [PROGRAM, "sync", mirror.directory / "sync.yaml", "--quiet"]
    with subprocess.Popen(command, env=environment()) as run:
        while not front.count("GET", "/blobs/"):
            assert run.poll() is None
            time.sleep(0.01)
        assert digests(mirror.history())[0] == SINGLE.root
        assert run.poll() is None
        gate.set()
        assert run.wait(60) == 0
    assert digests(mirror.history()) == [SINGLE.root, OTHER.root]


def test_a_reader_changes_nothing(mirror: Mirror) -> None:
    write_state(mirror.state, [Span(f"docker://{mirror.source()}", A)])

    def found() -> list[tuple[str, int, bytes]]:
        files = (path for path in sorted(mirror.directory.iterdir()) if path.is_file())
        return [(path.name, path.stat().st_mtime_ns, path.read_bytes()) for path in files]

    before = found()
    assert digests(mirror.history()) == [A]
    done(mirror.night("--dry-run"))
    assert found() == before


def test_a_reader_of_no_state_is_told_so(mirror: Mirror) -> None:
    absent = mirror.history()
    assert (absent.code, "no state" in absent.stdout) == (2, True)
    mirror.state.touch()
    empty = mirror.history()
    assert (empty.code, "empty" in empty.stdout) == (2, True)


def test_threads_share_one_state(mirror: Mirror) -> None:
    names = [f"app{number}" for number in range(8)]
    for name in names:
        for tag in ("v1", "v2", "v3"):
            mirror.offer(tag, repository=name)
    rule = "tags: {min_age: {age: 0s, by: first_seen}}"
    mirror.configure(
        *(f"{{from: {mirror.registry.host}/{name}, to: 'oci:layout', {rule}}}" for name in names)
    )
    for _ in range(2):
        assert len(done(mirror.night("--jobs", "8")).document["images"]) == 24
    found = mirror.sql("SELECT source, count(*) FROM history GROUP BY source")
    assert len(found) == 24
    assert {count for _, count in found} == {1}


def test_what_is_asked_for_each_tag_is_found_by_an_index(mirror: Mirror) -> None:
    done(mirror.night())
    for question in (
        "SELECT digest FROM complete WHERE target = 'x' AND source = 'y'",
        "SELECT source FROM complete WHERE target = 'x'",
        "SELECT digest FROM history WHERE source = 'x'",
        "SELECT digest FROM created WHERE target >= 'x' AND target < 'y'",
    ):
        plan = mirror.sql(f"EXPLAIN QUERY PLAN {question}")
        assert [row[3] for row in plan if "SEARCH" not in row[3]] == [], question


# --- damage -------------------------------------------------------------------------------------


def filled(path: Path, source: str) -> bytes:
    """Return a state of many pages, which knows a source."""
    write_state(
        path,
        [Span(source, A), *(Span(f"docker://quay.io/app:v{n}", A) for n in range(500))],
        [(f"docker://quay.io/app:v{n}", "oci:layout", A) for n in range(500)],
    )
    return path.read_bytes()


def _overwritten(content: bytes, start: int, end: int, value: bytes) -> bytes:
    end = end if end > 0 else len(content) + end
    return content[:start] + value * (end - start) + content[end:]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda _: os.urandom(5000),
    "beginning": lambda content: _overwritten(content, 16, 200, b"\xff"),
    "middle": lambda content: _overwritten(content, 4096, -4096, b"\xa5"),
    "truncated": lambda content: content[: len(content) // 2],
    "zeroes": lambda content: bytes(len(content)),
}


@dataclass
class Damaged:
    """What came of a damaged state: a look at it, a night, and a look afterwards."""

    content: bytes
    looked: Result
    night: Result
    afterwards: Result
    aside: list[Path]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Damaged]]:
    """Damage one state again and again; what is moved aside stays there."""
    directory = tmp_path_factory.mktemp("damaged")
    with run_registry(tmp_path_factory.mktemp("registry")) as registry:
        mirror = Mirror(registry, directory)
        mirror.offer()
        mirror.configure()
        whole = filled(directory / "whole.state", f"docker://{mirror.source()}")
        found = {}
        for name, damage in DAMAGE.items():
            content = damage(whole)
            mirror.state.write_bytes(content)
            before = set(directory.iterdir())
            looked = mirror.history()
            night = mirror.night()
            aside = sorted(set(directory.glob("*.damaged-*")) - before)
            found[name] = Damaged(content, looked, night, mirror.history(), aside)
        yield found


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_state_is_moved_aside_and_begun_anew(
    damaged: Mapping[str, Damaged], name: str
) -> None:
    found = damaged[name]
    assert found.looked.code in (0, 8)  # (a reader may find what it needs)
    assert done(found.night).document["images"][0]["status"] in ("copied", "unchanged")
    (state,) = found.aside
    assert state.read_bytes() == found.content
    assert f"moved to {state}" in found.night.stderr
    assert digests(found.afterwards) == [SINGLE.root]


def test_a_damaged_state_never_takes_the_place_of_another_one(
    damaged: Mapping[str, Damaged],
) -> None:
    assert len({path for found in damaged.values() for path in found.aside}) == len(DAMAGE)
    assert all(found.aside[0].read_bytes() == found.content for found in damaged.values())


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("PRAGMA user_version = 99", "version 99"),
        ("PRAGMA application_id = 7", "another program"),
    ],
)
def test_a_newer_state_and_another_programs_database_are_left_alone(
    mirror: Mirror, statement: str, told: str
) -> None:
    filled(mirror.state, f"docker://{mirror.source()}")
    mirror.sql(statement)
    before = mirror.state.read_bytes()
    for refused in (mirror.history(), mirror.night(), mirror.night("--dry-run")):
        assert (refused.code, told in refused.document["error"]["message"]) == (2, True)
    assert mirror.state.read_bytes() == before


def test_a_database_with_other_tables_is_left_alone(mirror: Mirror) -> None:
    mirror.sql("CREATE TABLE theirs (x)")
    before = mirror.state.read_bytes()
    for refused in (mirror.history(), mirror.night()):
        assert (refused.code, "another program" in refused.stdout) == (2, True)
    assert mirror.state.read_bytes() == before


def test_an_entry_that_is_no_digest_any_more_counts_as_unknown(mirror: Mirror) -> None:
    done(mirror.night())
    mirror.sql("UPDATE complete SET digest = 'sha256:x'")
    mirror.sql("UPDATE history SET digest = 'sha256:x'")
    looked = mirror.history()
    assert looked.code == 4
    assert "no digest" in looked.stderr
    (image,) = done(mirror.night()).document["images"]
    assert image["status"] == "unchanged"
    assert digests(mirror.history()) == [SINGLE.root]


@pytest.mark.parametrize(
    "values",
    [
        "digest = CAST(digest AS BLOB)",
        "digest = CAST(x'736861ff' AS TEXT)",
        "source = CAST(x'ff' AS TEXT)",
        "since = 'x'",
        "since = 1 << 60, until = -(1 << 60)",
    ],
)
def test_a_value_that_no_sync_wrote_ends_no_run(mirror: Mirror, values: str) -> None:
    """A flipped bit in a value is sound to SQLite, and would be met every night."""
    write_state(mirror.state, [Span(f"docker://{mirror.source()}", A)])
    mirror.sql(f"UPDATE history SET {values}")
    assert mirror.history().code in (0, 4, 8)
    for _ in range(2):
        done(mirror.night())
    assert digests(mirror.history())[-1] == SINGLE.root


def test_a_path_that_is_no_text_is_one_too(mirror: Mirror) -> None:
    path = Path(os.fsdecode(os.fsencode(mirror.directory) + b"/\xff?mode=ro#"))
    done(mirror.night("--state", path))
    assert path.exists()
    assert digests(ocimirror("history", mirror.source(), "--state", path, "--json"))


_KILLED = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # (so that pages are written before the commit)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE history SET digest = 'torn'")
for number in range(3000):
    connection.execute("INSERT INTO success VALUES (?, 1)", (str(number),))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("first", ["reader", "writer"])
def test_a_writer_that_is_killed_leaves_a_sound_state(mirror: Mirror, first: str) -> None:
    whole = filled(mirror.state, f"docker://{mirror.source()}")
    subprocess.run([sys.executable, "-c", _KILLED, mirror.state], check=False, timeout=60)
    assert Path(f"{mirror.state}-journal").stat().st_size > 0
    assert mirror.state.read_bytes() != whole
    if first == "reader":
        assert digests(mirror.history()) == [A]
    done(mirror.night())
    assert digests(mirror.history()) == [A, SINGLE.root]
    assert mirror.sql("SELECT count(*) FROM history WHERE digest = 'torn'") == [(0,)]
    assert list(mirror.directory.glob("*.damaged-*")) == []


# --- a disk that refuses ------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.getuid() != 0:
        message = "mounting a small tmpfs needs root"
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_full_disk_is_said_to_be_full_and_nothing_is_lost(
    mirror: Mirror, small_disk: Path, proxy: Callable[..., Proxy]
) -> None:
    state, filler = small_disk / "sync.state", small_disk / "filler"
    front = proxy(mirror.registry)
    mirror.configure(f"{{from: {front.host}/app, to: 'oci:layout'}}")
    done(mirror.night("--state", state))

    def fill(_: object) -> None:
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 512):
                    pass
            except OSError:
                pass

    mirror.offer("v2", OTHER)
    front.rules.append(Rule("GET", "/blobs/", Call(fill)))
    full = mirror.night("--state", state)
    assert (full.code, full.document["error"]["code"]) == (8, "no_space")
    name = f"{front.host}/app:v1"
    assert digests(ocimirror("history", name, "--state", state, "--json")) == [SINGLE.root]
    front.rules.clear()
    filler.unlink()
    done(mirror.night("--state", state))


def test_a_read_only_disk_can_be_read_and_not_written(mirror: Mirror, small_disk: Path) -> None:
    state = small_disk / "sync.state"
    done(mirror.night("--state", state))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert mirror.night("--state", state).code == 8
    assert digests(ocimirror("history", mirror.source(), "--state", state, "--json"))


def test_a_directory_that_is_not_there_is_a_storage_error(mirror: Mirror) -> None:
    assert mirror.night("--state", mirror.directory / "absent" / "state").code == 8


def test_deleting_the_state_is_allowed(mirror: Mirror) -> None:
    done(mirror.night())
    mirror.state.unlink()
    (image,) = done(mirror.night()).document["images"]
    assert image["status"] == "unchanged"
    assert digests(mirror.history()) == [SINGLE.root]


def test_a_state_that_is_deleted_in_the_middle_of_a_run_is_not_written_elsewhere(
    mirror: Mirror, proxy: Callable[..., Proxy]
) -> None:
    front = proxy(mirror.registry)
    mirror.configure(f"{{from: {front.host}/app, to: 'oci:layout'}}")
    done(mirror.night())
    mirror.offer(graph=OTHER)
    front.rules.append(Rule("GET", "/blobs/", Call(lambda _: mirror.state.unlink(missing_ok=True))))
    night = mirror.night()
    assert night.code == 8
    assert "was moved or deleted while" in night.document["error"]["message"]
    assert not mirror.state.exists()


def test_a_copy_of_the_file_is_a_backup(mirror: Mirror) -> None:
    done(mirror.night())
    copied = mirror.directory / "copy"
    shutil.copy(mirror.state, copied)
    assert digests(ocimirror("history", mirror.source(), "--state", copied, "--json"))
