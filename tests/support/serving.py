"""`ocimirror serve` as a process, and what it says on stderr so far."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.command import PROGRAM, environment
from tests.support.forks import Forked
from tests.support.witness import Registry


@dataclass
class Command:
    """A running `ocimirror serve`."""

    process: Forked
    document: dict[str, Any]
    log: Path

    @property
    def client(self) -> Registry:
        """A client of it."""
        scheme, _, host = self.document["url"].partition("://")
        return Registry(host, scheme, Path("/"), pid=self.process.pid)

    def said(self) -> str:
        """Return what it wrote to stderr so far."""
        return self.log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit code and what it wrote to stderr."""
        self.process.send_signal(number)
        return self.process.wait(30), self.said()


@contextlib.contextmanager
def serving(*arguments: str | Path) -> Iterator[Command]:
    """Serve until the block ends, on a free port of 127.0.0.1 unless `--listen` is given.

    A command that does not start fails with what it said.
    """
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serve-")))
        log = directory / "stderr"
        nothing, written = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_CREAT | os.O_WRONLY)
        read, write = os.pipe()
        output = stack.enter_context(open(read))
        command = [PROGRAM, "serve", "--json", "--listen", "127.0.0.1:0", *map(str, arguments)]
        process = Forked(command, environment(), None, [nothing, write, written])
        stack.callback(_end, process)
        text = ""
        for line in output:
            text += line
            if line == "}\n":
                break
        assert text, (process.wait(30), log.read_text())[1]
        document = json.loads(text)
        assert "error" not in document, document["error"]["message"]
        yield Command(process, document, log)


def _end(process: Forked) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(30)
