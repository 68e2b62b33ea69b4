"""Amounts as people read and write them."""

from __future__ import annotations

import re

SPAN_PATTERN = "^([0-9]{1,6}[smhdw])+$"
SPAN_ADVICE = "Write 90s, 15m, 1h30m, 7d or 2w."
_LENGTHS_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def size(count: float) -> str:
    """Return bytes as people read them: 10.0 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a time span as people read it: 0.4 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def seconds_of(text: str) -> int:
    """Return the length of a time span as people write it: 90s, 1h30m, 7d, 2w.

    Raises:
        ValueError: it is none.
    """
    if len(text) > 64 or not re.fullmatch(SPAN_PATTERN, text, re.ASCII):
        raise ValueError(f"{text[:100]!r} is no time span")
    parts = re.findall("([0-9]+)([a-z])", text, re.ASCII)
    return sum(int(number) * _LENGTHS_S[unit] for number, unit in parts)


def span(seconds: float) -> str:
    """Return a time span as people write it: 90s, 36h, 14d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"
