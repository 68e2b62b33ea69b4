"""A Docker daemon: what `docker info` says of its store, and stopping and starting it."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocimirror.engines.client import Client
from ocimirror.engines.docker.engine import docker, store_of
from ocimirror.engines.engine import canonical, words
from ocimirror.errors import (
    EngineFailed,
    EngineUnavailable,
    OciMirrorError,
    UsageError,
)

_SYSTEMD = "/run/systemd/system"  # (sd_booted(3))
# (The socket first, or a client would start it again. Not every host has one.)
_STOP = (("systemctl", "stop", "docker.socket"), ("systemctl", "stop", "docker.service"))
# (systemd gives up for a while on a unit that did not start a few times.)
_START = (("systemctl", "reset-failed", "docker.service"), ("systemctl", "start", "docker.service"))
_POLL_S = 0.2
_SERVICE_S = 600.0


@dataclass(frozen=True, slots=True)
class DockerInfo:
    """What `docker info` says of the daemon.

    Attributes:
        data_root: where it keeps everything, on its own machine.
        driver: the storage driver, or the snapshotter.
        containerd_store: images are in containerd, which keeps digests by itself.
        containers_running: how many a restart stops, unless `live_restore`.
    """

    version: str
    data_root: str
    driver: str
    containerd_store: bool
    containers_running: int
    live_restore: bool

    @classmethod
    def parse(cls, info: Mapping[str, Any]) -> DockerInfo:
        """Take what is needed from what `docker info` says.

        Raises:
            EngineFailed: it does not name a data root and a driver.
        """
        root, driver = info.get("DockerRootDir"), info.get("Driver")
        if not isinstance(root, str) or not isinstance(driver, str) or not root or not driver:
            raise EngineFailed("docker info names no DockerRootDir and Driver")
        running = info.get("ContainersRunning")
        return cls(
            str(info.get("ServerVersion", "")),
            root,
            driver,
            store_of(info) == "containerd",
            running if isinstance(running, int) else 0,
            info.get("LiveRestoreEnabled") is True,
        )


class Daemon:
    """A dockerd as its client reaches it, while it runs and while it does not.

    Args:
        host: what `docker --host` takes; empty for what the client uses by itself.
    """

    def __init__(self, host: str = "") -> None:
        argv = ["docker", *(["--host", host] if host else [])]
        self._client = Client(argv, host or "its default socket")

    def info(self) -> DockerInfo:
        """Ask the daemon.

        Raises:
            EngineUnavailable: it does not run, or there is no client.
        """
        return DockerInfo.parse(docker(self._client).info)

    def repo_digests(self, image_id: str) -> set[str]:
        """Return the names by digest, in full, that the daemon reports of an image."""
        found = docker(self._client).inspect(image_id) or {}
        return canonical(words(found, "RepoDigests"))

    def wait(self, patience_s: float) -> None:
        """Wait until the daemon answers; EngineUnavailable where it does not in time."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._client.ask("version", "--format", "{{.Server.Version}}")
                return
            except OciMirrorError as error:
                if time.monotonic() > deadline:
                    message = f"no answer in {patience_s:.0f} s after the start: {error.message}"
                    raise EngineUnavailable(message) from error
                time.sleep(_POLL_S)


class Service:
    """Stops and starts a daemon: with systemctl where systemd runs, or with given commands.

    Args:
        stop_command, start_command: what a shell would be given, without a shell's expansions;
            empty for systemctl.

    Raises:
        UsageError: systemd does not run, and a command is not given.
    """

    def __init__(self, stop_command: str = "", start_command: str = "") -> None:
        if not (stop_command and start_command) and not os.path.isdir(_SYSTEMD):
            raise UsageError(
                "systemd does not run here, so how to restart Docker is not known",
                advice='Say it: --stop-command "service docker stop"'
                ' --start-command "service docker start"',
            )
        self._stop = (_words(stop_command),) if stop_command else _STOP
        self._start = (_words(start_command),) if start_command else _START

    def stop(self, in_use: Callable[[], str], patience_s: float) -> None:
        """Stop the daemon, and wait until nothing shows that it runs.

        Raises:
            EngineFailed: the command failed, or the daemon still runs.
        """
        _run(self._stop)
        deadline = time.monotonic() + patience_s
        while evidence := in_use():
            if time.monotonic() > deadline:
                raise EngineFailed(
                    f"dockerd runs {patience_s:.0f} s after {self._stop}: {evidence}"
                )
            time.sleep(_POLL_S)

    def start(self) -> None:
        """Start the daemon; whether it came up is another question."""
        _run(self._start)


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"not a command: {command!r} ({error})") from error


def _run(commands: Sequence[Sequence[str]]) -> None:
    """Run commands to their end; the last one has to succeed. What they leave running goes on."""
    for number, command in enumerate(commands):
        try:
            Client(command, "Docker's service", timeout_s=_SERVICE_S).ask()
        except OciMirrorError:
            if number == len(commands) - 1:
                raise
