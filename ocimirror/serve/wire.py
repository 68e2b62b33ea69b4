"""One HTTP exchange: a request in, an answer out, files sent by the kernel."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, unquote

from aiohttp import web
from aiohttp.http import HttpProcessingError

from ocimirror.serve.answers import Answer, Refused, Request

logger = logging.getLogger(__name__)
_PIECE_BYTES = 4 * 1024 * 1024
_READ_BYTES = 1024 * 1024
# The slowest reader that is waited for takes one piece in this time, 17 KiB a second.
_PIECE_TIMEOUT_S = 240.0
# A client has this long to send its first request, and between two of them.
_IDLE_S = 60.0
_SWEEP_S = 5.0
_ALWAYS = {
    "Docker-Distribution-API-Version": "registry/2.0",
    "Server": "ocimirror",
    "X-Content-Type-Options": "nosniff",
}


class Wire:
    """The requests of one server.

    Args:
        respond: what a request is answered; it may raise Refused.
    """

    def __init__(self, respond: Callable[[Request], Awaitable[Answer]]) -> None:
        self._respond = respond
        self._busy: dict[object, asyncio.Task[object] | None] = {}
        self._quiet_since: dict[object, float] = {}
        self.server = web.Server(
            self._exchange,
            access_log=None,
            logger=_errors_of_ours(),
            keepalive_timeout=_IDLE_S,
            lingering_time=1.0,
            auto_decompress=False,
        )

    async def sweep(self) -> None:
        """Close connections on which nothing is asked, until this is cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            idle = {c for c in self.server.connections if c not in self._busy}
            self._quiet_since = {c: self._quiet_since.get(c, now) for c in idle}
            for connection in idle:
                transport = connection.transport
                if now - self._quiet_since[connection] > _IDLE_S and transport is not None:
                    transport.abort()

    async def finish(self, grace_s: float) -> None:
        """End all connections: the quiet ones at once, the others when their answer is sent.

        Args:
            grace_s: after this time they end as they are.
        """
        for connection in self.server.connections:
            connection.close()
        deadline = time.monotonic() + grace_s
        while self._busy and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for task in self._busy.values():
            if task is not None:
                task.cancel()

    async def _exchange(self, received: web.BaseRequest) -> web.StreamResponse:
        began = time.monotonic()
        self._busy[received.protocol] = asyncio.current_task()
        self._quiet_since.pop(received.protocol, None)
        try:
            answer = await self._answer(received)
            answer.headers.update(_ALWAYS)
            return await _send(received, answer)
        finally:
            self._busy.pop(received.protocol, None)
            if logger.isEnabledFor(logging.DEBUG):
                path = received.raw_path.partition("?")[0]
                took_ms = (time.monotonic() - began) * 1000
                logger.debug("%s %s %.1f ms", received.method, path, took_ms)

    async def _answer(self, received: web.BaseRequest) -> Answer:
        path, _, query = received.raw_path.partition("?")
        try:
            parameters = parse_qsl(query, keep_blank_values=True, max_num_fields=20)
        except ValueError:
            return Refused(400, "UNSUPPORTED", "too many parameters").answer
        first = dict(reversed(parameters))
        client = received.remote or ""
        request = Request(received.method, unquote(path), first, received.headers, client)
        try:
            return await self._respond(request)
        except Refused as refused:
            return refused.answer


def _errors_of_ours() -> logging.Logger:
    """Return where the library logs faults in handling; what is no HTTP is none of ours."""
    log = logging.getLogger(f"{__name__}.http")
    if not log.filters:
        log.addFilter(
            lambda record: (
                not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
            )
        )
    return log


async def _send(received: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    if answer.file is not None:
        with answer.file as opened:
            return await _send_file(received, answer, opened.fd)
    if received.method == "HEAD" and not answer.body:
        # (The length that GET would have; the setter of a Response refuses it.)
        answer.headers["Content-Length"] = str(answer.length)
    response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    if received.body_exists:
        response.force_close()  # (nobody reads it)
    return response


async def _send_file(received: web.BaseRequest, answer: Answer, fd: int) -> web.StreamResponse:
    """Send a range of an open file; where that fails midway, the client sees the connection end."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = answer.length
    transport = received.transport
    if transport is None:
        return response
    plain = transport.get_extra_info("sslcontext") is None
    position, end = answer.start, answer.start + answer.length
    try:
        await response.prepare(received)
        with os.fdopen(fd, "rb", buffering=0, closefd=False) as file:
            while position < end and not transport.is_closing():
                piece = min(_PIECE_BYTES, end - position)
                async with asyncio.timeout(_PIECE_TIMEOUT_S):
                    if plain:
                        loop = asyncio.get_running_loop()
                        sent = await loop.sendfile(transport, file, position, piece)
                    else:
                        sent = await _send_encrypted(response, fd, position, piece)
                if sent < piece:
                    logger.warning("a file became shorter while it was sent; the client sees that")
                    transport.abort()
                position += sent
        if position == end:
            await response.write_eof()
    except (OSError, RuntimeError, TimeoutError) as error:
        logger.debug("gave up sending to a client: %r", error)
        transport.abort()
    except asyncio.CancelledError:
        transport.abort()
        raise
    return response


async def _send_encrypted(response: web.StreamResponse, fd: int, position: int, count: int) -> int:
    """Send a piece of a file over TLS; asyncio's own way does it at a fifth of the rate."""
    end = position + count
    while position < end:
        amount = min(_READ_BYTES, end - position)
        chunk = await asyncio.to_thread(os.pread, fd, amount, position)
        if not chunk:
            break
        await response.write(chunk)
        position += len(chunk)
    return position - (end - count)
