"""Whether a dockerd has a data root in use. It is looked at, not believed.

Three kinds of evidence: the database of volumes, which a running dockerd keeps locked, seen also
from another process or mount namespace; the pid file; and the processes of this machine, by what
they are called and by the files that they have open for writing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from ocimirror.engines.docker.process import DEFAULT_DATA_ROOT, LocalDockerd, running_dockerds
from ocimirror.errors import EngineRunning, Locked
from ocimirror.stores.disk.atomic import FileLock

DEFAULT_PID_FILE = "/var/run/docker.pid"
_MAX_FILE_BYTES = 1024


def evidence_of_use(data_root: str, pid_files: Sequence[str] = (DEFAULT_PID_FILE,)) -> str:
    """Return what shows that a dockerd has a data root in use; empty where nothing does.

    Args:
        data_root: the directory.
        pid_files: where its process id would be.
    """
    root = os.path.realpath(data_root)
    if _locked(root):
        return f"{_database(root)} is locked"
    dockerds = {dockerd.pid: dockerd for dockerd in running_dockerds()}
    for path in pid_files:
        named = dockerds.get(_pid_in(path))
        if named and (path != DEFAULT_PID_FILE or _may_use(named, root)):
            return f"{path} names process {named.pid}, a dockerd"
    for dockerd in dockerds.values():
        if _may_use(dockerd, root):
            return f"process {dockerd.pid} is a dockerd with this data root"
    for pid in _processes():
        held = _written_by(pid, root)
        if held:
            return f"process {pid} has {held} open for writing"
    return ""


@contextlib.contextmanager
def kept_from_dockerd(data_root: str, pid_files: Sequence[str]) -> Iterator[None]:
    """Keep a data root that no dockerd uses unused: one that starts meanwhile gives up.

    It opens the database of volumes, whose lock is held here, before it reads the references.

    Raises:
        EngineRunning: a dockerd uses it.
    """
    evidence = evidence_of_use(data_root, pid_files)
    if evidence:
        raise running(data_root, evidence)
    database = _database(os.path.realpath(data_root))
    if not os.path.exists(database):
        yield  # (dockerd has never run here)
        return
    lock = FileLock(database, create=False)
    try:
        try:
            lock.acquire("exclusive", wait=False)
        except Locked as error:
            raise running(data_root, f"{database} is locked") from error
        yield
    finally:
        lock.release()


def running(data_root: str, evidence: str) -> EngineRunning:
    """Return the error for a data root that is in use."""
    return EngineRunning(
        f"dockerd uses {data_root}: {evidence}",
        advice="It reads the file only when it starts, and overwrites it: stop it first, or let"
        " --restart-docker stop and start it.",
    )


def _database(root: str) -> str:
    return os.path.join(root, "volumes", "metadata.db")


def _locked(root: str) -> bool:
    database = _database(root)
    if not os.path.exists(database):
        return False
    lock = FileLock(database, create=False)
    try:
        lock.acquire("exclusive", wait=False)
    except Locked:
        return True
    finally:
        lock.release()
    return False


def _pid_in(path: str) -> int:
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_FILE_BYTES).strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _processes() -> list[int]:
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]


def _may_use(dockerd: LocalDockerd, root: str) -> bool:
    """Whether a dockerd has this data root; one whose open files cannot be seen may."""
    stated = dockerd.stated_data_root
    if stated and _is_or_contains(stated, root):
        return True
    files = f"/proc/{dockerd.pid}/fd"
    try:
        held = [os.readlink(f"{files}/{number}") for number in os.listdir(files)]
    except FileNotFoundError:
        return False  # (it has ended, or closed one just now: the lock tells)
    except OSError:
        return not stated
    if any(path.startswith(f"{root}/") for path in held):
        return True
    return not stated and _is_or_contains(os.path.realpath(DEFAULT_DATA_ROOT), root)


def _is_or_contains(stated: str, root: str) -> bool:
    """Compare data roots; with userns-remap the real one is a directory in the stated one."""
    return stated in (root, os.path.dirname(root))


def _written_by(pid: int, root: str) -> str:
    """Return a file below the data root that a process writes, empty where it writes none.

    Readers of containers' logs do no harm. The containerd that dockerd starts lives on while
    dockerd is stopped with live-restore, and has a directory of its own.
    """
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return ""
    for number in numbers:
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/{pid}/fd/{number}")
            if path.startswith(f"{root}/") and not path.startswith(f"{root}/containerd/"):
                with open(f"/proc/{pid}/fdinfo/{number}", "rb") as file:
                    information = file.read(_MAX_FILE_BYTES).split()
                flags = int(information[information.index(b"flags:") + 1], 8)
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    return path
    return ""
