"""Which tags are mirrored, and what is said of the others."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.support.batches import batches
from tests.support.command import ocimirror
from tests.support.configurations import check_all
from tests.support.tagserver import Case, Selected, TagServer, run_tag_server, select_all

NOW = datetime.now(UTC).replace(microsecond=0)
SIGNATURE = f"sha256-{'a' * 64}.sig"
# (Tags of images that say when they were built, by days ago.)
DAYS = {"a": 1, "b": 5, "c": 9, "x": 3, "y": 1, "z": 2, "1.1": 1, "1.2": 2, "2.0": 3}
CASES: dict[str, Case] = {
    "no rules": (["1.0", "latest", SIGNATURE, f"sha256-{'b' * 64}"], {}),
    "globs": (
        ["3.1", "3.2-rc1", "v1", "v3", "2.0"],
        {"include": ["3.*", "v[12]"], "exclude": ["*-rc*"]},
    ),
    "letters": (["V1", "v1"], {"include": ["v*"]}),
    "regex": (["v1", "v1-rc", "xv1"], {"regex": r"v\d"}),
    "semver": (["1.2", "2.0", "latest", "1.3.0-alpine"], {"semver": "^1"}),
    "first": (
        ["1", "11", "x1", "y1", "z1", "2", f"{SIGNATURE}1", f"sha256-{'1' * 64}"],
        {"include": ["*1*"], "exclude": ["x1"], "regex": "[^y]+", "semver": ">=0", "newest": 1},
    ),
    "never seen": (["new"], {"min_age": {"age": "3d", "by": "first_seen"}}),
    "never seen, no age": (["new"], {"min_age": {"age": "0s", "by": "first_seen"}}),
    "never seen, not too old": (["new"], {"max_age": {"age": "3d", "by": "first_seen"}}),
    "undated, min_age": (["undated"], {"min_age": "0s"}),
    "undated, max_age": (["undated"], {"max_age": "9d"}),
    "between": (["a", "b", "c"], {"min_age": "2d", "max_age": "8d"}),
    "newest": (["1.9", "1.10", "1.2", "latest"], {"newest": 2}),
    "newest pre-release": (["1.9", "1.10", "1.11-rc1"], {"newest": 2}),
    "newest release": (["1.9", "1.10", "1.11-rc1"], {"newest": 2, "semver": "*"}),
    "equal": (["1.2", "1.2.0", "v1.2"], {"newest": 1}),
    "newest by creation": (
        ["x", "y", "z", "undated"],
        {"newest": {"count": 2, "by": "created"}},
    ),
    "no tags": (["../../etc", "1", "a" * 129, ""], {}),
}


def built(tag: str) -> datetime | None:
    """Return when the image of a tag was built."""
    return NOW - timedelta(days=DAYS[tag]) if tag in DAYS else None


@pytest.fixture
def server() -> Iterator[TagServer]:
    """A registry that lists what it is told."""
    with run_tag_server(built=built) as server:
        yield server


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Selected]:
    """Return what every case chooses, all in one run."""
    with run_tag_server(built=built) as server:
        told = select_all(server, tmp_path_factory.mktemp("filters"), list(CASES.values()))
    return dict(zip(CASES, told, strict=True))


Chosen = dict[str, Selected]


def test_without_rules_every_image_is_kept_and_no_attachment(selected: Chosen) -> None:
    assert selected["no rules"].kept == ["1.0", "latest"]
    assert set(selected["no rules"].dropped.values()) == {("attachment", "goes with its image")}


def test_a_list_keeps_exactly_what_is_in_it(server: TagServer, tmp_path: Path) -> None:
    """And what is named one by one is not looked up in the list."""
    server.repositories = {"app": ["1", "2", "3"]}
    config = tmp_path / "sync.yaml"
    config.write_text(
        "referrers: false\n"
        f"mirrors: [{{from: {server.host}/app, to: 'oci:x', tags: ['2', gone]}}]\n"
    )
    night = ocimirror("sync", config, "--dry-run", "--json")
    assert {
        image["source"].rpartition(":")[2]: (
            image["status"],
            image["error"] and image["error"]["code"],
        )
        for image in night.document["images"]
    } == {"2": ("planned", None), "gone": ("failed", "not_found")}
    assert night.document["attrition"] == []
    assert server.asked("tags") == []


def test_globs_include_then_exclude(selected: Chosen) -> None:
    assert selected["globs"].kept == ["3.1", "v1"]
    assert selected["globs"].dropped == {
        "3.2-rc1": ("exclude", "matches *-rc*"),
        "v3": ("include", "matches none of the globs"),
        "2.0": ("include", "matches none of the globs"),
    }


def test_globs_tell_small_letters_from_capital_ones(selected: Chosen) -> None:
    assert selected["letters"].kept == ["v1"]


def test_a_regular_expression_matches_the_whole_tag(selected: Chosen) -> None:
    assert selected["regex"].kept == ["v1"]
    assert selected["regex"].reasons == ["does not match"] * 2


def test_a_range_of_versions_drops_what_is_no_version_and_says_why(selected: Chosen) -> None:
    assert selected["semver"].kept == ["1.2"]
    assert selected["semver"].reasons == [
        "not in ^1 (what follows the hyphen makes it a pre-release)",
        "not in ^1",
        "not a version",
    ]


def test_the_first_rule_that_drops_a_tag_is_named(selected: Chosen) -> None:
    assert selected["first"].kept == ["11"]
    assert selected["first"].filters == {
        "1": "newest",
        "x1": "exclude",
        "y1": "regex",
        "z1": "semver",
        "2": "include",
        f"{SIGNATURE}1": "semver",
        f"sha256-{'1' * 64}": "attachment",
    }


def later(state: Path, days: int) -> None:
    """Let as many days go by: all times in the state move back."""
    with closing(sqlite3.connect(state)) as connection, connection:
        seconds = days * 86400
        connection.execute(
            f"UPDATE history SET since = since - {seconds}, until = until - {seconds}"
        )


def test_a_quarantine_lets_through_what_was_seen_long_enough_ago(
    server: TagServer, tmp_path: Path
) -> None:
    config, state = tmp_path / "sync.yaml", tmp_path / "sync.state"
    clock = "{age: 3d, by: first_seen}"
    config.write_text(
        f"mirrors:\n  - {{from: {server.host}/app, to: 'oci:x', tags: {{min_age: {clock}}}}}\n"
        f"  - {{from: {server.host}/app, to: 'oci:y', tags: {{max_age: {clock}}}}}\n"
    )
    server.repositories = {"app": ["old"]}
    assert ocimirror("sync", config, "--no-fsync").code == 0
    later(state, 8)
    server.repositories = {"app": ["old", "young"]}
    assert ocimirror("sync", config, "--no-fsync").code == 0
    later(state, 1)
    server.repositories = {"app": ["old", "young", "never"]}
    night = ocimirror("sync", config, "--dry-run", "--json")
    into = {"x": [], "y": []}
    for image in night.document["images"]:
        tag = image["source"].rpartition(":")[2]
        into[image["destination"].partition(f"{tmp_path}/")[2][:1]].append(tag)
    assert (into["x"], sorted(into["y"])) == (["old"], ["never", "young"])

    with closing(sqlite3.connect(state)) as connection:
        since = dict(connection.execute("SELECT source, since FROM history").fetchall())
    seen = {
        source.rpartition(":")[2]: f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%MZ}"
        for source, time in since.items()
    }
    now = night.document["started"][:16].replace("T", " ") + "Z"
    assert {
        (drop["source"].rpartition(":")[2], drop["filter"], drop["reason"])
        for drop in night.document["attrition"]
    } == {
        ("never", "min_age", f"first seen {now}, less than 3d ago"),
        ("young", "min_age", f"first seen {seen['young']}, less than 3d ago"),
        ("old", "max_age", f"first seen {seen['old']}, more than 3d ago"),
    }


def test_what_was_never_seen_is_seen_now(selected: Chosen) -> None:
    (dropped,) = selected["never seen"].dropped.values()
    assert dropped[0] == "min_age"
    assert re.fullmatch(r"first seen 20\d\d-\d\d-\d\d \d\d:\d\dZ, less than 3d ago", dropped[1])
    assert selected["never seen, no age"].kept == ["new"]
    assert selected["never seen, not too old"].kept == ["new"]


@pytest.mark.parametrize("rule", ["min_age", "max_age"])
def test_without_a_creation_time_an_image_passes_no_age(selected: Chosen, rule: str) -> None:
    assert selected[f"undated, {rule}"].dropped == {
        "undated": (rule, "its config does not say when it was created")
    }


def test_images_between_two_ages_are_kept(selected: Chosen) -> None:
    assert selected["between"].kept == ["b"]
    assert selected["between"].dropped == {
        "a": ("min_age", f"created {NOW - timedelta(days=1):%Y-%m-%d %H:%MZ}, less than 2d ago"),
        "c": ("max_age", f"created {NOW - timedelta(days=9):%Y-%m-%d %H:%MZ}, more than 8d ago"),
    }


def test_the_newest_by_version_are_no_strings(selected: Chosen) -> None:
    assert selected["newest"].kept == ["1.10", "1.9"]
    assert selected["newest"].dropped == {
        "1.2": ("newest", "not among the newest 2"),
        "latest": ("newest", "not a version"),
    }


def test_a_pre_release_is_newer_than_the_release_before_and_a_range_leaves_it_out(
    selected: Chosen,
) -> None:
    assert selected["newest pre-release"].kept == ["1.10", "1.11-rc1"]
    assert selected["newest release"].kept == ["1.10", "1.9"]


def test_of_equal_versions_the_longer_tag_is_kept(selected: Chosen) -> None:
    assert selected["equal"].kept == ["1.2.0"]


def test_the_newest_by_creation_leave_out_what_has_no_time(selected: Chosen) -> None:
    assert selected["newest by creation"].kept == ["y", "z"]
    assert selected["newest by creation"].dropped == {
        "undated": ("newest", "its config does not say when it was created"),
        "x": ("newest", "not among the newest 2"),
    }


def test_the_creation_time_is_asked_once_and_only_of_what_got_so_far(
    server: TagServer, tmp_path: Path
) -> None:
    rules: dict[str, object] = {
        "semver": "^1",
        "min_age": "0s",
        "max_age": "9d",
        "newest": {"count": 1, "by": "created"},
    }
    (found,) = select_all(server, tmp_path, [(["1.1", "1.2", "2.0", "latest"], rules)])
    assert found.kept == ["1.1"]
    configs = [server.config_digest(tag) for tag in ("1.1", "1.2")]
    assert sorted(server.asked("blobs")) == sorted(configs)
    assert {"1.1", "1.2"} == {name for name in server.asked("manifests") if ":" not in name}


def test_no_rule_that_needs_it_no_creation_time(server: TagServer, tmp_path: Path) -> None:
    rules: dict[str, object] = {"include": ["*"], "semver": ">=0", "newest": 1}
    select_all(server, tmp_path, [(["1", "2"], rules)])
    assert server.asked("blobs") == []
    assert {name for name in server.asked("manifests") if ":" not in name} == {"2"}


def test_a_registry_that_lists_what_is_no_tag_is_not_believed(selected: Chosen) -> None:
    assert selected["no tags"].kept == ["1"]
    assert selected["no tags"].dropped == {}


REGEXES = [
    ("(", "not a regular expression: missing ), unterminated subpattern at position 0: '('"),
    ("x" * 257, "a regular expression has 1 to 256 characters"),
    (
        "a{1,99999999999}",
        "not a regular expression: the repetition number is too large: 'a{1,99999999999}'",
    ),
    (
        "(?P<a>",
        "not a regular expression: missing ), unterminated subpattern at position 0: '(?P<a>'",
    ),
    (
        "[[:alpha:]]+",
        "not a regular expression: Possible nested set at position 1: '[[:alpha:]]+'",
    ),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return what is said of each expression that is none, in one run."""
    entry = "mirrors: [{from: a.b/c, to: oci:x, tags: {regex: %s}}]\n"
    texts = [entry % json.dumps(text) for text, _ in REGEXES]
    found = check_all(tmp_path_factory.mktemp("regexes"), texts)
    return {text: one.faults for (text, _), one in zip(REGEXES, found, strict=True)}


