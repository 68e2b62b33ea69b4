"""What a command does to the disk, as strace sees it: steps that can be replayed, or refused.

Nothing below the command is ours: each call that changes the traced directory becomes a step on a
`Disk` (tests.support.powerloss). Content that is named was written and synced by these calls or
not at all, whichever part of the program made them.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.command import PROGRAM, Result, environment
from tests.support.powerloss import DIRECTORY, Disk
from tests.support.programs import require_program, require_strace

_CALLS = (
    "openat,open,creat,write,fsync,fdatasync,rename,renameat,renameat2,link,linkat,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,ftruncate,utimensat,"
    # These are not replayed, and must not be used:
    "pwrite64,writev,pwritev,truncate,symlink,symlinkat,copy_file_range,sendfile,syncfs,sync"
)
_HEX = re.compile(r"(?:\\x[0-9a-f]{2})+")
_LINE = re.compile(r"(\d+ +)?(?:<\.\.\. \w+ resumed>)?(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(.*)", re.DOTALL)
_BEGUN = " <unfinished ...>"


class Step(NamedTuple):
    """A change of the disk: `apply` does it to a model of the disk.

    A sync covers what was there when it began, so that it is two steps: `begin` and `sync`. The
    path of a directory that is synced ends with a slash. `number` is how many calls of that name
    the thread had made, this one counted; `content` is what was written.
    """

    operation: str
    path: str
    apply: Callable[[Disk], object]
    call: str
    number: int
    content: bytes = b""


@dataclass
class Trace:
    """What one command did, and what it printed meanwhile."""

    result: Result
    steps: list[Step] = field(default_factory=list)
    marks: list[tuple[int, str]] = field(default_factory=list)

    def marked_before(self, count: int) -> list[str]:
        """Return the lines that were printed on standard output within the first steps."""
        return [line for step, line in self.marks if step <= count]

    def without(self, operation: str, which: Callable[[str], bool]) -> Trace:
        """Return the trace as if calls of a kind had done nothing to these paths."""
        steps = [
            step._replace(apply=lambda disk: None)
            if step.operation == operation and which(step.path)
            else step
            for step in self.steps
        ]
        return Trace(self.result, steps, self.marks)

    def then(self, after: Trace) -> Trace:
        """Return this trace and, behind it, another one of the same directory."""
        marks = [(len(self.steps) + count, line) for count, line in after.marks]
        return Trace(after.result, self.steps + after.steps, self.marks + marks)


def traced(directory: Path, *arguments: str | Path) -> Trace:
    """Run the command and return what it did below a directory."""
    trace = directory.parent / f"{directory.name}.trace"
    result = _strace(_WRITTEN, trace, arguments)
    return _Parser(str(directory)).parse(trace.read_text("latin-1"), result)


@dataclass(frozen=True)
class FirstThread:
    """A command of which strace sees the first thread alone, so that its calls can be counted.

    Attributes:
        arguments: of the command.
        trace: a file for strace.
        env: its environment.
        prefix: a program that enters a namespace.
    """

    arguments: Sequence[str | Path]
    trace: Path
    env: dict[str, str] | None = None
    prefix: Sequence[str] = ()

    def traced(self, directory: Path) -> Trace:
        """Run it and return what it did below a directory."""
        result = self._run(_WRITTEN)
        return _Parser(str(directory)).parse(self.trace.read_text("latin-1"), result)

    def is_killed_before(self, step: Step) -> bool:
        """Kill it before a step; return whether it was, or had ended before."""
        at = f"inject={step.call}:signal=SIGKILL:when={step.number}"
        return self._run(["-e", f"trace={step.call}", "-e", at]).code == -signal.SIGKILL

    def _run(self, options: Sequence[str]) -> Result:
        strace = [require_strace(), "-qq", "-o", str(self.trace), *options]
        done = subprocess.run(
            [*self.prefix, *strace, PROGRAM, *map(str, self.arguments)],
            env={**(self.env or _ENVIRONMENT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=120,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr.decode())


def refused(
    calls: str,
    arguments: Sequence[str | Path],
    trace: Path,
    *,
    below: Path | None = None,
    error: str = "EIO",
    when: str = "1+",
) -> Result:
    """Run the command while the kernel refuses it some calls.

    Args:
        calls: names of system calls, as `strace -e inject` has them.
        arguments: of the command.
        trace: where strace writes which calls were refused, as `(INJECTED)`.
        below: only calls with this file, or in this directory, count.
        error: what the kernel says.
        when: which of each thread's calls: `N`, `N+` or `N+STEP`.
    """
    inject = f"inject={calls}:error={error}:when={when}"
    options = ["-P", str(below)] if below is not None else []
    done = _strace([*options, "-y", "-e", f"trace={calls}", "-e", inject], trace, arguments)
    assert "(INJECTED)" in trace.read_text("latin-1")
    return done


def killed(
    call: str, arguments: Sequence[str | Path], trace: Path, below: Path | None = None
) -> None:
    """Run the command as process 1 of its world, and kill it at its first such call.

    Args:
        call: the name of a system call.
        arguments: of the command.
        trace: where strace writes the call.
        below: only calls with this file, or in this directory, count.
    """
    inject = f"inject={call}:signal=SIGKILL:when=1"
    options = ["-P", str(below)] if below is not None else []
    command = _command([*options, "-e", f"trace={call}", "-e", inject], trace, arguments)
    command.remove("--seccomp-bpf")  # (with which it does not signal)
    process_1 = [require_program("unshare", "util-linux"), "--user", "--map-root-user"]
    done = subprocess.run(
        [*process_1, "--pid", "--fork", *command],
        env=_ENVIRONMENT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert "SIGKILL" in trace.read_text(), done.stderr.decode()


@contextlib.contextmanager
def stopped(
    call: str,
    when: int,
    arguments: Sequence[str | Path],
    trace: Path,
    *,
    cwd: Path | None = None,
    codes: Collection[int] = (0,),
) -> Iterator[None]:
    """Run the command up to one of its system calls; it goes on afterwards, to one of the codes."""
    inject = f"inject={call}:signal=SIGSTOP:when={when}"
    command = _command(["-e", f"trace={call}", "-e", inject], trace, arguments)
    command.remove("--seccomp-bpf")  # (with which it does not signal)
    process = subprocess.Popen(
        command, env=_ENVIRONMENT, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    pid = _stopped_at(trace, process)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        said = process.communicate(timeout=120)
    assert process.returncode in codes, said


def _stopped_at(trace: Path, process: subprocess.Popen[Any]) -> int:
    """Wait until the traced process has stopped itself; return its id."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        lines = trace.read_text().splitlines() if trace.exists() else []
        for line in lines:
            if "stopped by SIGSTOP" in line:
                return int(line.split()[0])
        time.sleep(0.01)
    pytest.fail(f"it never stopped: {process.communicate()}")


