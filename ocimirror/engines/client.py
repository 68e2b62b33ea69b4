"""Runs the command-line client of a container engine, and believes none of its exit codes.

An engine's own client is the one interface that every version of it has, with its contexts,
sockets and logins; see docs/development/adr/0010. What it prints is kept in a file, so that it
can never wait for us while we wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from ocimirror.errors import (
    DamagedEngineStore,
    EngineFailed,
    EngineUnavailable,
    Interrupted,
    NoSpace,
    OciMirrorError,
    storage_error,
    storage_errors,
)

MAX_OUTPUT_BYTES = 256 * 1024 * 1024
_MAX_MESSAGE = 2000
_POLL_S = 0.1
# (What an engine says of its own work may sound like it: "no such file or directory".)
_UNREACHABLE = (
    "cannot connect to the docker daemon",
    "error during connect",
    "while trying to connect",
    "failed to dial",
    "connection error",
    "code = unavailable",
    "error reading from server",
    "transport is closing",
)
_LOG = 'time="'  # (what ctr and podman log of their own progress)
_ROTTEN = (
    "file integrity checksum failed",
    "failed to verify: sha256:",
    "does not match expected sha256:",
)
_ENGINE_SAYS = "error response from daemon"

logger = logging.getLogger(__name__)


class Client:
    """One engine's client with the options that say which engine it talks to.

    Args:
        argv: the program and its first arguments.
        where: what it talks to, for errors: a socket, a host, a root directory.
        stop: set from outside to end a run; what runs is killed and Interrupted is raised.
        timeout_s: how long a question may take; an import may take any time.
    """

    def __init__(
        self,
        argv: Sequence[str],
        where: str,
        *,
        stop: threading.Event | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        self.argv = tuple(argv)
        self.where = where
        self._stop = stop or threading.Event()
        self._timeout_s = timeout_s

    def ask(self, *arguments: str) -> bytes:
        """Return what the client prints.

        Raises:
            EngineUnavailable: the client is not installed, or does not reach its engine.
            EngineFailed: it says no; the message carries the end of what it printed.
            Interrupted: `stop` was set.
        """
        with self.started(arguments) as run:
            run.wait(self._timeout_s)
            return run.output()

    def feed(self, write: Callable[[Callable[[bytes], object]], None], *arguments: str) -> bytes:
        """Run the client with what `write` writes as its standard input; return what it prints.

        An error of `write` ends the client, which never sees the end of its input, and is
        raised; but where the client ended first, what it said is.
        """
        with self.started(arguments, stdin=subprocess.PIPE) as run:
            run.feed(write)
            run.wait(None)
            return run.output()

    def run(self, *arguments: str) -> bytes:
        """Let the client work as long as it takes; return what it prints."""
        with self.started(arguments) as run:
            run.wait(None)
            return run.output()

    def save(self, file: IO[bytes], *arguments: str) -> None:
        """Run the client with its standard output into a file."""
        with self.started(arguments, stdout=file) as run:
            run.wait(None)
            run.output()

    @contextlib.contextmanager
    def started(
        self,
        arguments: Sequence[str],
        stdin: int = subprocess.DEVNULL,
        stdout: IO[bytes] | int | None = None,
    ) -> Iterator[_Run]:
        """Run the client in the block, and end it with the block."""
        command = [*self.argv, *arguments]
        logger.debug("%s", shlex.join(command))
        with _temporary_file() as printed, _temporary_file() as said:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=stdin,
                    stdout=printed if stdout is None else stdout,
                    stderr=said,
                    start_new_session=True,  # (a terminal's ^C is ours to pass on)
                )
            except FileNotFoundError as error:
                raise EngineUnavailable(
                    f"there is no program {command[0]}",
                    advice="Install the engine's client on this machine, or put it on PATH.",
                ) from error
            except OSError as error:
                raise EngineUnavailable(f"cannot run {command[0]}: {error.strerror}") from error
            what = " ".join([Path(self.argv[0]).name, *arguments[:2]])
            run = _Run(process, what, self.where, self._stop, printed, said)
            try:
                yield run
            finally:
                run.end()


def _temporary_file() -> IO[bytes]:
    with storage_errors("cannot make a temporary file (TMPDIR says where)"):
        return tempfile.TemporaryFile()


class _Run:
    def __init__(
        self,
        process: subprocess.Popen[bytes],
        what: str,
        where: str,
        stop: threading.Event,
        printed: IO[bytes],
        said: IO[bytes],
    ) -> None:
        self._process = process
        self._what = what
        self._where = where
        self._stop = stop
        self._printed = printed
        self._said = said

    def feed(self, write: Callable[[Callable[[bytes], object]], None]) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - who feeds has opened it

        writable = select.poll()
        writable.register(pipe, select.POLLOUT)
        os.set_blocking(pipe.fileno(), False)  # (an engine that hangs must not hang us)

        def send(content: bytes) -> None:
            view = memoryview(content)
            while view:
                if self._stop.is_set():
                    raise Interrupted("stopped while the engine was loading")
                try:
                    view = view[os.write(pipe.fileno(), view) :]
                except BlockingIOError:
                    writable.poll(_POLL_S * 1000)

        try:
            write(send)
            pipe.close()
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                pipe.close()

    def read(self, amount: int) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - who reads has opened it
        readable = select.poll()
        readable.register(pipe, select.POLLIN)
        while not self._stop.is_set():  # (an engine that hangs, or never ends, must not hang us)
            if readable.poll(_POLL_S * 1000):
                return os.read(pipe.fileno(), amount)
        raise Interrupted(f"stopped during {self._what}")

    def wait(self, timeout_s: float | None) -> None:
        left_s = timeout_s
        while True:
            try:
                self._process.wait(_POLL_S if left_s is None else min(_POLL_S, left_s))
                return
            except subprocess.TimeoutExpired:
                if self._stop.is_set():
                    raise Interrupted(f"stopped during {self._what}") from None
                left_s = None if left_s is None else left_s - _POLL_S
                if left_s is not None and left_s <= 0:
                    raise EngineUnavailable(
                        f"{self._what}: no answer from {self._where} in {timeout_s:.0f} s"
                    ) from None

    def output(self) -> bytes:
        code = self._process.returncode
        message = self._last_words()
        if code:
            raise _failure(message)(
                f"{self._what} ({self._where}): {message or f'exit code {code}'}"
            )
        if message:
            logger.debug("%s: %s", self._what, message)
        try:
            self._printed.seek(0)
            return self._printed.read(MAX_OUTPUT_BYTES)
        except OSError as error:
            raise storage_error(error, "cannot read a temporary file") from error

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _last_words(self) -> str:
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - _MAX_MESSAGE))
        said = self._said.read(_MAX_MESSAGE).decode("utf-8", "replace").strip()
        return "\n".join(line for line in said.splitlines() if not line.startswith(_LOG)) or said


def _failure(message: str) -> type[OciMirrorError]:
    """Return what kind of failure a client's last words tell of."""
    said = message.lower()
    if os.strerror(errno.ENOSPC).lower() in said:
        return NoSpace  # (the engine's disk or ours: clients read and write both)
    if any(words in said for words in _ROTTEN):
        return DamagedEngineStore
    if _ENGINE_SAYS not in said and any(words in said for words in _UNREACHABLE):
        return EngineUnavailable
    return EngineFailed


class Output:
    """What a client prints, read as it comes. A Reader of content; its errors come at the end.

    Args:
        client: who runs.
        arguments: of that run.
    """

    def __init__(self, client: Client, *arguments: str) -> None:
        self._stack = contextlib.ExitStack()
        self._run = self._stack.enter_context(client.started(arguments, stdout=subprocess.PIPE))
        self._ended = False

    def read(self, amount: int, /) -> bytes:
        """Return 1 to `amount` bytes, none at the end.

        Raises:
            EngineUnavailable, EngineFailed: the client failed.
        """
        if self._ended:
            return b""
        chunk = self._run.read(amount)
        if not chunk:
            self._ended = True
            self._run.wait(None)
            self._run.output()
        return chunk

    def read_up_to(self, limit: int) -> bytes:
        """Return everything, at most `limit` bytes.

        Raises:
            EngineFailed: there is more.
        """
        pieces, left = [], limit + 1
        while left and (chunk := self.read(left)):
            pieces.append(chunk)
            left -= len(chunk)
        if not left:
            raise EngineFailed(f"the client printed more than {limit} bytes")
        return b"".join(pieces)

    def close(self) -> None:
        """End the client where it has not ended."""
        self._stack.close()

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
