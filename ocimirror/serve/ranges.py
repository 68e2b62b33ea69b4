"""The Range header.

Spec: RFC 9110 section 14; one range is served, several are answered with the whole, as it allows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.ASCII | re.IGNORECASE)


def wanted_range(headers: Mapping[str, str], etag: str, size: int) -> tuple[int, int] | None:
    """Return (start, length) of the one range that is asked for; None for the whole.

    A length of 0 means that the range cannot be satisfied.
    """
    match = _RANGE.fullmatch(headers.get("Range", ""))
    if match is None or headers.get("If-Range", etag).strip() != etag:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        length = min(int(last), size)
        return size - length, length
    start, end = int(first), int(last) if last else size - 1
    if last and end < start:
        return None  # (invalid, so it is ignored)
    return start, max(0, min(end, size - 1) - start + 1)
