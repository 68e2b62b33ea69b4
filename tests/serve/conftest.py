"""Servers over layouts, in this process and as the command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ocimirror.serve.server import Options, Server
from ocimirror.serve.shelf import Shelf
from tests.support.command import PROGRAM, environment
from tests.support.witness import Registry

Serve = Callable[..., Registry]


def eventually(claim: Callable[[], bool], timeout_s: float = 15) -> bool:
    """Whether a claim comes true in time."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve layouts until the test ends: `serve(*paths, **options)`; a client of it."""
    with ExitStack() as stack:

        def start(*paths: Path, **options: Any) -> Registry:
            server = stack.enter_context(Server(Shelf([*map(str, paths)]), Options(**options)))
            return Registry(server.address, server.url.partition(":")[0], paths[0])

        yield start


@dataclass
class Command:
    """A running `ocimirror serve`."""

    process: subprocess.Popen[str]
    document: dict[str, Any]

    @property
    def client(self) -> Registry:
        """A client of it."""
        scheme, _, host = self.document["url"].partition("://")
        return Registry(host, scheme, Path("/"), pid=self.process.pid)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit code and what it wrote to stderr."""
        self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=30)
        return self.process.returncode, stderr


@pytest.fixture
def serve_command() -> Iterator[Callable[..., Command]]:
    """Run `ocimirror serve` on a free port until the test ends."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path) -> Command:
        process = subprocess.Popen(
            [PROGRAM, "serve", "--json", "--listen", "127.0.0.1:0", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if line == "}\n":
                break
        assert text, process.communicate()[1]
        document = json.loads(text)
        assert "error" not in document, document["error"]["message"]
        return Command(process, document)

    yield start
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
