"""What a configuration file says, and what is said about it where it is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import configurations
from tests.support.command import environment, ocimirror
from tests.support.faults import Respond
from tests.support.proxy import Canary

DIGEST = "sha256:" + "a" * 64
NO_RULES = {
    "explicit": [],
    "include": [],
    "exclude": [],
    "regex": None,
    "semver": None,
    "min_age": None,
    "max_age": None,
    "newest": None,
}
NO_SETTINGS = {
    "plain_http": False,
    "ca_file": None,
    "mirrors": [],
    "max_concurrency": None,
    "requests_per_second": None,
    "auth_file": None,
    "username": None,
}
Write = Callable[..., Path]
Read = Callable[..., Any]
Faults = Callable[..., list[str]]


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
def read(write: Write) -> Read:
    """Write a file that is right; return what `config check` says of it."""

    def document_of(text: str, **variables: str) -> Any:
        document, faults = configurations.check(write(text), **variables)
        assert faults == []
        return document

    return document_of


@pytest.fixture
def faults(write: Write) -> Faults:
    """Write a file that is wrong; return `LINE:COLUMN: PROBLEM (HINT)` of each fault."""
    return lambda text, **variables: configurations.check(write(text), **variables)[1]


ENTRY = "mirrors:\n  - from: quay.io/org/app\n    to: mirror.local/org/app\n"


# --- what it says -------------------------------------------------------------------------------


def test_three_lines_are_a_configuration(read: Read, tmp_path: Path) -> None:
    document = read(
        "mirrors:\n  - from: docker.io/library/alpine\n    to: registry.local:5000/library/alpine\n"
    )
    assert document == {
        "schema": "ocimirror.config/v1",
        "exit_code": 0,
        "action": "check",
        "files": [f"{tmp_path}/nightly.yaml"],
        "mirrors": [
            {
                "where": f"{tmp_path}/nightly.yaml:2",
                "from": "docker.io/library/alpine",
                "to": ["registry.local:5000/library/alpine"],
                "tags": NO_RULES,
                "platforms": [],
                "sparse": "fail",
                "referrers": True,
                "priority": 0,
                "prune": None,
            }
        ],
        "registries": {},
    }


def test_every_word_is_read(read: Read, tmp_path: Path) -> None:
    document = read(
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
    assert document["mirrors"] == [
        {
            "where": f"{tmp_path}/nightly.yaml:13",
            "from": "quay.io/org/*",
            "to": ["mirror.local/{repository}", "oci:/srv/{registry}/{repository}"],
            "tags": {
                "explicit": [],
                "include": ["v*"],
                "exclude": ["*-rc*"],
                "regex": r"v\d+\.\d+",
                "semver": ">=1.2 <2 || ^3",
                "min_age": {"age": timedelta(days=3).total_seconds(), "by": "first_seen"},
                "max_age": {"age": timedelta(weeks=52).total_seconds(), "by": "created"},
                "newest": {"count": 5, "by": "created"},
            },
            "platforms": ["linux/amd64", "linux/arm/v7"],
            "sparse": "full",
            "referrers": False,
            "priority": -5,
            "prune": {"max_delete": 3, "grace": timedelta(hours=12).total_seconds()},
        }
    ]
    assert document["registries"] == {
        "docker.io": {
            **NO_SETTINGS,
            "max_concurrency": 2,
            "requests_per_second": 1.5,
            "mirrors": ["cache.local:5000", "cache.local/hub"],
            "auth_file": f"{tmp_path}/secrets/auth.json",
        },
        "mirror.local": {
            **NO_SETTINGS,
            "plain_http": True,
            "ca_file": "/etc/ca.pem",
            "username": "robot",
        },
    }
    assert "s3cret" not in str(document)


def test_a_list_of_tags_is_exactly_these(read: Read) -> None:
    (mirror,) = read(ENTRY + f'    tags: ["1.10", latest, "3.19@{DIGEST}"]\n')["mirrors"]
    assert mirror["tags"] == {
        **NO_RULES,
        "explicit": [
            {"tag": "1.10", "digest": None},
            {"tag": "latest", "digest": None},
            {"tag": "3.19", "digest": DIGEST},
        ],
    }


def test_an_image_may_get_another_tag_and_a_repository_another_place_in_its_registry(
    read: Read,
) -> None:
    document = read(
        "mirrors:\n"
        "  - {from: 'a.b/c:1.2', to: 'a.b/c:stable'}\n"
        "  - {from: 'a.b/c/*', to: 'a.b/mirror/{repository}'}\n"
        "  - {from: 'a.b/c', to: 'a.b/mirror/c'}\n"
        "  - {from: 'a.b/*', to: 'x.y:5000/{repository}'}\n"
    )
    assert [(mirror["from"], *mirror["to"]) for mirror in document["mirrors"]] == [
        ("a.b/c:1.2", "a.b/c:stable"),
        ("a.b/c/*", "a.b/mirror/{repository}"),
        ("a.b/c", "a.b/mirror/c"),
        ("a.b/*", "x.y:5000/{repository}"),
    ]


def test_a_source_with_a_tag_is_one_image_whatever_the_defaults_say(read: Read) -> None:
    first, second = read(
        "tags: {newest: 3}\n"
        "to: mirror.local/{registry}/{repository}\n"
        "mirrors:\n"
        "  - from: alpine:3.19\n"
        f"  - from: quay.io/org/app@{DIGEST}\n"
    )["mirrors"]
    assert first["tags"] == {**NO_RULES, "explicit": [{"tag": "3.19", "digest": None}]}
    assert second["tags"] == {**NO_RULES, "explicit": [{"tag": None, "digest": DIGEST}]}


def test_what_is_at_the_top_level_holds_for_entries_that_do_not_say_otherwise(read: Read) -> None:
    first, second = read(
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
    )["mirrors"]
    newest = {"count": 9, "by": "semver"}
    assert first["tags"] == {**NO_RULES, "include": ["1.*"], "newest": newest}
    assert (first["platforms"], first["referrers"]) == (["linux/amd64"], False)
    assert first["prune"] == {"max_delete": 10, "grace": timedelta(days=7).total_seconds()}
    assert first["to"] == ["oci:/srv/{repository}"]
    assert second["tags"] == {**NO_RULES, "newest": {"count": 1, "by": "semver"}}
    assert (second["platforms"], second["prune"], second["referrers"]) == ([], None, True)
    assert second["to"] == ["mirror.local/c"]


# --- the environment ----------------------------------------------------------------------------


def test_values_come_from_the_environment(read: Read) -> None:
    (mirror,) = read(
        "mirrors:\n"
        "  - from: ${UPSTREAM}/org/app\n"
        "    to: ${MIRROR:-mirror.local}/${NAME:-app}\n"
        "    tags: {newest: '${COUNT}', regex: 'v[0-9]+$', include: ['$$x']}\n"
        "    referrers: ${REFERRERS:-false}\n",
        UPSTREAM="quay.io",
        COUNT="7",
        NAME="",
    )["mirrors"]
    assert (mirror["from"], mirror["to"]) == ("quay.io/org/app", ["mirror.local/app"])
    assert mirror["tags"] == {
        **NO_RULES,
        "newest": {"count": 7, "by": "semver"},
        "regex": "v[0-9]+$",
        "include": ["$x"],
    }
    assert mirror["referrers"] is False


def test_what_a_variable_holds_is_not_read_as_yaml_or_as_another_variable(
    write: Write, canary: Callable[..., Canary]
) -> None:
    registry = canary(Respond(401, {"WWW-Authenticate": 'Basic realm="x"'}))
    path = write(
        f"mirrors: [{{from: {registry.host}/app, to: 'oci:x', tags: ['${{A}}', '${{B}}']}}]\n"
        f"registries: {{'{registry.host}': {{auth: {{username: a, password: '${{P}}'}}}}}}\n"
    )
    variables = environment(A="1.10", B="no", P="${A}: [*")
    night = ocimirror("sync", path, "--dry-run", "--json", env=variables)
    tags = {image["source"].rpartition(":")[2] for image in night.document["images"]}
    assert tags == {"1.10", "no"}
    assert registry.saw("a:${A}: [*")
    assert "[*" not in night.stdout + night.stderr


def test_an_unset_variable_is_an_error(faults: Faults) -> None:
    assert faults("mirrors:\n  - from: ${HOST}/a\n    to: ${\n") == [
        "2:11: ${HOST} is not set (Set it, or write ${HOST:-default}.)",
        "3:9: ${ without NAME} or NAME:-default} (A dollar is written $$.)",
    ]


def test_a_secret_is_not_shown_where_it_is_wrong(tmp_path: Path) -> None:
    host = ENTRY + "registries: {a.b: {auth: {username: x, password: SECRET}}}\n"
    checked = configurations.check_all(
        tmp_path,
        [
            ENTRY + "    priority: ${HIDDEN}\n    sparse: ${HIDDEN}\n",
            host.replace("SECRET", "271828"),
            host.replace("SECRET", "*hunter2"),
            host.replace("SECRET", "&hunter2 "),
            host.replace("{username: x, password: SECRET}", "hunter2"),
        ],
        HIDDEN="hunter2",
    )
    assert [found.faults for found in checked] == [
        [
            "4:15: a whole number from -1000 to 1000 is wanted, not text"
            " (what is in the environment)",
            "5:13: fail, full or child is wanted, not what is in the environment"
            " (There are: fail, full, child.)",
        ],
        [
            "4:50: this without quotes is a number, and a password is wanted (Write it in quotes.)",
        ],
        [
            "4:50: this is an alias, and none are read"
            " (A text that begins with * is written in quotes.)",
        ],
        [
            "4:50: a password is wanted, not nothing (Leave the key out, or give it a value.)",
            "4:50: this is an anchor, and none are read (What entries share can stand once at the"
            " top level; a text that begins with & is written in quotes.)",
        ],
        ["4:26: auth is wanted, not text"],
    ]


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
    told = ocimirror("config", "check", path)
    lines = told.stderr.splitlines()
    fault = (
        "11: not an image reference: 'UPPER' (A reference is"
        " [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST], in lower case.)"
    )
    assert told.code == 2
    assert lines == [
        f"error: {path}: 25 faults",
        *(f"  {path}:{2 * number}:{fault}" for number in range(1, 21)),
        "  and 5 more",
    ]


FAULTS = [
    ("", "1:1: the file is empty"),
    ("- a\n", "1:1: a configuration is wanted, not a list"),
    ("mirrors: []\n", "1:10: a list has 1 to 100000 items (Leave the key out instead.)"),
    (
        "mirrors:\n",
        "1:9: a list, each an entry of mirrors is wanted, not nothing (Leave the key out, or give"
        " it a value.)",
    ),
    (ENTRY + "    to: x.y/z\n", "4:5: 'to' is here twice, first in line 3"),
    (
        ENTRY + "    tags: {include: [*-alpine]}\n",
        "4:22: this is an alias, and none are read (A text that begins with * is written in"
        " quotes.)",
    ),
    (
        ENTRY + "    tags: &t {newest: 1}\n",
        "4:11: this is an anchor, and none are read (What entries share can stand once at the top"
        " level; a text that begins with & is written in quotes.)",
    ),
    (
        ENTRY + "    tags: !!set {newest: 1}\n",
        "4:11: the tag tag:yaml.org,2002:set is not read (Leave it out.)",
    ),
    (
        ENTRY + "    ? [a]\n    : b\n",
        "4:7: a key must be one word (A text that begins with { or [ is written in quotes.)",
    ),
    (ENTRY + "\tx: y\n", "4:1: not YAML: (Indent with spaces.)"),
    (ENTRY + "---\na: b\n", "4:1: a second document (One file is one document: no `---`.)"),
    (
        ENTRY + "    to2: {registry}/x\n",
        "4:20: not YAML: (A text that begins with *, &, !, {, [, %, @ or ` is written in quotes.)",
    ),
    (
        ENTRY + "include: *.yaml\n",
        "4:11: not YAML: (A text that begins with *, &, !, {, [, %, @ or ` is written in quotes.)",
    ),
    (
        ENTRY + "    tags: {include: [*]}\n",
        "4:23: not YAML: (A text that begins with *, &, !, {, [, %, @ or ` is written in quotes.)",
    ),
    (
        ENTRY + '    tags: {regex: "v\\d+"}\n',
        "4:21: not YAML: (In double quotes a backslash is written twice; in single quotes once.)",
    ),
    (
        ENTRY + "    priority: 1\n   sparse: full\n",
        "5:4: not YAML: (A text that begins with *, &, !, {, [, %, @ or ` is written in quotes.)",
    ),
    (
        ENTRY + "    tags: {newest: '5'}\n",
        "4:20: a whole number from 1 to 100000 is wanted, not text (5)",
    ),
    (ENTRY + "    tags: {newest: 0}\n", "4:20: a whole number from 1 to 100000 is wanted, not 0"),
    (
        ENTRY + "    tags: {newest: 1.5}\n",
        "4:20: a whole number from 1 to 100000 is wanted, not a number (1.5)",
    ),
    (
        ENTRY + "    tags: {newest: 010}\n",
        "4:20: a whole number from 1 to 100000 is wanted, not a number (010)",
    ),
    (
        ENTRY + "    tags: {min_age: 3}\n",
        "4:21: 3 without quotes is a number, and a time span, as 7d is wanted (Write 90s, 15m,"
        " 1h30m, 7d or 2w.)",
    ),
    (
        ENTRY + "    tags: {newest: ${N}}\n",
        "4:21: not YAML: (Between [ ] or { }, a text with braces is written in quotes.)",
    ),
    (
        ENTRY + "    tags: {min_age: soon}\n",
        "4:21: 'soon' is no time span (Write 90s, 15m, 1h30m, 7d or 2w.)",
    ),
    (
        ENTRY + "    tags: {min_age: 9d, max_age: 7d}\n",
        "4:11: no image is older than min_age and younger than max_age",
    ),
    (ENTRY + "    tags: {newest: {by: created}}\n", "4:20: newest has no 'count'"),
    (
        ENTRY + "    tags: {newest: {count: 1, by: date}}\n",
        "4:35: semver or created is wanted, not date (There are: semver, created.)",
    ),
    (ENTRY + "    tags: ['a b']\n", "4:12: not a tag: 'a b' (Write TAG or TAG@DIGEST.)"),
    (ENTRY + "    tags: [a, b, a@" + DIGEST + "]\n", "4:11: a is in the list twice"),
    (
        ENTRY + "    tags: {regex: '[[:alpha:]]'}\n",
        "4:19: not a regular expression: Possible nested set at position 1: '[[:alpha:]]'",
    ),
    (ENTRY + "    ? " + "k" * 2000 + "\n    : 1\n", "4:7: a key of more than 1024 characters"),
    (
        ENTRY + "    tags: [on]\n",
        '4:12: on without quotes is true or false, and a tag is wanted (Write "on".)',
    ),
    (
        ENTRY + "    sparse: ful\n",
        "4:13: fail, full or child is wanted, not ful (Did you mean 'full'?)",
    ),
    (
        ENTRY + "    platforms: [linux]\n",
        "4:17: not a platform: 'linux' (want OS/ARCH or OS/ARCH/VARIANT)",
    ),
    (ENTRY + "    referrers: 'true'\n", "4:16: true or false is wanted, not text (true)"),
    (
        ENTRY + "    trust: {}\n",
        "4:5: 'trust' is no key of an entry of mirrors (There are: from, to, tags, platforms,"
        " sparse, referrers, priority, prune.)",
    ),
    (
        ENTRY + "defaults: {}\n",
        "4:1: 'defaults' is no key of a configuration (Write the defaults at the top level"
        " itself, beside mirrors.)",
    ),
    (
        ENTRY + "registries: {a.b: {insecure: true}}\n",
        "4:20: 'insecure' is no key of a registry's settings (There is plain_http, or ca_file"
        " with the certificate to trust.)",
    ),
    (
        ENTRY + "registries: {a.b: {auth: {username: x}}}\n",
        "4:26: auth is a file, or username and password",
    ),
    (ENTRY + "registries: {'a/b': {}}\n", "4:14: not a registry host: 'a/b'"),
    (
        ENTRY + "registries: {docker.io: {}, index.docker.io: {}}\n",
        "4:29: docker.io is here twice, under several names",
    ),
    (
        "mirrors: [{from: 'a.b/*/c', to: c.d/e}]",
        "1:18: not a source: 'a.b/*/c' (A * stands only at the end, after a host: HOST/* or"
        " HOST/PREFIX/*; what of it is wanted is said with several entries.)",
    ),
    ("mirrors: [{from: 'a.b/*', to: c.d/e}]", "1:31: all repositories of a.b/* would go to c.d/e"),
    (
        "mirrors: [{from: a.b/c, to: 'c.d/e:f'}]",
        "1:29: all tags of a.b/c would become one in c.d/e:f",
    ),
    ("mirrors: [{from: a.b/c, to: a.b/c}]", "1:29: a.b/c is its own destination"),
    (
        "mirrors: [{from: alpine, to: 'docker.io/{repository}'}]",
        "1:30: docker.io/library/alpine is its own destination",
    ),
    (
        "mirrors: [{from: 'a.b/*', to: 'a.b/{repository}'}]",
        "1:31: what goes to a.b/{repository} is read again as a.b/*",
    ),
    (
        "mirrors: [{from: 'a.b/*', to: 'a.b/mirror/{repository}'}]",
        "1:31: what goes to a.b/mirror/{repository} is read again as a.b/*",
    ),
    (
        "mirrors: [{from: 'a.b/c/*', to: 'a.b/{repository}:{tag}-x'}]",
        "1:33: what goes to a.b/{repository}:{tag}-x is read again as a.b/c/*",
    ),
    (
        "mirrors: [{from: 'a.b/c/*', to: 'a.b/{repository}/m'}]",
        "1:33: what goes to a.b/{repository}/m is read again as a.b/c/*",
    ),
    ("mirrors: [{from: 'a.b/c:1', to: 'a.b/c:1'}]", "1:33: a.b/c:1 is its own destination"),
    ("mirrors: [{from: a.b/c, to: [c.d/e, c.d/e]}]", "1:29: c.d/e is there twice"),
    (
        "mirrors: [{from: a.b/c, to: [docker.io/d/e, index.docker.io/d/e]}]",
        "1:29: index.docker.io/d/e is there twice",
    ),
    (
        "mirrors: [{from: a.b/c, to: mirror/app}]",
        "1:29: no registry in 'mirror/app' (A destination is HOST/REPOSITORY, with its host"
        " (docker.io too), or oci:DIRECTORY.)",
    ),
    (
        "mirrors: [{from: a.b/c, to: 'oci:/srv/x:y'}]",
        "1:29: a path with a colon cannot be written: '/srv/x:y' (A layout keeps an image under"
        " its full name: give the directory alone.)",
    ),
    (
        "mirrors: [{from: a.b/c, to: 'docker-archive:x'}]",
        "1:29: not a destination of a sync: 'docker-archive:x' (Write HOST/REPOSITORY or"
        " oci:DIRECTORY.)",
    ),
    (
        "mirrors: [{from: a.b/c, to: 'c.d/{repo}'}]",
        "1:29: {repo} in 'c.d/{repo}' (There are {registry}, {repository} and {tag}.)",
    ),
    (
        "mirrors: [{from: 'a.b/c:1', to: c.d/e, tags: [x]}]",
        "1:46: a.b/c:1 is one image, and has no tags to choose from",
    ),
    (
        "platforms: all\n",
        "1:1: FILE mirrors nothing (Defaults hold for this file and for what it includes.)",
    ),
    ('include: "a\\0b"\n', "1:10: a path has no zero byte"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return the faults of each file of the table, all read in one run."""
    texts = [text for text, _ in FAULTS]
    directory = tmp_path_factory.mktemp("faults")
    told = configurations.check_all(directory, texts)
    # (What the YAML library says is its own.)
    return {
        text: [
            re.sub(r"(not YAML: )[^(]*|[^ ]*/case-[0-9]+.yaml", lambda m: m[1] or "FILE", fault)
            for fault in found.faults
        ]
        for text, found in zip(texts, told, strict=True)
    }


