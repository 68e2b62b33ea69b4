"""What engines say that Debian does not have, in recorded shapes: Docker 24 to 29, containerd 2.

The facts are those of identity.md: in the containerd store `Id` is the digest that the name stands
for, RepoDigests are computed from it, and RootFS tells of one platform.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ocimirror.engines.client import Client
from ocimirror.engines.containerd import Containerd, reachable, server_version
from ocimirror.engines.cri import Status
from ocimirror.engines.docker.engine import DockerContainerd, DockerGraphdriver, store_of
from ocimirror.engines.receipt import Receipt
from ocimirror.engines.wanted import PlatformImage, Wanted, examine, full_reference, runs_something
from ocimirror.errors import DigestMismatch
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference
from ocimirror.stores.index import Entry
from ocimirror.stores.profiles import index_document
from tests.support import images
from tests.support.images import Graph
from tests.support.stores import memory, root_of

NAME = "reg.example.com/team/multi:1.0"
INFO_29C: dict[str, Any] = {
    "ServerVersion": "29.7.2",
    "Driver": "overlayfs",
    "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
    "Architecture": "x86_64",
    "OSType": "linux",
}
INFO_29G: dict[str, Any] = {
    **INFO_29C,
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"]],
}


def wanted_of(graph: Graph, name: str = NAME) -> Wanted:
    """Return what an engine should have of a graph."""
    return examine(memory({name: graph}), Reference.parse(name), root_of(graph), ())


def inspected(wanted: Wanted, image: PlatformImage, **changes: object) -> dict[str, Any]:
    """Return what `docker image inspect` of the containerd store says of an image."""
    config = image.config
    return {
        "Id": str(wanted.root.digest),
        "RepoTags": [wanted.name],
        "RepoDigests": [f"{wanted.reference.name}@{wanted.root.digest}"],
        "Os": config.platform.os,
        "Architecture": config.platform.architecture,
        "Variant": config.platform.variant,
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in config.diff_ids]},
        "Descriptor": {"digest": str(wanted.root.digest)},
        **changes,
    }


def docker(info: dict[str, Any] = INFO_29C) -> DockerContainerd:
    """Return a docker that is asked nothing."""
    return DockerContainerd(Client(["false"], "nowhere"), info)


def answers(wanted: Wanted, found: dict[str, Any]) -> dict[str, Any]:
    """Return what a docker says that has one record for an image: by tag, and by the root."""
    return {wanted.name: found, wanted.by_digest(wanted.root.digest): found}


def words(receipt: Receipt) -> tuple[str, str, str, str]:
    """Return the four words of a receipt."""
    return receipt.tag, receipt.index, receipt.manifest, receipt.config


def test_the_stores_of_one_version_are_told_apart_by_their_driver() -> None:
    assert store_of(INFO_29C) == "containerd"
    assert store_of(INFO_29G) == "graphdriver"
    assert store_of({}) == store_of({"DriverStatus": None}) == "graphdriver"
    assert docker().platform() == Platform("linux", "amd64")


def test_an_image_that_every_platform_was_asked_of_is_kept_whole() -> None:
    wanted = wanted_of(images.multi())
    first, *others = wanted.images
    told = {i.manifest.digest: inspected(wanted, i) for i in others}
    receipt = docker().judge(wanted, answers(wanted, inspected(wanted, first)), told)
    assert words(receipt) == ("kept", "kept", "lost", "differs_by_design")
    assert receipt.kept == receipt.asked == tuple(image.label for image in wanted.images)
    assert all(wanted.by_digest(i.manifest.digest) in receipt.notes[0] for i in wanted.images)
    known = {wanted.by_digest(i.manifest.digest): inspected(wanted, i) for i in wanted.images}
    everything = answers(wanted, inspected(wanted, first)) | known
    assert docker().judge(wanted, everything, told).whole


def test_a_platform_that_docker_does_not_have_is_not_kept() -> None:
    # (After `docker pull`, which takes one platform and the index.)
    wanted = wanted_of(images.multi())
    first, *others = wanted.images
    told = {image.manifest.digest: None for image in others}
    receipt = docker().judge(wanted, answers(wanted, inspected(wanted, first)), told)
    assert receipt.kept == (first.label,)
    assert len(receipt.missing) == len(others)
    assert not receipt.whole


def test_a_docker_that_tells_of_one_platform_is_not_believed_of_others() -> None:
    wanted = wanted_of(images.multi())
    receipt = docker().judge(wanted, answers(wanted, inspected(wanted, wanted.images[0])))
    assert receipt.kept == receipt.asked == (wanted.images[0].label,)
    assert all(image.label in receipt.notes[0] for image in wanted.images[1:])


def test_platforms_with_the_same_layers_are_told_apart() -> None:
    builder = images.Builder()
    children = [images.add_image(builder, "same", p) for p in images.PLATFORMS[:2]]
    wanted = wanted_of(builder.graph(builder.index(children)))
    assert wanted.images[0].config.diff_ids == wanted.images[1].config.diff_ids
    told = {wanted.images[1].manifest.digest: None}
    receipt = docker().judge(wanted, answers(wanted, inspected(wanted, wanted.images[0])), told)
    assert receipt.kept == (wanted.images[0].label,)


def test_the_image_id_of_the_other_store_is_no_proof_here() -> None:
    wanted = wanted_of(images.single())
    (image,) = wanted.images
    by_config = inspected(wanted, image, Id=str(image.config_digest))
    receipt = docker().judge(wanted, answers(wanted, by_config))
    assert words(receipt) == ("moved", "not_applicable", "lost", "lost")
    assert receipt.missing == list(receipt.asked)


def test_digests_of_another_repository_are_not_this_ones() -> None:
    wanted = wanted_of(images.multi())
    elsewhere = [f"other.example.com/x@{wanted.root.digest}"]
    receipt = docker().judge(
        wanted, {wanted.name: inspected(wanted, wanted.images[0], RepoDigests=elsewhere)}
    )
    assert words(receipt) == ("kept", "lost", "lost", "differs_by_design")


def test_docker_shortens_names_of_docker_io() -> None:
    wanted = wanted_of(images.single(), "docker.io/library/alpine:3.19")
    found = inspected(wanted, wanted.images[0], RepoDigests=[f"alpine@{wanted.root.digest}"])
    assert docker().judge(wanted, answers(wanted, found)).whole


def test_an_absent_image_has_lost_everything() -> None:
    receipt = docker().judge(wanted_of(images.multi()), {})
    assert words(receipt) == ("lost", "lost", "lost", "lost")
    assert receipt.kept == ()


def test_the_graphdriver_of_29_keeps_the_config() -> None:
    wanted = wanted_of(images.single())
    (image,) = wanted.images
    found = inspected(wanted, image, Id=str(image.config_digest), RepoDigests=[])
    receipt = DockerGraphdriver(Client(["false"], "nowhere"), INFO_29G).judge(
        wanted, image, {wanted.name: found}
    )
    assert words(receipt) == ("kept", "not_applicable", "lost", "kept")


# --- containerd ----------------------------------------------------------------------------------

CTR_2 = """Client:
  Version:  v2.3.4
  Revision: 1c4457e00facac03ce1d75f7b6777a7a851e5c41
  Go version: go1.25.1

