"""What a configuration file says, and what is said about it where it is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from ocimirror.errors import InvalidConfiguration, UsageError
from ocimirror.model.platform import Platform
from ocimirror.sync.config import (
    Age,
    Config,
    NamedTag,
    Newest,
    Prune,
    RegistrySettings,
    TagRules,
    load,
)

DIGEST = "sha256:" + "a" * 64
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file and return its path."""

    def write_file(text: str, name: str = "nightly.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def read(write: Write) -> Callable[..., Config]:
    """Write a file and load it."""
    return lambda text, **environment: load(write(text), environment)


@pytest.fixture
def faults(write: Write) -> Callable[..., list[str]]:
    """Write a file that is wrong; return `LINE:COLUMN: PROBLEM (HINT)` of each fault."""

    def faults_of(text: str, **environment: str) -> list[str]:
        path = write(text)
        with pytest.raises(InvalidConfiguration) as raised:
            load(path, environment)
        assert raised.value.exit_code == 2
        return [str(finding).removeprefix(f"{path}:") for finding in raised.value.findings]

    return faults_of


Read = Callable[..., Config]
Faults = Callable[..., list[str]]

ENTRY = "mirrors:\n  - from: quay.io/org/app\n    to: mirror.local/org/app\n"


def tags_of(config: Config) -> TagRules:
    return config.mirrors[0].tags


# --- what it says -------------------------------------------------------------------------------


def test_three_lines_are_a_configuration(read: Read, tmp_path: Path) -> None:
    config = read(
        "mirrors:\n  - from: docker.io/library/alpine\n    to: registry.local:5000/library/alpine\n"
    )
    (mirror,) = config.mirrors
    assert str(mirror.source) == "docker.io/library/alpine"
    assert [str(target) for target in mirror.targets] == ["registry.local:5000/library/alpine"]
    assert (mirror.tags, mirror.platforms, mirror.sparse) == (TagRules(), (), "fail")
    assert (mirror.referrers, mirror.priority, mirror.prune) == (True, 0, None)
    assert mirror.where == f"{tmp_path}/nightly.yaml:2"
    assert config.files == (f"{tmp_path}/nightly.yaml",)


def test_every_word_is_read(read: Read, tmp_path: Path) -> None:
    config = read(
        """
        registries:
          index.docker.io:
            max_concurrency: 2
            requests_per_second: 1.5
            mirrors: [cache.local:5000, cache.local/hub]
            auth: {file: secrets/auth.json}
          mirror.local:
            plain_http: true
            ca_file: /etc/ca.pem
            auth: {username: robot, password: "${PASSWORD}"}
        mirrors:
          - from: quay.io/org/*
            to: ["mirror.local/{repository}", "oci:/srv/{registry}/{repository}"]
            tags:
              include: ["v*"]
              exclude: ["*-rc*"]
              regex: 'v\\d+\\.\\d+'
              semver: ">=1.2 <2 || ^3"
              min_age: {age: 3d, by: first_seen}
              max_age: 52w
              newest: {count: 5, by: created}
            platforms: [linux/amd64, linux/arm/v7]
            sparse: full
            referrers: false
            priority: -5
            prune: {max_delete: 3, grace: 12h}
        """,
        PASSWORD="s3cret",
    )
    (mirror,) = config.mirrors
    assert str(mirror.source) == "quay.io/org/*"
    assert mirror.tags == TagRules(
        include=("v*",),
        exclude=("*-rc*",),
        regex=r"v\d+\.\d+",
        semver=">=1.2 <2 || ^3",
        min_age=Age(timedelta(days=3), "first_seen"),
        max_age=Age(timedelta(weeks=52)),
        newest=Newest(5, "created"),
    )
    assert mirror.platforms == (Platform("linux", "amd64"), Platform("linux", "arm", "v7"))
    assert (mirror.sparse, mirror.referrers, mirror.priority) == ("full", False, -5)
    assert mirror.prune == Prune(3, timedelta(hours=12))
    assert config.registries == {
        "docker.io": RegistrySettings(
            max_concurrency=2,
            requests_per_second=1.5,
            mirrors=("cache.local:5000", "cache.local/hub"),
            auth_file=tmp_path / "secrets/auth.json",
        ),
        "mirror.local": RegistrySettings(
            plain_http=True, ca_file=Path("/etc/ca.pem"), username="robot", password="s3cret"
        ),
    }
    assert "s3cret" not in repr(config)


def test_a_list_of_tags_is_exactly_these(read: Read) -> None:
    config = read(ENTRY + f'    tags: ["1.10", latest, "3.19@{DIGEST}"]\n')
    tags = tags_of(config).explicit
    assert [(tag.tag, str(tag.digest or "")) for tag in tags] == [
        ("1.10", ""),
        ("latest", ""),
        ("3.19", DIGEST),
    ]


def test_an_image_may_get_another_tag_and_a_repository_another_place_in_its_registry(
    read: Read,
) -> None:
    config = read(
        "mirrors:\n"
        "  - {from: 'a.b/c:1.2', to: 'a.b/c:stable'}\n"
        "  - {from: 'a.b/c/*', to: 'a.b/mirror/{repository}'}\n"
        "  - {from: 'a.b/c', to: 'a.b/mirror/c'}\n"
        "  - {from: 'a.b/*', to: 'x.y:5000/{repository}'}\n"
    )
    assert len(config.mirrors) == 4


def test_a_source_with_a_tag_is_one_image_whatever_the_defaults_say(read: Read) -> None:
    config = read(
        "tags: {newest: 3}\n"
        "to: mirror.local/{registry}/{repository}\n"
        "mirrors:\n"
        "  - from: alpine:3.19\n"
        f"  - from: quay.io/org/app@{DIGEST}\n"
    )
    assert config.mirrors[0].tags == TagRules(explicit=(NamedTag("3.19"),))
    assert str(config.mirrors[1].tags.explicit[0].digest) == DIGEST
    assert config.mirrors[1].tags.explicit[0].tag == ""


def test_what_is_at_the_top_level_holds_for_entries_that_do_not_say_otherwise(read: Read) -> None:
    config = read(
        "to: oci:/srv/{repository}\n"
        "tags: {include: ['1.*'], newest: 9}\n"
        "platforms: [linux/amd64]\n"
        "prune: true\n"
        "referrers: false\n"
        "mirrors:\n"
        "  - from: quay.io/a/b\n"
        "  - from: quay.io/a/c\n"
        "    to: mirror.local/c\n"
        "    tags: {newest: 1}\n"
        "    platforms: all\n"
        "    prune: false\n"
        "    referrers: true\n"
    )
    first, second = config.mirrors
    assert (first.tags.newest, first.platforms) == (Newest(9), (Platform("linux", "amd64"),))
    assert (first.prune, first.referrers) == (Prune(), False)
    assert str(first.targets[0]) == "oci:/srv/{repository}"
    assert (second.tags, second.platforms) == (TagRules(newest=Newest(1)), ())
    assert (second.prune, second.referrers) == (None, True)
    assert str(second.targets[0]) == "mirror.local/c"


# --- the environment ----------------------------------------------------------------------------


def test_values_come_from_the_environment(read: Read) -> None:
    config = read(
        "mirrors:\n"
        "  - from: ${UPSTREAM}/org/app\n"
        "    to: ${MIRROR:-mirror.local}/${NAME:-app}\n"
        "    tags: {newest: '${COUNT}', regex: 'v[0-9]+$', include: ['$$x']}\n"
        "    referrers: ${REFERRERS:-false}\n",
        UPSTREAM="quay.io",
        COUNT="7",
        NAME="",
    )
    (mirror,) = config.mirrors
    assert str(mirror.source) == "quay.io/org/app"
    assert str(mirror.targets[0]) == "mirror.local/app"
    assert mirror.tags == TagRules(newest=Newest(7), regex="v[0-9]+$", include=("$x",))
    assert mirror.referrers is False


def test_what_a_variable_holds_is_not_read_as_yaml_or_as_another_variable(read: Read) -> None:
    config = read(
        ENTRY + "    tags: ['${A}', '${B}']\n"
        "registries:\n  h.x: {auth: {username: a, password: '${P}'}}\n",
        A="1.10",
        B="no",
        P="${A}: [*",
    )
    assert [tag.tag for tag in tags_of(config).explicit] == ["1.10", "no"]
    assert config.registries["h.x"].password == "${A}: [*"


def test_an_unset_variable_is_an_error(faults: Faults) -> None:
    assert faults("mirrors:\n  - from: ${HOST}/a\n    to: ${\n") == [
        "2:11: ${HOST} is not set (Set it, or write ${HOST:-default}.)",
        "3:9: ${ without NAME} or NAME:-default} (A dollar is written $$.)",
    ]


def test_a_secret_is_not_shown_where_it_is_wrong(faults: Faults) -> None:
    found = faults(ENTRY + "    priority: ${SECRET}\n    sparse: ${SECRET}\n", SECRET="hunter2")
    assert len(found) == 2
    assert "hunter2" not in str(found)
    host = ENTRY + "registries: {a.b: {auth: {username: x, password: 271828}}}\n"
    (password,) = faults(host)
    assert "271828" not in password
    for wrong in ("{username: x, password: *hunter2}", "{username: x, password: &hunter2 }"):
        assert "hunter2" not in str(faults(host.replace("{username: x, password: 271828}", wrong)))
    assert "hunter2" not in str(faults(host.replace("{username: x, password: 271828}", "hunter2")))


# --- what is wrong ------------------------------------------------------------------------------


def test_all_faults_are_told_at_once(faults: Faults) -> None:
    assert faults(
        "mirrors:\n"
        "  - form: quay.io/org/app\n"
        "    to: mirror.local/app\n"
        "  - from: quay.io/org/app\n"
        "    to: mirror.local/app\n"
        "    tags: [1.10, 3]\n"
        "    referrers: yes\n"
        "    priority: high\n"
        "  - from: quay.io/org/other\n"
    ) == [
        "2:5: 'form' is no key of an entry of mirrors (Did you mean 'from'?)",
        "2:5: an entry of mirrors has no 'from'",
        '6:12: 1.10 without quotes is a number, and a tag is wanted (Write "1.10".)',
        '6:18: 3 without quotes is a number, and a tag is wanted (Write "3".)',
        "7:16: yes is true or false to some readers of YAML, and text to others (Write true.)",
        "8:15: a whole number from -1000 to 1000 is wanted, not text (high)",
        "9:5: quay.io/org/other goes nowhere: there is no 'to'"
        " (Give it a `to`, or write one at the top level.)",
    ]


def test_the_message_lists_twenty_faults_and_says_how_many_more(write: Write) -> None:
    path = write("mirrors:\n" + "  - from: UPPER\n    to: mirror.local/x\n" * 25)
    with pytest.raises(UsageError) as raised:
        load(path, {})
    lines = raised.value.diagnostics().splitlines()
    assert lines[0] == f"{path}: 25 faults"
    assert len(lines) == 22
    assert lines[-1].strip() == "and 5 more"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1:1: the file is empty"),
        ("- a\n", "1:1: a configuration is wanted, not a list"),
        ("mirrors: []\n", "1:10: a list has 1 to 100000 items (Leave the key out instead.)"),
        ("mirrors:\n", "1:9: a list, each an entry of mirrors is wanted, not nothing"),
        (ENTRY + "    to: x.y/z\n", "4:5: 'to' is here twice, first in line 3"),
        (ENTRY + "    tags: {include: [*-alpine]}\n", "4:22: this is an alias"),
        (ENTRY + "    tags: &t {newest: 1}\n", "4:11: this is an anchor"),
        (ENTRY + "    tags: !!set {newest: 1}\n", "4:11: the tag tag:yaml.org,2002:set is not"),
        (ENTRY + "    ? [a]\n    : b\n", "4:7: a key must be one word"),
        (ENTRY + "\tx: y\n", "4:1: not YAML: "),
        (ENTRY + "---\na: b\n", "4:1: a second document"),
        (ENTRY + "    to2: {registry}/x\n", "{, [, %, @ or ` is written in quotes"),
        (ENTRY + "include: *.yaml\n", "A text that begins with *"),
        (ENTRY + "    tags: {include: [*]}\n", "A text that begins with *"),
        (ENTRY + '    tags: {regex: "v\\d+"}\n', "In double quotes a backslash is written twice"),
        (ENTRY + "    priority: 1\n   sparse: full\n", "not YAML: "),
        (ENTRY + "    tags: {newest: '5'}\n", "4:20: a whole number from 1 to 100000 is wanted"),
        (ENTRY + "    tags: {newest: 0}\n", "4:20: a whole number from 1 to 100000 is wanted"),
        (ENTRY + "    tags: {newest: 1.5}\n", "is wanted, not a number (1.5)"),
        (ENTRY + "    tags: {newest: 010}\n", "is wanted, not a number (010)"),
        (ENTRY + "    tags: {min_age: 3}\n", "3 without quotes is a number, and a time span"),
        (ENTRY + "    tags: {newest: ${N}}\n", "a text with braces is written in quotes."),
        (ENTRY + "    tags: {min_age: soon}\n", "'soon' is no time span (Write 90s, 15m"),
        (ENTRY + "    tags: {min_age: 9d, max_age: 7d}\n", "no image is older than min_age"),
        (ENTRY + "    tags: {newest: {by: created}}\n", "newest has no 'count'"),
        (ENTRY + "    tags: {newest: {count: 1, by: date}}\n", "semver or created is wanted"),
        (ENTRY + "    tags: ['a b']\n", "not a tag: 'a b'"),
        (ENTRY + "    tags: [a, b, a@" + DIGEST + "]\n", "4:11: a is in the list twice"),
        (ENTRY + "    tags: {regex: '[[:alpha:]]'}\n", "not a regular expression: Possible nested"),
        (ENTRY + "    ? " + "k" * 2000 + "\n    : 1\n", "a key of more than 1024 characters"),
        (ENTRY + "    tags: [on]\n", "on without quotes is true or false, and a tag is wanted"),
        (ENTRY + "    sparse: ful\n", "fail, full or child is wanted, not ful (Did you mean"),
        (ENTRY + "    platforms: [linux]\n", "not a platform: 'linux'"),
        (ENTRY + "    referrers: 'true'\n", "true or false is wanted, not text (true)"),
        (ENTRY + "    trust: {}\n", "4:5: 'trust' is no key of an entry of mirrors"),
        (ENTRY + "defaults: {}\n", "Write the defaults at the top level itself"),
        (ENTRY + "registries: {a.b: {insecure: true}}\n", "There is plain_http"),
        (ENTRY + "registries: {a.b: {auth: {username: x}}}\n", "auth is a file, or username"),
        (ENTRY + "registries: {'a/b': {}}\n", "not a registry host: 'a/b'"),
        (
            ENTRY + "registries: {docker.io: {}, index.docker.io: {}}\n",
            "docker.io is here twice, under several names",
        ),
        ("mirrors: [{from: 'a.b/*/c', to: c.d/e}]", "not a source: 'a.b/*/c'"),
        ("mirrors: [{from: 'a.b/*', to: c.d/e}]", "all repositories of a.b/* would go to c.d/e"),
        ("mirrors: [{from: a.b/c, to: 'c.d/e:f'}]", "all tags of a.b/c would become one"),
        ("mirrors: [{from: a.b/c, to: a.b/c}]", "a.b/c is its own destination"),
        ("mirrors: [{from: alpine, to: 'docker.io/{repository}'}]", "is its own destination"),
        ("mirrors: [{from: 'a.b/*', to: 'a.b/{repository}'}]", "is read again as a.b/*"),
        ("mirrors: [{from: 'a.b/*', to: 'a.b/mirror/{repository}'}]", "is read again as a.b/*"),
        ("mirrors: [{from: 'a.b/c/*', to: 'a.b/{repository}:{tag}-x'}]", "is read again as"),
        ("mirrors: [{from: 'a.b/c/*', to: 'a.b/{repository}/m'}]", "is read again as a.b/c/*"),
        ("mirrors: [{from: 'a.b/c:1', to: 'a.b/c:1'}]", "a.b/c:1 is its own destination"),
        ("mirrors: [{from: a.b/c, to: [c.d/e, c.d/e]}]", "c.d/e is there twice"),
        ("mirrors: [{from: a.b/c, to: [docker.io/d/e, index.docker.io/d/e]}]", "is there twice"),
        ("mirrors: [{from: a.b/c, to: mirror/app}]", "no registry in 'mirror/app'"),
        ("mirrors: [{from: a.b/c, to: 'oci:/srv/x:y'}]", "a path with a colon"),
        ("mirrors: [{from: a.b/c, to: 'docker-archive:x'}]", "not a destination of a sync"),
        ("mirrors: [{from: a.b/c, to: 'c.d/{repo}'}]", "{repo} in 'c.d/{repo}'"),
        ("mirrors: [{from: 'a.b/c:1', to: c.d/e, tags: [x]}]", "a.b/c:1 is one image"),
        ("platforms: all\n", "mirrors nothing"),
        ('include: "a\\0b"\n', "1:10: a path has no zero byte"),
    ],
)
def test_a_fault_is_named_with_its_place(faults: Faults, text: str, fault: str) -> None:
    (found,) = faults(text)
    assert fault in found


