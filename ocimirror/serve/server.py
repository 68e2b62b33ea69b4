"""The server: listens, runs its event loop, reloads, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import web

from ocimirror.errors import UsageError
from ocimirror.model.reference import DOCKER_HUB
from ocimirror.serve.access import Access, AccessFiles
from ocimirror.serve.answers import Answer, Request
from ocimirror.serve.certificates import CertificateFiles, ServerCertificate
from ocimirror.serve.content import Content
from ocimirror.serve.names import Scope, warnings_of
from ocimirror.serve.page import Pages
from ocimirror.serve.registry import Registry
from ocimirror.serve.shelf import Shelf, warn_of_new
from ocimirror.serve.turns import WORKERS
from ocimirror.serve.watch import Watch
from ocimirror.serve.wire import Wire

# What is being sent when the server is told to stop has this long to arrive.
_GRACE_S = 5.0
_READERS = 4


@dataclass(frozen=True, slots=True)
class Options:
    """How a shelf is served.

    Attributes:
        host, port: where to listen; port 0 takes a free one.
        certificate: serve TLS with it; None serves plain HTTP.
        access: who may read; None lets everybody.
        only: serve as this registry: its repositories and no others; empty for all.
        prefer: the registry that a path without one means, if it has that path.
    """

    host: str = "127.0.0.1"
    port: int = 0
    certificate: CertificateFiles | None = None
    access: AccessFiles | None = None
    only: str = ""
    prefer: str = DOCKER_HUB


class Server:
    """A registry over a shelf; a context manager that serves from a thread of its own.

    It listens once it is made, and answers between `__enter__` and `__exit__`, or while `run` runs.

    Raises:
        UsageError: the address cannot be listened on, or a file is not what it should be.
    """

    def __init__(self, shelf: Shelf, options: Options = Options()) -> None:
        self._shelf = shelf
        self._options = options
        self._scope = Scope(options.only, options.prefer)
        self._warned: set[str] = set()
        self._warn()
        self._certificate = ServerCertificate(options.certificate) if options.certificate else None
        self._access = Access(options.access or AccessFiles())
        self._socket = _listening(options.host, options.port)
        self.port: int = self._socket.getsockname()[1]
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def address(self) -> str:
        """The `host:port` that clients use."""
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Scheme and address, without a slash at the end."""
        return f"{'https' if self._certificate else 'http'}://{self.address}"

    def run(self, started: Callable[[], None]) -> None:
        """Serve from this, the main, thread until SIGINT or SIGTERM.

        SIGHUP looks at all files again at once. A second signal to stop ends the process.

        Args:
            started: called once, when clients are answered.
        """
        received: list[int] = []

        def stop(number: int) -> None:
            if received:
                os._exit(128 + number)
            received.append(number)
            self._stop()

        def listen_to_signals(watch: Watch) -> None:
            loop = asyncio.get_running_loop()

            looks: set[asyncio.Task[None]] = set()  # (the loop itself keeps none alive)

            def hangup() -> None:
                look = loop.create_task(watch.look(force=True))
                looks.add(look)
                look.add_done_callback(looks.discard)

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop, number)
            loop.add_signal_handler(signal.SIGHUP, hangup)
            started()

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        asyncio.run(self._serve(listen_to_signals))

    def __enter__(self) -> Server:
        ready = threading.Event()
        answering: list[bool] = []

        def started(_: Watch) -> None:
            answering.append(True)
            ready.set()

        def serve() -> None:
            try:
                asyncio.run(self._serve(started))
            finally:
                ready.set()

        self._thread = threading.Thread(target=serve, name="ocimirror-serve", daemon=True)
        self._thread.start()
        ready.wait()
        if not answering:
            raise RuntimeError("the server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # (it has ended)
                self._loop.call_soon_threadsafe(self._stop)
        if self._thread is not None:
            self._thread.join()

    def _refresh_shelf(self, force: bool) -> bool:
        changed = self._shelf.refresh(force)
        if changed:
            self._warn()
        return changed

    def _warn(self) -> None:
        """Say, once, what clients will not get, or not all of."""
        lines = warnings_of(self._shelf.snapshot, self._scope)
        warn_of_new(lines, self._warned)
        self._warned = set(lines)

    def _stop(self) -> None:
        if self._stopping is not None:
            self._stopping.set()

    async def _serve(self, started: Callable[[Watch], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        refreshes = [self._refresh_shelf, self._access.refresh]
        if self._certificate is not None:
            refreshes.append(self._certificate.refresh)
        with (
            ThreadPoolExecutor(_READERS, "ocimirror-serve-read") as reading,
            ThreadPoolExecutor(os.cpu_count() or 1, "ocimirror-serve-hash") as hashing,
            ThreadPoolExecutor(WORKERS, "ocimirror-serve-login") as logins,
        ):
            watch = Watch(refreshes, reading)
            content = Content(reading, hashing)
            wire = Wire(self._answering(content, watch, logins))
            try:
                await self._until_stopped(wire, watch, started)
            finally:
                content.stop()

    def _answering(
        self, content: Content, watch: Watch, executor: Executor
    ) -> Callable[[Request], Awaitable[Answer]]:
        """Return what answers a request: first who asks, then what for."""
        scope, secure = self._scope, self._certificate is not None
        registry = Registry(self._shelf, content, watch.look, scope)
        pages = Pages(self._shelf, content, watch.look, self.address, secure=secure, scope=scope)

        async def answer(request: Request) -> Answer:
            await self._access.check(request, executor)
            if f"{request.path}/".startswith("/v2/"):
                return await registry.answer(request)
            return await pages.answer(request)

        return answer

    async def _until_stopped(
        self, wire: Wire, watch: Watch, started: Callable[[Watch], None]
    ) -> None:
        assert self._stopping is not None  # noqa: S101 - set before
        context = self._certificate.context if self._certificate else None
        runner = web.ServerRunner(wire.server)
        await runner.setup()
        site = web.SockSite(runner, self._socket, ssl_context=context)
        await site.start()
        beside = [asyncio.create_task(watch.run()), asyncio.create_task(wire.sweep())]
        started(watch)
        await self._stopping.wait()
        for task in beside:
            task.cancel()
        await site.stop()
        await wire.finish(_GRACE_S)
        await runner.cleanup()


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
