"""What surrounds a run: output that nobody takes, limits of the machine, files that are none."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror
from tests.support.programs import require_program

NAME = "reg.example.com/team/app:1.0"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    images.write_layout(tmp_path / "layout", {NAME: images.multi()})
    return tmp_path / "layout"


def damaged(layout: Path) -> Path:
    """Flip a bit in every blob that is no manifest."""
    for blob in (layout / "blobs" / "sha256").iterdir():
        content = blob.read_bytes()
        if b"mediaType" not in content:
            blob.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    return layout


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


COMMANDS = [
    "list ./layout",
    "verify ./layout --json",
    "inspect ./layout --raw",
    "copy ./layout oci:./x",
]


@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
@pytest.mark.parametrize("command", [*COMMANDS, "--help", "gc ./layout"])
def test_what_cannot_be_printed_is_exit_code_8(layout: Path, command: str, where: str) -> None:
    done = shell(f"{PROGRAM} {command} {where}", layout.parent)

    assert done.returncode == 8
    assert "error: cannot write standard output: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_standard_error_takes_nothing_from_a_success(layout: Path, command: str) -> None:
    open_, closed = shell(f"{PROGRAM} {command}", layout.parent), layout.parent / "x"
    if closed.exists():
        subprocess.run(["rm", "-r", closed], check=True)

    done = shell(f"{PROGRAM} {command} 2>&-", layout.parent)

    assert (open_.returncode, done.returncode) == (0, 0)
    assert done.stdout.split()[:2] == open_.stdout.split()[:2]


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", ">&- 2>&-"])
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(layout: Path, where: str) -> None:
    assert shell(f"{PROGRAM} inspect ./layout:no:such {where}", layout.parent).returncode == 4
    assert shell(f"{PROGRAM} nonsense {where}", layout.parent).returncode == 2


def test_messages_do_not_go_into_files_when_descriptors_are_closed(layout: Path) -> None:
    done = shell(f"{PROGRAM} copy ./layout oci-archive:a.tar <&- >&- 2>&-", layout.parent)

    assert done.returncode == 8  # (its line could not be printed; the archive is there)
    assert ocimirror("verify", layout.parent / "a.tar").code == 0


@pytest.mark.parametrize("how", ["", "--json"])
def test_a_reader_who_has_had_enough_does_not_hide_the_faults(layout: Path, how: str) -> None:
    damaged(layout)

    script = f"{PROGRAM} verify ./layout {how} | head -c 1; exit ${{PIPESTATUS[0]}}"

    assert shell(script, layout.parent).returncode == 5


def test_without_memory_or_threads_the_machine_is_blamed(layout: Path) -> None:
    strace = require_program("strace", "strace")
    copy = f"{PROGRAM} copy ./layout oci:./x"
    inject = "-f -qq -o /dev/null -e inject=clone3,clone:error=EAGAIN"

    threads = shell(f"{strace} {inject} {copy}", layout.parent)
    for limit_kib in range(80_000, 0, -6000):
        memory = shell(f"rm -rf x; ulimit -v {limit_kib}; {copy}", layout.parent)
        if memory.returncode:
            break

    for done in (threads, memory):
        assert done.returncode == 8, done.stderr
        assert "out of resources" in done.stderr
        assert "Traceback" not in done.stderr
        assert "bug" not in done.stderr
    assert shell(copy, layout.parent).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "sync pipe",
        "config check pipe",
        "pull --images-file pipe ./x",
        "pull reg.example.com/a:1 ./x --auth-file pipe",
        "pull reg.example.com/a:1 ./x --ca-file pipe",
        "verify --lock pipe",
        "sync directory",
        "pull --images-file directory ./x",
        "pull reg.example.com/a:1 ./x --ca-file directory",
    ],
)
def test_a_pipe_or_directory_instead_of_a_file_is_a_usage_error(
    tmp_path: Path, command: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()

    result = ocimirror(*shlex.split(command), cwd=tmp_path, timeout_s=20)

    assert result.code == 2, result.stderr


def test_a_configuration_may_come_through_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("mirrors: [{from: a.example.com/b, to: c.example.com/d}]")

    done = shell(f"{PROGRAM} config check <(sleep 0.5; cat good.yaml)", tmp_path)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--timeout", "1e400"],
        ["--timeout", "nan"],
        ["--jobs", "9" * 30],
        ["--retries", "9" * 5000],
        ["--limit-rate", "9" * 400 + "G"],
        ["--max-requests-per-second", "reg.example.com=1e-400"],
        ["--proxy", "http://["],
    ],
)
def test_numbers_and_words_beyond_all_measure_are_usage_errors(
    tmp_path: Path, options: list[str]
) -> None:
    result = ocimirror(
        "pull", "127.0.0.1:1/a:1", "reg.invalid/a", tmp_path / "x", "--retries", "0", *options
    )

    assert result.code == 2, result.stderr


def test_arguments_that_are_no_text_are_usage_errors_and_shown_escaped(tmp_path: Path) -> None:
    for arguments in (["list", b"./\xff\x1b[31m"], ["pull", b"127.0.0.1:1/\xff", b"x"]):
        done = subprocess.run(
            [PROGRAM, *arguments], env=environment(), cwd=tmp_path, capture_output=True
        )

        assert done.returncode in (2, 4)
        assert b"\x1b" not in done.stderr
        assert b"\xff" not in done.stderr
        assert b"\\udcff" in done.stderr
