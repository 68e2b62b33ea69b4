"""What a tag is as a version, and which versions a range takes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.property.conftest  # noqa: F401 - how hard properties are tried
from ocimirror.errors import UsageError
from ocimirror.sync.versions import Range, Version, version_of


@pytest.mark.parametrize(
    ("tag", "numbers", "pre"),
    [
        ("1.2.3", (1, 2, 3), ""),
        ("v1.2.3", (1, 2, 3), ""),
        ("V1.2", (1, 2, 0), ""),
        ("3", (3, 0, 0), ""),
        ("24.04", (24, 4, 0), ""),
        ("2026.11.01", (2026, 11, 1), ""),
        ("1.2.3-rc1", (1, 2, 3), "rc1"),
        ("1.2.3-alpine3.19", (1, 2, 3), "alpine3.19"),
        ("3.12-slim-bookworm", (3, 12, 0), "slim-bookworm"),
        ("1.2.3_build.5", (1, 2, 3), ""),
        ("1.2.3-rc1_5", (1, 2, 3), "rc1"),
    ],
)
def test_a_tag_is_a_version(tag: str, numbers: tuple[int, ...], pre: str) -> None:
    assert version_of(tag) == Version.of(numbers, pre)


@pytest.mark.parametrize(
    "tag",
    ["latest", "1.2.3.4", "1.2rc1", "1.x", "alpine-3.19", "v", "", "1.", "1.2.3-", "x1.2", "vv1.2"],
)
def test_other_tags_are_no_versions(tag: str) -> None:
    assert version_of(tag) is None


def test_precedence_is_that_of_semver() -> None:
    """Spec: semver.org 2.0.0, item 11."""
    pre = "0 1 alpha alpha.1 alpha.beta beta beta.2 beta.11 rc.1"
    order = ["0.9.0", *(f"1.0.0-{word}" for word in pre.split()), "1.0.0", "1.0.1", "1.2", "1.10"]
    for older, newer in itertools.combinations(order, 2):
        left, right = version_of(older), version_of(newer)
        assert left is not None
        assert right is not None
        assert left < right


@pytest.mark.parametrize(
    ("text", "takes", "leaves"),
    [
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
    ],
)
def test_a_range_takes_what_it_says(text: str, takes: str, leaves: str) -> None:
    versions = Range.parse(text)

    def taken(tag: str) -> bool:
        version = version_of(tag)
        assert version is not None
        return versions.takes(version)

    assert {tag: taken(tag) for tag in takes.split()} == dict.fromkeys(takes.split(), True)
    assert {tag: taken(tag) for tag in leaves.split()} == dict.fromkeys(leaves.split(), False)


@pytest.mark.parametrize(
    "text",
    ["", " ", "||", "^1 ||", "latest", ">=", "1.2.3.4", ">1 <", "=>1", "1.x-rc", ">1<2", "1 " * 51],
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a range of versions"):
        Range.parse(text)


@given(st.tuples(*[st.integers(0, 30)] * 3), st.tuples(*[st.integers(0, 30)] * 3))
def test_caret_is_inside_the_major_and_tilde_inside_the_caret(
    bound: tuple[int, ...], numbers: tuple[int, ...]
) -> None:
    version = Version.of(numbers)
    text = ".".join(map(str, bound))
    caret, tilde = Range.parse(f"^{text}"), Range.parse(f"~{text}")
    least, below = Range.parse(f">={text}"), Range.parse(f"<{text}")
    assert least.takes(version) != below.takes(version)
    if caret.takes(version):
        assert least.takes(version)
        assert numbers[0] == bound[0]
    if tilde.takes(version) and bound[0]:
        assert caret.takes(version)


@given(st.text(max_size=40) | st.from_regex(r"[<>=^~ vx*0-9.|,-]{0,30}", fullmatch=True))
def test_any_text_is_a_range_or_a_usage_error(text: str) -> None:
    try:
        Range.parse(text).takes(Version(1))
    except UsageError:
        return
