"""A program under the name of an engine's client, which answers as recorded.

For versions that Debian does not have, and for what no engine can be made to say.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import environment


@dataclass(frozen=True)
class Fails:
    """The answer of a client that says no."""

    said: str
    code: int = 1


@dataclass(frozen=True)
class Runs:
    """An answer by a line of shell."""

    script: str


Answer = bytes | Fails | Runs
ABSENT = Fails("Error: No such image")


def recorded(
    directory: Path, program: str, answers: Mapping[str, Answer], otherwise: Answer = ABSENT
) -> dict[str, str]:
    """Write a program, and return the environment in which it is found.

    What it was asked is in `directory/asked`, one line a question.

    Args:
        directory: made if absent.
        program: its name, as `docker`.
        answers: arguments, with single spaces in between → what it does.
        otherwise: what it does for all others.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lines = ["#!/bin/sh", f'echo "$*" >> {shlex.quote(f"{directory}/asked")}', 'case "$*" in']
    for number, (arguments, answer) in enumerate({**answers, "*": otherwise}.items()):
        pattern = "*" if arguments == "*" else shlex.quote(arguments)
        file = directory / f"answer-{number}"
        if isinstance(answer, Fails):
            file.write_text(f"{answer.said}\n")
            script = f"cat {shlex.quote(str(file))} >&2; exit {answer.code}"
        elif isinstance(answer, Runs):
            script = answer.script
        else:
            file.write_bytes(answer)
            script = f"exec cat {shlex.quote(str(file))}"
        lines.append(f"{pattern}) {script} ;;")
    path = directory / program
    path.write_text("\n".join([*lines, "esac", ""]))
    path.chmod(0o755)
    return environment(PATH=f"{directory}:{os.environ['PATH']}")


def asked(directory: Path) -> list[str]:
    """Return what a program was asked."""
    file = directory / "asked"
    return file.read_text().splitlines() if file.exists() else []
