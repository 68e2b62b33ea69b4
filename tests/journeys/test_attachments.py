"""Signatures, SBOMs and attestations come along, whichever way a registry keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.registry import StrictRegistry, run_registry
from tests.support.servers import run_docker_registry
from tests.support.signed import (
    Signed,
    Subject,
    push_signed,
    put_fallback,
    referrers_at,
    signed_image,
)
from tests.support.witness import Registry

PLATFORMS = images.PLATFORMS[:2]
KINDS = ["api", "tags", "docker-registry"]


@pytest.fixture
def registries(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """Start a source and a destination of the kinds that a test asks for."""
    with ExitStack() as stack:

        def start(kind: str, name: str) -> Registry:
            directory = tmp_path / name
            directory.mkdir()
            if kind == "docker-registry":
                return stack.enter_context(run_docker_registry(directory))
            registry = stack.enter_context(run_registry(directory))
            registry.options.referrers = kind == "api"
            return registry

        yield SimpleNamespace(start=start)


def image_of(result: Result) -> dict[str, object]:
    assert result.code == 0, result.stderr
    return result.document["images"][0]


def assert_all_there(registry: Registry, repository: str, signed: Signed) -> None:
    for graph in (signed.image, *signed.attachments):
        for digest, (_, raw) in graph.manifests.items():
            assert registry.get_manifest(repository, digest) == raw
        for digest, content in graph.blobs.items():
            assert registry.get_blob(repository, digest) == content
    for subject, graphs in signed.referrers.items():
        assert referrers_at(registry, repository, subject) == {graph.root for graph in graphs}
    for tag, graph in signed.tags.items():
        assert registry.get_manifest(repository, tag) == graph.raw


@pytest.mark.parametrize("destination", KINDS)
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.bar("R49", "no-referrers-api")
def test_every_attachment_arrives_through_layout_and_archive(
    source: str, destination: str, registries: SimpleNamespace, tmp_path: Path
) -> None:
    signed = signed_image()
    here, there = registries.start(source, "a"), registries.start(destination, "b")
    push_signed(here, "team/app", signed, api=source == "api")

    pulled = ocimirror("pull", f"{here.host}/team/app:1.0", tmp_path / "layout", "--json")
    layout, archive = f"oci:{tmp_path}/layout", f"oci-archive:{tmp_path}/image.tar"
    name = f"{here.host}/team/app:1.0"
    packed = ocimirror("copy", f"{layout}:{name}", archive, "--json")
    pushed = ocimirror(
        "copy", f"{archive}:{name}", f"docker://{there.host}/mirror/app:1.0", "--json"
    )

    counted = [image_of(result)["referrers"] for result in (pulled, packed, pushed)]
    assert counted == [len(signed.attachments)] * 3
    assert ocimirror("verify", tmp_path / "layout").code == 0
    assert_all_there(there, "mirror/app", signed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.bar("R49", "quay-no-oci-subject")
def test_every_attachment_arrives_from_registry_to_registry_and_by_push(
    kind: str, registries: SimpleNamespace, tmp_path: Path
) -> None:
    signed = signed_image()
    here, there = registries.start("api", "a"), registries.start(kind, "b")
    push_signed(here, "team/app", signed, api=True)
    source = f"docker://{here.host}/team/app:1.0"

    image_of(ocimirror("copy", source, f"docker://{there.host}/copied/app", "--json"))
    assert ocimirror("pull", f"{here.host}/team/app:1.0", tmp_path / "layout").code == 0
    pushed = ocimirror("push", tmp_path / "layout", f"{there.host}/pushed", "--json")

    assert [image["status"] for image in pushed.document["images"]] == ["copied"]
    assert_all_there(there, "copied/app", signed)
    assert_all_there(there, "pushed/team/app", signed)


def test_a_signature_that_came_since_is_carried_and_then_nothing_is_new(
    registries: SimpleNamespace, tmp_path: Path
) -> None:
    here = registries.start("api", "a")
    graph = images.multi()
    images.push(here, "app", "1.0", graph)
    name, layout = f"{here.host}/app:1.0", tmp_path / "layout"
    assert image_of(ocimirror("pull", name, layout, "--json"))["referrers"] == 0
    images.push(here, "app", None, images.with_subject(graph, 7))

    second = image_of(ocimirror("pull", name, layout, "--json"))
    third = image_of(ocimirror("pull", name, layout, "--json"))

    assert (second["status"], second["referrers"]) == ("copied", 1)
    assert third["status"] == "unchanged"


def test_no_referrers_asks_for_none_and_carries_none(
    registries: SimpleNamespace, tmp_path: Path
) -> None:
    here = registries.start("api", "a")
    assert isinstance(here, StrictRegistry)
    push_signed(here, "app", signed_image(), api=True)

    pulled = ocimirror("pull", f"{here.host}/app:1.0", tmp_path / "l", "--no-referrers", "--json")

    assert image_of(pulled)["referrers"] == 0
    asked = [request.path for request in here.requests]
    assert not [path for path in asked if "referrers" in path or "tags/list" in path]


def two_platforms(number: int) -> images.Graph:
    builder = images.Builder()
    children = [images.add_image(builder, (number, p["architecture"]), p) for p in PLATFORMS]
    return builder.graph(builder.index(children))


@pytest.mark.parametrize("kind", ["api", "fallback", "cosign"])
def test_fifty_unchanged_tags_cost_two_requests_each_and_the_repository_a_handful(
    kind: str, registries: SimpleNamespace, tmp_path: Path
) -> None:
    """Each image has attachments, and so has a platform of it."""
    here, there = (registries.start("api" if kind == "api" else "tags", n) for n in "ab")
    names = []
    for number in range(50):
        graph = two_platforms(number)
        images.push(here, "app", f"t{number}", graph)
        names.append(f"{here.host}/app:t{number}")
        child = json.loads(graph.raw)["manifests"][0]
        child = Subject({key: child[key] for key in ("mediaType", "digest", "size")})
        attached = [images.with_subject(subject, number) for subject in (graph, child)]  # type: ignore[arg-type]
        for subject, each in zip((graph.root, child.descriptor["digest"]), attached, strict=True):
            if kind == "cosign":
                tag = str(subject).replace(":", "-") + ".sig"
                images.push(here, "app", tag, images.artifact())
                continue
            images.push(here, "app", None, each)
            if kind == "fallback":
                put_fallback(here, "app", str(subject), [each])
    layout = tmp_path / "layout"
    pulled = ocimirror("pull", *names, layout, "--json")
    pushed = ocimirror("push", layout, there.host, "--json")
    assert [image["referrers"] for image in pulled.document["images"]] == [2] * 50
    assert pushed.code == 0, pushed.stderr
    for registry in (here, there):
        registry.requests.clear()

    again = [
        ocimirror("pull", *names, layout, "--json"),
        ocimirror("push", layout, there.host, "--json"),
    ]

    for result in again:
        assert {image["status"] for image in result.document["images"]} == {"unchanged"}
    assert len(here.requests) <= 2 * 50 + 5
    assert len(there.requests) <= 2 * 50 + 5


def test_deep_finds_what_came_to_a_platform_of_an_unchanged_image(
    registries: SimpleNamespace, tmp_path: Path
) -> None:
    here = registries.start("api", "a")
    graph = two_platforms(0)
    images.push(here, "app", "1.0", graph)
    name, layout = f"{here.host}/app:1.0", tmp_path / "layout"
    assert ocimirror("pull", name, layout).code == 0
    child = json.loads(graph.raw)["manifests"][0]
    child = Subject({key: child[key] for key in ("mediaType", "digest", "size")})
    images.push(here, "app", None, images.with_subject(child, 1))  # type: ignore[arg-type]

    found = [
        image_of(ocimirror("pull", name, layout, "--json", *option))["referrers"]
        for option in ((), ("--deep",))
    ]

    assert found == [0, 1]


@pytest.mark.bar("R49", "gitlab-fallback-alias")
def test_gitlab_answers_the_fallback_tag_with_the_image_itself_and_that_is_no_referrer(
    registries: SimpleNamespace, tmp_path: Path
) -> None:
    here = registries.start("tags", "a")
    graph = images.multi()
    images.push(here, "app", "1.0", graph)
    images.push(here, "app", graph.root.replace(":", "-"), graph)

    pulled = ocimirror("pull", f"{here.host}/app:1.0", tmp_path / "layout", "--json")

    assert image_of(pulled)["referrers"] == 0


@pytest.mark.bar("R49")
def test_what_is_listed_and_has_another_subject_is_left_out(
    registries: SimpleNamespace, tmp_path: Path
) -> None:
    here = registries.start("tags", "a")
    graph = images.multi()
    right, wrong = images.with_subject(graph, 1), images.with_subject(images.single(), 2)
    images.push(here, "app", "1.0", graph)
    for signature in (right, wrong):
        images.push(here, "app", None, signature)
    put_fallback(here, "app", graph.root, [right, wrong])

    pulled = ocimirror("pull", f"{here.host}/app:1.0", tmp_path / "layout", "--json")

    assert image_of(pulled)["referrers"] == 1
    assert not (tmp_path / "layout" / "blobs" / wrong.root.replace(":", "/")).exists()


@pytest.mark.bar("R49")
def test_an_error_while_looking_is_an_error_and_never_none(
    registries: SimpleNamespace, proxy: object, tmp_path: Path
) -> None:
    from tests.support.faults import Respond, Rule

    here = registries.start("api", "a")
    push_signed(here, "app", signed_image(), api=True)
    front = proxy(here, Rule("GET", r"/referrers/", Respond(500)))  # type: ignore[operator]

    pulled = ocimirror("pull", f"{front.host}/app:1.0", tmp_path / "l", "--json", "--retries", "0")

    assert pulled.code == 3
    assert pulled.document["images"][0]["status"] == "failed"


@pytest.mark.bar("R50")
def test_the_fallback_index_keeps_what_others_wrote(
    registries: SimpleNamespace, tmp_path: Path
) -> None:
    there = registries.start("docker-registry", "b")
    graph = images.multi()
    mine, theirs = images.with_subject(graph, 1), images.with_subject(graph, 2)
    images.push(there, "app", None, theirs)
    put_fallback(there, "app", graph.root, [theirs])
    here = registries.start("api", "a")
    images.push(here, "app", "1.0", graph)
    images.push(here, "app", None, mine)

    copied = ocimirror(
        "copy", f"docker://{here.host}/app:1.0", f"docker://{there.host}/app", "--json"
    )

    assert image_of(copied)["referrers"] == 1
    assert referrers_at(there, "app", graph.root) == {mine.root, theirs.root}


@pytest.mark.parametrize("replace", [False, True])
def test_a_signature_of_the_destination_s_own_is_not_overwritten(
    replace: bool, registries: SimpleNamespace
) -> None:
    here, there = registries.start("tags", "a"), registries.start("tags", "b")
    graph = images.multi()
    tag = graph.root.replace(":", "-") + ".sig"
    own = images.with_subject(images.single(), 3)
    images.push(here, "app", "1.0", graph)
    images.push(here, "app", tag, images.artifact())
    images.push(there, "app", tag, own)
    option = ["--replace-signatures"] if replace else []

    copied = image_of(
        ocimirror(
            *("copy", f"docker://{here.host}/app:1.0", f"docker://{there.host}/app", "--json"),
            *option,
        )
    )

    kept = there.get_manifest("app", tag) == own.raw
    assert kept is not replace
    assert bool(copied["notes"]) is not replace


def test_in_a_layout_attachments_are_entries_without_a_name(
    registries: SimpleNamespace, tmp_path: Path
) -> None:
    here = registries.start("api", "a")
    signed = signed_image()
    push_signed(here, "app", signed, api=True)
    assert ocimirror("pull", f"{here.host}/app:1.0", tmp_path / "layout").code == 0

    entries = json.loads((tmp_path / "layout" / "index.json").read_bytes())["manifests"]

    unnamed = {entry["digest"] for entry in entries if "annotations" not in entry}
    assert unnamed == {g.root for graphs in signed.referrers.values() for g in graphs}


def test_inspect_shows_what_refers_to_an_image_and_to_its_children(
    registries: SimpleNamespace, tmp_path: Path
) -> None:
    here = registries.start("tags", "a")
    signed = signed_image()
    push_signed(here, "app", signed, api=False)

    shown = ocimirror("inspect", f"docker://{here.host}/app:1.0", "--json").document

    tags = [referrer["tag"] for referrer in shown["referrers"] if referrer["tag"]]
    assert tags == list(signed.tags)
    for child in shown["manifests"]:
        found = {referrer["digest"] for referrer in child["referrers"]}
        assert found == {graph.root for graph in signed.referrers[child["digest"]]}


@pytest.mark.bar("R49")
def test_one_repository_that_hides_its_referrers_does_not_hide_those_of_another(
    registries: SimpleNamespace, proxy: object, tmp_path: Path
) -> None:
    from tests.support.faults import Respond, Rule

    here = registries.start("api", "a")
    for repository in ("closed", "open"):
        images.push(here, repository, "1.0", images.multi())
        images.push(here, repository, None, images.with_subject(images.multi(), 1))
    front = proxy(here, Rule("GET", r"/closed/referrers/", Respond(403)))  # type: ignore[operator]
    names = [f"{front.host}/{repository}:1.0" for repository in ("closed", "open")]

    pulled = ocimirror("pull", *names, tmp_path / "layout", "--json", "--jobs", "1")

    assert [image["referrers"] for image in pulled.document["images"]] == [0, 1]


def test_a_fallback_index_with_a_subject_of_its_own_does_not_hang(
    registries: SimpleNamespace,
) -> None:
    here, there = registries.start("api", "a"), registries.start("tags", "b")
    graph = images.multi()
    images.push(here, "app", "1.0", graph)
    images.push(here, "app", None, images.with_subject(graph, 1))
    taken = {
        "schemaVersion": 2,
        "mediaType": images.OCI_INDEX,
        "manifests": [],
        "subject": graph.descriptor,
    }
    tag = graph.root.replace(":", "-")
    there.put_manifest("app", tag, json.dumps(taken).encode(), images.OCI_INDEX)

    copied = ocimirror(
        "copy", f"docker://{here.host}/app:1.0", f"docker://{there.host}/app", timeout_s=20
    )

    assert copied.code == 0, copied.stderr
