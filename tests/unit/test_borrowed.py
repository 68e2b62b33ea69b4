"""Files that are changed for a moment: whatever happens meanwhile, they come back as they were."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ocimirror.engines import borrowed
from ocimirror.engines.borrowed import MAX_SIZE_BYTES, Borrowed, Change
from ocimirror.engines.docker.alias import (
    hosts_change,
    mirror_change,
    refuse_two_in_one_place,
    split,
)
from ocimirror.engines.docker.process import LocalDockerd
from ocimirror.errors import EngineFailed, EngineUnavailable, LocalStorageError, UsageError

HOSTS = b"127.0.0.1 localhost\n" * 400
SETTINGS = b'{"debug":   true}\n' + b" " * 9000


def machine(top: Path) -> list[Change]:
    """Make a hosts file and a configuration, and return what would be changed of them."""
    (top / "etc").mkdir()
    (top / "etc" / "hosts").write_bytes(HOSTS)
    (top / "etc" / "daemon.json").write_bytes(SETTINGS)
    return changes(top)


def changes(top: Path) -> list[Change]:
    """Return the three kinds of change."""
    etc = top / "etc"
    dockerd = LocalDockerd(1, ["dockerd", f"--config-file={etc}/daemon.json"])
    return [
        mirror_change(dockerd, "http://127.0.0.1:1"),
        hosts_change({"reg.example.com": "127.0.0.1"}, str(etc / "hosts")),
        Change(str(etc / "certs.d" / "reg.example.com" / "x.crt"), None, b"PEM"),
    ]


def state(top: Path) -> dict[str, object]:
    """Return everything below a directory, with modes."""
    return {
        str(path.relative_to(top)): (path.stat().st_mode, path.is_file() and path.read_bytes())
        for path in top.rglob("*")
    }


def nothing(_: str) -> None:
    """Reload nothing."""


def killed_at(top: Path, step: int) -> bool:
    """Change everything and put it back, killed in the middle of a step; False: it came through."""
    process = os.fork()
    if process == 0:
        _change_and_put_back(top, step)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _change_and_put_back(top: Path, last: int) -> NoReturn:
    """Do so in this process, which ends; what changes the disk is counted."""
    steps = count()

    def counted(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if next(steps) == last:
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        setattr(os, name, call)

    try:
        for name in ("write", "ftruncate", "fsync", "mkdir", "rmdir", "unlink", "rename"):
            counted(name)
        journal = Borrowed(str(top / "etc" / "undo.json"))
        journal.undo(nothing)
        journal.apply(changes(top))
        assert journal.undo(nothing) == []
        journal.close()
    except BaseException:
        os._exit(1)
    os._exit(0)


def test_killed_in_any_step_everything_can_be_put_back(tmp_path: Path) -> None:
    machine(tmp_path)
    before = state(tmp_path)
    step = 0
    while killed_at(tmp_path, step):
        journal = Borrowed(str(tmp_path / "etc" / "undo.json"))
        assert journal.undo(nothing) == [], step
        journal.close()
        assert state(tmp_path) == before, step
        step += 1
    assert state(tmp_path) == before
    assert step > 20


def test_a_file_that_is_too_large_is_left_alone(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_bytes(b"0.0.0.0 advertisement.example\n" * (MAX_SIZE_BYTES // 30 + 1))
    with pytest.raises(LocalStorageError, match="larger"):
        hosts_change({"reg.example.com": "127.0.0.1"}, str(hosts))


def test_a_hosts_file_that_is_not_there_is_not_there_afterwards(tmp_path: Path) -> None:
    change = hosts_change({"reg.example.com": "127.0.0.1"}, str(tmp_path / "hosts"))
    journal = Borrowed(str(tmp_path / "undo.json"))
    journal.apply([change])
    assert journal.undo(nothing) == []
    journal.close()
    assert os.listdir(tmp_path) == []


def test_a_hosts_file_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(HOSTS)
    (tmp_path / "hosts").symlink_to("real")
    change = hosts_change({"reg.example.com": "127.0.0.1"}, str(tmp_path / "hosts"))
    assert change.path == str(tmp_path / "real")


def test_the_directory_of_the_journal_is_made_and_goes_again(tmp_path: Path) -> None:
    directory = tmp_path / "docker"
    certificate = Change(str(directory / "certs.d" / "x" / "a.crt"), None, b"PEM")
    for crash in (False, True):
        journal = Borrowed(str(directory / "undo.json"))
        journal.apply([certificate])
        if crash:
            journal._lock.release()
            journal = Borrowed(str(directory / "undo.json"))
        assert journal.undo(nothing) == []
        journal.close()
        assert not directory.exists()


def test_a_new_configuration_is_never_seen_half_written(tmp_path: Path) -> None:
    for step in count():
        etc = tmp_path / str(step) / "etc"
        etc.mkdir(parents=True)
        (etc / "hosts").write_bytes(HOSTS)
        before = state(etc)
        if not killed_at(etc.parent, step):
            break
        if (etc / "daemon.json").exists():
            json.loads((etc / "daemon.json").read_text())
        journal = Borrowed(str(etc / "undo.json"))
        assert journal.undo(nothing) == [], step
        journal.close()
        assert state(etc) == before, step
    assert state(etc) == before


@pytest.mark.parametrize("error", [EngineUnavailable("it has ended"), EngineFailed("not taken")])
def test_an_engine_that_fails_meanwhile_does_not_keep_files_changed(
    tmp_path: Path, error: Exception
) -> None:
    made = machine(tmp_path)
    before = state(tmp_path)
    journal = Borrowed(str(tmp_path / "etc" / "undo.json"))
    journal.apply(made)

    def fail(_: str) -> None:
        raise error

    left = journal.undo(fail)
    journal.close()
    assert state(tmp_path) == before
    assert bool(left) == isinstance(error, EngineFailed)


def test_a_journal_of_another_version_is_kept(tmp_path: Path) -> None:
    journal = tmp_path / "undo.json"
    journal.write_text('{"version": 2}')
    with pytest.raises(EngineFailed, match="version"):
        Borrowed(str(journal))
    assert journal.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB."""
    if os.getuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("free_kib", range(0, 45, 4))
