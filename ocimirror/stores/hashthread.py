"""A hash that is computed beside the thread that reads, for one large blob alone."""

from __future__ import annotations

import threading
from queue import Queue

from ocimirror.model.digest import Hasher

WORTH_A_THREAD_BYTES = 64 * 1024 * 1024
_WAITING_CHUNKS = 8

_lone = threading.Lock()


def beside(hasher: Hasher, size: int) -> Hasher:
    """Return the running hash, in a thread of its own where that is faster.

    One large blob leaves a core idle while it is hashed and written in turn. Several at a time
    do not, so only one hash thread exists at any moment.
    """
    if size >= WORTH_A_THREAD_BYTES and _lone.acquire(blocking=False):
        try:
            return HashThread(hasher)
        except RuntimeError:  # (no thread to be had: slower, and no reason to fail)
            _lone.release()
    return hasher


class HashThread:
    """A running hash fed through a bounded queue; ends with `hexdigest` or `close`."""

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._chunks: Queue[bytes | bytearray | memoryview | None] = Queue(_WAITING_CHUNKS)
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="ocimirror-hash", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._hasher.update(chunk)

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add bytes; waits where the hash has fallen too far behind."""
        self._chunks.put(data)

    def hexdigest(self) -> str:
        """Return the hash of everything added; the thread has ended then."""
        self.close()
        return self._hasher.hexdigest()

    def close(self) -> None:
        """End the thread; idempotent."""
        if not self._ended:
            self._ended = True
            self._chunks.put(None)
            self._thread.join()
            _lone.release()
