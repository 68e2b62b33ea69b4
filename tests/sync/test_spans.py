"""Time spans, as people write them in a configuration and as `config check` says them again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.command import ocimirror

SPANS = {"90s": 90, "15m": 900, "1h30m": 5400, "7d": 604_800, "2w": 1_209_600}
NO_SPANS = ["", "0", "7", "1.5h", "-1h", "1h 30m", "1y", "٣h", "1h" * 50]


def configuration(file: Path, spans: list[str]) -> Path:
    """Write one mirror a line for each span; the first is on line 2."""
    file.write_text(
        "mirrors:\n"
        + "".join(
            f"- {{from: a.example/n{number}, to: 'oci:x', tags: {{min_age: {json.dumps(span)}}}}}\n"
            for number, span in enumerate(spans)
        )
    )
    return file


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Return the seconds that each span was understood as, and each said back by the command."""
    directory = tmp_path_factory.mktemp("spans")
    file = configuration(directory / "spans.yaml", list(SPANS))
    said = re.findall("min_age (.*) since", ocimirror("config", "check", file).stdout)
    again = configuration(directory / "again.yaml", [*SPANS, *said])
    checked = ocimirror("config", "check", again, "--json")
    assert checked.code == 0, checked.stderr
    ages = [mirror["tags"]["min_age"]["age"] for mirror in checked.document["mirrors"]]
    understood = dict(zip(SPANS, ages, strict=False))
    said_back = {f"{span} said": age for span, age in zip(SPANS, ages[len(SPANS) :], strict=True)}
    return understood | said_back


@pytest.mark.parametrize(("text", "seconds"), SPANS.items())
def test_a_time_span_is_numbers_and_units(read: dict[str, float], text: str, seconds: int) -> None:
    assert read[text] == seconds
    assert read[f"{text} said"] == seconds


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Return what is wrong with each line of a configuration of wrong spans."""
    file = configuration(tmp_path_factory.mktemp("spans") / "wrong.yaml", NO_SPANS)
    checked = ocimirror("config", "check", file, "--json")
    assert checked.code == 2
    return {fault["line"]: fault["problem"] for fault in checked.document["faults"]}


@pytest.mark.parametrize("text", NO_SPANS)
def test_what_is_no_time_span_is_refused(faults: dict[int, str], text: str) -> None:
    problem = faults[2 + NO_SPANS.index(text)]
    assert ("is no time span" if text else "a time span") in problem
