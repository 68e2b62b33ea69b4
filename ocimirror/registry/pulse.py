"""Whether a host is worth asking: a dead one must not cost every image its retries.

After three requests in a row that were in vain to their last retry, with no answer from the host in
between, it is asked for `/v2/` once. Where that is in vain too, requests to it fail at once; each
minute one is sent, and an answer to that is the end of it. What answers is alive, be it with 401,
404 or 429: one broken repository, or a limit, is no dead host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ocimirror.errors import RateLimited, RegistryUnavailable

IN_VAIN = 3
PAUSE_S = 60.0


class Pulse:
    """What the answers of one host say of it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_vain = 0
        self._death = ""
        self._ask_at = 0.0

    @contextmanager
    def learning(self, request: object, *, last: bool) -> Iterator[None]:
        """Send a request in the block, if the host is worth it, and learn from what comes of it.

        Args:
            request: names it in errors.
            last: it will not be tried again.

        Raises:
            RegistryUnavailable: the host is dead, and the request was not sent.
        """
        if self._death:
            self._refuse(request)
        try:
            yield
        except RateLimited:
            self._answered()
            raise
        except RegistryUnavailable as error:
            with self._lock:
                self._in_vain += last or error.exhausted
                self._ask_at = time.monotonic() + PAUSE_S
            raise
        self._answered()

    def _refuse(self, request: object) -> None:
        with self._lock:
            now = time.monotonic()
            if now >= self._ask_at:
                self._ask_at = now + PAUSE_S  # (the others wait for what comes of this one)
                return
        error = RegistryUnavailable(f"{request}: not sent, its host is dead: {self._death}")
        error.exhausted = True
        raise error

    def _answered(self) -> None:
        if self._in_vain or self._death:
            with self._lock:
                self._in_vain, self._death = 0, ""

    def stops(self) -> bool:
        """Whether the caller has to find out now if the host is dead; true for one caller."""
        with self._lock:
            stops = self._in_vain >= IN_VAIN and not self._death
            if stops:
                self._in_vain = 0
            return stops

    def dies(self, death: str) -> None:
        """Take in that the host is dead, and how that showed."""
        with self._lock:
            self._death = death
            self._ask_at = time.monotonic() + PAUSE_S
