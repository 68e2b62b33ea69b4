"""What an archive says to each engine: index.json and manifest.json."""

from __future__ import annotations

import json
import platform
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from ocimirror import ArchiveWriter, Descriptor, Manifest, Platform, UsageError
from tests.support import images
from tests.support.images import IMAGE_NAME_ANNOTATION, REF_NAME_ANNOTATION, Graph
from tests.support.stores import fill, manifests_of, push_blob, root_of

Profile = Literal["any", "docker", "containerd", "podman"]
PROFILES: tuple[Profile, ...] = ("any", "docker", "containerd", "podman")
REPOSITORY = "reg.example.com/team/multi"
NAME = f"{REPOSITORY}:1.0"
AMD64 = Platform("linux", "amd64")
MULTI, SINGLE = images.multi(), images.single()
CHILDREN = [c for c in json.loads(MULTI.raw)["manifests"] if "annotations" not in c]


def documents(
    profile: Profile, named: dict[str, Graph], platforms: tuple[Platform, ...] = (AMD64,)
) -> dict[str, Any]:
    """Write an archive of images; return its documents by name."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.tar"
        with ArchiveWriter(str(path), profile=profile, platforms=platforms) as archive:
            fill(archive, named)
            archive.commit()
        return documents_in(path)


def documents_in(path: Path) -> dict[str, Any]:
    found = {}
    with tarfile.open(path) as tar:
        for name in {"index.json", "manifest.json"} & set(tar.getnames()):
            file = tar.extractfile(name)
            assert file is not None
            found[name] = json.loads(file.read())
    return found


def entries(profile: Profile, named: dict[str, Graph]) -> list[dict[str, Any]]:
    return list(documents(profile, named)["index.json"]["manifests"])


def docker_manifest(
    named: dict[str, Graph], platforms: tuple[Platform, ...] = (AMD64,)
) -> list[dict[str, Any]]:
    return list(documents("docker", named, platforms)["manifest.json"])


def names(listed: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["annotations"][IMAGE_NAME_ANNOTATION]: entry["digest"] for entry in listed}


def digest_for(architecture: str) -> str:
    offered = {str(child["platform"]["architecture"]): str(child["digest"]) for child in CHILDREN}
    return offered[architecture]


@pytest.mark.parametrize("profile", ["any", "docker"])
def test_docker_gets_one_entry_with_name_and_tag(profile: Profile) -> None:
    assert entries(profile, {NAME: MULTI}) == [
        {
            "mediaType": MULTI.root_media_type,
            "digest": MULTI.root,
            "size": len(MULTI.raw),
            "annotations": {IMAGE_NAME_ANNOTATION: NAME, REF_NAME_ANNOTATION: "1.0"},
        }
    ]


def test_podman_gets_one_entry_whose_annotations_are_the_full_name() -> None:
    (entry,) = entries("podman", {NAME: MULTI})
    assert entry["annotations"] == {IMAGE_NAME_ANNOTATION: NAME, REF_NAME_ANNOTATION: NAME}


def test_podman_gets_no_archive_of_two_images() -> None:
    with pytest.raises(UsageError):
        entries("podman", {NAME: MULTI, "reg.example.com/other:1": SINGLE})


def test_containerd_gets_a_name_for_the_tag_the_index_and_each_platform() -> None:
    listed = entries("containerd", {NAME: MULTI})
    children = [child["digest"] for child in CHILDREN]
    assert names(listed) == {
        NAME: MULTI.root,
        f"{REPOSITORY}@{MULTI.root}": MULTI.root,
        **{f"{REPOSITORY}@{digest}": digest for digest in children},
    }
    stated = [child["platform"] for child in CHILDREN]
    assert [entry.get("platform") for entry in listed] == [None, None, *stated]


def test_containerd_gets_no_name_for_a_platform_that_is_not_there() -> None:
    arm64 = json.loads(MULTI.manifests[digest_for("arm64")][1])
    kept = {d: c for d, c in MULTI.blobs.items() if d != arm64["layers"][-1]["digest"]}
    known = set(names(entries("containerd", {NAME: replace(MULTI, blobs=kept)})))
    assert set(names(entries("containerd", {NAME: MULTI}))) - known == {
        f"{REPOSITORY}@{digest_for('arm64')}"
    }


def test_containerd_gets_an_image_without_an_index_by_its_manifest() -> None:
    assert names(entries("containerd", {NAME: SINGLE})) == {
        NAME: SINGLE.root,
        f"{REPOSITORY}@{SINGLE.root}": SINGLE.root,
    }


def test_containerd_gets_an_image_known_by_digest_under_that_alone() -> None:
    by_digest = f"{REPOSITORY}@{SINGLE.root}"
    assert set(names(entries("containerd", {by_digest: SINGLE}))) == {by_digest}


def test_containerd_needs_a_full_name() -> None:
    with pytest.raises(UsageError):
        entries("containerd", {"v1": SINGLE})


def test_two_names_of_one_image_share_the_names_by_digest() -> None:
    other = f"{REPOSITORY}:latest"
    assert list(names(entries("containerd", {NAME: SINGLE, other: SINGLE}))) == [
        NAME,
        f"{REPOSITORY}@{SINGLE.root}",
        other,
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_layout_says_of_an_image_is_kept(profile: Profile, tmp_path: Path) -> None:
    platforms, manifest = "dev.ocimirror.platforms", "dev.ocimirror.manifest"
    said = {platforms: "linux/amd64", manifest: "synthesised", "org.example.other": "x"}
    root = root_of(MULTI)
    marked = Descriptor(root.media_type, root.digest, root.size, "manifest", said)
    with ArchiveWriter(str(tmp_path / "a.tar"), profile=profile, platforms=[AMD64]) as archive:
        for content in MULTI.blobs.values():
            push_blob(archive, content)
        for below in manifests_of(MULTI):
            archive.push_manifest(below)
        archive.tag([(NAME, Manifest.parse(MULTI.raw, marked))])
        archive.commit()
    first = documents_in(tmp_path / "a.tar")["index.json"]["manifests"][0]["annotations"]
    assert (first[platforms], first[manifest]) == ("linux/amd64", "synthesised")
    assert "org.example.other" not in first


def test_a_docker_manifest_lists_the_chosen_platform() -> None:
    (entry,) = docker_manifest({NAME: MULTI})
    child = json.loads(MULTI.manifests[digest_for("amd64")][1])
    assert entry == {
        "Config": "blobs/" + child["config"]["digest"].replace(":", "/"),
        "RepoTags": [NAME],
        "Layers": ["blobs/" + layer["digest"].replace(":", "/") for layer in child["layers"]],
    }


@pytest.mark.parametrize("name", [f"{REPOSITORY}@{SINGLE.root}", "v1", ""])
def test_a_docker_manifest_has_no_tag_where_the_name_has_no_repository_or_tag(name: str) -> None:
    (entry,) = docker_manifest({name: SINGLE}, ())
    assert entry["RepoTags"] is None


def test_a_docker_manifest_holds_several_images() -> None:
    listed = docker_manifest({NAME: MULTI, "docker.io/library/alpine:3": SINGLE})
    assert [entry["RepoTags"] for entry in listed] == [[NAME], ["docker.io/library/alpine:3"]]


def test_no_platform_is_chosen_that_the_image_does_not_have() -> None:
    assert docker_manifest({NAME: MULTI}, (Platform("linux", "s390x"),)) == []


def test_an_artifact_is_not_chosen_for_docker() -> None:
    assert docker_manifest({NAME: images.artifact()}, ()) == []


def test_this_machine_chooses_where_no_platform_is_named() -> None:
    known = platform.machine() in ("x86_64", "aarch64")
    assert len(docker_manifest({NAME: MULTI}, ())) == known


def test_only_docker_reads_a_docker_manifest() -> None:
    written = {p: set(documents(p, {NAME: SINGLE}, ())) for p in PROFILES}
    assert [p for p in PROFILES if "manifest.json" in written[p]] == ["any", "docker"]