@pytest.mark.parametrize(("text", "fault"), FAULTS)
def test_a_fault_is_named_with_its_place(told: dict[str, list[str]], text: str, fault: str) -> None:
    assert told[text] == [fault]


def test_nothing_from_a_file_reaches_the_terminal_raw(write: Write) -> None:
    told = ocimirror("config", "check", write('"\\e[31mred\\u202e": 1\n'))
    assert told.code == 2
    assert r"1:1: '\x1b[31mred\u202e' is no key" in told.stderr
    assert "\x1b" not in told.stderr
    assert "\u202e" not in told.stderr


def test_a_file_of_many_nested_lists_is_refused_in_time(faults: Faults) -> None:
    assert faults("[" * 500) == ["1:17: nested deeper than 16"]


def test_a_file_that_cannot_be_read_as_text_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for content, message in (
        (None, f"the configuration file {path} does not exist"),
        (
            b"#" * (4 * 1024 * 1024 + 1),
            f"{path} is larger than 4194304 bytes",
        ),
        (b"mirrors: \xff", f"{path} is not UTF-8 at byte 9"),
    ):
        if content is not None:
            path.write_bytes(content)
        told = ocimirror("config", "check", path)
        assert (told.code, told.stderr) == (2, f"error: {message}\n")


# --- include ------------------------------------------------------------------------------------


