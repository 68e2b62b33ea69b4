"""Stops and starts a dockerd of a test by commands, as an init system would."""

from __future__ import annotations

import os
import shlex
import signal
import time
from pathlib import Path

from tests.support.engines import Dockerd, run

PATIENCE_S = 15


class DockerService:
    """The two commands for one dockerd, which may be another process after each start."""

    def __init__(self, daemon: Dockerd) -> None:
        self.daemon = daemon
        self.pid_file = daemon.directory / "pid"
        words = Path(f"/proc/{daemon.pid}/cmdline").read_bytes().split(b"\0")[:-1]
        self.command = [word.decode() for word in words]
        self.stop_command = self._script("stop", f"kill $(cat {self.pid_file})")
        self.start_command = self._script(
            "start",
            f"setsid {shlex.join(self.command)} </dev/null >>{daemon.directory}/log 2>&1 &",
        )

    def _script(self, name: str, body: str) -> str:
        path = self.daemon.directory / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    @property
    def options(self) -> list[str]:
        """What tells ocimirror about it."""
        return [
            "--restart-docker",
            f"--stop-command={self.stop_command}",
            f"--start-command={self.start_command}",
            f"--host={self.daemon.host}",
        ]

    @property
    def systemctl(self) -> str:
        """A program that does what systemctl would do with this dockerd: nothing runs systemd."""
        return f"""#!/bin/sh
case "$*" in
  "stop docker.socket") echo "Unit docker.socket not loaded." >&2; exit 5 ;;
  "stop docker"|"stop docker.service") {self.stop_command} ;;
  "reset-failed docker.service") ;;
  "start docker"|"start docker.service") {self.start_command} ;;
  "reload docker") kill -HUP $(cat {self.pid_file}) ;;
  *) exit 1 ;;
esac
"""

    def stop(self) -> None:
        """Stop whichever dockerd runs now, and wait for its end."""
        run([self.stop_command])
        self._wait()

    def end(self) -> None:
        """Stop it, if it runs."""
        try:
            os.kill(int(self.pid_file.read_text()), signal.SIGTERM)
        except (FileNotFoundError, ProcessLookupError):
            return
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
