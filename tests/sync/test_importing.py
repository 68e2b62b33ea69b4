"""The files of skopeo sync and regsync, translated."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import strategies as st

from tests.support.batches import batches
from tests.support.command import Result, environment, ocimirror
from tests.support.configurations import check
from tests.support.faults import Respond
from tests.support.proxy import Canary
from tests.support.tagserver import run_tag_server
from tests.sync.test_config import NO_SETTINGS

VARIABLES = {"HUB_USER": "ada", "HUB_TOKEN": "s3cret"}
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


class Imported(NamedTuple):
    """A file of another tool.

    Attributes:
        tool, text, notes: what `config import` says; a note is its line and its text.
        mirrors, registries: what `config check` reads in the text.
    """

    tool: str
    text: str
    notes: list[tuple[int, str]]
    mirrors: list[Any]
    registries: dict[str, Any]

    @property
    def ways(self) -> list[tuple[str, str]]:
        """Where each source goes."""
        return [(mirror["from"], ", ".join(mirror["to"])) for mirror in self.mirrors]


Import = Callable[..., Imported]


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., Result]:
    """Run `config import` on a text."""

    def run(text: str, to: str = "", *options: str) -> Result:
        (tmp_path / "theirs.yaml").write_text(text)
        more = ["--to", to] if to else []
        return ocimirror("config", "import", "theirs.yaml", *more, *options, cwd=tmp_path)

    return run


@pytest.fixture
def imported(refused: Callable[..., Result], tmp_path: Path) -> Import:
    """Return what a file of another tool becomes."""

    def run(text: str, to: str = "") -> Imported:
        result = refused(text, to, "--json")
        assert result.code == 0, result.stdout
        ours = tmp_path / "ours.yaml"
        ours.write_text(result.document["config"])
        document, faults = check(ours, **VARIABLES)
        assert faults == []
        return Imported(
            result.document["tool"],
            result.document["config"],
            [(note["line"], note["text"]) for note in result.document["notes"]],
            document["mirrors"],
            document["registries"],
        )

    return run


def test_a_file_of_skopeo_goes_where_skopeo_puts_it(imported: Import) -> None:
    made = imported(SKOPEO, "mirror.local/base")
    assert made.tool == "skopeo"
    digest = "sha256:0000000000000000000000000000000011111111111111111111111111111111"
    assert made.ways == [
        ("registry.example.com/busybox", "mirror.local/base/busybox"),
        ("registry.example.com/team/redis", "mirror.local/base/redis"),
        (f"registry.example.com/team/redis@{digest}", "mirror.local/base/redis"),
        ("registry.example.com/nginx", "mirror.local/base/nginx"),
        ("registry.example.com/node", "mirror.local/base/node"),
        ("registry.example.com/alpine", "mirror.local/base/alpine"),
        ("quay.io/coreos/etcd", "mirror.local/base/etcd"),
    ]
    tags = [mirror["tags"] for mirror in made.mirrors]
    assert [named["tag"] for named in tags[1]["explicit"]] == ["1.0", "2.0"]
    assert tags[3]["regex"] == r"1\.13\.[12]-alpine-perl"
    assert tags[4]["regex"] == ".*(?:^v|-slim).*"
    assert tags[5]["semver"] == ">= 3.12.0"
    assert made.registries == {"registry.example.com": {**NO_SETTINGS, "username": "john"}}


@pytest.mark.parametrize(
    ("theirs", "to", "secret"),
    [
        (SKOPEO.replace("registry.example.com", "HOST"), "oci:x", "john:this ${is} a $$ecret$"),
        (
            "creds:\n"
            "  - registry: HOST\n"
            """    user: '{{env "HUB_USER"}}'\n    pass: '{{ env "HUB_TOKEN" }}'\n"""
            "sync: [{source: HOST/app, target: 'ocidir://x', type: image}]\n",
            "",
            "ada:s3cret",
        ),
    ],
    ids=["skopeo", "regsync"],
)
def test_credentials_are_carried_over(
    refused: Callable[..., Result],
    canary: Callable[..., Canary],
    tmp_path: Path,
    theirs: str,
    to: str,
    secret: str,
) -> None:
    registry = canary(Respond(401, {"WWW-Authenticate": 'Basic realm="x"'}))
    result = refused(theirs.replace("HOST", registry.host), to)
    (tmp_path / "ours.yaml").write_bytes(result.raw)
    night = ["sync", tmp_path / "ours.yaml", "--dry-run", "--retries", "0", "--only"]
    ocimirror(*night, f"{registry.host}/*", env=environment(**VARIABLES))
    assert registry.saw(secret)


def test_what_skopeo_has_and_we_have_not_is_named_in_comments_too(imported: Import) -> None:
    made = imported(SKOPEO, "mirror.local/base")
    notes = [(line, text.partition(" is not ")[0]) for line, text in made.notes]
    assert notes == [(18, "cert-dir"), (20, "tls-verify: false")]
    for line, text in made.notes:
        assert f"# - line {line}: {text}\n" in made.text


@pytest.mark.parametrize("to", ["oci:/srv/{registry}/{repository}", "m.local/{repository}"])
def test_a_destination_with_fields_holds_for_all_of_a_file_of_skopeo(
    imported: Import, to: str
) -> None:
    made = imported(SKOPEO, to)
    assert {target for mirror in made.mirrors for target in mirror["to"]} == {to}


def test_repositories_that_skopeo_lets_overwrite_each_other_are_named(imported: Import) -> None:
    text = "a.b: {images: {x/redis: []}}\nc.d: {images: {y/redis: []}}\n"
    assert imported(text, "m.local").notes == [
        (2, "c.d/y/redis and a.b/x/redis both go to m.local/redis")
    ]


def test_a_file_of_regsync_keeps_its_entries(imported: Import) -> None:
    made = imported(REGSYNC)
    assert made.tool == "regsync"
    assert made.ways == [
        ("docker.io/library/busybox:latest", "registry:5000/library/busybox"),
        ("docker.io/library/alpine:latest", "registry:5000/library/alpine:stable"),
        ("gcr.io/example/repo", "registry:5000/gcr/example/repo"),
        ("ghcr.io/org/app", "oci:/srv/app"),
        ("ghcr.io/org/app", "oci:/srv/app"),
        ("ghcr.io/org/app", "oci:/srv/app"),
        ("registry.example.com:5000/team/*", "registry:5000/all/{repository}"),
        ("registry.example.com:5000/one", "registry:5000/all/{repository}"),
    ]
    referrers = [mirror["referrers"] for mirror in made.mirrors]
    assert referrers == [False, False, True, False, False, False, False, False]
    tags = [mirror["tags"] for mirror in made.mirrors]
    assert tags[2]["regex"] == r"(?!(?:3\.0|.*-rc$)$)(?:(?:3)|(?:3\.\d+)|(?:latest))"
    assert tags[3]["semver"] == ">=1.0.0 <2.0.0 >=0.0.0-0 || >=4.0.0 >=0.0.0-0"
    assert [tags[4]["regex"], tags[5]["regex"]] == ["v[0-9]+", ".*(?:^edge|main$).*"]
    assert [len(mirror["platforms"]) for mirror in made.mirrors] == [0, 1, 0, 2, 2, 2, 0, 0]
    assert made.registries == {
        "registry:5000": {**NO_SETTINGS, "plain_http": True, "requests_per_second": 2.5},
        "docker.io": {
            **NO_SETTINGS,
            "username": "ada",
            "mirrors": ["cache:5000/hub"],
            "max_concurrency": 3,
        },
    }


def test_what_regsync_has_and_we_have_not_is_named_with_its_line(imported: Import) -> None:
    assert [(line, text.partition(":")[0]) for line, text in imported(REGSYNC).notes] == [
        (15, "tls"),
        (17, "parallel"),
        (18, "interval"),
        (27, "platform"),
        (43, "repos a.c is left out"),
        (47, "{{ .Foo }} is left out"),
    ]


# --- tags: what is chosen, by a dry run -----------------------------------------------------------

WORDS = ("1.0", "1.2.3", "1.2.3-alpine", "2", "2.1", "v1-x", "v1", "v2", "edge", "x-edge", "main")
RULES = [
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
]
READ = ("1.2.3", "1.2.3_4", "1.2.3-x_y", "V1.2", "v1.2", "3", "latest")
VERSIONS = [
    ("tags: {semverRange: ['>=1']}", "1.2.3 1.2.3-x_y v1.2 3"),
    ("tags: {semverRange: ['>=1'], deny: ['v.*']}", "1.2.3 1.2.3-x_y 3"),
    ("tags: {semverRange: ['~1.2', '3'], allow: ['.*2.*', '3']}", "1.2.3 1.2.3-x_y v1.2 3"),
]


def chosen(directory: Path, *options: str, cases: int) -> list[set[str]]:
    """Import theirs.yaml, and return the tags that a dry run chooses of each case."""
    theirs, ours = directory / "theirs.yaml", directory / "ours.yaml"
    result = ocimirror("config", "import", theirs, *options)
    assert result.code == 0, result.stderr
    ours.write_bytes(result.raw)
    night = ocimirror("sync", ours, "--dry-run", "--json", "--retries", "0")
    assert "images" in night.stdout, night.stderr + night.stdout
    found: list[set[str]] = [set() for _ in range(cases)]
    for image in night.document["images"]:
        assert image["status"] == "planned", image
        repository, _, tag = image["source"].rpartition("/")[2].partition(":")
        found[int(repository.removeprefix("case-"))].add(tag)
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return which tags each rule of regsync chooses, all in one run."""
    directory = tmp_path_factory.mktemp("regsync")
    cases = [*((rule, WORDS) for rule, _ in RULES), *((rule, READ) for rule, _ in VERSIONS)]
    repositories = {f"case-{number}": tags for number, (_, tags) in enumerate(cases)}
    with run_tag_server(repositories) as server:
        steps = [
            f"  - {{source: {server.host}/case-{number}, target: 'ocidir://out', type: repository,"
            f" {rule}}}\n"
            for number, (rule, _) in enumerate(cases)
        ]
        text = "".join(["defaults: {referrers: false}\nsync:\n", *steps])
        (directory / "theirs.yaml").write_text(text)
        found = chosen(directory, cases=len(cases))
    return {rule: tags for (rule, _), tags in zip(cases, found, strict=True)}