def test_included_files_come_first_and_are_found_beside_the_file(
    read: Read, write: Write, tmp_path: Path
) -> None:
    write(ENTRY + "registries: {quay.io: {max_concurrency: 1}}\n", "teams/a.yaml")
    document = read(
        "include: [teams/a.yaml]\nplatforms: [linux/amd64]\n"
        "mirrors: [{from: a.b/c, to: oci:layouts/c}]\n"
    )
    mirrors = document["mirrors"]
    assert [mirror["from"] for mirror in mirrors] == ["quay.io/org/app", "a.b/c"]
    assert [mirror["platforms"] for mirror in mirrors] == [["linux/amd64"]] * 2
    assert document["registries"] == {"quay.io": {**NO_SETTINGS, "max_concurrency": 1}}
    assert document["files"] == [f"{tmp_path}/nightly.yaml", f"{tmp_path}/teams/a.yaml"]
    assert mirrors[0]["where"] == f"{tmp_path}/teams/a.yaml:2"


def test_a_relative_path_begins_at_its_own_file(write: Write, tmp_path: Path) -> None:
    entry = "mirrors: [{from: '127.0.0.1:1/c:1', to: 'oci:layouts/c'}]\n"
    write(entry, "teams/a.yaml")
    path = write("include: [teams/a.yaml]\n" + entry)
    night = ocimirror("sync", path, "--dry-run", "--retries", "0", "--json")
    assert {image["destination"] for image in night.document["images"]} == {
        f"oci:{tmp_path}/teams/layouts/c:127.0.0.1:1/c:1",
        f"oci:{tmp_path}/layouts/c:127.0.0.1:1/c:1",
    }


