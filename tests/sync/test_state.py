"""The state: what is remembered, by whom it is written, and what damage costs."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocimirror.errors import LocalStorageError, Locked, NoSpace, UsageError
from ocimirror.model.digest import Digest
from ocimirror.sync.state import Complete, Span, State

ROOT = Path(__file__).parents[2]
NIGHT = datetime(2026, 1, 31, 2, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SOURCE = "docker://docker.io/library/alpine:3.19"
TARGET = "docker://registry.example.com/library/alpine:3.19"
A, B = Digest.of(b"a"), Digest.of(b"b")
COMPLETE = Complete(SOURCE, TARGET, A, ("linux/amd64", "linux/arm64"), True, NIGHT)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ocimirror.state")


@pytest.fixture
def state(path: str) -> Iterator[State]:
    with State(path) as opened:
        yield opened


# --- what is remembered ------------------------------------------------------------------------


def test_what_is_complete_is_known_to_the_next_run(path: str) -> None:
    with State(path) as state:
        assert state.find_complete(SOURCE, TARGET) is None
        state.mark_complete(COMPLETE)
        assert state.find_complete(SOURCE, TARGET) == COMPLETE
    with State(path) as state:
        assert state.find_complete(SOURCE, TARGET) == COMPLETE
        assert state.find_complete(SOURCE, "oci:layout") is None
        assert state.sources_of(TARGET) == [SOURCE]


def test_what_is_complete_is_replaced_by_what_came_later(state: State) -> None:
    state.mark_complete(COMPLETE)
    later = Complete(SOURCE, TARGET, B, (), False, NIGHT + DAY)
    state.mark_complete(later)
    assert state.find_complete(SOURCE, TARGET) == later


def test_the_history_of_a_tag_says_from_when_until_when(state: State) -> None:
    for number, digest in enumerate([A, A, B, A]):
        state.saw(SOURCE, digest, NIGHT + number * DAY)
    assert state.history(SOURCE) == [
        Span(SOURCE, A, NIGHT, NIGHT + DAY),
        Span(SOURCE, B, NIGHT + 2 * DAY, NIGHT + 2 * DAY),
        Span(SOURCE, A, NIGHT + 3 * DAY, NIGHT + 3 * DAY),
    ]
    assert state.history(TARGET) == []


def test_a_quarantine_counts_from_when_a_tag_first_had_a_digest(state: State) -> None:
    for number, digest in enumerate([A, B, A]):
        state.saw(SOURCE, digest, NIGHT + number * DAY)
    assert state.first_seen(SOURCE, A) == NIGHT
    assert state.first_seen(SOURCE, B) == NIGHT + DAY
    assert state.first_seen(SOURCE, Digest.of(b"c")) is None
    assert state.first_seen(TARGET, A) is None


def test_a_clock_that_goes_back_shortens_no_span(state: State) -> None:
    state.saw(SOURCE, A, NIGHT)
    state.saw(SOURCE, A, NIGHT - DAY)
    assert state.history(SOURCE) == [Span(SOURCE, A, NIGHT, NIGHT)]


def test_only_what_this_mirror_made_is_its_own(state: State) -> None:
    state.saw(SOURCE, A, NIGHT)
    state.mark_created(TARGET, SOURCE, A, NIGHT)
    state.mark_created(TARGET, SOURCE, B, NIGHT + DAY)
    state.mark_created("docker://registry.example.com/other:v1", "docker://quay.io/o:v1", A, NIGHT)
    (own,) = state.own("docker://registry.example.com/library/alpine:")
    assert (own.target, own.source, own.digest, own.time) == (TARGET, SOURCE, B, NIGHT)
    assert own.gone_since is None
    state.mark_gone(TARGET, NIGHT + DAY)
    assert [own.gone_since for own in state.own()] == [NIGHT + DAY, None]
    assert state.own_targets() == {TARGET, "docker://registry.example.com/other:v1"}


def test_what_is_pruned_is_forgotten_and_its_history_is_not(state: State) -> None:
    state.saw(SOURCE, A, NIGHT)
    state.mark_complete(COMPLETE)
    state.mark_created(TARGET, SOURCE, A, NIGHT)
    state.forget(TARGET)
    assert state.find_complete(SOURCE, TARGET) is None
    assert state.own() == []
    assert len(state.history(SOURCE)) == 1


def test_runs_are_kept_the_newest_first(path: str) -> None:
    with State(path) as state:
        killed = state.begin_run(NIGHT)
        done = state.begin_run(NIGHT + DAY)
        state.end_run(done, NIGHT + 2 * DAY, 3, copied=2, unchanged=5, failed=1, bytes_copied=9)
    with State(path, read_only=True) as state:
        second, first = state.runs()
    assert (first.number, first.started, first.ended, first.exit_code) == (
        killed,
        NIGHT,
        None,
        None,
    )
    assert (second.ended, second.exit_code) == (NIGHT + 2 * DAY, 3)
    assert (second.copied, second.unchanged, second.failed, second.bytes_copied) == (2, 5, 1, 9)


def test_each_entry_remembers_its_last_success(state: State) -> None:
    state.succeeded("one", NIGHT)
    state.succeeded("two", NIGHT)
    state.succeeded("one", NIGHT + DAY)
    assert state.last_successes() == {"one": NIGHT + DAY, "two": NIGHT}


def test_hostile_names_are_values_and_nothing_else(state: State) -> None:
    name = "docker://evil.example.com/x:'; DROP TABLE complete; --\0\u202e"
    state.saw(name, A, NIGHT)
    state.mark_created(name, name, A, NIGHT)
    assert [own.target for own in state.own()] == [name]


# --- readers, writers and threads --------------------------------------------------------------


def test_a_second_run_is_told_that_the_first_is_at_work(state: State, path: str) -> None:
    script = (
        "import sys; from ocimirror.sync.state import State; from ocimirror.errors import Locked\n"
        "try: State(sys.argv[1])\nexcept Locked as locked: sys.exit(locked.exit_code)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script, path], cwd=ROOT, check=False).returncode == 7
    )
    with pytest.raises(Locked):
        State(path)


def test_the_lock_is_given_back(path: str) -> None:
    State(path).close()
    with State(path) as state:
        state.close()
        with State(path):
            pass


def test_a_reader_sees_what_is_committed_while_a_run_is_at_work(state: State, path: str) -> None:
    state.saw(SOURCE, A, NIGHT)
    state.commit()
    state.saw(SOURCE, B, NIGHT + DAY)
    with State(path, read_only=True) as reader:
        assert [span.digest for span in reader.history(SOURCE)] == [A]
        state.commit()
        assert [span.digest for span in reader.history(SOURCE)] == [A, B]


def test_a_reader_changes_nothing(path: str) -> None:
    State(path).close()
    before = os.stat(path)
    with State(path, read_only=True) as reader:
        with pytest.raises(LocalStorageError):
            reader.saw(SOURCE, A, NIGHT)
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns


def test_a_reader_of_no_state_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no state"):
        State(str(tmp_path / "absent"), read_only=True)
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="empty"):
        State(str(tmp_path / "empty"), read_only=True)


def test_threads_share_one_state(state: State) -> None:
    def see(number: int) -> None:
        for i in range(200):
            state.saw(f"docker://quay.io/app{number}:v{i % 50}", A, NIGHT + i * DAY)

    threads = [threading.Thread(target=see, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert all(len(state.history(f"docker://quay.io/app{number}:v{i}")) == 1 for i in range(50))


def test_ten_thousand_tags_cost_well_under_a_second(path: str) -> None:
    names = [f"docker://registry.example.com/app{i % 100}:v{i}" for i in range(10_000)]
    for _ in ("first night", "second night"):
        began = time.process_time()
        with State(path) as state:
            for name in names:
                if state.find_complete(name, TARGET) is None:
                    state.mark_complete(Complete(name, TARGET, A, (), True, NIGHT))
                state.saw(name, A, NIGHT)
        assert time.process_time() - began < 30


# --- damage ------------------------------------------------------------------------------------


def fill(path: str, count: int = 500) -> None:
    with State(path) as state:
        for i in range(count):
            state.saw(f"docker://quay.io/app:v{i}", A, NIGHT)
            state.mark_complete(Complete(f"docker://quay.io/app:v{i}", TARGET, A, (), True, NIGHT))


@pytest.mark.parametrize("damage", ["garbage", "beginning", "middle", "truncated", "zeroes"])
def test_a_damaged_state_is_moved_aside_and_begun_anew(
    path: str, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    content = bytearray(Path(path).read_bytes())
    if damage == "garbage":
        content[:] = os.urandom(5000)
    elif damage == "beginning":
        content[16:200] = b"\xff" * 184
    elif damage == "middle":
        content[4096:-4096] = b"\xa5" * (len(content) - 8192)
    elif damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[:] = bytes(len(content))
    Path(path).write_bytes(content)
    with pytest.raises(LocalStorageError):
        with State(path, read_only=True) as reader:
            for i in range(500):
                reader.history(f"docker://quay.io/app:v{i}")
            pytest.skip("a reader may find what it needs")
    with State(path) as state:
        assert state.history("docker://quay.io/app:v1") == []
        state.saw(SOURCE, A, NIGHT)
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes() == content
    assert str(aside) in caplog.text
    with State(path) as state:
        assert len(state.history(SOURCE)) == 1


def test_a_damaged_state_never_takes_the_place_of_another_one(path: str, tmp_path: Path) -> None:
    for _ in range(3):
        Path(path).write_bytes(b"garbage" * 1000)
        State(path).close()
    assert len(list(tmp_path.glob("*.damaged-*"))) == 3


def test_another_programs_database_is_left_alone(path: str) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = Path(path).read_bytes()
    for read_only in (False, True):
        with pytest.raises(UsageError, match="another program"):
            State(path, read_only=read_only)
    assert Path(path).read_bytes() == before


def test_a_newer_state_is_left_alone(path: str) -> None:
    State(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(UsageError, match="version 99"):
        State(path)


def test_an_entry_that_is_no_digest_any_more_counts_as_unknown(path: str) -> None:
    fill(path, 1)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE complete SET digest = 'sha256:x'")
        other.execute("UPDATE history SET digest = 'sha256:x'")
    other.close()
    with State(path) as state:
        assert state.find_complete("docker://quay.io/app:v0", TARGET) is None
        assert state.history("docker://quay.io/app:v0") == []


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
def test_a_value_that_no_sync_wrote_ends_no_run(path: str, values: str) -> None:
    """A flipped bit in a value is sound to SQLite, and would be met every night."""
    fill(path, 1)
    with sqlite3.connect(path) as other:
        other.execute(f"UPDATE history SET {values}")
    other.close()
    source = "docker://quay.io/app:v0"
    with contextlib.suppress(LocalStorageError), State(path, read_only=True) as reader:
        reader.history(source)
    for _ in range(2):
        with State(path) as state:
            state.history(source)
            state.first_seen(source, A)
            state.saw(source, B, NIGHT)
    assert state_of(path, source)[-1].digest == B


def state_of(path: str, source: str) -> list[Span]:
    with State(path, read_only=True) as state:
        return state.history(source)


def test_a_path_that_is_no_text_is_one_too(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff?mode=ro#")
    fill(path, 1)
    assert len(state_of(path, "docker://quay.io/app:v0")) == 1
    assert os.path.exists(path)


def test_a_writer_that_is_killed_leaves_a_sound_state(path: str, tmp_path: Path) -> None:
    script = (
        "import sys; from tests.sync.test_state import *\n"
        "state = State(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "for night in range(10**6):\n"
        " for i in range(100): state.saw(f'docker://quay.io/app:v{i}', A, NIGHT + night * DAY)\n"
        " state.commit()"
    )
    for number in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.007 * number)
        writer.kill()
        writer.communicate(timeout=60)
        if number % 2:
            with State(path, read_only=True) as reader:
                reader.history("docker://quay.io/app:v0")
        with State(path) as state:
            spans = [state.history(f"docker://quay.io/app:v{i}") for i in range(100)]
        # (A night is there whole, or not at all.)
        assert len({found[0].until if found else None for found in spans}) == 1
    assert list(tmp_path.glob("*.damaged-*")) == []


# --- a disk that refuses -----------------------------------------------------------------------


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


def test_a_full_disk_is_said_to_be_full_and_nothing_is_lost(small_disk: Path) -> None:
    path = str(small_disk / "ocimirror.state")
    fill(path, 10)
    with pytest.raises(NoSpace):
        fill(path, 5000)
    with State(path) as state:
        assert state.find_complete("docker://quay.io/app:v3", TARGET) is not None


def test_a_read_only_disk_can_be_read_and_not_written(small_disk: Path) -> None:
    path = str(small_disk / "ocimirror.state")
    fill(path, 10)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(LocalStorageError):
        State(path)
    with State(path, read_only=True) as state:
        assert len(state.history("docker://quay.io/app:v3")) == 1


def test_a_directory_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(LocalStorageError):
        State(str(tmp_path / "absent" / "state"))


def test_deleting_the_state_is_allowed(path: str) -> None:
    fill(path, 3)
    os.unlink(path)
    with State(path) as state:
        assert state.find_complete("docker://quay.io/app:v0", TARGET) is None


def test_a_state_that_is_deleted_in_the_middle_of_a_run_is_not_written_elsewhere(path: str) -> None:
    state = State(path)
    state.saw(SOURCE, A, NIGHT)
    state.commit()
    os.unlink(path)
    with pytest.raises(LocalStorageError, match="was moved or deleted while"):
        state.saw(SOURCE, B, NIGHT)
        state.commit()
    state.close()
    assert not os.path.exists(path)


def test_a_copy_of_the_file_is_a_backup(path: str, tmp_path: Path) -> None:
    fill(path, 3)
    copied = str(tmp_path / "copy")
    shutil.copy(path, copied)
    with State(copied, read_only=True) as state:
        assert len(state.history("docker://quay.io/app:v2")) == 1
