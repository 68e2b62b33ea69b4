"""Amounts as people write them."""

from __future__ import annotations

import pytest

from ocimirror.model.readable import seconds_of, span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h30m", 5400), ("7d", 604_800), ("2w", 1_209_600)],
)
def test_a_time_span_is_numbers_and_units(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds
    assert seconds_of(span(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "0", "7", "1.5h", "-1h", "1h 30m", "1y", "٣h", "1h" * 50])
def test_what_is_no_time_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time span"):
        seconds_of(text)