Server:
  Version:  v2.3.4
  Revision: 1c4457e00facac03ce1d75f7b6777a7a851e5c41
  UUID: 5e25e4ef-c9ff-4b4c-8b8a-5e4a1d0b2b2a
"""
CTR_16 = "Client:\n  Version:  1.6.20~ds1\n  Revision: x\n\nServer:\n  Version:  1.6.20~ds1\n"


@pytest.mark.parametrize(("printed", "version"), [(CTR_2, "v2.3.4"), (CTR_16, "1.6.20~ds1")])
def test_the_version_is_the_servers(printed: str, version: str) -> None:
    assert server_version(printed) == version
    assert server_version(f"{printed}WARNING: version mismatch\n") == version


def containerd() -> Containerd:
    """Return a containerd that is asked nothing."""
    engine = object.__new__(Containerd)
    engine.version = "2.3.4"
    return engine


def labelled(wanted: Wanted) -> dict[str, list[str]]:
    """Return the content of an image with the labels that an import gives it."""
    content: dict[str, list[str]] = {str(blob.digest): [] for blob in wanted.blobs}
    for manifest in wanted.manifests:
        children = [*manifest.manifests, *manifest.blobs]
        content[str(manifest.digest)] = [str(child.digest) for child in children]
    return content


def records(wanted: Wanted) -> dict[str, str]:
    """Return the records of a self-naming archive."""
    digests = [wanted.root.digest, *(image.manifest.digest for image in wanted.images)]
    named = {wanted.by_digest(digest): str(digest) for digest in digests}
    return {wanted.name: str(wanted.root.digest), **named}


def test_containerd_with_records_and_labels_keeps_everything() -> None:
    wanted = wanted_of(images.multi())
    assert containerd().judge(wanted, records(wanted), labelled(wanted)).whole


def test_content_that_the_next_garbage_collection_takes_is_not_kept() -> None:
    wanted = wanted_of(images.multi())
    named = {
        name: target
        for name, target in records(wanted).items()
        if target in (str(wanted.root.digest), str(wanted.images[0].manifest.digest))
    }
    content = labelled(wanted)
    content[str(wanted.root.digest)] = [str(wanted.images[0].manifest.digest)]
    receipt = containerd().judge(wanted, named, content)
    assert receipt.kept == (wanted.images[0].label,)


def test_content_under_the_record_of_another_image_is_moved() -> None:
    wanted = wanted_of(images.multi())
    content = {**labelled(wanted), "sha256:" + "0" * 64: []}
    receipt = containerd().judge(wanted, {wanted.name: "sha256:" + "0" * 64}, content)
    assert words(receipt) == ("moved", "lost", "lost", "lost")


def test_a_layer_under_two_media_types_is_asked_for_in_both_images() -> None:
    builder = images.Builder()
    children = [images.add_image(builder, "same", images.PLATFORMS[0])]
    document = json.loads(builder.manifests[children[0]["digest"]][1])
    for layer in document["layers"]:
        layer["mediaType"] = images.DOCKER_LAYER_GZIP
    other = builder.manifest(images.compact(document), images.OCI_MANIFEST)
    children.append({**other, "platform": dict(images.PLATFORMS[1])})
    wanted = wanted_of(builder.graph(builder.index(children)))
    content = labelled(wanted)
    del content[document["layers"][1]["digest"]]
    assert containerd().judge(wanted, records(wanted), content).kept == ()
    for image in wanted.images:
        only = {str(blob.digest) for blob in wanted.only(image).blobs}
        assert only == {str(blob.digest) for blob in image.manifest.blobs}


def test_what_is_reachable_may_go_round_in_a_circle() -> None:
    assert reachable(["a", "x"], {"a": ["b"], "b": ["a", "c"]}) == {"a", "b"}


# --- names, platforms ----------------------------------------------------------------------------


def entry_named(name: str, graph: Graph) -> Entry:
    """Return an entry of index.json."""
    return Entry(root_of(graph), name, "")


def test_a_name_by_another_digest_never_reaches_an_engine() -> None:
    graph = images.single()
    with pytest.raises(DigestMismatch):
        full_reference(entry_named(f"reg.example.com/x@sha256:{'0' * 64}", graph))
    with pytest.raises(DigestMismatch):
        full_reference(entry_named(f"reg.example.com/x:1@sha256:{'0' * 64}", graph))


def test_of_tag_and_digest_the_tag_is_the_name() -> None:
    graph = images.single()
    reference = full_reference(entry_named(f"reg.example.com/x:1@{graph.root}", graph))
    assert str(reference) == "reg.example.com/x:1"
    wanted = replace(wanted_of(graph), reference=reference)
    assert '"reg.example.com/x:1"' in index_document("containerd", [wanted.archived()]).decode()


def test_two_images_of_one_platform_are_counted_twice() -> None:
    builder = images.Builder()
    windows = [{"os": "windows", "architecture": "amd64", "os.version": v} for v in ("1", "1")]
    children = [images.add_image(builder, n, p) for n, p in enumerate(windows)]
    wanted = wanted_of(builder.graph(builder.index(children)))
    receipt = docker().receipt(
        wanted,
        wanted.images[:1],
        tag="kept",
        index="kept",
        manifest="kept",
        config="kept",
        evidence=(),
    )
    assert receipt.missing == ["windows(1)/amd64"]


def test_a_config_without_a_platform_is_called_unknown() -> None:
    builder = images.Builder()
    (image,) = wanted_of(builder.graph(images.add_image(builder, 1, {}))).images
    assert image.label == "unknown"


def test_what_runs_nothing_is_told_from_what_cannot_be_read() -> None:
    for graph, expected in (
        (images.multi(), True),
        (images.nested_index(), True),
        (images.artifact(), False),
        (images.artifact_without_layers(), False),
    ):
        assert runs_something(memory({NAME: graph}), root_of(graph)) is expected
    damaged = memory({NAME: images.artifact()})
    assert runs_something(damaged, root_of(images.single()))


def test_cri_o_writes_image_ids_without_an_algorithm() -> None:
    config = Digest.parse("sha256:" + "a" * 64)
    assert Status(str(config), ()).is_of(config)
    assert Status("a" * 64, ()).is_of(config)
    assert not Status("b" * 64, ()).is_of(config)
