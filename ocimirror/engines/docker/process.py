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
        started: when, as the kernel counts it: a process of the same number is another one.
    """

    pid: int
    arguments: Sequence[str]
    started: str = ""

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
        if start_of(self.pid) != self.started:
            raise EngineUnavailable(f"dockerd (process {self.pid}) has ended")
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
        if name.isdigit() and (dockerd := dockerd_at(int(name))):
            found.append(dockerd)
    return found


def dockerd_at(pid: int) -> LocalDockerd | None:
    """Return a process if it is a dockerd."""
    started, arguments = start_of(pid), _arguments(pid)
    if started and arguments and os.path.basename(arguments[0]) == "dockerd":
        return LocalDockerd(pid, arguments, started)
    return None


def start_of(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; empty if it does not run."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # (The second field is the program's name, which may hold spaces and brackets.)
            return file.read(_MAX_CMDLINE_BYTES).rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""


def _arguments(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            raw = file.read(_MAX_CMDLINE_BYTES)
    except OSError:
        return []
    return [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]