@pytest.mark.parametrize(("rule", "tags"), RULES)
def test_the_tags_of_regsync_are_those_that_it_mirrors(
    kept: dict[str, set[str]], rule: str, tags: str
) -> None:
    assert kept[rule] == set(tags.split())


@pytest.mark.parametrize(("rule", "tags"), VERSIONS)
def test_versions_of_regsync_are_those_that_it_reads(
    kept: dict[str, set[str]], rule: str, tags: str
) -> None:
    assert kept[rule] == set(tags.split())


GO = st.sampled_from(
    ["a", "b", r"\.", "[ab]", "[^a|]", "[]|]", "(", ")", "|", "^", "$", r"\$", r"\|", "*", "."]
)
REGEXES = st.lists(GO, min_size=1, max_size=7).map("".join)
TAGS = st.lists(
    st.from_regex(r"[ab][ab.]{0,3}", fullmatch=True), min_size=1, max_size=4, unique=True
)


def is_regex(text: str) -> bool:
    """Say whether a text is an expression."""
    try:
        re.compile(text)
    except re.error:
        return False
    return True


@batches(st.tuples(REGEXES, TAGS), size=50)
def test_an_expression_that_is_found_somewhere_matches_the_whole(
    tmp_path: Path, drawn: Sequence[tuple[str, Sequence[str]]]
) -> None:
    """Of a tag, as skopeo looks for it; what Go does not take is left out."""
    drawn = [("a", ["a"]), *((regex, tags) for regex, tags in drawn if is_regex(regex))]
    tags = {f"case-{number}": tags for number, (_, tags) in enumerate(drawn)}
    rules = {f"case-{number}": regex for number, (regex, _) in enumerate(drawn)}
    with run_tag_server(tags) as server:
        theirs = {server.host: {"images-by-tag-regex": rules}}
        (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(theirs))
        found = chosen(tmp_path, "--to", "oci:out", cases=len(drawn))
        text = (tmp_path / "ours.yaml").read_text()
        left_out = {rest.partition(" ")[0] for rest in text.split(f"{server.host}/")[1:]}
    mirrored = {mirror["from"].rpartition("/")[2] for mirror in yaml.safe_load(text)["mirrors"]}
    for name, (regex, listed), kept in zip(rules, drawn, found, strict=True):
        if name in mirrored:
            assert kept == {tag for tag in listed if re.search(regex, tag)}, regex
        else:
            assert name in left_out, regex


