"""A large blob over several connections at once, where one connection alone is slow.

Storage hosts and long links often give each connection a share and no more. A blob that is read
alone and slowly is therefore asked for in parts, a few ahead of where its reader is:

    one connection ──8 MiB──┬─ slow?  → parts of 8 MiB, side by side, handed out in their order
                            └─ fast   → goes on as it is

The reader is VerifiedStream, whose hash follows the order; no part is believed to be right.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue

from ocimirror.errors import RegistryUnavailable, RemoteError
from ocimirror.registry import answers
from ocimirror.registry.messages import Response
from ocimirror.stores.stream import CHUNK_BYTES, Reader

CONNECTIONS = 4
PART_BYTES = 8 * 1024 * 1024
WORTH_BYTES = 64 * 1024 * 1024  # left to be read; below, it is over before it pays
_MEASURED_BYTES = 8 * 1024 * 1024
_SLOW_BYTES_S = 64 * 1024 * 1024

_lone = threading.Lock()  # held by the one blob that is read in parts
Ask = Callable[[int, int], Response]

logger = logging.getLogger(__name__)


class ParallelBody:
    """A blob's bytes, over one connection or several. A Reader.

    A part that cannot be had ends the parts: reading goes on over one connection, where faults are
    dealt with. Only one blob at a time is read in parts, and memory holds as many
    parts as there are connections.

    Args:
        body: the bytes from `position` on, over one connection.
        size_bytes: of the blob.
        position: where the reader begins.
        ask: asks for so many bytes from a position on.
        again: reads from a position on, over one connection.
        connections: at most.

    What is NOT done: waiting, on `close`, for a thread that a silent peer holds up.
    """

    def __init__(
        self,
        body: Reader,
        size_bytes: int,
        position: int,
        *,
        ask: Ask,
        again: Callable[[int], Reader],
        connections: int,
    ) -> None:
        self._body = body
        self._size_bytes = size_bytes
        self._begin = self._position = position
        self._ask = ask
        self._again = again
        self._connections = connections
        self._waited_s = 0.0
        self._may_widen = True
        self._pool: ThreadPoolExecutor | None = None
        self._ended = threading.Event()
        self._parts: deque[_Part] = deque()
        self._asked = 0

    def read(self, amount: int, /) -> bytes:
        """Return 1 to `amount` bytes, none at the end.

        Raises:
            RemoteError: as the one connection raises it.
        """
        if self._pool is not None:
            try:
                chunk = self._from_parts(amount)
            except RemoteError as error:
                logger.info("reading on over one connection: %s", error)
                self._narrow()
            else:
                self._position += len(chunk)
                return chunk
        began = time.monotonic()
        chunk = self._body.read(amount)
        self._waited_s += time.monotonic() - began
        self._position += len(chunk)
        if self._may_widen and self._is_slow() and _lone.acquire(blocking=False):
            self._widen()
        return chunk

    def close(self) -> None:
        """Give the connections back; idempotent."""
        self._may_widen = False
        self._body.close()
        self._end_parts()

    def _is_slow(self) -> bool:
        read = self._position - self._begin
        worth = self._size_bytes - self._position >= WORTH_BYTES
        return worth and read >= _MEASURED_BYTES and read < self._waited_s * _SLOW_BYTES_S

    def _widen(self) -> None:
        self._may_widen = False
        self._body.close()
        self._ended = threading.Event()
        self._begin = self._asked = self._position
        self._pool = ThreadPoolExecutor(self._connections, thread_name_prefix="ocimirror-part")
        logger.info("reading over %d connections from byte %d", self._connections, self._position)
        try:
            self._ask_ahead(self._pool)
        except RuntimeError:  # (no thread to be had)
            self._narrow()

    def _narrow(self) -> None:
        """Go back to one connection; parts that brought something may come again."""
        self._end_parts()
        self._may_widen = self._position - self._begin >= self._connections * PART_BYTES
        self._begin, self._waited_s = self._position, 0.0
        self._body = self._again(self._position)

    def _ask_ahead(self, pool: ThreadPoolExecutor) -> None:
        while len(self._parts) < self._connections and self._asked < self._size_bytes:
            length = min(PART_BYTES, self._size_bytes - self._asked)
            wanted = (self._asked, self._asked + length - 1, self._size_bytes)
            self._parts.append(_Part(pool, self._ask, wanted, self._ended))
            self._asked += length

    def _from_parts(self, amount: int) -> bytes:
        while self._parts:
            if chunk := self._parts[0].read(amount):
                return chunk
            self._parts.popleft()
            if self._pool is not None:
                self._ask_ahead(self._pool)
        return b""

    def _end_parts(self) -> None:
        if self._pool is not None:
            self._ended.set()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
            self._parts.clear()
            _lone.release()


class _Part:
    """Some bytes of the blob (first and last position, size of the whole), fetched by a thread."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        ask: Ask,
        wanted: tuple[int, int, int],
        ended: threading.Event,
    ) -> None:
        self._wanted = wanted
        self._ended = ended
        self._chunks: SimpleQueue[bytes] = SimpleQueue()
        self._chunk = b""
        self._done: Future[None] = pool.submit(self._fetch, ask)

    def read(self, amount: int, /) -> bytes:
        self._chunk = self._chunk or self._chunks.get()
        chunk, self._chunk = self._chunk[:amount], self._chunk[amount:]
        if not chunk:
            self._done.result()  # (raises what ended it early)
        return chunk

    def _fetch(self, ask: Ask) -> None:
        try:
            first, last, _ = self._wanted
            with closing(ask(first, last - first + 1)) as response:
                self._take(response, last - first + 1)
        finally:
            self._chunks.put(b"")

    def _take(self, response: Response, left: int) -> None:
        fits = answers.content_range(response.headers) == self._wanted
        if response.status != 206 or not fits or answers.encoded(response.headers, left):
            raise RegistryUnavailable(f"{response}: not the part that was asked for")
        while left and not self._ended.is_set():
            chunk = response.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise RegistryUnavailable(f"{response}: a part ended early")
            left -= len(chunk)
            self._chunks.put(chunk)
        if not left and response.read(1):  # (read to its end, the connection is kept)
            raise RegistryUnavailable(f"{response}: a part that is too long")