_WRITTEN = ["-y", "-xx", "-s", "100000000", "-e", f"trace={_CALLS}"]
_ENVIRONMENT = environment(PYTHONDONTWRITEBYTECODE="1")  # (which renames files, too)


def _command(
    options: Sequence[str], trace: Path, arguments: Sequence[str | Path]
) -> list[str | Path]:
    traced = [PROGRAM, *map(str, arguments)]
    return [require_strace(), "-f", "--seccomp-bpf", "-o", trace, *options, *traced]


def _strace(options: Sequence[str], trace: Path, arguments: Sequence[str | Path]) -> Result:
    done = subprocess.run(
        _command(options, trace, arguments),
        env=_ENVIRONMENT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


class _Parser:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._steps: list[Step] = []
        self._marks: list[tuple[int, str]] = []
        self._begun: dict[str, str] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def parse(self, text: str, result: Result) -> Trace:
        for line in text.splitlines():
            match = _LINE.fullmatch(line)
            assert match, line
            thread, rest = match[1] or "", match[2]
            if rest.startswith(("+++", "---")):
                continue
            if rest.endswith(_BEGUN):
                self._begun[thread] = rest.removesuffix(_BEGUN)
                self._begin(thread, self._begun[thread])
                continue
            whole = self._begun.pop(thread, "")
            if not whole:
                self._begin(thread, rest)
            self._done(thread, whole + rest)
        return Trace(result, self._steps, self._marks)

    def _begin(self, thread: str, text: str) -> None:
        call, _, arguments = text.partition("(")
        self._counts[thread, call] += 1
        path = _descriptor(arguments.partition(")")[0])
        if call in ("fsync", "fdatasync") and self._is_ours(path):
            number = self._counts[thread, call]
            begin = Step("begin", path, lambda disk: disk.begin_sync(thread, path), call, number)
            self._steps.append(begin)

    def _done(self, thread: str, text: str) -> None:
        match = _CALL.fullmatch(text)
        if match is None or match[3].startswith("-"):
            return
        call, returned = match[1], match[4]
        arguments = match[2].split(", ")
        if call == "write" and arguments[0].startswith("1<"):
            lines = _bytes(arguments[1])[: int(match[3])].decode().splitlines()
            self._marks += [(len(self._steps), line) for line in lines]
            return
        if "<" in arguments[0] and call in ("fsync", "fdatasync", "write", "ftruncate"):
            paths = [_descriptor(arguments[0])]
        else:
            paths = _paths(arguments, at=call.endswith(("at", "at2")) and call != "creat")
        if any(self._is_ours(path) for path in paths):
            content = _bytes(arguments[1])[: int(match[3])] if call == "write" else b""
            done = _change(thread, call, arguments, paths, content, returned)
            if done is not None:
                number = self._counts[thread, call]
                self._steps.append(Step(*done, call, number, content))

    def _is_ours(self, path: str) -> bool:
        return path == self._directory or path.startswith(f"{self._directory}/")


def _decoded(text: str) -> str:
    return _HEX.sub(lambda m: bytes.fromhex(m.group().replace("\\x", "")).decode("latin-1"), text)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.strip('"').replace("\\x", ""))


