"""The files of skopeo sync and regsync, translated."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.property.conftest  # noqa: F401 - how hard properties are tried
from ocimirror.errors import UsageError
from ocimirror.sync.config import Config, Mirror, RegistrySettings, parse
from ocimirror.sync.drafts import whole
from ocimirror.sync.filters import select
from ocimirror.sync.importing import Translation, translate

SKOPEO = r"""
registry.example.com:
    images:
        busybox: []
        team/redis:
            - "1.0"
            - 2.0
            - "sha256:0000000000000000000000000000000011111111111111111111111111111111"
    images-by-tag-regex:
        nginx: ^1\.13\.[12]-alpine-perl$
        node: ^v|-slim
    images-by-semver:
        alpine: ">= 3.12.0"
    credentials:
        username: john
        password: this ${is} a $$ecret$
    tls-verify: true
    cert-dir: /home/john/certs
quay.io:
    tls-verify: false
    images:
        coreos/etcd:
            - latest
"""

REGSYNC = r"""
version: 1
x-of-ours: ignored
creds:
  - registry: registry:5000
    tls: disabled
    reqPerSec: 2.5
  - registry: docker.io
    user: '{{env "HUB_USER"}}'
    pass: '{{ env "HUB_TOKEN" }}'
    mirrors: [cache:5000]
    reqConcurrent: 3
  - registry: cache:5000
    pathPrefix: hub
    tls: insecure
defaults:
  parallel: 2
  interval: 60m
  referrers: false
sync:
  - source: busybox:latest
    target: registry:5000/library/busybox:latest
    type: image
  - source: alpine
    target: registry:5000/library/alpine:stable
    type: image
    platform: linux/amd64
  - source: gcr.io/example/repo
    target: registry:5000/gcr/example/repo
    type: repository
    digestTags: true
    tags:
      allow: ["3", "3\\.\\d+", latest]
      deny: ["3\\.0", ".*-rc$"]
  - source: ghcr.io/org/app
    target: ocidir:///srv/app
    type: repository
    tagSets:
      - semverRange: [">=1.0.0 <2.0.0", ">=4"]
      - allow: ["v[[:digit:]]+"]
      - allow: ["edge|main"]
    platforms: [linux/amd64, linux/arm64]
  - source: registry.example.com:5000
    target: registry:5000/all
    type: registry
    repos: {allow: ["team/.*", "one", "a.c"]}
  - source: "{{ .Foo }}"
    target: registry:5000/foo
    type: image
