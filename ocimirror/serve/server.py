"""The wire: an HTTP server in an event loop of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import unquote

from aiohttp import web

from ocimirror.errors import UsageError
from ocimirror.serve.answers import Answer, Refused, Request
from ocimirror.serve.registry import Registry
from ocimirror.serve.shelf import Shelf

logger = logging.getLogger(__name__)
_PIECE_BYTES = 4 * 1024 * 1024
# The slowest reader that is waited for: one piece in this time, 17 KiB a second.
_PIECE_TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True)
class Options:
    """How a shelf is served.

    Attributes:
        host, port: where to listen; port 0 takes a free one.
    """

    host: str = "127.0.0.1"
    port: int = 0


class Server:
    """A registry over a shelf; a context manager that serves from a thread of its own.

    It listens once it is made, and answers between `__enter__` and `__exit__`, or while `run` runs.

    Raises:
        UsageError: the address cannot be listened on.
    """

    def __init__(self, shelf: Shelf, options: Options = Options()) -> None:
        self._shelf = shelf
        self._options = options
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
        return f"http://{self.address}"

    def run(self) -> int:
        """Serve from this, the main, thread until SIGINT or SIGTERM; return the signal's number."""
        return asyncio.run(self._until_a_signal())

    async def _until_a_signal(self) -> int:
        loop = asyncio.get_running_loop()
        received: list[int] = []

        def stop(number: int) -> None:
            if received:
                os._exit(128 + number)
            received.append(number)
            if self._stopping is not None:
                self._stopping.set()

        self._stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        await self._serve(threading.Event())
        return received[0]

    def __enter__(self) -> Server:
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="ocimirror-serve", daemon=True
        )
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = self._stopping or asyncio.Event()
        with ThreadPoolExecutor(os.cpu_count() or 1, "ocimirror-serve-read") as executor:
            self._registry = Registry(self._shelf, executor)
            server = web.Server(self._respond, access_log=None)
            runner = web.ServerRunner(server)
            await runner.setup()
            site = web.SockSite(runner, self._socket)
            await site.start()
            ready.set()
            await self._stopping.wait()
            await runner.cleanup()

    async def _respond(self, received: web.BaseRequest) -> web.StreamResponse:
        began = time.monotonic()
        url = received.rel_url
        request = Request(received.method, unquote(url.raw_path), url.query, received.headers)
        try:
            answer = await self._registry.answer(request)
        except Refused as refused:
            answer = refused.answer
        response = await _send(received, answer)
        if logger.isEnabledFor(logging.DEBUG):
            took_ms = (time.monotonic() - began) * 1000
            logger.debug("%s %s %d %.1f ms", request.method, url.raw_path, answer.status, took_ms)
        return response


async def _send(received: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    if answer.file is None:
        response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        if received.method == "HEAD" and answer.length:
            response.content_length = answer.length
        return response
    with answer.file as opened:
        streamed = web.StreamResponse(status=answer.status, headers=answer.headers)
        streamed.content_length = answer.length
        await streamed.prepare(received)
        loop = asyncio.get_running_loop()
        with os.fdopen(os.dup(opened.fd), "rb") as file:
            position, end = answer.start, answer.start + answer.length
            while position < end and received.transport is not None:
                piece = min(_PIECE_BYTES, end - position)
                async with asyncio.timeout(_PIECE_TIMEOUT_S):
                    await loop.sendfile(received.transport, file, position, piece)
                position += piece
        await streamed.write_eof()
        return streamed


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
