"""config import: the tags that the original tool selects, judged by the tool itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.journeys.test_sync import SINGLE, offer
from tests.support.command import ocimirror

pytestmark = pytest.mark.timeout(240)
TAGS = (
    *("1.0", "1.1", "1.10", "1.2.3", "1.2.3-rc1", "v1.2", "V1.3", "2", "2.0-slim", "latest"),
    *("edge", "EDGE", "x-edge", "edge-x", "a_b", "1.2.3_4", "sha-0123abc", "3.19"),
)


@pytest.fixture
def offered(registry, repository) -> str:
    for tag in TAGS:
        offer(registry, repository, tag, SINGLE)
    return f"{registry.host}/{repository}"


def mirrored(theirs: Path, *to: str) -> set[str]:
    """Return the tags that our translation of a file mirrors."""
    imported = ocimirror("config", "import", theirs, *to)
    assert imported.code == 0, imported.stderr
    ours = theirs.with_name("ours.yaml")
    ours.write_text(imported.stdout)
    night = ocimirror("sync", ours, "--dry-run", "--json")
    assert night.code == 0, night.stderr
    return {image["source"].rpartition(":")[2] for image in night.document["images"]}


RULES = [
    "images: {REPOSITORY: []}",
    "images: {REPOSITORY: [1.10, latest, '2']}",
    "images-by-tag-regex: {REPOSITORY: '^1'}",
    "images-by-tag-regex: {REPOSITORY: 'edge$'}",
    "images-by-tag-regex: {REPOSITORY: '1.0|edge'}",
    r"images-by-tag-regex: {REPOSITORY: '^v?[[:digit:]]+\.\d+\z'}",
    r"images-by-tag-regex: {REPOSITORY: '\A\pL+\z'}",
    r"images-by-tag-regex: {REPOSITORY: '^[\PN]+$'}",
    "images-by-tag-regex: {REPOSITORY: '(?i)^edge|^v'}",
    "images-by-tag-regex: {REPOSITORY: '^(?i:e)dge|(?U)a.*b'}",
    r"images-by-tag-regex: {REPOSITORY: '^\Q1.\E[[:^alpha:]]*$'}",
    r"images-by-tag-regex: {REPOSITORY: '^(?P<first>\p{Nd})(\.\x31.*)?$'}",
    "images-by-tag-regex: {REPOSITORY: 'a{,3}|^[^]a-z0-9.-]'}",
]


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
@pytest.mark.parametrize("rule", RULES)
def test_a_file_of_skopeo_mirrors_the_tags_that_skopeo_mirrors(
    rule: str, offered: str, tmp_path: Path
) -> None:
    host, _, repository = offered.partition("/")
    theirs = tmp_path / "theirs.yaml"
    rule = rule.replace("REPOSITORY", repository)
    theirs.write_text(f'"{host}":\n  tls-verify: false\n  {rule}\n')
    (tmp_path / "skopeo").mkdir()
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    subprocess.run(
        [
            *("skopeo", "--policy", policy, "sync", "--scoped"),
            *("--src", "yaml", "--dest", "dir", theirs, tmp_path / "skopeo"),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    found = {Path(root).name for root, _, files in os.walk(tmp_path / "skopeo") if files}
    expected = {name.rpartition(":")[2] for name in found}
    assert mirrored(theirs, "--to", f"oci:{tmp_path}/ours") == expected


@pytest.mark.parametrize(
    ("regex", "told"),
    [
        ("1(?=.0)", "a lookahead"),
        ("(?<!x-)edge", "a lookbehind"),
        ("1++", "a repetition of a repetition"),
        (r"edge\Z", r"\Z"),
        (r"\p{Greek}", r"\p{Greek}"),
        (r"(e)\1", r"\1"),
        ("(?x) e", "(?x)"),
        ("[[:letters:]]", "[:letters:]"),
    ],
)
def test_an_expression_that_go_refuses_or_python_lacks_is_left_out_by_name(
    regex: str, told: str, tmp_path: Path
) -> None:
    skopeo, regsync = tmp_path / "skopeo.yaml", tmp_path / "regsync.yaml"
    skopeo.write_text(f"a.b:\n  images: {{x: []}}\n  images-by-tag-regex:\n    y: '{regex}'\n")
    regsync.write_text(
        "sync:\n- {source: a.b/x, target: m.x/x, type: repository}\n"
        "- {source: a.b/y, target: m.x/y, type: repository,"
        f" tags: {{allow: ['{regex}']}}}}\n"
    )
    for file, *to in ((skopeo, "--to", "m.x"), (regsync,)):
        done = ocimirror("config", "import", file, *to)
        assert done.code == 0
        assert told in done.stderr
        assert "y is left out" in done.stderr
        assert "from: a.b/x" in done.stdout
        assert "from: a.b/y" not in done.stdout


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ("tags: {allow: ['1', 'edge']}", "edge"),
        (r"tags: {allow: ['\d\.\d+']}", "1.0 1.1 1.10 3.19"),
        (r"tags: {allow: ['[[:digit:].]+'], deny: ['1\..*']}", "2 3.19"),
        # (^RULE$ is what regsync makes of a rule: an anchor holds for one side of a | only.)
        ("tags: {allow: ['x-|slim']}", "x-edge 2.0-slim"),
        ("tags: {allow: ['(?i)edge']}", "edge EDGE"),
        ("tags: {deny: ['[^e].*', 'edge-x']}", "edge"),
        ("tagSets: [{allow: ['latest']}, {allow: ['a_b']}]", "latest a_b"),
    ],
)
def test_a_file_of_regsync_mirrors_the_tags_of_its_rules(
    rules: str, kept: str, offered: str, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(
        f"sync:\n- {{source: '{offered}', target: 'ocidir://{tmp_path}/ours',"
        f" type: repository, {rules}}}\n"
    )
    assert mirrored(theirs) == set(kept.split())


def test_a_version_of_skopeo_is_one_for_us_and_no_other_tag(offered: str, tmp_path: Path) -> None:
    host, _, repository = offered.partition("/")
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(f'"{host}": {{images-by-semver: {{{repository}: ">= 1.1"}}}}\n')
    to = ["--to", f"oci:{tmp_path}/ours"]
    assert mirrored(theirs, *to) == {"1.1", "1.10", "1.2.3", "v1.2", "2", "3.19"}


def test_anchors_aliases_and_merges_of_the_other_file_are_read(
    offered: str, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(
        "x-rules: &rules {allow: [edge, latest]}\n"
        f"x-step: &step\n  source: '{offered}'\n  target: 'ocidir://{tmp_path}/ours'\n"
        "  type: repository\n  tags: {allow: [nothing]}\n"
        "sync:\n- <<: *step\n  tags: *rules\n"
        "- <<: [{tags: {allow: [a_b]}}, *step]\n"
    )
    assert mirrored(theirs) == {"edge", "latest", "a_b"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &a [x, x, x, x, x, x, x, x, x, x]\n", "more than 500000 values"),
        (f"a: &a ['{'x' * 2_000_000}']\n", "more than 500000 values"),
        ("sync: &a [*a]\n", "an alias of nothing that stands before it"),
    ],
)
def test_a_bomb_of_aliases_is_2_and_small(text: str, told: str, tmp_path: Path) -> None:
    if "&a [*a]" not in text:
        for one, next_one in zip("abcdefg", "bcdefgh", strict=True):
            text += f"{next_one}: &{next_one} [{', '.join([f'*{one}'] * 10)}]\n"
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(text)
    refused = ocimirror("config", "import", theirs)
    assert refused.code == 2
    assert told in refused.stderr


# (skopeo 1.22 was asked; Debian 12 has one that knows no images-by-semver.)
@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (
            "images-by-semver: {REPOSITORY: '>=1.0-0 <2.0-0'}",
            {"1.0", "1.1", "v1.2", "1.2.3", "1.2.3-rc1"},
        ),
        ("images-by-semver: {REPOSITORY: '>2'}", {"3.19"}),
        ("images-by-semver: {REPOSITORY: '~1.2'}", {"1.2.3", "v1.2"}),
        ("images: {REPOSITORY: ['@x', '1.0'], 'REPOSITORY:1.1': []}", {"1.0"}),
    ],
)
def test_what_skopeo_122_selects(
    content: str, wanted: set[str], registry, repository, tmp_path
) -> None:
    for tag in ("1.0", "1.1", "1.2.3", "1.2.3-rc1", "1.2.3-01", "v1.2", "2.0-rc.1", "3.19", "4-.1"):
        offer(registry, repository, tag, SINGLE)
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(f"{registry.host}:\n  {content.replace('REPOSITORY', repository)}\n")
    assert mirrored(theirs, "--to", f"{registry.host}/mirror") == wanted


@pytest.mark.parametrize(
    "meaning",
    [">x", "1-rc1", "x.2", "1 - x", "~0.0.0-0", "<2 ^1.0.0-0", "1 - 2 || 3", "!=1", "=>1", "<=1-a"],
)
def test_a_range_that_skopeo_reads_in_another_way_is_left_out(meaning: str, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(
        f"quay.io:\n  images: {{a/b: []}}\n  images-by-semver: {{a/c: '{meaning}'}}\n"
    )
    result = ocimirror("config", "import", theirs, "--to", "mirror.example", "--json")
    assert result.code == 0
    assert ["quay.io/a/c is left out" in note["text"] for note in result.document["notes"]] == [
        True
    ]
    assert "quay.io/a/c\n" not in result.document["config"]