def test_defaults_of_an_included_file_stay_there(read: Read, write: Write) -> None:
    write("priority: 7\n" + ENTRY, "a.yaml")
    document = read("include: a.yaml\nmirrors: [{from: a.b/c, to: c.d/e}]\n")
    assert [mirror["priority"] for mirror in document["mirrors"]] == [7, 0]


def test_files_that_include_each_other_are_refused(faults: Faults, write: Write) -> None:
    write("include: nightly.yaml\n", "b.yaml")
    found = faults("include: b.yaml\n" + ENTRY)
    assert found == ["1:10: nightly.yaml is included twice, or includes itself"]


def test_includes_are_followed_only_so_deep(faults: Faults, write: Write) -> None:
    for number in range(12):
        write(f"include: {number + 1}.yaml\n", f"{number}.yaml")
    assert faults("include: 0.yaml\n" + ENTRY) == ["1:10: more than 8 levels or 500 files"]


def test_an_included_file_that_is_not_there_is_named_where_it_is_included(
    faults: Faults, tmp_path: Path
) -> None:
    found = faults(ENTRY + "include: [x.yaml]\n")
    assert found == [f"4:10: the configuration file {tmp_path}/x.yaml does not exist"]


def test_faults_of_all_files_are_told_together(write: Write, tmp_path: Path) -> None:
    write("mirrors: [{from: A, to: b.c/d}]\n", "a.yaml")
    path = write("include: a.yaml\nmirrors: [{from: B, to: b.c/d}]\n")
    document, _ = configurations.check(path)
    assert [(fault["file"], fault["line"], fault["column"]) for fault in document["faults"]] == [
        (f"{tmp_path}/a.yaml", 1, 18),
        (f"{tmp_path}/nightly.yaml", 2, 18),
    ]


def test_a_file_from_windows_is_read(read: Read) -> None:
    assert len(read("\ufeff" + ENTRY.replace("\n", "\r\n"))["mirrors"]) == 1
