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
from collections.abc import Callable, Iterator, Sequence
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
_LINE = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>)?(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(.*)", re.DOTALL)
_BEGUN = " <unfinished ...>"


class Step(NamedTuple):
    """A change of the disk: `apply` does it to a model of the disk.

    A sync covers what was there when it began, so that it is two steps: `begin` and `sync`. The
    path of a directory that is synced ends with a slash.
    """

    operation: str
    path: str
    apply: Callable[[Disk], object]


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
    result = _strace(["-y", "-xx", "-s", "100000000", "-e", f"trace={_CALLS}"], trace, arguments)
    return _Parser(str(directory)).parse(trace.read_text("latin-1"), result)


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
def stopped(call: str, when: int, arguments: Sequence[str | Path], trace: Path) -> Iterator[None]:
    """Run the command up to one of its system calls; it goes on, and must succeed, afterwards."""
    inject = f"inject={call}:signal=SIGSTOP:when={when}"
    command = _command(["-e", f"trace={call}", "-e", inject], trace, arguments)
    command.remove("--seccomp-bpf")  # (with which it does not signal)
    process = subprocess.Popen(command, env=_ENVIRONMENT, stdout=subprocess.PIPE)
    pid = stopped_at(trace, process)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        process.communicate(timeout=120)
    assert process.returncode == 0


def stopped_at(trace: Path, process: subprocess.Popen[Any]) -> int:
    """Wait until the traced process has stopped itself; return its id."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        lines = trace.read_text().splitlines() if trace.exists() else []
        for line in lines:
            if "stopped by SIGSTOP" in line:
                return int(line.split()[0])
        time.sleep(0.01)
    pytest.fail(f"it never stopped: {process.communicate()}")


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
        self._files: dict[str, str] = {}

    def parse(self, text: str, result: Result) -> Trace:
        for line in text.splitlines():
            match = _LINE.fullmatch(line)
            assert match, line
            thread, rest = match.groups()
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

    def _add(self, operation: str, path: str, apply: Callable[[Disk], object]) -> None:
        self._steps.append(Step(operation, path, apply))

    def _begin(self, thread: str, call: str) -> None:
        name, _, arguments = call.partition("(")
        path = _descriptor(arguments.partition(")")[0])
        if name in ("fsync", "fdatasync") and self._is_ours(path):
            self._add("begin", path, lambda disk: disk.begin_sync(thread, path))

    def _done(self, thread: str, text: str) -> None:
        match = _CALL.fullmatch(text)
        if match is None or match[3].startswith("-"):
            return
        name, returned = match[1], match[4]
        arguments = match[2].split(", ")
        if name in ("fsync", "fdatasync"):
            self._synced(thread, _descriptor(arguments[0]))
        elif name == "write":
            self._written(arguments, int(match[3]))
        elif name == "ftruncate":
            path = _descriptor(arguments[0])
            if self._is_ours(path):
                assert arguments[1] == "0"
                self._add("truncate", path, lambda disk: disk.truncate(path))
        else:
            self._named(name, arguments, returned)

    def _synced(self, thread: str, path: str) -> None:
        if self._is_ours(path):
            shown = f"{path}/" if os.path.isdir(path) else path
            self._add("sync", shown, lambda disk: disk.finish_sync(thread))

    def _written(self, arguments: list[str], count: int) -> None:
        path = _descriptor(arguments[0])
        content = _bytes(arguments[1])[:count]
        if arguments[0].startswith("1<"):
            lines = content.decode().splitlines()
            self._marks += [(len(self._steps), line) for line in lines]
        elif self._is_ours(path):
            self._add("write", path, lambda disk: disk.write(path, content))

    def _named(self, name: str, arguments: list[str], returned: str) -> None:
        at = name.endswith(("at", "at2"))
        if name == "open":
            at = False
        paths = _paths(arguments, at=at)
        if not any(self._is_ours(path) for path in paths):
            return
        if name in ("open", "openat"):
            flags = arguments[2 if at else 1]
            path = _descriptor(returned.strip()) or paths[0]
            if "O_CREAT" in flags:
                self._add("create", path, lambda disk: disk.create(path))
            assert "O_TRUNC" not in flags
        elif name.startswith("rename"):
            old, new = paths
            self._add("rename", new, lambda disk: disk.rename(old, new))
        elif name.startswith("link"):
            old, new = paths
            self._add("link", new, lambda disk: disk.change(new, disk.live[old]))
        elif name.startswith("mkdir"):
            self._add("mkdir", paths[0], lambda disk: disk.change(paths[0], DIRECTORY))
        elif name.startswith(("unlink", "rmdir")):
            self._add("unlink", paths[0], lambda disk: disk.change(paths[0], None))
        elif name == "utimensat":
            self._add("touch", paths[0], lambda disk: None)
        else:
            raise AssertionError(f"{name} cannot be replayed: {paths}")

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
