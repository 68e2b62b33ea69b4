"""The dockerd of this machine behind a client: its process, and the files that it reads."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from ocimirror.errors import EngineUnavailable, UsageError

DEFAULT_DATA_ROOT = "/var/lib/docker"
DEFAULT_CONFIG_FILE = "/etc/docker/daemon.json"
HOSTS_FILE = "/etc/hosts"
_MAX_CMDLINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LocalDockerd:
    """One running dockerd.

    Attributes:
        pid: its process.
        arguments: how it was started.
    """

    pid: int
    arguments: Sequence[str]

    @property
    def config_file(self) -> str:
        """Its daemon.json, be it there or not."""
        return os.path.realpath(self._option("--config-file") or DEFAULT_CONFIG_FILE)

    @property
    def stated_data_root(self) -> str:
        """What its arguments say that it keeps everything in; empty where they do not."""
        stated = self._option("--data-root") or self._option("--graph") or self._option("-g")
        if not stated:
            return ""
        try:
            directory = os.readlink(f"/proc/{self.pid}/cwd")
        except OSError:
            directory = "/"
        return os.path.realpath(os.path.join(directory, stated))

    @property
    def data_root(self) -> str:
        """What it was told to keep everything in."""
        return self.stated_data_root or os.path.realpath(DEFAULT_DATA_ROOT)

    @property
    def sets_mirrors(self) -> bool:
        """Whether its arguments name registry mirrors, which its file then must not."""
        return any(word.startswith("--registry-mirror") for word in self.arguments)

    def sees(self, path: str) -> bool:
        """Whether a path is the same file for it and for us."""
        path = os.path.realpath(path)  # (an absolute link would lead into our own root)
        try:
            ours, its = os.stat(path), os.stat(f"/proc/{self.pid}/root{path}")
        except OSError:
            return False
        return (ours.st_dev, ours.st_ino) == (its.st_dev, its.st_ino)

    def reload(self) -> None:
        """Make it read its configuration again (SIGHUP).

        Raises:
            EngineUnavailable: it is gone.
            UsageError: it is another user's.
        """
        try:
            os.kill(self.pid, signal.SIGHUP)
        except ProcessLookupError as error:
            raise EngineUnavailable(f"dockerd (process {self.pid}) has ended") from error
        except PermissionError as error:
            raise UsageError(f"no permission to signal dockerd, process {self.pid}") from error

    def _option(self, name: str) -> str:
        for number, word in enumerate(self.arguments):
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
            if word == name and number + 1 < len(self.arguments):
                return self.arguments[number + 1]
        return ""


def running_dockerds() -> list[LocalDockerd]:
    """Return the dockerds that run on this machine."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            arguments = _arguments(int(name))
            if arguments and os.path.basename(arguments[0]) == "dockerd":
                found.append(LocalDockerd(int(name), arguments))
    return found


def dockerd_of(data_root: str) -> LocalDockerd:
    """Return the dockerd that has a data root, as `docker info` names it.

    Raises:
        UsageError: it does not run on this machine, or cannot be seen from here.
    """
    for found in running_dockerds():
        root = os.path.realpath(data_root)
        # (With userns-remap the data root is a directory in the one that was stated.)
        if found.data_root in (root, os.path.dirname(root)):
            return found
    raise UsageError(
        f"no dockerd with the data root {data_root} runs on this machine",
        advice="This route changes what dockerd reads here: run it on docker's own machine.",
    )


def _arguments(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            raw = file.read(_MAX_CMDLINE_BYTES)
    except OSError:
        return []
    return [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]