def test_on_a_full_disk_everything_comes_back(small_disk: Path, free_kib: int) -> None:
    made = machine(small_disk)
    free = os.statvfs(small_disk)
    filler = free.f_bavail * free.f_frsize - free_kib * 1024
    (small_disk / "filler").write_bytes(b"x" * max(0, filler))
    before = state(small_disk)
    journal = Borrowed(str(small_disk / "etc" / "undo.json"))
    with contextlib.suppress(LocalStorageError):
        journal.apply(made)
    assert journal.undo(nothing) == []
    journal.close()
    assert state(small_disk) == before


def test_a_list_of_mirrors_may_be_null(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"registry-mirrors": null}')
    dockerd = LocalDockerd(1, ["dockerd", f"--config-file={file}"])
    assert b"127.0.0.1:1" in mirror_change(dockerd, "http://127.0.0.1:1").after


@pytest.mark.parametrize("text", ["// why\n{}", '{"debug": true, "debug": false}', "[]", "{"])
def test_a_configuration_that_would_not_come_back_the_same_is_refused(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(text)
    with pytest.raises(UsageError):
        mirror_change(LocalDockerd(1, ["dockerd", "--config-file", str(file)]), "http://x")


def test_two_names_of_one_place_are_refused() -> None:
    with pytest.raises(UsageError, match="same place"):
        refuse_two_in_one_place(["reg.example.com", "reg.example.com:443"])
    refuse_two_in_one_place(["reg.example.com", "reg.example.com:5000", "docker.io"])
    assert split("[::1]:5000") == ("::1", 5000)
    assert split("[::1]", 80) == ("::1", 80)


def test_what_somebody_else_wrote_is_not_ours() -> None:
    change = Change("/x", b"one\n", b"one\ntwo\n", between=b"three\n")
    assert all(change.is_ours(text) for text in (b"one\ntw", b"thr\ntwo\n", b"three\no\n"))
    assert not any(change.is_ours(text) for text in (b"", b"on", b"one\nten\n", b"three\nfour"))
    assert borrowed.read_file("/nonexistent", 1) is None
