"""Which repositories an entry reads, and that its images go nowhere else than it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from tests.support.batches import batches
from tests.support.command import ocimirror
from tests.support.configurations import check, check_all
from tests.support.tagserver import TagServer, run_tag_server

DIGEST = "sha256:" + "a" * 64
SOURCES = [
    ("alpine", "docker.io/library/alpine"),
    ("docker://quay.io/org/app", "quay.io/org/app"),
    ("index.docker.io/org/app:1", "docker.io/org/app:1"),
    (f"quay.io/org/app:1@{DIGEST}", f"quay.io/org/app:1@{DIGEST}"),
    ("quay.io/org/*", "quay.io/org/*"),
    ("localhost:5000/*", "localhost:5000/*"),
]
STARS = (
    " (A * stands only at the end, after a host: HOST/* or HOST/PREFIX/*; what of it is wanted is"
    " said with several entries.)"
)
NO_SOURCES = [
    *(
        (text, f"not a source: '{text}'{STARS}")
        for text in (
            *("library/*", "*", "quay.io/*/app", "quay.io/org*", "quay.io/o/**", "quay.io/*:1"),
        )
    ),
    ("", "a repository has 1 to 1024 characters"),
]


@pytest.fixture
def server() -> Iterator[TagServer]:
    """A registry that lists what it is told."""
    with run_tag_server() as server:
        yield server


def configured(entries: Sequence[Mapping[str, object]]) -> str:
    """Return a configuration with these mirrors, whose attachments are not asked for."""
    written = (yaml.safe_dump([entry], width=9999, sort_keys=False) for entry in entries)
    return "".join(["referrers: false\nmirrors:\n", *written])


def planned(path: Path, entries: Sequence[Mapping[str, object]]) -> Any:
    """Return the document of a dry run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(configured(entries))
    night = ocimirror("sync", path, "--dry-run", "--json", "--retries", "0")
    assert "images" in night.stdout, night.stderr + night.stdout
    return night.document


def places(document: Any) -> dict[str, list[str]]:
    """Return where each image goes, by its source without the scheme."""
    found: dict[str, list[str]] = {}
    for image in document["images"]:
        source = image["source"].removeprefix("docker://")
        found.setdefault(source, []).append(image["destination"])
    return found


# --- sources ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what is made of every source, and of what is made of it."""
    path = tmp_path_factory.mktemp("sources") / "sync.yaml"
    texts = [text for both in SOURCES for text in both]
    path.write_text(configured([{"from": text, "to": f"oci:{n}"} for n, text in enumerate(texts)]))
    document, faults = check(path)
    assert faults == []
    return [mirror["from"] for mirror in document["mirrors"]]


@pytest.mark.parametrize("number", range(len(SOURCES)), ids=[text for text, _ in SOURCES])
def test_a_source_is_a_repository_an_image_or_all_below_a_prefix(
    sources: list[str], number: int
) -> None:
    assert sources[2 * number : 2 * number + 2] == [SOURCES[number][1]] * 2


def told(directory: Path, key: str, texts: Sequence[str]) -> dict[str, list[str]]:
    """Return what is said of each text as the source, or destination, of an entry."""
    entry = {"from": "quay.io/org/app", "to": "oci:x"}
    files = [f"mirrors: [{json.dumps({**entry, key: text})}]\n" for text in texts]
    return {
        text: found.faults for text, found in zip(texts, check_all(directory, files), strict=True)
    }


