"""What a tag is as a version, and which versions a range takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from tests.support.batches import batches
from tests.support.configurations import check_all
from tests.support.tagserver import Selected, TagServer, run_tag_server, select_all

VERSIONS = [
    ("1.2.3", "1.2.3"),
    ("v1.2.3", "1.2.3"),
    ("V1.2", "1.2.0"),
    ("3", "3.0.0"),
    ("24.04", "24.4.0"),
    ("2026.11.01", "2026.11.1"),
    ("1.2.3-rc1", "1.2.3-rc1"),
    ("1.2.3-alpine3.19", "1.2.3-alpine3.19"),
    ("3.12-slim-bookworm", "3.12.0-slim-bookworm"),
    ("1.2.3_build.5", "1.2.3"),
    ("1.2.3-rc1_5", "1.2.3-rc1"),
]
NOT_VERSIONS = [
    *("latest", "1.2.3.4", "1.2rc1", "1.x", "alpine-3.19"),
    *("v", "1.", "1.2.3-", "x1.2", "vv1.2"),
]
PRE = "0 1 alpha alpha.1 alpha.beta beta beta.2 beta.11 rc.1"
ORDER = ["0.9.0", *(f"1.0.0-{word}" for word in PRE.split()), "1.0.0", "1.0.1", "1.2", "1.10"]
RANGES = [
    ("1.2.3", "1.2.3 v1.2.3", "1.2.4 1.2.3-rc1"),
    ("=1.2", "1.2 1.2.9", "1.3 1.1.9"),
    ("1.2.x", "1.2 1.2.9", "1.3 1.3.0-rc1"),
    ("1", "1 1.9.9", "2 2.0.0-rc1 0.9"),
    ("*", "0 99", "1.2.3-rc1"),
    (">=1.2 <2", "1.2 1.99.99", "2 1.1.9 2.0.0-rc1 1.5.0-rc1"),
    (">=1.2, <2", "1.2 1.99.99", "2"),
    (">= 1.2 < 2", "1.2 1.99.99", "2"),
    (">1.2", "1.3 2", "1.2 1.2.9"),
    (">1.2.3", "1.2.4", "1.2.3"),
    ("<=1.2", "1.2.9 1.1 0", "1.3 1.3.0-rc1"),
    ("<=1.2.3", "1.2.3", "1.2.4"),
    ("<1.2", "1.1.9", "1.2 1.2.0-rc1"),
    ("^1.2.3", "1.2.3 1.9", "2 1.2.2 1.5.0-alpine"),
    ("^0.2.3", "0.2.3 0.2.9", "0.3 1"),
    ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
    ("^0.0", "0.0.9", "0.1"),
    ("^0", "0.9.9", "1"),
    ("~1.2.3", "1.2.3 1.2.9", "1.3 1.2.2"),
    ("~1.2", "1.2 1.2.9", "1.3"),
    ("~1", "1 1.9", "2"),
    ("1.2 - 1.4", "1.2 1.4.9", "1.5 1.1"),
    ("^1 || ^3", "1.5 3.9", "2 4"),
    (">=1.2 <2 || ^3", "1.2 3.4.5", "2.0 1.1"),
    ("^1.2-0", "1.2.3-alpine 1.2.3 1.9.0-rc1 1.2.0-rc1", "2.0.0-rc1 1.1"),
    (">=1.2-0 <2", "1.2.3-alpine", "2.0.0-rc1 2"),
    (">=1.0.0-rc.2 <1.0.1", "1.0.0-rc.2 1.0.0-rc.10 1.0.0", "1.0.0-rc.1 1.0.1-rc.1"),
    ("<2.0.0-rc.2", "2.0.0-rc.1 1.9", "2.0.0-rc.2 2"),
    ("1.2.3-alpine", "1.2.3-alpine", "1.2.3"),
]
CASES: dict[str, tuple[list[str], dict[str, object]]] = {
    **{f"is {tag}": ([tag, "0.0.0-0"], {"semver": f"={version}"}) for tag, version in VERSIONS},
    "not versions": (NOT_VERSIONS, {"semver": ">=0.0.0-0"}),
    **{f"newest {n + 1}": (ORDER, {"newest": n + 1}) for n in range(len(ORDER))},
    **{text: (f"{takes} {leaves}".split(), {"semver": text}) for text, takes, leaves in RANGES},
}


@pytest.fixture
def server() -> Iterator[TagServer]:
    """A registry that lists what it is told."""
    with run_tag_server() as server:
        yield server


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Selected]:
    """Return what every case chooses, all in one run."""
    with run_tag_server() as server:
        told = select_all(server, tmp_path_factory.mktemp("versions"), list(CASES.values()))
    return dict(zip(CASES, told, strict=True))


@pytest.mark.parametrize(("tag", "version"), VERSIONS)
def test_a_tag_is_a_version(selected: dict[str, Selected], tag: str, version: str) -> None:
    """Only the version itself is in a range of one."""
    assert selected[f"is {tag}"].kept == [tag]


@pytest.mark.parametrize("tag", NOT_VERSIONS)
def test_other_tags_are_no_versions(selected: dict[str, Selected], tag: str) -> None:
    assert selected["not versions"].dropped[tag] == ("semver", "not a version")


@pytest.mark.parametrize("count", range(1, len(ORDER) + 1))
def test_precedence_is_that_of_semver(selected: dict[str, Selected], count: int) -> None:
    """Spec: semver.org 2.0.0, item 11."""
    assert selected[f"newest {count}"].kept == sorted(ORDER[-count:])


@pytest.mark.parametrize(("text", "takes", "leaves"), RANGES)
def test_a_range_takes_what_it_says(
    selected: dict[str, Selected], text: str, takes: str, leaves: str
) -> None:
    assert selected[text].kept == sorted(takes.split())
    assert selected[text].filters == dict.fromkeys(leaves.split(), "semver")


# --- what is no range ---------------------------------------------------------------------------

ADVICE = "(As: >=1.2 <2 || ^3, ~1.4, 1.2.x, 1.2 - 1.4; ^1.2-0 takes pre-releases too.)"
NO_RANGES = [
    ("", "a range of versions has 1 to 256 characters"),
    (" ", f"not a range of versions: ' ' {ADVICE}"),
    ("||", f"not a range of versions: '' in '||' {ADVICE}"),
    ("^1 ||", f"not a range of versions: '' in '^1 ||' {ADVICE}"),
    ("latest", f"not a range of versions: 'latest' {ADVICE}"),
    (">=", f"not a range of versions: '>=' {ADVICE}"),
    ("1.2.3.4", f"not a range of versions: '1.2.3.4' {ADVICE}"),
    (">1 <", f"not a range of versions: ' <' in '>1 <' {ADVICE}"),
    ("=>1", f"not a range of versions: '=>1' {ADVICE}"),
    ("1.x-rc", f"not a range of versions: '1.x-rc' {ADVICE}"),
    (">1<2", f"not a range of versions: '>1<2' {ADVICE}"),
    ("1 " * 51, f"not a range of versions: ' 1' in '{'1 ' * 51}' {ADVICE}"),
]


def with_range(text: str) -> str:
    entry: dict[str, Any] = {"from": "a.b/c", "to": "oci:x", "tags": {"semver": text}}
    return str(yaml.safe_dump({"mirrors": [entry]}, width=9999, sort_keys=False))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return what is said of each range that is none, in one run."""
    texts = [text for text, _ in NO_RANGES]
    found = check_all(tmp_path_factory.mktemp("ranges"), [with_range(text) for text in texts])
    return {text: one.faults for text, one in zip(texts, found, strict=True)}