"""


def imported(text: str, to: str = "") -> tuple[Config, Translation]:
    translation = translate(text, "theirs.yaml", to)
    environment = {"HUB_USER": "ada", "HUB_TOKEN": "s3cret"}
    return parse(translation.text, "ours.yaml", environment), translation


def told(mirror: Mirror) -> tuple[str, str]:
    return str(mirror.source), ", ".join(map(str, mirror.targets))


def test_a_file_of_skopeo_goes_where_skopeo_puts_it() -> None:
    config, translation = imported(SKOPEO, "mirror.local/base")
    assert translation.tool == "skopeo"
    digest = "sha256:0000000000000000000000000000000011111111111111111111111111111111"
    assert [told(mirror) for mirror in config.mirrors] == [
        ("registry.example.com/busybox", "mirror.local/base/busybox"),
        ("registry.example.com/team/redis", "mirror.local/base/redis"),
        (f"registry.example.com/team/redis@{digest}", "mirror.local/base/redis"),
        ("registry.example.com/nginx", "mirror.local/base/nginx"),
        ("registry.example.com/node", "mirror.local/base/node"),
        ("registry.example.com/alpine", "mirror.local/base/alpine"),
        ("quay.io/coreos/etcd", "mirror.local/base/etcd"),
    ]
    tags = [mirror.tags for mirror in config.mirrors]
    assert [named.tag for named in tags[1].explicit] == ["1.0", "2.0"]
    assert [tags[3].regex, tags[4].regex] == [r"1\.13\.[12]-alpine-perl", ".*(?:^v|-slim).*"]
    assert tags[5].semver == ">= 3.12.0"
    assert config.registries == {
        "registry.example.com": RegistrySettings(username="john", password="this ${is} a $$ecret$")
    }


def test_what_skopeo_has_and_we_have_not_is_named_in_comments_too() -> None:
    _, translation = imported(SKOPEO, "mirror.local/base")
    notes = [(note.line, note.text.partition(" is not ")[0]) for note in translation.notes]
    assert notes == [(18, "cert-dir"), (20, "tls-verify: false")]
    for note in translation.notes:
        assert f"# - {note}\n" in translation.text


@pytest.mark.parametrize("to", ["oci:/srv/{registry}/{repository}", "m.local/{repository}"])
def test_a_destination_with_fields_holds_for_all_of_a_file_of_skopeo(to: str) -> None:
    config, _ = imported(SKOPEO, to)
    assert {str(target) for mirror in config.mirrors for target in mirror.targets} == {to}


def test_repositories_that_skopeo_lets_overwrite_each_other_are_named() -> None:
    text = "a.b: {images: {x/redis: []}}\nc.d: {images: {y/redis: []}}\n"
    (note,) = imported(text, "m.local")[1].notes
    assert note.text == "c.d/y/redis and a.b/x/redis both go to m.local/redis"


def test_a_file_of_regsync_keeps_its_entries() -> None:
    config, translation = imported(REGSYNC)
    assert translation.tool == "regsync"
    assert [told(mirror) for mirror in config.mirrors] == [
        ("docker.io/library/busybox:latest", "registry:5000/library/busybox"),
        ("docker.io/library/alpine:latest", "registry:5000/library/alpine:stable"),
        ("gcr.io/example/repo", "registry:5000/gcr/example/repo"),
        ("ghcr.io/org/app", "oci:/srv/app"),
        ("ghcr.io/org/app", "oci:/srv/app"),
        ("ghcr.io/org/app", "oci:/srv/app"),
        ("registry.example.com:5000/team/*", "registry:5000/all/{repository}"),
        ("registry.example.com:5000/one", "registry:5000/all/{repository}"),
    ]
    referrers = [mirror.referrers for mirror in config.mirrors]
    assert referrers == [False, False, True, False, False, False, False, False]
    tags = [mirror.tags for mirror in config.mirrors]
    assert tags[2].regex == r"(?!(?:3\.0|.*-rc$)$)(?:(?:3)|(?:3\.\d+)|(?:latest))"
    assert tags[3].semver == ">=1.0.0 <2.0.0 >=0.0.0-0 || >=4.0.0 >=0.0.0-0"
    assert [tags[4].regex, tags[5].regex] == ["v[0-9]+", ".*(?:^edge|main$).*"]
    assert [len(mirror.platforms) for mirror in config.mirrors] == [0, 1, 0, 2, 2, 2, 0, 0]
    assert config.registries == {
        "registry:5000": RegistrySettings(plain_http=True, requests_per_second=2.5),
        "docker.io": RegistrySettings(
            username="ada",
            password="s3cret",
            mirrors=("cache:5000/hub",),
            max_concurrency=3,
        ),
    }


def test_what_regsync_has_and_we_have_not_is_named_with_its_line() -> None:
    _, translation = imported(REGSYNC)
    assert [(note.line, note.text.partition(":")[0]) for note in translation.notes] == [
        (15, "tls"),
        (17, "parallel"),
        (18, "interval"),
        (27, "platform"),
        (43, "repos a.c is left out"),
        (47, "{{ .Foo }} is left out"),
    ]


WORDS = ("1.0", "1.2.3", "1.2.3-alpine", "2", "2.1", "v1-x", "v1", "v2", "edge", "x-edge", "main")


@pytest.mark.parametrize(
    ("tags", "kept"),
    [
        # What regsync makes of a rule is ^RULE$, so that here each anchor holds for one word only.
        ("tags: {allow: ['v1|edge']}", "v1 v1-x edge x-edge"),
        ("tags: {allow: ['v(1|2)']}", "v1 v2"),
        ("tags: {deny: ['v.*|1.0', 2, 'x-.*']}", "1.2.3 1.2.3-alpine 2.1 edge main"),
        ("tags: {allow: [''], deny: [x]}", ""),
        ("tags: {}, tagSets: [{allow: [main]}]", "main"),
        ("tags: {allow: [edge]}, tagSets: [{allow: [main]}]", "edge main"),
        ("tags: {allow: }", " ".join(WORDS)),
        ("tags: {semverRange: ['<=1.2.3']}", "1.0 1.2.3 1.2.3-alpine v1-x v1"),
        ("tags: {semverRange: ['>=1.2 <2']}", "1.2.3 1.2.3-alpine"),
        ("tags: {semverRange: ['', '=2']}", "2 v2"),
        ("tags: {semverRange: ['~2'], deny: ['v.*']}", "2"),
    ],
)
def test_the_tags_of_regsync_are_those_that_it_mirrors(tags: str, kept: str) -> None:
    text = f"sync: [{{source: a.b/c, target: m.x/c, type: repository, {tags}}}]\n"
    now = datetime(2026, 1, 31, tzinfo=UTC)
    found = {
        tag
        for mirror in imported(text)[0].mirrors
        for tag in select(
            WORDS, mirror.tags, now=now, created=lambda _: None, first_seen=lambda _: None
        ).kept
    }
    assert found == set(kept.split())


GO = st.sampled_from(
    ["a", "b", r"\.", "[ab]", "[^a|]", "[]|]", "(", ")", "|", "^", "$", r"\$", r"\|", "*", "."]
)


@given(st.lists(GO, max_size=7).map("".join), st.text("ab.$|^\\", max_size=4))
def test_an_expression_that_is_found_somewhere_matches_the_whole(regex: str, tag: str) -> None:
    try:
        found = re.search(regex, tag)
    except re.error:
        return
    assert (re.fullmatch(whole(regex), tag) is not None) == (found is not None)


def test_an_image_of_regsync_without_a_tag_is_latest_wherever_it_comes_from() -> None:
    text = (
        "sync:\n"
        "  - {source: '{{env \"HUB_USER\"}}.io/app', target: 'm.x/{{env \"HUB_USER\"}}/app',"
        " type: image}\n"
        "  - {source: 'a.b/{{env \"HUB_USER\"}}:v1', target: m.x/c, type: image}\n"
        "  - {source: a.b/c, target: 'm.x/{{env \"HUB_USER\"}}', type: repository}\n"
        "  - {source: alpine, target: 'ocidir:///srv/x', type: image}\n"
    )
    assert [told(mirror) for mirror in imported(text)[0].mirrors] == [
        ("ada.io/app:latest", "m.x/ada/app:latest"),
        ("a.b/ada:v1", "m.x/c:latest"),
        ("a.b/c", "m.x/ada"),
        ("docker.io/library/alpine:latest", "oci:/srv/x"),
    ]


def test_a_registry_with_several_names_has_its_settings_once() -> None:
    config, translation = imported(
        "creds:\n"
        "  - {registry: docker.io, user: a, pass: b, tls: Disabled}\n"
        "  - {registry: registry-1.docker.io, user: c, pass: d, reqPerSec: 3}\n"
        "sync: [{source: a.b/c, target: m.x/c, type: repository}]\n"
    )
    assert config.registries == {
        "docker.io": RegistrySettings(
            plain_http=True, username="c", password="d", requests_per_second=3
        )
    }
    assert [note.line for note in translation.notes] == [3]


def test_a_rule_of_skopeo_that_is_no_text_does_not_become_one_for_all_tags() -> None:
    text = "a.b:\n  images: {x: []}\n  images-by-tag-regex: {c: [v1, v2]}\n"
    config, translation = imported(text, "m.x")
    assert [str(mirror.source) for mirror in config.mirrors] == ["a.b/x"]
    assert [str(note) for note in translation.notes] == [
        "line 3: a.b/c is left out: images-by-tag-regex has one expression for it"
    ]


def test_an_entry_that_cannot_be_said_is_left_out_and_never_widened() -> None:
    config, translation = imported(
        "sync:\n"
        "  - {source: a.b/c, target: m.x/c, type: repository, tags: {allow: ['(?i)[2']}}\n"
        "  - {source: a.b/d, target: m.x/d, type: repository, tags: {semverRange: ['!=1']}}\n"
        "  - {source: a.b, target: m.x, type: registry, repos: {deny: [x]}}\n"
        "  - {source: 'ocidir://x', target: m.x/e, type: image}\n"
        "  - {source: a.b/f, target: m.x/f, type: image}\n"
        "  - {source: a.b/g, target: m.x/g}\n"
    )
    assert [str(mirror.source) for mirror in config.mirrors] == ["a.b/f:latest"]
    assert [note.line for note in translation.notes] == [2, 3, 4, 5, 7]


@pytest.mark.parametrize(
    ("text", "to", "message"),
    [
        (SKOPEO, "", "where images go is on skopeo's command line"),
        (REGSYNC, "m.local", "a regsync file says where images go"),
        ("mirrors: [{from: a.b/c, to: d.e/f}]\n", "", "is ocimirror's own already"),
        ("a: 1\n", "", "is neither"),
        ("- a\n", "", "is neither"),
        ("sync: []\n", "", "nothing in theirs.yaml can be carried over: it has no images"),
        ("sync: [{source: A, target: b.c/d, type: image}]\n", "", "line 1: A is left out"),
        ("a: {images: *b}\n", "m.local", "this is an alias of nothing that stands before it"),
        ("a: [\n", "", "not YAML"),
    ],
)
def test_what_cannot_be_translated_at_all_is_a_usage_error(
    text: str, to: str, message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        translate(text, "theirs.yaml", to)
    assert message in raised.value.message


def test_a_line_break_in_another_file_does_not_end_a_comment() -> None:
    entry = "sync:\n  - {source: a.b/c, target: d.e/c, type: image}\n"
    _, translation = imported(entry + '"x\\ny": 1\n')
    assert "# - line 3: x y is not known\n" in translation.text


@pytest.mark.parametrize("meaning", ["1 || 2", "*", ">=1-rc1", ">= 1", "1.x", ">=1,<2", "=>1", "x"])
def test_a_range_that_regsync_refuses_or_orders_otherwise_is_left_out(meaning: str) -> None:
    config, translation = imported(
        "sync:\n  - {source: a.b/f, target: m.x/f, type: image}\n"
        "  - {source: a.b/d, target: m.x/d, type: repository,"
        f" tags: {{semverRange: ['{meaning}']}}}}\n"
    )
    assert [str(mirror.source) for mirror in config.mirrors] == ["a.b/f:latest"]
    assert [note.line for note in translation.notes] == [3]


@pytest.mark.parametrize(
    ("tags", "kept"),
    [
        ("semverRange: ['>=1']", {"1.2.3", "1.2.3-x_y", "v1.2", "3"}),
        ("semverRange: ['>=1'], deny: ['v.*']", {"1.2.3", "1.2.3-x_y", "3"}),
        ("semverRange: ['~1.2', '3'], allow: ['.*2.*', '3']", {"1.2.3", "1.2.3-x_y", "v1.2", "3"}),
    ],
)
def test_versions_of_regsync_are_those_that_it_reads(tags: str, kept: set[str]) -> None:
    (mirror,) = imported(
        f"sync: [{{source: a.b/c, target: m.x/c, type: repository, tags: {{{tags}}}}}]\n"
    )[0].mirrors
    found = select(
        ["1.2.3", "1.2.3_4", "1.2.3-x_y", "V1.2", "v1.2", "3", "latest"],
        mirror.tags,
        now=datetime(2026, 1, 31, tzinfo=UTC),
        created=lambda _: None,
        first_seen=lambda _: None,
    )
    assert set(found.kept) == kept