@pytest.fixture(scope="module")
def no_sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return what is said of each source that is none, in one run."""
    return told(tmp_path_factory.mktemp("sources"), "from", [text for text, _ in NO_SOURCES])


@pytest.mark.parametrize(("text", "problem"), NO_SOURCES)
def test_other_stars_are_refused(no_sources: dict[str, list[str]], text: str, problem: str) -> None:
    assert no_sources[text] == [f"1:20: {problem}"]


def test_a_pattern_matches_what_is_below_its_prefix(server: TagServer, tmp_path: Path) -> None:
    names = ["org/app", "org/team/app", "org", "organ/app", "org/../x", "org/App", "other/org/app"]
    server.repositories = {name: ["1"] for name in [*names, "app", "../app"]}
    below = {"from": f"{server.host}/org/*", "to": "oci:below/{repository}"}
    everything = {"from": f"{server.host}/*", "to": "oci:all/{repository}"}
    document = planned(tmp_path / "sync.yaml", [below, everything])
    found: dict[str, set[str]] = {"below": set(), "all": set()}
    for image in document["images"]:
        place = image["destination"].partition(f"{tmp_path}/")[2].partition(":")[0]
        kind, _, repository = place.partition("/")
        found[kind].add(repository)
    assert found["below"] == {"org/app", "org/team/app"}
    assert found["all"] == {"org/app", "org/team/app", "org", "organ/app", "other/org/app", "app"}


def test_a_catalogue_without_what_is_wanted_is_an_error(server: TagServer, tmp_path: Path) -> None:
    server.repositories = {"org": ["1"], "org/../x": ["1"]}
    entry = {"from": f"{server.host}/org/*", "to": "oci:x/{repository}"}
    document = planned(tmp_path / "sync.yaml", [entry])
    assert document["exit_code"] == 4
    assert document["entries"][0]["error"]["message"] == (
        f"the catalogue of {server.host} names nothing that is {server.host}/org/*"
    )


# --- targets ------------------------------------------------------------------------------------

# (HERE is the registry of the source, THERE its name in a path, BASE the directory of the file.)
TARGETS = [
    ("127.0.0.1:1/app", "docker://127.0.0.1:1/app:1.2"),
    ("docker://127.0.0.1:1/app2", "docker://127.0.0.1:1/app2:1.2"),
    ("127.0.0.1:1/{repository}", "docker://127.0.0.1:1/org/app:1.2"),
    ("127.0.0.1:1/{registry}/{repository}", "docker://127.0.0.1:1/THERE/org/app:1.2"),
    ("127.0.0.1:1/app:v{tag}", "docker://127.0.0.1:1/app:v1.2"),
    ("127.0.0.1:1/app-{tag}:x", "docker://127.0.0.1:1/app-1.2:x"),
    ("localhost/app", "docker://localhost/app:1.2"),
    ("oci:/nonexistent/all", "oci:/nonexistent/all:HERE/org/app:1.2"),
    ("oci:{registry}/{repository}", "oci:BASE/THERE/org/app:HERE/org/app:1.2"),
    ("oci:../up/{tag}", "oci:BASE/../up/1.2:HERE/org/app:1.2"),
]
BY_DIGEST = [
    ("127.0.0.1:1/app", "docker://127.0.0.1:1/app"),
    ("127.0.0.1:1/app:stable", "docker://127.0.0.1:1/app:stable"),
    ("oci:all", "oci:BASE/all:HERE/org/app@DIGEST"),
]
BASE = "the {tag}{y} base"


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return where an image with a tag, and one without, go, each to all targets in one run."""
    directory = tmp_path_factory.mktemp("targets")
    with run_tag_server({"org/app": ["1.2"]}) as server:
        pinned = f"{server.host}/org/app@{server.digest('1.2')}"
        document = planned(
            directory / BASE / "sync.yaml",
            [
                {"from": f"{server.host}/org/app", "to": [text for text, _ in TARGETS]},
                {"from": pinned, "to": [text for text, _ in BY_DIGEST]},
            ],
        )
        found = places(document)
        here = {
            server.host.replace(":", "_"): "THERE",
            server.host: "HERE",
            f"{directory}/{BASE}": "BASE",
            server.digest("1.2"): "DIGEST",
        }
    for text, word in here.items():
        found = {
            source.replace(text, word): [place.replace(text, word) for place in there]
            for source, there in found.items()
        }
    return found


@pytest.mark.parametrize(("text", "location"), TARGETS)
def test_a_target_is_filled_in(targets: dict[str, list[str]], text: str, location: str) -> None:
    """A brace in the name of a directory is no field."""
    assert location in targets["HERE/org/app:1.2"]
    assert len(targets["HERE/org/app:1.2"]) == len(TARGETS)


