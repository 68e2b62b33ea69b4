"""What registries tell their clients beside the answers; nothing is ever done about it."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping

from ocimirror.registry.url import Origin
from ocimirror.shown import printable, without_secrets

MAX_WARNING_BYTES = 4096
MAX_WARNINGS = 100

_MAX_RATE = 100
# Neither another code nor another agent is a registry's; a text that was cut has no end.
_WARNING = re.compile(r'(?:^|,)\s*299 - "((?:[^"\\]|\\.)*)')

logger = logging.getLogger(__name__)


class Notices:
    """Logs each notice once a run. Thread-safe.

    Spec: distribution-spec spec.md#warnings (4096 bytes an answer, deduplicated).
    """

    def __init__(self) -> None:
        self._rates: dict[Origin, tuple[str, str]] = {}
        self._warnings: set[tuple[Origin, str]] = set()
        self._lock = threading.Lock()

    def read(self, origin: Origin, headers: Mapping[str, str]) -> None:
        """Log what the header fields of an answer tell that was not told before."""
        # Docker Hub's, which is what its limit is known by; it changes too often to rely on.
        rate = headers.get("RateLimit-Limit", ""), headers.get("RateLimit-Remaining", "")
        if any(rate) and self._is_new_rate(origin, rate):
            limit, remaining = (
                printable(without_secrets(text)[:_MAX_RATE]) or "unknown" for text in rate
            )
            logger.info("%s: rate limit %s, remaining %s", origin, limit, remaining)
        for text in _warnings(headers.get("Warning", "")):
            if self._is_new_warning(origin, text):
                logger.warning("%s says: %s", origin, text)

    def _is_new_rate(self, origin: Origin, rate: tuple[str, str]) -> bool:
        with self._lock:
            before = self._rates.get(origin)
            self._rates[origin] = rate
        return rate != before

    def _is_new_warning(self, origin: Origin, text: str) -> bool:
        with self._lock:
            before = len(self._warnings)
            if before < MAX_WARNINGS:
                self._warnings.add((origin, text))
            return len(self._warnings) > before


def _warnings(field: str) -> Iterator[str]:
    """Yield the texts of a Warning field, several joined by commas, as they can be shown."""
    left = MAX_WARNING_BYTES
    for quoted in _WARNING.findall(field[:MAX_WARNING_BYTES]) if field else ():
        text = re.sub(r"\\(.)", r"\1", quoted).encode("latin-1", "replace")
        shown = printable(without_secrets(text.decode("utf-8", "replace"))).encode()[:left]
        left -= len(shown)
        if shown:
            yield shown.decode("utf-8", "ignore")