def _descriptor(text: str) -> str:
    """Return the path of a descriptor as strace shows it: `5<path>`."""
    path = _decoded(text.partition("<")[2].rpartition(">")[0])
    return path.removesuffix("(deleted)").rstrip() if path.startswith("/") else ""


def _paths(arguments: list[str], *, at: bool) -> list[str]:
    found = []
    base = ""
    for argument in arguments:
        if at and "<" in argument and not argument.startswith('"'):
            base = _descriptor(argument)
        elif argument.startswith('"'):
            path = _decoded(argument.strip('"'))
            found.append(os.path.normpath(os.path.join(base, path)))
    return found


def _change(
    thread: str, call: str, arguments: list[str], paths: list[str], content: bytes, returned: str
) -> tuple[str, str, Callable[[Disk], object]] | None:
    """Return the operation of a call that succeeded, its path, and what it does to a disk."""
    path = paths[-1]
    match call:
        case "fsync" | "fdatasync":
            shown = f"{path}/" if os.path.isdir(path) else path
            return "sync", shown, lambda disk: disk.finish_sync(thread)
        case "write":
            return "write", path, lambda disk: disk.write(path, content)
        case "ftruncate":
            size = int(arguments[1])
            return "truncate", path, lambda disk: disk.truncate(path, size)
        case "open" | "openat":
            flags = arguments[2 if call == "openat" else 1]
            assert "O_TRUNC" not in flags
            opened = _descriptor(returned.strip()) or path
            creates = "O_CREAT" in flags
            return ("create", opened, lambda disk: disk.create(opened)) if creates else None
        case "rename" | "renameat" | "renameat2":
            return "rename", path, lambda disk: disk.rename(paths[0], path)
        case "link" | "linkat":
            return "link", path, lambda disk: disk.change(path, disk.live[paths[0]])
        case "mkdir" | "mkdirat":
            return "mkdir", path, lambda disk: disk.change(path, DIRECTORY)
        case "unlink" | "unlinkat" | "rmdir":
            return "unlink", path, lambda disk: disk.change(path, None)
        case "utimensat":
            return "touch", path, lambda disk: None
    raise AssertionError(f"{call} cannot be replayed: {paths}")
