"""Which tags are mirrored, and what is said of the others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.property.conftest  # noqa: F401 - how hard properties are tried
from ocimirror.errors import UsageError
from ocimirror.sync.entries import Age, NamedTag, Newest, TagRules
from ocimirror.sync.filters import Selection, parse_regex, select

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)
SIGNATURE = f"sha256-{'a' * 64}.sig"


class Times:
    """Times by tag; remembers which were asked for."""

    def __init__(self, **days_ago: float) -> None:
        self.asked: list[str] = []
        self._times = {tag: NOW - timedelta(days=days) for tag, days in days_ago.items()}

    def __call__(self, tag: str) -> datetime | None:
        self.asked.append(tag)
        return self._times.get(tag)


def selected(
    tags: str, rules: TagRules, created: Times | None = None, first_seen: Times | None = None
) -> Selection:
    return select(
        tags.split(),
        rules,
        now=NOW,
        created=created or Times(),
        first_seen=first_seen or Times(),
    )


def kept(tags: str, rules: TagRules, **times: Times) -> list[str]:
    return list(selected(tags, rules, **times).kept)


def dropped(selection: Selection) -> dict[str, str]:
    return {tag: name for tag, name, _ in selection.dropped}


def test_without_rules_every_image_is_kept_and_no_attachment() -> None:
    selection = selected(f"1.0 latest {SIGNATURE} sha256-{'b' * 64}", TagRules())
    assert selection.kept == ("1.0", "latest")
    assert set(dropped(selection).values()) == {"attachment"}


def test_a_list_keeps_exactly_what_is_in_it() -> None:
    rules = TagRules(explicit=(NamedTag("2"), NamedTag("absent")))
    selection = selected("1 2 3", rules)
    assert selection.kept == ("2",)
    assert dropped(selection) == {"1": "tags", "3": "tags"}


def test_globs_include_then_exclude() -> None:
    rules = TagRules(include=("3.*", "v[12]"), exclude=("*-rc*",))
    selection = selected("3.1 3.2-rc1 v1 v3 2.0", rules)
    assert selection.kept == ("3.1", "v1")
    assert dropped(selection) == {"3.2-rc1": "exclude", "v3": "include", "2.0": "include"}
    assert selection.dropped[1].reason == "matches *-rc*"


def test_globs_tell_small_letters_from_capital_ones() -> None:
    assert kept("V1 v1", TagRules(include=("v*",))) == ["v1"]


def test_a_regular_expression_matches_the_whole_tag() -> None:
    assert kept("v1 v1-rc xv1", TagRules(regex=r"v\d")) == ["v1"]


def test_a_range_of_versions_drops_what_is_no_version_and_says_why() -> None:
    selection = selected("1.2 2.0 latest 1.3.0-alpine", TagRules(semver="^1"))
    assert selection.kept == ("1.2",)
    assert [reason for _, _, reason in selection.dropped] == [
        "not in ^1 (what follows the hyphen makes it a pre-release)",
        "not in ^1",
        "not a version",
    ]


def test_the_first_rule_that_drops_a_tag_is_named() -> None:
    rules = TagRules(
        include=("*1*",), exclude=("x1",), regex="[^y]+", semver=">=0", newest=Newest(1)
    )
    selection = selected(f"1 11 x1 y1 z1 2 {SIGNATURE}1 sha256-{'1' * 64}", rules)
    assert selection.kept == ("11",)
    assert dropped(selection) == {
        "1": "newest",
        "x1": "exclude",
        "y1": "regex",
        "z1": "semver",
        "2": "include",
        f"{SIGNATURE}1": "semver",
        f"sha256-{'1' * 64}": "attachment",
    }


def test_a_quarantine_lets_through_what_was_seen_long_enough_ago() -> None:
    rules = TagRules(min_age=Age(timedelta(days=3), "first_seen"))
    selection = selected("old exact young never", rules, first_seen=Times(old=9, exact=3, young=1))
    assert selection.kept == ("exact", "old")
    assert [reason for _, _, reason in selection.dropped] == [
        "never seen before",
        "first seen 2026-11-23 02:00Z, less than 3d ago",
    ]


def test_without_a_creation_time_an_image_passes_no_age() -> None:
    for rules in (TagRules(min_age=Age(timedelta(0))), TagRules(max_age=Age(timedelta(9)))):
        (drop,) = selected("a", rules).dropped
        assert drop.reason == "its config does not say when it was created"


def test_what_was_never_seen_is_not_too_old() -> None:
    rules = TagRules(max_age=Age(timedelta(days=3), "first_seen"))
    assert kept("old never", rules, first_seen=Times(old=9)) == ["never"]


def test_images_between_two_ages_are_kept() -> None:
    rules = TagRules(min_age=Age(timedelta(days=2)), max_age=Age(timedelta(days=8)))
    assert kept("a b c", rules, created=Times(a=1, b=5, c=9)) == ["b"]


def test_the_newest_by_version_are_no_strings() -> None:
    rules = TagRules(newest=Newest(2))
    assert kept("1.9 1.10 1.2 latest", rules) == ["1.10", "1.9"]


def test_a_pre_release_is_newer_than_the_release_before_and_a_range_leaves_it_out() -> None:
    tags = "1.9 1.10 1.11-rc1"
    assert kept(tags, TagRules(newest=Newest(2))) == ["1.10", "1.11-rc1"]
    assert kept(tags, TagRules(newest=Newest(2), semver="*")) == ["1.10", "1.9"]


def test_of_equal_versions_the_longer_tag_is_kept() -> None:
    assert kept("1.2 1.2.0 v1.2", TagRules(newest=Newest(1))) == ["1.2.0"]


def test_the_newest_by_creation_leave_out_what_has_no_time() -> None:
    rules = TagRules(newest=Newest(2, "created"))
    assert kept("a b c d", rules, created=Times(a=3, b=1, c=2)) == ["b", "c"]


def test_the_creation_time_is_asked_once_and_only_of_what_got_so_far() -> None:
    created = Times(**{"1.1": 1, "1.2": 2, "2.0": 3})
    rules = TagRules(
        semver="^1",
        min_age=Age(timedelta(0)),
        max_age=Age(timedelta(days=9)),
        newest=Newest(1, "created"),
    )
    assert kept("1.1 1.2 2.0 latest", rules, created=created) == ["1.1"]
    assert created.asked == ["1.1", "1.2"]


def test_no_rule_that_needs_it_no_creation_time() -> None:
    created, first_seen = Times(), Times()
    rules = TagRules(include=("*",), semver=">=0", newest=Newest(1))
    kept("1 2", rules, created=created, first_seen=first_seen)
    assert (created.asked, first_seen.asked) == ([], [])


def test_a_registry_that_lists_what_is_no_tag_is_not_believed() -> None:
    selection = select(
        ["../../etc", "1", "a" * 129, ""], TagRules(), now=NOW, created=Times(), first_seen=Times()
    )
    assert selection.kept == ("1",)
    assert {reason for _, _, reason in selection.dropped} == {"not a tag"}


@pytest.mark.parametrize("text", ["(", "x" * 257, "a{1,99999999999}", "(?P<a>", "[[:alpha:]]+"])
def test_what_is_no_regular_expression_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="regular expression"):
        parse_regex(text)


# --- properties ---------------------------------------------------------------------------------

TAGS = st.lists(
    st.from_regex(r"v?[0-9]{1,2}(\.[0-9]{1,2}){0,3}(-(rc[0-9]|alpine))?", fullmatch=True)
    | st.sampled_from(["latest", SIGNATURE, "not a tag", ""])
    | st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,9}", fullmatch=True),
    max_size=30,
)
DAYS = st.integers(0, 20).map(lambda days: timedelta(days=days))
AGES = st.none() | st.builds(Age, DAYS, st.sampled_from(["created", "first_seen"]))
GLOBS = st.lists(st.sampled_from(["*", "1*", "*-rc?", "v[0-9]*", "[!v]*", "latest"]), max_size=2)
RULES = st.builds(
    TagRules,
    explicit=st.just(()) | st.just((NamedTag("latest"), NamedTag("1"))),
    include=GLOBS.map(tuple),
    exclude=GLOBS.map(tuple),
    regex=st.sampled_from(["", ".*", r"v?\d.*"]),
    semver=st.sampled_from(["", "*", "^1 || >=2-0", "<9"]),
    min_age=AGES,
    max_age=AGES,
    newest=st.none() | st.builds(Newest, st.integers(1, 5), st.sampled_from(["semver", "created"])),
)


def time_of(tag: str) -> datetime | None:
    """Return a time that hangs on the tag alone, often the same, sometimes none."""
    days = sum(map(ord, tag)) % 23
    return None if days > 18 else NOW - timedelta(days=days)


def choose(tags: list[str], rules: TagRules) -> Selection:
    return select(tags, rules, now=NOW, created=time_of, first_seen=time_of)


@given(TAGS, RULES)
def test_every_tag_is_kept_or_dropped_and_none_is_both(tags: list[str], rules: TagRules) -> None:
    selection = choose(tags, rules)
    told = [*selection.kept, *(drop.tag for drop in selection.dropped)]
    assert sorted(told) == sorted(set(tags))


@given(st.data(), TAGS, RULES)
def test_the_order_of_the_tags_does_not_matter(
    data: st.DataObject, tags: list[str], rules: TagRules
) -> None:
    assert choose(data.draw(st.permutations(tags)), rules) == choose(tags, rules)


@given(TAGS, RULES)
def test_never_more_than_the_newest_are_kept(tags: list[str], rules: TagRules) -> None:
    if rules.newest and not rules.explicit:
        assert len(choose(tags, rules).kept) <= rules.newest.count


@given(TAGS, RULES)
def test_what_is_kept_is_kept_again(tags: list[str], rules: TagRules) -> None:
    once = choose(tags, rules)
    assert choose(list(once.kept), rules) == Selection(once.kept, ())
