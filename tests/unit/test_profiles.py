"""What an archive says to each engine: index.json and manifest.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocimirror.errors import UsageError
from ocimirror.model.platform import Platform
from ocimirror.stores.entry import MANIFEST, PLATFORMS
from ocimirror.stores.layout.index import LayoutIndex
from ocimirror.stores.profiles import (
    PROFILES,
    Image,
    Profile,
    docker_manifest,
    has_docker_manifest,
    image_in,
    index_document,
    this_linux,
)
from tests.support import images
from tests.support.images import IMAGE_NAME_ANNOTATION, REF_NAME_ANNOTATION, Graph
from tests.support.stores import Failing, fill, memory, root_of

REPOSITORY = "reg.example.com/team/multi"
NAME = f"{REPOSITORY}:1.0"
AMD64 = Platform("linux", "amd64")
MULTI, SINGLE = images.multi(), images.single()
CHILDREN = [c for c in json.loads(MULTI.raw)["manifests"] if "annotations" not in c]


def image(graph: Graph = MULTI, name: str = NAME, platform: Platform = AMD64) -> Image:
    store = memory({name: graph})
    return image_in(store, name, store.resolve(name), [platform] if graph is MULTI else [])


def entries(profile: Profile, *held: Image) -> list[dict[str, Any]]:
    raw = index_document(profile, held)
    LayoutIndex.parse(raw, "the test")
    return list(json.loads(raw)["manifests"])


def names(listed: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["annotations"][IMAGE_NAME_ANNOTATION]: entry["digest"] for entry in listed}


def digest_for(architecture: str) -> str:
    offered = {str(child["platform"]["architecture"]): str(child["digest"]) for child in CHILDREN}
    return offered[architecture]


@pytest.mark.parametrize("profile", ["any", "docker"])
def test_docker_gets_one_entry_with_name_and_tag(profile: Profile) -> None:
    assert entries(profile, image()) == [
        {
            "mediaType": MULTI.root_media_type,
            "digest": MULTI.root,
            "size": len(MULTI.raw),
            "annotations": {IMAGE_NAME_ANNOTATION: NAME, REF_NAME_ANNOTATION: "1.0"},
        }
    ]


def test_podman_gets_one_entry_whose_annotations_are_the_full_name() -> None:
    (entry,) = entries("podman", image())
    assert entry["annotations"] == {IMAGE_NAME_ANNOTATION: NAME, REF_NAME_ANNOTATION: NAME}


def test_podman_gets_no_archive_of_two_images() -> None:
    with pytest.raises(UsageError):
        index_document("podman", [image(), image(SINGLE, "reg.example.com/other:1")])


def test_containerd_gets_a_name_for_the_tag_the_index_and_each_platform() -> None:
    listed = entries("containerd", image())
    children = [child["digest"] for child in CHILDREN]
    assert names(listed) == {
        NAME: MULTI.root,
        f"{REPOSITORY}@{MULTI.root}": MULTI.root,
        **{f"{REPOSITORY}@{digest}": digest for digest in children},
    }
    stated = [child["platform"] for child in CHILDREN]
    assert [entry.get("platform") for entry in listed] == [None, None, *stated]


def test_containerd_gets_no_name_for_a_platform_that_is_not_there() -> None:
    store = Failing()
    fill(store, {NAME: MULTI})
    arm64 = store.read_manifest(store.resolve(digest_for("arm64")))
    store.forget(str(arm64.blobs[-1].digest))
    held = image_in(store, NAME, store.resolve(NAME), [AMD64])
    known = set(names(entries("containerd", held)))
    assert set(names(entries("containerd", image()))) - known == {
        f"{REPOSITORY}@{digest_for('arm64')}"
    }


def test_containerd_gets_an_image_without_an_index_by_its_manifest() -> None:
    assert names(entries("containerd", image(SINGLE))) == {
        NAME: SINGLE.root,
        f"{REPOSITORY}@{SINGLE.root}": SINGLE.root,
    }


def test_containerd_gets_an_image_known_by_digest_under_that_alone() -> None:
    by_digest = f"{REPOSITORY}@{SINGLE.root}"
    assert set(names(entries("containerd", Image(by_digest, root_of(SINGLE))))) == {by_digest}


def test_containerd_needs_a_full_name() -> None:
    with pytest.raises(UsageError):
        index_document("containerd", [image(SINGLE, "v1")])


def test_two_names_of_one_image_share_the_names_by_digest() -> None:
    other = f"{REPOSITORY}:latest"
    assert list(names(entries("containerd", image(SINGLE), image(SINGLE, other)))) == [
        NAME,
        f"{REPOSITORY}@{SINGLE.root}",
        other,
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_layout_says_of_an_image_is_kept(profile: Profile) -> None:
    said = {PLATFORMS: "linux/amd64", MANIFEST: "synthesised", "org.example.other": "x"}
    root = root_of(MULTI)
    held = Image(NAME, type(root)(root.media_type, root.digest, root.size, "manifest", said))
    first = entries(profile, held)[0]["annotations"]
    assert (first[PLATFORMS], first[MANIFEST]) == ("linux/amd64", "synthesised")
    assert "org.example.other" not in first


def test_a_docker_manifest_lists_the_chosen_platform() -> None:
    (entry,) = json.loads(docker_manifest([image()]))
    child = json.loads(MULTI.manifests[digest_for("amd64")][1])
    assert entry == {
        "Config": "blobs/" + child["config"]["digest"].replace(":", "/"),
        "RepoTags": [NAME],
        "Layers": ["blobs/" + layer["digest"].replace(":", "/") for layer in child["layers"]],
    }


@pytest.mark.parametrize("name", [f"{REPOSITORY}@{SINGLE.root}", "v1", ""])
def test_a_docker_manifest_has_no_tag_where_the_name_has_no_repository_or_tag(name: str) -> None:
    held = image(SINGLE)
    (entry,) = json.loads(docker_manifest([Image(name, held.root, (), held.chosen)]))
    assert entry["RepoTags"] is None


def test_a_docker_manifest_holds_several_images() -> None:
    held = [image(), image(SINGLE, "docker.io/library/alpine:3")]
    listed = json.loads(docker_manifest(held))
    assert [entry["RepoTags"] for entry in listed] == [[NAME], ["docker.io/library/alpine:3"]]


def test_no_platform_is_chosen_that_the_image_does_not_have() -> None:
    assert image(MULTI, platform=Platform("linux", "s390x")).chosen is None


def test_an_artifact_is_not_chosen_for_docker() -> None:
    assert image(images.artifact()).chosen is None


def test_this_machine_chooses_where_no_platform_is_named() -> None:
    store = memory({NAME: MULTI})
    chosen = image_in(store, NAME, store.resolve(NAME)).chosen
    assert this_linux().os == "linux"
    assert (chosen is not None) == (this_linux().architecture in ("amd64", "arm64"))


def test_only_docker_reads_a_docker_manifest() -> None:
    assert [profile for profile in PROFILES if has_docker_manifest(profile)] == ["any", "docker"]
