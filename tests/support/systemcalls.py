"""What a command asks the kernel to change, step by step: recorded, or killed before a step.

The first thread of a process is traced, which is where commands change single files; what it
starts is not.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.powerloss import Disk
from tests.support.programs import require_strace

CHANGES = ("openat", "write", "ftruncate", "fsync", "rename", "unlink", "mkdir", "rmdir")
_LINE = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+).*", re.ASCII)
_QUOTED = re.compile(r'"((?:\\x[0-9a-f]{2})*)"', re.ASCII)
_OPENED = re.compile(r"<((?:\\x[0-9a-f]{2})*)>", re.ASCII)


@dataclass(frozen=True)
class Call:
    """A change that was asked for.

    Attributes:
        name: of the system call.
        number: how many of that name there were, this one counted.
        path: what is changed; the new name of a rename.
        old: the old name of a rename.
        content: what is written.
    """

    name: str
    number: int
    path: str
    old: str = ""
    content: bytes = b""


def recorded(
    command: Sequence[str | Path],
    env: dict[str, str],
    trace: Path,
    below: Path,
    codes: set[int],
    prefix: Sequence[str] = (),
) -> list[Call]:
    """Run a command, and return its changes below a directory, in order.

    Args:
        command: the program and its arguments.
        env: its environment.
        trace: a file for strace.
        below: the directory.
        codes: how the command may end.
        prefix: a program that enters a namespace.
    """
    strace = [require_strace(), "-qq", "-y", "-xx", "-s", "4194304", "-o", str(trace)]
    words = [*prefix, *strace, "-e", f"trace={','.join(CHANGES)}", *map(str, command)]
    done = subprocess.run(words, env=quiet(env), capture_output=True, check=False, timeout=120)
    assert done.returncode in codes, (done.stdout, done.stderr)
    calls = (call for line in trace.read_text().splitlines() for call in _parsed(line))
    counts = Counter[str]()
    found = []
    for call, succeeded in calls:
        counts[call.name] += 1
        if succeeded and (call.path == str(below) or call.path.startswith(f"{below}/")):
            found.append(Call(call.name, counts[call.name], call.path, call.old, call.content))
    return found


def _parsed(line: str) -> Iterator[tuple[Call, bool]]:
    match = _LINE.fullmatch(line)
    if match is None:
        return
    name, arguments, result = match.groups()
    quoted = [_unescaped(text) for text in _QUOTED.findall(arguments)]
    opened = [os.fsdecode(_unescaped(text)) for text in _OPENED.findall(arguments)]
    succeeded = int(result) >= 0
    if name == "rename":
        yield Call(name, 0, os.fsdecode(quoted[1]), os.fsdecode(quoted[0])), succeeded
    elif name in ("write", "ftruncate", "fsync"):
        content = quoted[0] if name == "write" else b""
        yield Call(name, 0, opened[0] if opened else "", "", content), succeeded
    else:
        created = name != "openat" or "O_CREAT" in arguments
        yield Call(name, 0, os.fsdecode(quoted[0])), succeeded and created


def _unescaped(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def killed_before(
    call: Call, command: Sequence[str | Path], env: dict[str, str], prefix: Sequence[str] = ()
) -> bool:
    """Run a command that is killed before a step; return whether it was, or had ended before."""
    at = f"inject={call.name}:signal=SIGKILL:when={call.number}"
    strace = [require_strace(), "-qq", "-o", os.devnull, "-e", f"trace={call.name}", "-e", at]
    done = subprocess.run(
        [*prefix, *strace, *map(str, command)],
        env=quiet(env),
        capture_output=True,
        check=False,
        timeout=120,
    )
    return done.returncode == -signal.SIGKILL


@contextmanager
def stopped_before(
    name: str, command: Sequence[str | Path], env: dict[str, str], trace: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command that is stopped before its first call of a name, until the block ends.

    Afterwards it has come to its end.
    """
    at = ["-e", f"trace={name}", "-e", f"inject={name}:signal=SIGSTOP:when=1"]
    strace = [require_strace(), "-qq", "-o", str(trace), *at]
    run = subprocess.Popen(
        [*strace, *map(str, command)],
        env=quiet(env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not trace.exists() or "stopped by SIGSTOP" not in trace.read_text():
            assert run.poll() is None, f"it ended before any {name}"
            time.sleep(0.02)
        yield run
        traced = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        os.kill(int(traced[0]), signal.SIGCONT)
        run.wait(60)
    finally:
        run.kill()  # (what strace traces goes with it, or runs on by itself)
        run.wait()


def quiet(env: dict[str, str]) -> dict[str, str]:
    """Return an environment in which Python itself writes nothing."""
    return {**env, "PYTHONDONTWRITEBYTECODE": "1"}


def steps_of(calls: Sequence[Call]) -> list[Callable[[Disk], object]]:
    """Return what recorded calls do to a disk that may lose its power."""
    numbers = itertools.count(1_000_000)
    return [_step(call, next(numbers)) for call in calls]


def _step(call: Call, number: int) -> Callable[[Disk], object]:
    def step(disk: Disk) -> None:
        match call.name:
            case "openat" if call.path not in disk.live:
                disk.synced[number] = disk.written[number] = b""
                disk.change(call.path, number)
            case "write":
                disk.written[disk.live[call.path]] += call.content
            case "fsync" if call.path in disk.live and disk.live[call.path] in disk.written:
                disk.synced[disk.live[call.path]] = disk.written[disk.live[call.path]]
            case "fsync":
                disk.sync_directory(call.path)
            case "rename":
                target = disk.live[call.old]
                disk.change(call.path, target)
                disk.change(call.old, None)
            case "unlink":
                disk.change(call.path, None)
            case "ftruncate" | "mkdir" | "rmdir":
                raise NotImplementedError(call.name)

    return step
