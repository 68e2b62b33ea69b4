"""Which dockerd is behind a socket: the process that holds it, whatever its paths are.

A machine may run several dockerds (one in a container, one for tests) which have the same
configuration file, or the same data root in namespaces of their own; another machine's dockerd has
them too. The socket is the one thing that a client and its dockerd share.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ocimirror.engines.client import Client
from ocimirror.engines.docker.process import LocalDockerd, dockerd_at, running_dockerds, start_of
from ocimirror.errors import EngineFailed, EngineUnavailable, UsageError

_TIMEOUT_S = 10.0
_CREDENTIALS = struct.Struct("3i")
_UNIX_SOCKETS = "/proc/self/net/unix"
_LISTENS = 0x10000  # (__SO_ACCEPTCON)
_SOCKET = re.compile(r"socket:\[(\d+)\]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reader:
    """The dockerd that was made to read a file, as a journal keeps it.

    Attributes:
        socket: the path of its socket.
        pid: its process then.
        started: when that process started.
    """

    socket: str
    pid: int
    started: str

    @classmethod
    def of(cls, path: str, dockerd: LocalDockerd) -> Reader:
        """Return a dockerd, and the socket that it was found behind."""
        return cls(path, dockerd.pid, dockerd.started)

    @classmethod
    def parse(cls, document: Mapping[str, object]) -> Reader | None:
        """Return what a journal has; None if it names nobody."""
        match document:
            case {"socket": str(path), "pid": int(pid), "started": str(started)} if pid > 0:
                return cls(path, pid, started)
        return None

    def document(self) -> Mapping[str, object]:
        """Return it for a journal."""
        return asdict(self)

    def dockerd(self) -> LocalDockerd:
        """Return the same process, or if it has ended, the one that has the socket now.

        Raises:
            EngineUnavailable: neither runs.
            UsageError: somebody else has the socket.
        """
        same = dockerd_at(self.pid)
        if same is not None and same.started == self.started:
            return same
        return dockerd_behind(self.socket)


def socket_of(client: Client) -> str:
    """Return the path of the socket that docker's client uses.

    Raises:
        UsageError: it uses none, but a connection that may lead to another machine.
    """
    raw = client.ask("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    host = raw.decode("utf-8", "replace").strip()
    if not host.startswith("unix://"):
        raise UsageError(
            f"docker is reached by {host}, not by a socket of this machine",
            advice="This route changes what dockerd reads here: run it on docker's own machine,"
            " with --host unix://…",
        )
    return os.path.abspath(host.removeprefix("unix://"))


def dockerd_behind(path: str) -> LocalDockerd:
    """Return the dockerd that listens on a socket.

    Raises:
        EngineUnavailable: nobody listens.
        UsageError: who does is no dockerd of this machine, or cannot be seen from here.
    """
    pid = _listener(path)
    found = dockerd_at(pid) if pid else None
    if found is not None:
        return found
    # (Who called listen() has handed the socket on, as systemd does: it is held by both.)
    inodes = _listening(path)
    holders = [dockerd for dockerd in running_dockerds() if inodes & _sockets(dockerd.pid)]
    if len(holders) == 1:
        return holders[0]
    if holders:
        pids = ", ".join(str(dockerd.pid) for dockerd in holders)
        reason = f"several dockerds hold a socket of this path: processes {pids}"
    elif pid:
        reason = f"process {pid} ({_program(pid)}) listens there, and no dockerd holds the socket"
    else:
        reason = "who listens there is in another process namespace"
    raise UsageError(
        f"which dockerd is behind {path} cannot be told: {reason}",
        advice="Run it as root on docker's own machine, beside its dockerd,"
        " with --host for dockerd's own socket.",
    )


def reload_recorded(reader: Reader | None, path: str) -> LocalDockerd:
    """Make the dockerd of a journal read a file again, and nobody else.

    Raises:
        EngineUnavailable: it has ended.
        EngineFailed: which one it is cannot be told; the message says what to do.
    """
    if reader is None:
        running = [d for d in running_dockerds() if d.config_file == path]
        if not running:
            raise EngineUnavailable(f"no dockerd has {path}")
        pids = " or ".join(str(dockerd.pid) for dockerd in running)
        raise EngineFailed(f"the journal does not say which dockerd read {path}: kill -HUP {pids}")
    try:
        dockerd = reader.dockerd()
        dockerd.reload()
    except UsageError as error:
        raise EngineFailed(f"dockerd was not told to read {path}: {error.message}") from error
    return dockerd


def _listener(path: str) -> int:
    """Return the process that called listen(); 0 if it is in another process namespace."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_TIMEOUT_S)
            probe.connect(path)
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError as error:
        raise EngineUnavailable(f"nobody answers at {path}: {error.strerror or error}") from error
    return int(_CREDENTIALS.unpack(raw)[0])


def _listening(path: str) -> set[str]:
    """Return the inodes of the sockets that listen under a path."""
    wanted, found = os.path.realpath(path), set()
    with open(_UNIX_SOCKETS, errors="surrogateescape") as file:
        next(file, "")  # (the names of the columns)
        for line in file:
            columns = line.rstrip("\n").split(None, 7)
            listens = len(columns) == 8 and int(columns[3], 16) & _LISTENS
            if listens and os.path.realpath(columns[7]) == wanted:
                found.add(columns[6])
    return found


def _sockets(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has open, as far as they can be seen."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                match = _SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{name}"))
            except OSError:
                continue
            if match:
                found.add(match[1])
    except OSError:
        pass
    return found


def _program(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return ascii(file.read(64).strip())[1:-1]
    except OSError:
        return "unknown" if start_of(pid) else "ended"
