"""When something that failed is tried again: one rule for requests, bodies and transfers.

    registry.http    a request, unless it is brief or its body is a stream
    registry.resume  a body that broke off, as often in a row as less than 1 MiB comes of it
    copy.transfer    a blob or a manifest, by a fresh fetch

Each has `retries` of its own. What a lower one has tried in vain is `exhausted`, and the ones above
do not try it again. Whether a host is worth asking at all is `registry.pulse`'s.

Not here: asking in another way, as GET after HEAD, chunks after one PUT, a token after a 401, one
connection after four. Who reads the answer decides that, and nobody waits for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ocimirror.errors import DigestMismatch, OciMirrorError, RegistryUnavailable, SizeMismatch

MAX_BACKOFF_S = 30.0
MAX_RETRY_AFTER_S = 600.0

_jitter = random.SystemRandom().uniform
Wait = Callable[[float, OciMirrorError], None]


class Tries:
    """The tries of one thing, in one thread.

    Args:
        retries: how often it is tried again.
        wait: waits for so many seconds because of a failure, or raises Interrupted.
        backoff_s: the longest pause after the first failure; it doubles with each.
    """

    def __init__(self, retries: int, wait: Wait, *, backoff_s: float = 0.5) -> None:
        self._retries = retries
        self._wait = wait
        self._backoff_s = backoff_s
        self._failed = 0
        self._spoiled = False

    @property
    def last(self) -> bool:
        """Whether a failure would be the last one."""
        return self._failed >= self._retries

    def again(self, failure: OciMirrorError) -> bool:
        """Whether it is to be tried again, now: the pause is over when this returns.

        Content that failed its check is asked for once more, at once: it may have been damaged on
        the way.
        """
        if isinstance(failure, (DigestMismatch, SizeMismatch)) and not self._spoiled:
            self._spoiled = True
        elif may_help(failure) and not self.last:
            self._wait(self._pause_s(failure), failure)
            self._failed += 1
        else:
            return False
        return True

    def progressed(self) -> None:
        """Begin to count again: what was tried was not in vain."""
        self._failed = 0

    def _pause_s(self, failure: OciMirrorError) -> float:
        """Return how long to wait: backoff with full jitter, beside what the server asked for."""
        backoff = _jitter(0.0, min(MAX_BACKOFF_S, self._backoff_s * 2.0**self._failed))
        asked = failure.retry_after_s if isinstance(failure, RegistryUnavailable) else None
        return backoff + min(asked or 0.0, MAX_RETRY_AFTER_S)


def may_help(failure: OciMirrorError) -> bool:
    """Whether trying again may help, and whoever raised it has not done so already."""
    exhausted = isinstance(failure, RegistryUnavailable) and failure.exhausted
    return failure.retryable and not exhausted
