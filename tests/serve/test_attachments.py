"""What refers to an image is listed by serve wherever the layout has it, and by no name twice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import Command
from tests.serve.test_page import page
from tests.support import images
from tests.support.command import ocimirror
from tests.support.witness import Registry

HOST = "registry.example.com"
IMAGE = images.multi()
FIRST, SECOND = images.with_subject(IMAGE, 1), images.with_subject(IMAGE, 2)
OTHER = images.with_subject(images.single())
LIST_TAG = IMAGE.root.replace(":", "-")
Start = Callable[..., Command]


def listed(client: Registry, repository: str, subject: str, query: str = "") -> list[Any]:
    answer = client.request("GET", f"/v2/{repository}/referrers/{subject}{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, images.OCI_INDEX)
    return list(json.loads(answer.body)["manifests"])


def roots(found: list[Any]) -> list[str]:
    return [each["digest"] for each in found]


def add_entries(layout: Path, *entries: dict[str, Any]) -> None:
    """Append entries to index.json, as other tools write them."""
    document = json.loads((layout / "index.json").read_bytes())
    document["manifests"] += entries
    (layout / "index.json").write_bytes(images.compact(document))


def store(layout: Path, *graphs: images.Graph) -> None:
    """Put content into a layout that no entry names."""
    for graph in graphs:
        for digest, data in graph.contents.items():
            images.blob_path(layout, digest).parent.mkdir(exist_ok=True)
            images.blob_path(layout, digest).write_bytes(data)


def list_of(*graphs: images.Graph) -> images.Graph:
    builder = images.Builder()
    return builder.graph(builder.index([graph.descriptor for graph in graphs]))


def test_children_of_an_index_are_listed(tmp_path: Path, serve_command: Start) -> None:
    """Attestations of BuildKit with a subject, also if other indexes lead to their index."""
    graphs = {depth: images.attested(f"at {depth}", depth) for depth in (0, 2)}
    names = {f"{HOST}/app{depth}:v1": graph for depth, graph in graphs.items()}
    client = serve_command(images.write_layout(tmp_path / "layout", names)).client
    for depth, graph in graphs.items():
        for subject, attestation in images.subjects_in(graph).items():
            (found,) = listed(client, f"app{depth}", subject)
            raw = graph.manifests[attestation][1]
            assert found.pop("annotations") == json.loads(raw)["annotations"]
            described = images.describe(raw, images.OCI_MANIFEST)
            assert found == {**described, "artifactType": images.DOCKER_ATTESTATION}
            wanted = f"?artifactType={images.DOCKER_ATTESTATION.replace('+', '%2B')}"
            assert roots(listed(client, f"app{depth}", subject, wanted)) == [attestation]
            assert listed(client, f"app{depth}", subject, "?artifactType=text/plain") == []


def test_a_list_of_regctl_is_read(tmp_path: Path, serve_command: Start) -> None:
    """The layout has no entries for what its list names; tags belong to the directory's name."""
    layout = images.write_layout(tmp_path / "app", {})
    index = list_of(FIRST, SECOND, OTHER)  # (the last refers to something else)
    store(layout, IMAGE, FIRST, SECOND, OTHER, index)
    names = ((IMAGE, "v1"), (index, LIST_TAG))
    for graph, tag in names:
        annotations = {images.REF_NAME_ANNOTATION: tag}
        add_entries(layout, {**graph.descriptor, "annotations": annotations})
    client = serve_command(layout).client

    assert client.tags("app") == ["v1"]
    assert roots(listed(client, "app", IMAGE.root)) == sorted([FIRST.root, SECOND.root])
    assert client.get_manifest("app", FIRST.root) == FIRST.raw


def test_a_list_with_a_name_is_a_tag_too(tmp_path: Path, serve_command: Start) -> None:
    """For clients that ask for the tag only; nothing is in the API's answer twice."""
    index = list_of(FIRST, SECOND)
    names = {f"{HOST}/app:v1": IMAGE, f"{HOST}/app:{LIST_TAG}": index}
    layout = images.write_layout(tmp_path / "layout", names, [FIRST])
    store(layout, SECOND)
    client = serve_command(layout).client

    assert sorted(client.tags("app")) == sorted(["v1", LIST_TAG])
    assert client.get_manifest("app", LIST_TAG) == index.raw
    assert roots(listed(client, "app", IMAGE.root)) == sorted([FIRST.root, SECOND.root])
    text = page(client, f"/{HOST}/app:v1").partition("Attachments")[2]
    assert [text.count(graph.root) for graph in (FIRST, SECOND, index)] == [1, 1, 0]


def test_what_cosign_saved_has_its_tags(tmp_path: Path, serve_command: Start) -> None:
    layout = images.write_layout(tmp_path / "layout", {})
    signature, attestation = images.artifact(), images.artifact_without_layers()
    store(layout, IMAGE, signature, attestation)
    for graph, kind in ((IMAGE, "imageIndex"), (signature, "sigs"), (attestation, "atts")):
        annotations = {"kind": f"dev.cosignproject.cosign/{kind}"}
        add_entries(layout, {**graph.descriptor, "annotations": annotations})
    assert ocimirror("tag", layout, f"@{IMAGE.root}", f"{HOST}/app:v1").code == 0
    client = serve_command(layout).client

    assert client.get_manifest("app", f"{LIST_TAG}.sig") == signature.raw
    assert client.get_manifest("app", f"{LIST_TAG}.att") == attestation.raw
    assert len(client.tags("app")) == 3