# --- what is left out -----------------------------------------------------------------------------


def test_an_image_of_regsync_without_a_tag_is_latest_wherever_it_comes_from(
    imported: Import,
) -> None:
    text = (
        "sync:\n"
        "  - {source: '{{env \"HUB_USER\"}}.io/app', target: 'm.x/{{env \"HUB_USER\"}}/app',"
        " type: image}\n"
        "  - {source: 'a.b/{{env \"HUB_USER\"}}:v1', target: m.x/c, type: image}\n"
        "  - {source: a.b/c, target: 'm.x/{{env \"HUB_USER\"}}', type: repository}\n"
        "  - {source: alpine, target: 'ocidir:///srv/x', type: image}\n"
    )
    assert imported(text).ways == [
        ("ada.io/app:latest", "m.x/ada/app:latest"),
        ("a.b/ada:v1", "m.x/c:latest"),
        ("a.b/c", "m.x/ada"),
        ("docker.io/library/alpine:latest", "oci:/srv/x"),
    ]


def test_a_registry_with_several_names_has_its_settings_once(imported: Import) -> None:
    made = imported(
        "creds:\n"
        "  - {registry: docker.io, user: a, pass: b, tls: Disabled}\n"
        "  - {registry: registry-1.docker.io, user: c, pass: d, reqPerSec: 3}\n"
        "sync: [{source: a.b/c, target: m.x/c, type: repository}]\n"
    )
    settings = {"plain_http": True, "username": "c", "requests_per_second": 3}
    assert made.registries == {"docker.io": {**NO_SETTINGS, **settings}}
    written = yaml.safe_load(made.text)["registries"]["docker.io"]
    assert written["auth"] == {"username": "c", "password": "d"}
    assert [line for line, _ in made.notes] == [3]


