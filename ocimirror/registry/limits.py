"""How much a run asks of registries: at once, in a second, and in bytes a second.

A host gets as many requests at once as the run has jobs, half as many each time that it says it is
too busy, and one more after each fifty good answers: AIMD, as TCP finds its window.

A request has its turn from before it is sent until the headers of its answer are there, so an
upload holds one to its end, and a download does not. If bodies held turns, jobs that each read one
blob and write it to the same registry would wait for each other for ever, and a large download
from a host that takes one request at a time would keep all small requests from it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ocimirror.errors import Interrupted, InvalidReference
from ocimirror.model.reference import check_registry
from ocimirror.registry.messages import RETRIED
from ocimirror.registry.options import NetworkOptions
from ocimirror.registry.url import Origin
from ocimirror.stores.stream import CHUNK_BYTES

GOOD_ANSWERS = 50
BUSY = RETRIED - {408}

_CREDIT_S = 0.05
_MIN_PIECE_BYTES = 1024
_PIECES_A_SECOND = 20
# How long a stop may go unnoticed by who waits for a turn; nobody can wait for two things at once.
_SLICE_S = 0.1

logger = logging.getLogger(__name__)


class Bucket:
    """A token bucket that fills evenly, and holds a twentieth of a second's tokens. Thread-safe.

    Args:
        tokens_per_second: above 0.
    """

    def __init__(self, tokens_per_second: float) -> None:
        self._tokens_per_second = tokens_per_second
        self._free_at = 0.0
        self._lock = threading.Lock()

    def take(self, tokens: int = 1) -> float:
        """Take tokens, also those that are not there yet; return in how many seconds to use them.

        Whoever comes next waits for all that was taken.
        """
        with self._lock:
            now = time.monotonic()
            free_at = max(self._free_at, now - _CREDIT_S)
            self._free_at = free_at + tokens / self._tokens_per_second
        return max(0.0, free_at - now)


@dataclass(slots=True)
class Turn:
    """One request to a host.

    Attributes:
        halvings: how often the host had been too busy when it began.
        status: of the answer; 0 as long as there is none.
    """

    halvings: int
    status: int = 0


class _Nesting(threading.local):
    """How many turns a thread has: the source of an upload is read while that is being sent."""

    depth = 0


class HostLimits:
    """The limits of one host. Thread-safe.

    Args:
        origin: the host.
        options: of the run.
        nesting: shared by all hosts of the run.
    """

    def __init__(self, origin: Origin, options: NetworkOptions, nesting: _Nesting) -> None:
        self._origin = origin
        self._stop = options.stop
        self._nesting = nesting
        self._most = self._limit = options.jobs
        self._under_way = self._good = self._halvings = 0
        self._changed = threading.Condition(threading.Lock())
        self._resume_at = 0.0
        rate = _rate_of(origin, options)
        self._bucket = Bucket(rate) if rate else None

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Wait until one more request may be sent, and count it as under way in the block.

        Raises:
            Interrupted: the run was stopped, now or before.
        """
        turn = self._enter()
        try:
            self.wait(self._bucket.take() if self._bucket else 0.0)
            while (left_s := self._resume_at - time.monotonic()) > 0:
                self.wait(left_s)
            yield turn
        finally:
            self._leave(turn)

    def hold(self, seconds: float) -> bool:
        """Let no request of any thread begin for so long; what is under way goes on.

        Returns:
            Whether the wait begins now: for one of the threads that were told to wait.
        """
        with self._changed:
            now = time.monotonic()
            begins = self._resume_at <= now
            self._resume_at = max(self._resume_at, now + seconds)
        return begins

    def wait(self, seconds: float) -> None:
        """Wait; Interrupted once the run is stopped, even where there is nothing to wait for."""
        if self._stop.is_set() or (seconds > 0 and self._stop.wait(seconds)):
            raise Interrupted(f"stopped before the next request to {self._origin}")

    def _enter(self) -> Turn:
        with self._changed:
            # Who has a turn must not wait for one, here or elsewhere: two might for each other.
            while self._under_way >= self._limit and not self._nesting.depth:
                self.wait(0.0)
                self._changed.wait(_SLICE_S)
            self._under_way += 1
            turn = Turn(self._halvings)
        self._nesting.depth += 1
        return turn

    def _leave(self, turn: Turn) -> None:
        self._nesting.depth -= 1
        with self._changed:
            before = self._limit
            self._under_way -= 1
            self._learn(turn)
            limit = self._limit
            self._changed.notify(2)  # its own turn, and one that the limit may have grown by
        if limit < before:
            logger.info("%s is busy: %d requests at once", self._origin, limit)

    def _learn(self, turn: Turn) -> None:
        if turn.status in BUSY:
            # Of those that were under way together, one counts.
            if turn.halvings == self._halvings:
                self._limit = max(1, self._limit // 2)
                self._halvings += 1
            self._good = 0
        elif turn.status:
            self._good += 1
            if self._good >= GOOD_ANSWERS and self._limit < self._most:
                self._limit += 1
                self._good = 0


class Limits:
    """The limits of one run. Thread-safe.

    Args:
        options: of the run; its `jobs`, `requests_per_second`, `bytes_per_second` and `stop`.

    Attributes:
        stop: of the options.
        piece_bytes: the most that may be read from a body before `moved` is told of it.
    """

    def __init__(self, options: NetworkOptions) -> None:
        self._options = options
        self.stop = options.stop
        self._hosts: dict[Origin, HostLimits] = {}
        self._nesting = _Nesting()
        rate = options.bytes_per_second
        self._bytes = Bucket(rate) if rate else None
        evenly = max(_MIN_PIECE_BYTES, rate // _PIECES_A_SECOND)
        self.piece_bytes = min(CHUNK_BYTES, evenly) if rate else CHUNK_BYTES

    def of(self, origin: Origin) -> HostLimits:
        """Return the limits of a host, the same ones each time."""
        known = self._hosts.get(origin)
        if known is not None:
            return known
        new = HostLimits(origin, self._options, self._nesting)
        return self._hosts.setdefault(origin, new)

    def moved(self, size_bytes: int) -> None:
        """Count bytes of a body, down or up, and wait as long as the rate of the run asks for.

        Raises:
            Interrupted: the run was stopped meanwhile.
        """
        if self._bytes is not None and self._options.stop.wait(self._bytes.take(size_bytes)):
            raise Interrupted("stopped")


def _rate_of(origin: Origin, options: NetworkOptions) -> float:
    """Return the requests a second that the user allows a host; 0 where there is no limit."""
    names = [origin.authority, f"{origin.host}:{origin.port}"]
    with suppress(InvalidReference):  # (docker.io is not what its endpoint is called)
        names.append(check_registry(origin.authority))
    rates = options.requests_per_second
    return next((rates[name] for name in names if name in rates), 0.0)