@pytest.mark.parametrize("kind", ["entry", "list"])
def test_a_subject_of_sha512_is_found_by_all_of_its_digest(
    kind: str, tmp_path: Path, serve_command: Start
) -> None:
    """Its tag has the first 64 characters of 128 (distribution-spec, referrers tag schema)."""
    subject = images.sha512_root()
    referrer = images.with_subject(subject)
    tag = f"sha512-{subject.root.removeprefix('sha512:')[:64]}"
    layout = images.write_layout(tmp_path / "layout", {f"{HOST}/app:v1": subject})
    index = list_of(referrer)
    store(layout, referrer, index)
    if kind == "entry":
        add_entries(layout, referrer.descriptor)
    else:
        add_entries(layout, {**index.descriptor, "annotations": {images.REF_NAME_ANNOTATION: tag}})
    client = serve_command(layout).client

    assert roots(listed(client, "app", subject.root)) == [referrer.root]
    assert listed(client, "app", subject.root[:-1] + "0") == []


def test_a_damaged_list_is_an_error_and_no_absence(tmp_path: Path, serve_command: Start) -> None:
    """It says more than the entries do; a damaged manifest without a name is a line in the log."""
    index = list_of(FIRST, SECOND)
    layout = images.write_layout(tmp_path / "layout", {f"{HOST}/app:v1": IMAGE}, [FIRST, OTHER])
    store(layout, SECOND, index)
    add_entries(layout, {**index.descriptor, "annotations": {images.REF_NAME_ANNOTATION: LIST_TAG}})
    for graph in (index, OTHER):
        images.blob_path(layout, graph.root).write_bytes(graph.raw[:-1] + b" ")
    server = serve_command(layout)

    shown = page(server.client, f"/{HOST}/app:v1")
    answer = server.client.request("GET", f"/v2/app/referrers/{IMAGE.root}")
    alone = server.client.request("GET", f"/v2/app/referrers/{OTHER.root}")

    assert (answer.status, alone.status) == (500, 200)
    assert "cannot be told" in shown.partition("Attachments")[2]
    _, stderr = server.stop()
    assert re.search(f"{index.root}.*", stderr)
    assert re.search(f"{OTHER.root} cannot be read; it may be an attachment", stderr)


def test_what_only_content_of_unknown_type_leads_to_is_served(
    tmp_path: Path, serve_command: Start
) -> None:
    """A manifest that says no type itself is what its parent calls it."""
    builder = images.Builder()
    image = images.add_image(builder, "below unknown")
    leaf = builder.blob(b"content", "application/vnd.example.leaf")
    middle = builder.manifest(
        images.compact({"parts": [leaf]}), "application/vnd.example.part+json"
    )
    plain = {key: image[key] for key in ("mediaType", "digest", "size")}
    referrer = images.add_artifact(builder, "text/plain", [], subject=plain)
    document = {"all": {"first": [image, middle], "then": referrer}}
    root = builder.manifest(images.compact(document), "application/vnd.example.root+json")
    graph = builder.graph(root)
    client = serve_command(
        images.write_layout(tmp_path / "layout", {f"{HOST}/app:v1": graph})
    ).client

    for digest, (media_type, raw) in graph.manifests.items():
        answer = client.request("GET", f"/v2/app/manifests/{digest}")
        assert (answer.status, answer.body) == (200, raw)
        assert answer.headers["Content-Type"] == media_type
    for digest, content in graph.blobs.items():
        assert client.get_blob("app", digest) == content
    assert roots(listed(client, "app", image["digest"])) == [referrer["digest"]]
    shown = page(client, f"/{HOST}/app:v1")
    assert all(digest in shown for digest in graph.manifests)


def test_hostile_entries_stop_nothing_and_obey_nothing(
    tmp_path: Path, serve_command: Start
) -> None:
    layout = images.write_layout(tmp_path / "layout", {f"{HOST}/app:v1": IMAGE})
    loud = [images.with_subject(IMAGE, number) for number in range(3)]
    for number, graph in enumerate(loud):
        document = {**json.loads(graph.raw), "annotations": {"loud": str(number) * 2_000_000}}
        builder = images.Builder()
        builder.blobs.update(graph.blobs)
        raw = images.compact(document)
        loud[number] = builder.graph(builder.manifest(raw, images.OCI_MANIFEST))
    store(layout, *loud)
    names = (
        {images.REF_NAME_ANNOTATION: f"sha256-{'0' * 64}"},
        {images.REF_NAME_ANNOTATION: "a b\x1b[31m\u202e\nforged"},
        {images.IMAGE_NAME_ANNOTATION: "../../etc:1"},
        {"kind": "dev.cosignproject.cosign/sigs"},
        {"kind": "dev.cosignproject.cosign/imageIndex"},
        {"kind": "dev.cosignproject.cosign/sigs"},
    )
    add_entries(layout, *({**IMAGE.descriptor, "annotations": each} for each in names))
    add_entries(layout, *(graph.descriptor for graph in loud))
    server = serve_command(layout)

    found, path = list[str](), f"/v2/app/referrers/{IMAGE.root}"
    while path:
        answer = server.client.request("GET", path)
        assert answer.status == 200
        assert len(answer.body) <= 4 * 1024 * 1024
        found += roots(json.loads(answer.body)["manifests"])
        path = answer.headers.get("Link", "<>")[1:].partition(">")[0]

    assert found == sorted(graph.root for graph in loud)
    assert IMAGE.root in page(server.client, f"/{HOST}/app:v1")
    _, stderr = server.stop()
    assert not re.search("[\x1b\u202e]|^forged|Traceback", stderr, re.MULTILINE)