@pytest.mark.parametrize(("text", "location"), BY_DIGEST)
def test_an_image_without_a_tag_goes_by_its_digest(
    targets: dict[str, list[str]], text: str, location: str
) -> None:
    assert location in targets["HERE/org/app@DIGEST"]
    assert len(targets["HERE/org/app@DIGEST"]) == len(BY_DIGEST)


def test_an_image_without_a_tag_has_no_place_that_needs_one(
    server: TagServer, tmp_path: Path
) -> None:
    server.repositories = {"org/app": ["1.2"]}
    source = f"{server.host}/org/app@{server.digest('1.2')}"
    document = planned(tmp_path / "sync.yaml", [{"from": source, "to": "oci:/nonexistent/{tag}"}])
    (image,) = document["images"]
    assert (image["error"]["code"], image["error"]["message"]) == (
        "no_place",
        f"oci:/nonexistent/{{tag}}: the image has no tag: {server.host}/org/app",
    )


NO_HOST = " (A destination is HOST/REPOSITORY, with its host (docker.io too), or oci:DIRECTORY.)"
FIELDS = " (There are {registry}, {repository} and {tag}.)"
PLACE = " (Write HOST/REPOSITORY or oci:DIRECTORY.)"
NO_TARGETS = [
    ("app", f"no registry in 'app'{NO_HOST}"),
    ("org/app", f"no registry in 'org/app'{NO_HOST}"),
    ("mirror.local", f"no registry in 'mirror.local'{NO_HOST}"),
    ("mirror.local/", f"no registry in 'mirror.local/'{NO_HOST}"),
    ("{registry}/app", f"no registry in '{{registry}}/app'{NO_HOST}"),
    ("{registry}.local/app", f"no registry in '{{registry}}.local/app'{NO_HOST}"),
    ("mirror.local/App", "not a repository name: 'App'"),
    ("mirror.local/app:", "a destination has a tag, and no digest: 'mirror.local/app:'"),
    (
        f"mirror.local/app@{DIGEST}",
        f"a destination has a tag, and no digest: 'mirror.local/app@{DIGEST}'",
    ),
    ("mirror.local/{name}", f"{{name}} in 'mirror.local/{{name}}'{FIELDS}"),
    ("mirror.local/{repository", f"a stray brace in 'mirror.local/{{repository'{FIELDS}"),
    ("mirror.local/../x", "not a repository name: '../x'"),
    ("mirror.local/x:{repository}/y", "mirror.local/x:{repository}/y: not a tag: 'repository/y'"),
    ("oci:", "no path in 'oci:'"),
    (
        "oci:x:y",
        "a path with a colon cannot be written: 'BASE/x:y' (A layout keeps an image under its full"
        " name: give the directory alone.)",
    ),
    ("oci:x\0y", r"no path in 'oci:x\x00y'"),
    ("oci-archive:x.tar", f"not a destination of a sync: 'oci-archive:x.tar'{PLACE}"),
    ("docker-archive:x.tar", f"not a destination of a sync: 'docker-archive:x.tar'{PLACE}"),
    ("dir:/srv", f"not a destination of a sync: 'dir:/srv'{PLACE}"),
    ("https://mirror.local/app", f"not a destination of a sync: 'https://mirror.local/app'{PLACE}"),
]