def test_nothing_from_a_file_reaches_the_terminal_raw(write: Write) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        load(write('"\\e[31mred\\u202e": 1\n'), {})
    assert raised.value.diagnostics().isprintable() or "\x1b" not in raised.value.diagnostics()
    assert "\u202e" not in raised.value.diagnostics()


def test_a_file_of_many_nested_lists_is_refused_in_time(faults: Faults) -> None:
    (found,) = faults("[" * 500)
    assert "nested deeper than 16" in found


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml does not exist"):
        load(tmp_path / "absent.yaml", {})


def test_a_file_that_is_too_large_or_not_utf_8_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(UsageError, match="larger than 4194304 bytes"):
        load(path, {})
    path.write_bytes(b"mirrors: \xff")
    with pytest.raises(UsageError, match="not UTF-8 at byte 9"):
        load(path, {})


# --- include ------------------------------------------------------------------------------------


def test_included_files_come_first_and_are_found_beside_the_file(read: Read, write: Write) -> None:
    write(ENTRY + "registries: {quay.io: {max_concurrency: 1}}\n", "teams/a.yaml")
    config = read(
        "include: [teams/a.yaml]\nplatforms: [linux/amd64]\n"
        "mirrors: [{from: a.b/c, to: oci:layouts/c}]\n"
    )
    assert [mirror.source.registry for mirror in config.mirrors] == ["quay.io", "a.b"]
    assert [len(mirror.platforms) for mirror in config.mirrors] == [1, 1]
    assert config.registries["quay.io"].max_concurrency == 1
    directory = Path(config.files[0]).parent
    assert config.files[1] == str(directory / "teams/a.yaml")
    assert config.mirrors[0].where.endswith("teams/a.yaml:2")
    location = config.mirrors[1].targets[0].resolve("a.b", "c", "1")
    assert str(location) == f"oci:{directory}/layouts/c:a.b/c:1"


