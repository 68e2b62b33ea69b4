"""Servers over layouts: the command, for one test or for all tests of a module."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.serving import Command, serving
from tests.support.witness import Registry

__all__ = ["Command", "Serve", "cpu_s", "eventually"]

Serve = Callable[..., Registry]


def eventually(claim: Callable[[], bool], timeout_s: float = 15) -> bool:
    """Whether a claim comes true in time."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def cpu_s(pid: int | None) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def serve_command() -> Iterator[Callable[..., Command]]:
    """Run `ocimirror serve` on a free port until the test ends."""
    with ExitStack() as stack:

        def start(*arguments: str | Path) -> Command:
            return stack.enter_context(serving(*arguments))

        yield start


@pytest.fixture
def serve(serve_command: Callable[..., Command]) -> Serve:
    """Serve layouts until the test ends: `serve(*paths, *options)`; a client of it."""
    return lambda *arguments: serve_command(*arguments).client


@pytest.fixture(scope="module")
def serve_module() -> Iterator[Callable[..., Command]]:
    """Serve layouts that no test changes until the last test of the module."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(serving(*arguments))
