"""Regular expressions against tags, hostile ones among them."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.property.conftest  # noqa: F401 - how hard properties are tried
from ocimirror.errors import Unsupported
from ocimirror.sync.matching import matching
from tests.support import images
from tests.support.command import ocimirror
from tests.support.registry import StrictRegistry

HOSTILE = "1" * 60 + "z"
BUILDS = r"(\d+\.?)+"


@pytest.mark.parametrize(
    "regex",
    [
        BUILDS,
        r"(?:\d|\d\d)*",
        "(a|a)" * 40,
        "a?" * 40 + "a" * 40,
        ".*.*.*.*.*.*.*z.*",
        r"(\d*)*",
        r"(?:(?:\d+))+",
        r"(?P<x>\d+)(?P<y>\d+)*z{2}",
    ],
)
def test_an_expression_that_does_not_end_is_refused_in_time(regex: str) -> None:
    tags = [HOSTILE, "a" * 79 + "b", "1" * 127 + "y"]
    with pytest.raises(Unsupported, match=r"takes more than 0\.5 s for 3 tags"):
        matching(regex, tags, limit_s=0.5)


@pytest.mark.parametrize("regex", [r"\d*\d*\d*y", r"\d{1,99}\d*\d*", "(.|.)(.|.)(.|.)x"])
def test_what_is_matched_here_ends_on_every_tag(regex: str) -> None:
    began = time.process_time()
    matching(regex, ["1" * 127 + "z"] * 20)
    assert time.process_time() - began < 30


TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}", fullmatch=True).filter(str.isascii)
WORDS = st.sampled_from(
    ["a", "1", r"\d", r"\.", "[a-c]", "(", ")", "|", "*", "+", "?", "(?i)", ".", "é"]
)


@given(st.lists(WORDS, max_size=8).map("".join), st.lists(TAG, max_size=5))
def test_both_ways_match_the_same(regex: str, tags: list[str]) -> None:
    try:
        pattern = re.compile(regex, re.ASCII)
    except re.error:
        return
    assert matching(regex, tags) == {tag for tag in tags if pattern.fullmatch(tag)}


def test_a_hostile_tag_fails_its_entry_and_no_other(
    registry: StrictRegistry, tmp_path: Path
) -> None:
    for repository, tag in (("bad/app", HOSTILE), ("bad/app", "1.0"), ("good/app", "1.0")):
        images.push(registry, repository, tag, images.single())
    config = tmp_path / "sync.yaml"
    config.write_text(
        f"to: 'oci:{tmp_path}/layout'\ntags: {{regex: '{BUILDS}'}}\n"
        f"mirrors: [{{from: {registry.host}/bad/app}}, {{from: {registry.host}/good/app}}]\n"
    )
    result = ocimirror("sync", config, "--json", cwd=tmp_path)
    assert (result.code, len(result.document["images"])) == (4, 1)
    bad, good = result.document["entries"]
    assert bad["error"]["code"] == "unsupported"
    assert (good["status"], good["copied"]) == ("changed", 1)