def test_a_rule_of_skopeo_that_is_no_text_does_not_become_one_for_all_tags(
    imported: Import,
) -> None:
    made = imported("a.b:\n  images: {x: []}\n  images-by-tag-regex: {c: [v1, v2]}\n", "m.x")
    assert [mirror["from"] for mirror in made.mirrors] == ["a.b/x"]
    assert made.notes == [
        (3, "a.b/c is left out: images-by-tag-regex has one expression for it"),
    ]


def test_an_entry_that_cannot_be_said_is_left_out_and_never_widened(imported: Import) -> None:
    made = imported(
        "sync:\n"
        "  - {source: a.b/c, target: m.x/c, type: repository, tags: {allow: ['(?i)[2']}}\n"
        "  - {source: a.b/d, target: m.x/d, type: repository, tags: {semverRange: ['!=1']}}\n"
        "  - {source: a.b, target: m.x, type: registry, repos: {deny: [x]}}\n"
        "  - {source: 'ocidir://x', target: m.x/e, type: image}\n"
        "  - {source: a.b/f, target: m.x/f, type: image}\n"
        "  - {source: a.b/g, target: m.x/g}\n"
    )
    assert [mirror["from"] for mirror in made.mirrors] == ["a.b/f:latest"]
    assert [line for line, _ in made.notes] == [2, 3, 4, 5, 7]


def test_a_range_that_regsync_refuses_or_orders_otherwise_is_left_out(imported: Import) -> None:
    ranges = ["1 || 2", "*", ">=1-rc1", ">= 1", "1.x", ">=1,<2", "=>1", "x"]
    steps = [
        f"  - {{source: a.b/d{number}, target: m.x/d{number}, type: repository,"
        f" tags: {{semverRange: ['{text}']}}}}\n"
        for number, text in enumerate(ranges)
    ]
    last = "  - {source: a.b/f, target: m.x/f, type: image}\n"
    made = imported("".join(["sync:\n", *steps, last]))
    assert [mirror["from"] for mirror in made.mirrors] == ["a.b/f:latest"]
    assert [line for line, _ in made.notes] == list(range(2, 2 + len(ranges)))


@pytest.mark.parametrize(
    ("text", "to", "message"),
    [
        (
            SKOPEO,
            "",
            "where images go is on skopeo's command line, not in its file\n"
            "  Give it with --to HOST[/PREFIX].\n",
        ),
        (REGSYNC, "m.local", "a regsync file says where images go: --to is for skopeo's"),
        (
            "mirrors: [{from: a.b/c, to: d.e/f}]\n",
            "",
            "theirs.yaml is ocimirror's own already",
        ),
        (
            "a: 1\n",
            "",
            "theirs.yaml is neither a file for skopeo sync --src yaml nor regsync's",
        ),
        (
            "- a\n",
            "",
            "theirs.yaml is neither a file for skopeo sync --src yaml nor regsync's",
        ),
        ("sync: []\n", "", "nothing in theirs.yaml can be carried over: it has no images"),
        (
            "sync: [{source: A, target: b.c/d, type: image}]\n",
            "",
            "nothing in theirs.yaml can be carried over: line 1: A is left out: not an image"
            " reference: 'A'",
        ),
        (
            "a: {images: *b}\n",
            "m.local",
            "theirs.yaml: 1 fault\n"
            "  theirs.yaml:1:13: this is an alias of nothing that stands before it",
        ),
        ("a: [\n", "", "theirs.yaml: 1 fault\n  theirs.yaml:2:1: not YAML: "),
    ],
)
def test_what_cannot_be_translated_at_all_is_a_usage_error(
    refused: Callable[..., Result], text: str, to: str, message: str
) -> None:
    result = refused(text, to)
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}")


def test_a_line_break_in_another_file_does_not_end_a_comment(imported: Import) -> None:
    entry = "sync:\n  - {source: a.b/c, target: d.e/c, type: image}\n"
    assert "# - line 3: x y is not known\n" in imported(entry + '"x\\ny": 1\n').text