def test_defaults_of_an_included_file_stay_there(read: Read, write: Write) -> None:
    write("priority: 7\n" + ENTRY, "a.yaml")
    config = read("include: a.yaml\nmirrors: [{from: a.b/c, to: c.d/e}]\n")
    assert [mirror.priority for mirror in config.mirrors] == [7, 0]


def test_files_that_include_each_other_are_refused(faults: Faults, write: Write) -> None:
    write("include: nightly.yaml\n", "b.yaml")
    (found,) = faults("include: b.yaml\n" + ENTRY)
    assert "nightly.yaml is included twice, or includes itself" in found


def test_includes_are_followed_only_so_deep(faults: Faults, write: Write) -> None:
    for number in range(12):
        write(f"include: {number + 1}.yaml\n", f"{number}.yaml")
    (found,) = faults("include: 0.yaml\n" + ENTRY)
    assert "more than 8 levels" in found


def test_an_included_file_that_is_not_there_is_named_where_it_is_included(faults: Faults) -> None:
    (found,) = faults(ENTRY + "include: [x.yaml]\n")
    assert re.match(r"4:10: .*x\.yaml does not exist", found)


def test_faults_of_all_files_are_told_together(faults: Faults, write: Write) -> None:
    write("mirrors: [{from: A, to: b.c/d}]\n", "a.yaml")
    found = faults("include: a.yaml\nmirrors: [{from: B, to: b.c/d}]\n")
    assert len(found) == 2


def test_a_file_from_windows_is_read(read: Read) -> None:
    assert len(read("\ufeff" + ENTRY.replace("\n", "\r\n")).mirrors) == 1