@pytest.fixture(scope="module")
def no_targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return what is said of each target that is none, in one run."""
    directory = tmp_path_factory.mktemp("targets")
    found = told(directory, "to", [text for text, _ in NO_TARGETS])
    return {
        text: [fault.replace(str(directory), "BASE") for fault in faults]
        for text, faults in found.items()
    }


@pytest.mark.parametrize(("text", "problem"), NO_TARGETS)
def test_what_is_no_target_is_refused(
    no_targets: dict[str, list[str]], text: str, problem: str
) -> None:
    assert no_targets[text] == [f"1:45: {problem}"]


# --- names that lead elsewhere ------------------------------------------------------------------

HOSTILE = [
    *("../../etc", "a/../b", "/etc", "a//b", "a\0b", "{tag}", ""),
    *("a/./b", "a/..", "A/b", "a\nb", "org/app/../../x"),
]
HOSTILE_TAGS = ["..", "a/b", "a:b", ".", "", "../x", "a\0b", "{repository}"]


def test_hostile_names_from_a_registry_go_nowhere(server: TagServer, tmp_path: Path) -> None:
    server.repositories = {name: ["1", *HOSTILE_TAGS] for name in [*HOSTILE, "app"]}
    document = planned(
        tmp_path / "sync.yaml",
        [{"from": f"{server.host}/*", "to": "oci:srv/{registry}/{repository}/{tag}"}],
    )
    there = server.host.replace(":", "_")
    assert [image["destination"] for image in document["images"]] == [
        f"oci:{tmp_path}/srv/{there}/app/1:{server.host}/app:1"
    ]


NAMES = ["blobs", "index.json", "index.json.prev", "oci-layout"]
Repositories = Mapping[str, Mapping[str, object]]


@pytest.fixture(scope="module")
def among_files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """Return why an image of a repository has no place at a target, in one run."""
    directory = tmp_path_factory.mktemp("names")
    repositories = {
        f"{prefix}{name}{suffix}"
        for name in NAMES
        for prefix, suffix in (("app/", "/sha256"), ("team/app/", ""), ("", "/app"), ("app/", ""))
    }
    tags = {**{name: ["1"] for name in repositories}, "app": ["1", *NAMES]}
    texts = [
        *("oci:1/{repository}", "oci:2/{registry}/{repository}", "oci:3/{repository}/{tag}"),
        *("oci:4/app", "127.0.0.1:1/{repository}"),
        *(f"oci:5/{{registry}}/{name}/{{repository}}" for name in NAMES),
    ]
    with run_tag_server(tags) as server:
        document = planned(
            directory / "sync.yaml",
            [{"from": f"{server.host}/{name}", "to": texts} for name in tags],
        )
    found = {}
    for image in document["images"]:
        if image["error"] and image["error"]["code"] == "no_place":
            source = image["source"].removeprefix(f"docker://{server.host}/")
            found[image["destination"], source] = image["error"]["message"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_among_the_files_of_another_layout(
    among_files: dict[tuple[str, str], str], name: str
) -> None:
    for text, source in (
        ("oci:1/{repository}", f"app/{name}/sha256:1"),
        ("oci:2/{registry}/{repository}", f"team/app/{name}:1"),
        ("oci:3/{repository}/{tag}", f"app:{name}"),
    ):
        assert f"{text} may lead into another image's layout: " in among_files[text, source]
    for text, source in (
        ("oci:1/{repository}", f"{name}/app:1"),
        ("oci:4/app", f"app/{name}:1"),
        (f"oci:5/{{registry}}/{name}/{{repository}}", "app:1"),
        ("127.0.0.1:1/{repository}", f"app/{name}:1"),
    ):
        assert (text, source) not in among_files


REPOSITORIES = st.text(max_size=20) | st.from_regex(r"[a-z0-9./_-]{1,20}", fullmatch=True)
TAGS = st.text(max_size=20) | st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)


@batches(st.tuples(REPOSITORIES, TAGS), size=50)
def test_no_name_leads_out_of_the_path(
    server: TagServer, tmp_path: Path, names: list[tuple[str, str]]
) -> None:
    server.repositories = {repository: [tag, "1"] for repository, tag in [*names, ("app", "2")]}
    templates = ["{registry}/{repository}/{tag}", ".{tag}", "{repository}.{tag}", "{registry}"]
    entries = [
        {"from": f"{server.host}/*", "to": f"oci:srv/{number}/{template}"}
        for number, template in enumerate(templates)
    ]
    document = planned(tmp_path / "sync.yaml", entries)
    assert len(document["images"]) >= 2 * len(templates)
    for image in document["images"]:
        if (image["error"] or {}).get("code") == "no_place":
            continue  # (as `app/blobs`: its destination is shown as it is written)
        path = PurePosixPath(image["destination"].removeprefix("oci:").partition(":")[0])
        assert path.is_relative_to(tmp_path / "srv"), image
        assert ".." not in path.parts, image