@pytest.mark.parametrize(("text", "problem"), REGEXES)
def test_what_is_no_regular_expression_is_a_usage_error(
    told: dict[str, list[str]], text: str, problem: str
) -> None:
    assert told[text] == [f"1:50: {problem}"]


# --- properties ---------------------------------------------------------------------------------

TAGS = st.lists(
    st.from_regex(r"v?[0-9]{1,2}(\.[0-9]{1,2}){0,3}(-(rc[0-9]|alpine))?", fullmatch=True)
    | st.sampled_from(["latest", SIGNATURE, "not a tag", ""])
    | st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,9}", fullmatch=True),
    max_size=30,
).flatmap(lambda tags: st.tuples(st.just(tags), st.permutations(tags)))
SPANS = st.integers(0, 20)
CLOCK = st.sampled_from(["created", "first_seen"])
AGES = st.builds(lambda days, clock: {"age": f"{days}d", "by": clock}, SPANS, CLOCK)
GLOBS = st.lists(
    st.sampled_from(["*", "1*", "*-rc?", "v[0-9]*", "[!v]*", "latest"]), min_size=1, max_size=2
)


def possible(rules: dict[str, Any]) -> bool:
    """Say whether an image may be older than the one age and younger than the other."""
    least, most = rules.get("min_age"), rules.get("max_age")
    if not least or not most or least["by"] != most["by"]:
        return True
    return int(least["age"][:-1]) <= int(most["age"][:-1])


