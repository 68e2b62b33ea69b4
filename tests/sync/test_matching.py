"""Regular expressions against tags, hostile ones among them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.support.batches import batches
from tests.support.tagserver import Case, Selected, TagServer, run_tag_server, select_all

BUILDS = r"(\d+\.?)+"
HOSTILE = ["1" * 60 + "z", "a" * 79 + "b", "1" * 127 + "y"]
ENDLESS = [
    BUILDS,
    r"(?:\d|\d\d)*",
    "(a|a)" * 40,
    "a?" * 40 + "a" * 40,
    ".*.*.*.*.*.*.*z.*",
    r"(\d*)*",
    r"(?:(?:\d+))+",
    r"(?P<x>\d+)(?P<y>\d+)*z{2}",
]
QUICK = [r"\d*\d*\d*y", r"\d{1,99}\d*\d*", "(.|.)(.|.)(.|.)x"]
CASES: dict[str, Case] = {
    **{regex: (HOSTILE, {"regex": regex}) for regex in ENDLESS},
    **{regex: ([f"{'1' * 125}{n:02}z" for n in range(20)], {"regex": regex}) for regex in QUICK},
    "harmless": (["1.0"], {"regex": BUILDS}),
}


@pytest.fixture
def server() -> Iterator[TagServer]:
    """A registry that lists what it is told."""
    with run_tag_server() as server:
        yield server


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Selected]:
    """Return what every case chooses, all in one run: expressions end at the same time."""
    with run_tag_server() as server:
        told = select_all(server, tmp_path_factory.mktemp("matching"), list(CASES.values()), code=4)
    return dict(zip(CASES, told, strict=True))


@pytest.mark.parametrize("regex", ENDLESS)
def test_an_expression_that_does_not_end_fails_its_entry(
    selected: dict[str, Selected], regex: str
) -> None:
    assert selected[regex] == (
        [],
        {},
        f"the regular expression {regex!r} takes more than 5 s for 3 tags",
    )


@pytest.mark.parametrize("regex", QUICK)
def test_what_is_matched_here_ends_on_every_tag(selected: dict[str, Selected], regex: str) -> None:
    assert (selected[regex].kept, selected[regex].error) == ([], None)


def test_an_expression_that_does_not_end_fails_no_other_entry(
    selected: dict[str, Selected],
) -> None:
    """The same expression ends on tags that are not made for it."""
    assert selected["harmless"] == (["1.0"], {}, None)


TAGS = st.lists(
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}", fullmatch=True).filter(str.isascii),
    min_size=1,
    max_size=5,
    unique=True,
)
WORDS = st.sampled_from(
    ["a", "1", r"\d", r"\.", "[a-c]", "(", ")", "|", "*", "+", "?", "(?i)", ".", "é"]
)


def is_regex(text: str) -> bool:
    """Say whether a text is an expression that means to Python what it seems to."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(text, re.ASCII)
    except (re.error, Warning):
        return False
    return True


REGEXES = st.lists(WORDS, min_size=1, max_size=8).map("".join)


@batches(st.tuples(REGEXES, TAGS), size=50)
def test_an_expression_matches_as_python_matches_it(
    server: TagServer, tmp_path: Path, drawn: list[tuple[str, list[str]]]
) -> None:
    """Be it matched in a process of its own, or not."""
    drawn = [(regex, tags) for regex, tags in drawn if is_regex(regex)]
    cases: list[Case] = [(tags, {"regex": regex}) for regex, tags in drawn]
    told = select_all(server, tmp_path, cases) if cases else []
    for (regex, tags), found in zip(drawn, told, strict=True):
        matching = [tag for tag in tags if re.fullmatch(regex, tag, re.ASCII)]
        assert (found.error, found.kept) == (None, sorted(matching)), regex
