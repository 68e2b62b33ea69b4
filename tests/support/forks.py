"""Runs of the command that cost no start of Python: one process has loaded all of it, and forks.

Each run is a process of its own all the same, with its arguments, environment, directory,
descriptors and exit code; only what Python reads when it starts is that of the first process, and
so is the order of its sets. Each process that runs tests has one such process.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_ROOT = Path(__file__).parents[2]
_REQUEST_BYTES = 1 << 20
# What Python, the C library or OpenSSL may read before `main`.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "GLIBC_", "MALLOC_", "OPENSSL_")


def can_fork(env: Mapping[str, str]) -> bool:
    """Tell whether a run in this environment is the same forked and started."""
    asked = {name: value for name, value in env.items() if name.startswith(_READ_AT_START)}
    return asked == {"LC_ALL": "C.UTF-8"}


class Forked:
    """A run of `ocimirror`, as `subprocess.Popen` is one of a program.

    Attributes:
        pid: of the process.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], cwd: Path | None, streams: list[int]
    ) -> None:
        """Start a run with three descriptors, which this closes."""
        request = json.dumps([command, dict(env), str(cwd or Path.cwd())]).encode()
        self._command = list(command)
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(_server(), [request], [*streams, theirs.fileno()])
        for descriptor in streams:
            os.close(descriptor)
        self.pid = int(self._end.recv(64))  # (empty if the first process has died: see its stderr)
        self._code: int | None = None

    def wait(self, timeout_s: float) -> int:
        """Wait for its end, and return its exit code."""
        if self._code is None:
            self._end.settimeout(timeout_s)
            try:
                self._code = int(self._end.recv(64))
            except TimeoutError:
                raise subprocess.TimeoutExpired(self._command, timeout_s) from None
            self._end.close()
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it is known that it has ended."""
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def run_forked(
    command: Sequence[str], stdin: bytes, env: Mapping[str, str], cwd: Path | None, timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Run `ocimirror` with arguments as `subprocess.run` does, its output captured."""
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    read_err, write_err = os.pipe()
    out, err = _Reader(read_out), _Reader(read_err)
    run = Forked(command, env, cwd, [read_in, write_out, write_err])
    _write(write_in, stdin)
    try:
        code = run.wait(timeout_s)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(list(command), code, out.all(), err.all())


class _Reader(threading.Thread):
    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._file = os.fdopen(descriptor, "rb")
        self._content = b""
        self.start()

    def run(self) -> None:
        with self._file:
            self._content = self._file.read()

    def all(self) -> bytes:
        self.join()
        return self._content


def _write(descriptor: int, content: bytes) -> None:
    """Write all of it to a pipe, and close it; what a pipe does not hold goes on meanwhile."""

    def write() -> None:
        with suppress(BrokenPipeError), open(descriptor, "wb") as file:
            file.write(content)

    if len(content) > 65536:
        threading.Thread(target=write, daemon=True).start()
    else:
        write()


_starting = threading.Lock()


def _server() -> socket.socket:
    with _starting:
        return _started(os.getpid())


@functools.cache
def _started(_pid: int) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST_BYTES)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=_ROOT,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
        )

    def end() -> None:
        ours.close()
        server.wait(10)

    atexit.register(end)
    return ours


def _serve(requests: socket.socket) -> None:
    """Fork for each request until nobody can ask any more."""
    main = _loaded()
    running: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in running:
                poll.unregister(ready)
                pid, tell = running.pop(ready)
                os.close(ready)
                _tell(tell, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                tell.close()
                continue
            content, fds, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 4)
            if not content:
                return
            pid = os.fork()
            if pid == 0:
                _become(main, content, fds)
            tell = socket.socket(fileno=fds[3])
            for descriptor in fds[:3]:
                os.close(descriptor)
            _tell(tell, pid)
            end = os.pidfd_open(pid)
            running[end] = (pid, tell)
            poll.register(end, select.POLLIN)


def _loaded() -> Callable[[], object]:
    import ocimirror
    from ocimirror.cli import main

    for module in pkgutil.walk_packages(ocimirror.__path__, "ocimirror."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()
    return main


def _tell(who: socket.socket, number: int) -> None:
    with suppress(OSError):  # (it waits no longer)
        who.send(str(number).encode())


def _become(main: Callable[[], object], request: bytes, fds: Sequence[int]) -> NoReturn:
    """Be the process of a run, and end as it does."""
    try:
        command, env, cwd = json.loads(request)
        for number, descriptor in enumerate(fds[:3]):
            os.dup2(descriptor, number)
        os.closerange(3, 1024)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        time.tzset()
        sys.argv[:] = command
        main()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # (`main` has not come back if all is well)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