RULES = st.fixed_dictionaries(
    {},
    optional={
        "include": GLOBS,
        "exclude": GLOBS,
        "regex": st.sampled_from([".*", r"v?\d.*"]),
        "semver": st.sampled_from(["*", "^1 || >=2-0", "<9"]),
        "min_age": AGES,
        "max_age": AGES,
        "newest": st.builds(
            lambda count, order: {"count": count, "by": order},
            st.integers(1, 5),
            st.sampled_from(["semver", "created"]),
        ),
    },
).filter(possible)


def time_of(tag: str) -> datetime | None:
    """Return a time that hangs on the tag alone, often the same, sometimes none."""
    days = sum(map(ord, tag)) % 23
    return None if days > 18 else NOW - timedelta(days=days)


def remember(server: TagServer, state: Path, cases: list[Case]) -> None:
    """Let a state have seen the tags of cases before."""
    with closing(sqlite3.connect(state)) as connection, connection:
        connection.execute("DELETE FROM history")
        for number, (tags, _) in enumerate(cases):
            for tag in tags:
                if seen := time_of(tag):
                    source = f"docker://{server.host}/case-{number:03}:{tag}"
                    row = source, server.digest(tag), seen.timestamp(), seen.timestamp()
                    statement = (
                        "INSERT INTO history (source, digest, since, until) VALUES (?, ?, ?, ?)"
                    )
                    connection.execute(statement, row)


