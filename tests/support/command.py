"""Runs the `ocimirror` command as a user does: a process, its output, its exit code.

`ocimirror` forks it from one that has loaded it (tests.support.forks), which costs a tenth of a
start. A test that needs all that a start does asks for a `fresh` one, or runs PROGRAM itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forks import Forked, can_fork, run_forked
from tests.support.programs import require_program

PROGRAM = str(Path(sys.executable).with_name("ocimirror"))


@dataclass(frozen=True)
class Result:
    """What one run printed and returned."""

    code: int
    raw: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        """Standard output as text."""
        return self.raw.decode()

    @property
    def document(self) -> Any:
        """The JSON document on stdout; anything else there fails."""
        return json.loads(self.stdout)


def environment(home: Path | str = "/nonexistent", **more: str) -> dict[str, str]:
    """Return a clean environment: no credentials or settings of whoever runs the tests."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", **more}


def ocimirror(
    *arguments: str | Path,
    stdin: str = "",
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 120,
    fresh: bool = False,
) -> Result:
    """Run the command to its end.

    Args:
        arguments: what follows `ocimirror`.
        stdin: what it can read.
        env: its environment; a clean one without.
        cwd: where it runs.
        timeout_s: when it is killed, and the test fails.
        fresh: a Python of its own, which has loaded nothing.
    """
    command = [PROGRAM, *map(str, arguments)]
    env = env or environment()
    if can_fork(env) and not fresh:
        done = run_forked(command, stdin.encode(), env, cwd, timeout_s)
    else:
        done = subprocess.run(
            command,
            input=stdin.encode(),
            env=env,
            cwd=cwd,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def started(*arguments: str | Path) -> Forked:
    """Run the command, its output nowhere, and go on meanwhile."""
    nowhere = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    return Forked([PROGRAM, *map(str, arguments)], environment(), None, nowhere)


def obeying_modes(*arguments: str | Path) -> Result:
    """Run the command as somebody who may not write where modes say no: root loses its power."""
    command = [PROGRAM, *map(str, arguments)]
    if os.getuid() == 0:
        setpriv = require_program("setpriv", "util-linux")
        command = [setpriv, "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, env=environment(), capture_output=True, timeout=120, check=False)
    return Result(done.returncode, done.stdout, done.stderr.decode())


_WEIGHED = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, used = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024, file=sys.stderr)
"""


def weighed(*arguments: str | Path, output: Path) -> tuple[int, int]:
    """Run the command, standard output to a file; return its exit code and peak memory in bytes.

    (By a small process in between: the kernel counts a parent's memory to the child it forks.)
    """
    with output.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", _WEIGHED, PROGRAM, *map(str, arguments)],
            env=environment(),
            stdout=file,
            stderr=subprocess.PIPE,
            check=True,
            timeout=120,
        )
    code, peak_bytes = done.stderr.split()[-2:]
    return int(code), int(peak_bytes)


def at_terminal(*arguments: object) -> tuple[int, str]:
    """Run the command with a terminal for its output; return its exit code and what was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *map(str, arguments)], env=environment(TERM="xterm"), stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # (the end of a terminal)
        while chunk := os.read(ours, 65536):
            said += chunk
    os.close(ours)
    return process.wait(), said.decode()