@pytest.mark.parametrize(("text", "problem"), NO_RANGES)
def test_what_is_no_range_is_refused(told: dict[str, list[str]], text: str, problem: str) -> None:
    assert told[text] == [f"5:13: {problem}"]


# --- properties ---------------------------------------------------------------------------------

NUMBERS = st.tuples(*[st.integers(0, 30)] * 3)


@batches(st.tuples(NUMBERS, NUMBERS))
def test_caret_is_inside_the_major_and_tilde_inside_the_caret(
    server: TagServer, tmp_path: Path, pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    texts = [(".".join(map(str, bound)), ".".join(map(str, numbers))) for bound, numbers in pairs]
    ranges = [
        ([tag], {"semver": f"{sign}{bound}"})
        for bound, tag in texts
        for sign in ("^", "~", ">=", "<")
    ]
    taken = [bool(found.kept) for found in select_all(server, tmp_path, ranges)]
    for (bound, numbers), at in zip(pairs, range(0, len(taken), 4), strict=True):
        caret, tilde, least, below = taken[at : at + 4]
        assert least != below, (bound, numbers)
        if caret:
            assert least, (bound, numbers)
            assert numbers[0] == bound[0]
        if tilde and bound[0]:
            assert caret, (bound, numbers)


@batches(st.text(max_size=40) | st.from_regex(r"[<>=^~ vx*0-9.|,-]{0,30}", fullmatch=True))
def test_any_text_is_a_range_or_a_usage_error(
    server: TagServer, tmp_path: Path, texts: list[str]
) -> None:
    found = check_all(tmp_path, [with_range(text) for text in texts])
    right = []
    for text, told in zip(texts, found, strict=True):
        if told.faults:
            assert "range of versions" in told.faults[0], text
        else:
            right.append(text)
    for told in select_all(server, tmp_path, [(["1"], {"semver": text}) for text in right or "1"]):
        assert told.error is None