@batches(st.tuples(TAGS, RULES), size=20)
def test_a_choice_loses_no_tag_and_does_not_hang_on_their_order(
    server: TagServer, tmp_path: Path, drawn: list[tuple[Any, dict[str, Any]]]
) -> None:
    """Every tag is kept or dropped, `newest` is kept to, and what is kept is kept again."""
    server.built = time_of
    (tmp_path / "sync.yaml").write_text(f"mirrors: [{{from: {server.host}/none, to: oci:x}}]\n")
    ocimirror("sync", tmp_path / "sync.yaml", "--quiet")  # (which makes the state)
    cases = [(tags, rules) for both, rules in drawn for tags in both]
    remember(server, tmp_path / "sync.state", cases)
    told = select_all(server, tmp_path, cases)
    for (tags, rules), one, other in zip(cases[::2], told[::2], told[1::2], strict=True):
        names = {tag for tag in tags if re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII)}
        assert one[:2] == other[:2], (tags, rules)
        assert sorted([*one.kept, *one.dropped]) == sorted(names), (tags, rules)
        assert len(one.kept) <= rules.get("newest", {"count": 99})["count"], (tags, rules)
    again = [(one.kept, rules) for (_, rules), one in zip(cases[::2], told[::2], strict=True)]
    remember(server, tmp_path / "sync.state", again)
    for (kept, rules), found in zip(again, select_all(server, tmp_path, again), strict=True):
        assert (found.kept, found.dropped) == (kept, {}), (kept, rules)
