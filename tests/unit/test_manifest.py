"""Manifests: raw bytes beside a view, and everything doubtful refused."""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import Any

import pytest

from ocimirror import (
    Descriptor,
    Digest,
    IntegrityError,
    MalformedManifest,
    Manifest,
    OciMirrorError,
    Unsupported,
)
from tests.support import images
from tests.support.evil import EVIL_MANIFESTS, EXPECTED_WORDS, MEDIA_TYPES, REFUSED_ON_COPY
from tests.support.stores import manifests_of

CONFIG = images.describe(b"{}", images.OCI_CONFIG)
LAYER = images.describe(b"layer", images.OCI_LAYER)
CHILD = images.describe(b"child", images.OCI_MANIFEST)
INDEX = {"schemaVersion": 2, "manifests": [CHILD]}
IMAGE = {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]}
TYPES = [
    images.OCI_INDEX,
    images.DOCKER_LIST,
    images.OCI_MANIFEST,
    images.DOCKER_MANIFEST,
]
INDEXES = {images.OCI_INDEX, images.DOCKER_LIST}
SCHEMA1 = [
    images.DOCKER_SCHEMA1,
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
]


def parsed(document: dict[str, Any] | bytes, media_type: str) -> Manifest:
    raw = document if isinstance(document, bytes) else images.compact(document)
    return Manifest.parse(raw, Descriptor(media_type, Digest.of(raw), len(raw), "manifest"))


def good(media_type: str) -> dict[str, Any]:
    """Return a good document of this type, which states none."""
    return dict(INDEX if media_type in INDEXES else IMAGE)


# --- hostile ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(EVIL_MANIFESTS) - REFUSED_ON_COPY))
def test_an_evil_manifest_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(OciMirrorError) as caught:
        parsed(EVIL_MANIFESTS[name].read_bytes(), MEDIA_TYPES[name])
    assert isinstance(caught.value, (IntegrityError, Unsupported))
    assert isinstance(caught.value, Unsupported) == name.startswith("schema")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 4000
    if name in EXPECTED_WORDS:
        assert any(word in caught.value.message.lower() for word in EXPECTED_WORDS[name])


@pytest.mark.parametrize("name", sorted(REFUSED_ON_COPY))
def test_a_manifest_of_what_cannot_be_verified_parses(name: str) -> None:
    manifest = parsed(EVIL_MANIFESTS[name].read_bytes(), MEDIA_TYPES[name])
    assert not all(blob.digest.verifiable for blob in manifest.blobs)


@pytest.mark.parametrize(("served", "stated"), list(itertools.permutations(TYPES, 2)))
def test_a_document_that_states_another_type_is_refused(served: str, stated: str) -> None:
    for shape in (served, stated):
        with pytest.raises(MalformedManifest):
            parsed({**good(shape), "mediaType": stated}, served)


OTHERS = {"manifests": [CHILD], "layers": [LAYER], "config": CONFIG, "fsLayers": []}


@pytest.mark.parametrize("states_its_type", [True, False])
@pytest.mark.parametrize(
    ("media_type", "extra"),
    [(media_type, key) for media_type in TYPES for key in OTHERS if key not in good(media_type)],
)
@pytest.mark.bar("distribution-ambiguous")
def test_an_index_and_an_image_at_once_is_refused(
    media_type: str, extra: str, states_its_type: bool
) -> None:
    document = {**good(media_type), extra: OTHERS[extra]}
    if states_its_type:
        document["mediaType"] = media_type
    with pytest.raises(MalformedManifest, match="ambiguous"):
        parsed(document, media_type)


@pytest.mark.parametrize("media_type", TYPES)
def test_a_document_of_the_other_shape_is_refused(media_type: str) -> None:
    other = IMAGE if media_type in INDEXES else INDEX
    with pytest.raises(MalformedManifest):
        parsed(dict(other), media_type)


@pytest.mark.parametrize("media_type", TYPES)
@pytest.mark.parametrize("version", [None, 1, 3, "2", 2.0, True, [2]])
def test_another_schema_version_is_refused(media_type: str, version: object) -> None:
    with pytest.raises((MalformedManifest, Unsupported)):
        parsed({**good(media_type), "schemaVersion": version}, media_type)


@pytest.mark.parametrize("media_type", SCHEMA1)
def test_schema_1_is_refused_whatever_it_holds(media_type: str) -> None:
    with pytest.raises(Unsupported, match="schema 1") as caught:
        parsed(b"anything", media_type)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"a":' + b"[]" * 70 + b'"' + b'\\"' * 1_000_000, id="string without end"),
        pytest.param(b'{"a":' + b"[]" * 70 + b'"' * 2_000_001, id="quotes"),
        pytest.param(b'{"a":' + b"[]" * 70 + b'"' + b"\\" * 2_000_001, id="backslashes"),
        pytest.param(b"[" * 4_000_000, id="brackets"),
        pytest.param(b"[" + b"{}," * 1_000_000 + b"{}]", id="many objects"),
    ],
)
def test_a_hostile_document_is_refused_in_little_time(raw: bytes) -> None:
    started = time.process_time()
    with pytest.raises(MalformedManifest):
        parsed(raw, images.OCI_MANIFEST)
    assert time.process_time() - started < 3


def test_brackets_inside_strings_do_not_nest() -> None:
    annotations = {"a": "[" * 1000 + '\\"' + "{" * 1000, "b": "\\"}
    manifest = parsed({**IMAGE, "annotations": annotations, "x": ["\\"]}, images.OCI_MANIFEST)
    assert manifest.annotations == annotations


@pytest.mark.parametrize(("depth", "fine"), [(64, True), (65, False)])
def test_documents_nest_to_a_depth_of_sixty_four(depth: int, fine: bool) -> None:
    inner: object = 1
    for _ in range(depth - 1):
        inner = {"a": inner}
    document = {**IMAGE, "a": inner}
    if fine:
        assert parsed(document, images.OCI_MANIFEST).raw == images.compact(document)
    else:
        with pytest.raises(MalformedManifest, match="deeper"):
            parsed(document, images.OCI_MANIFEST)


# --- read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", images.ALL)
def test_a_manifest_keeps_its_raw_bytes(case: str) -> None:
    for manifest in manifests_of(images.ALL[case]()):
        assert Digest.of(manifest.raw, manifest.digest.algorithm) == manifest.digest


def test_a_manifest_cannot_be_changed_or_serialised() -> None:
    manifest = parsed(dict(IMAGE), images.OCI_MANIFEST)
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.raw = b"other"  # type: ignore[misc]
    assert not {"to_json", "serialize", "dumps", "encode"} & set(dir(manifest))


@pytest.mark.parametrize("media_type", TYPES)
def test_a_document_need_not_state_its_type(media_type: str) -> None:
    assert parsed(good(media_type), media_type).media_type == media_type


def test_the_children_of_an_image_are_its_config_and_layers_in_order() -> None:
    manifest = parsed({**IMAGE, "layers": [LAYER, CHILD, LAYER]}, images.OCI_MANIFEST)
    digests = [str(blob.digest) for blob in manifest.blobs]
    assert digests == [CONFIG["digest"], LAYER["digest"], CHILD["digest"], LAYER["digest"]]
    assert {blob.kind for blob in manifest.blobs} == {"blob"}
    assert manifest.manifests == ()


@pytest.mark.parametrize("key", ["layers", "manifests"])
def test_null_is_an_empty_list_as_go_programs_write_it(key: str) -> None:
    media_type = images.OCI_MANIFEST if key == "layers" else images.OCI_INDEX
    manifest = parsed({**good(media_type), key: None}, media_type)
    assert len(manifest.blobs) + len(manifest.manifests) == (key == "layers")


@pytest.mark.parametrize("value", [False, 0, "", {}], ids=repr)
@pytest.mark.parametrize("key", ["layers", "manifests"])
def test_what_is_merely_empty_is_no_list(key: str, value: object) -> None:
    media_type = images.OCI_MANIFEST if key == "layers" else images.OCI_INDEX
    with pytest.raises(MalformedManifest):
        parsed({**good(media_type), key: value}, media_type)


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        (images.OCI_MANIFEST, "manifest"),
        (images.OCI_INDEX, "manifest"),
        (images.DOCKER_MANIFEST, "manifest"),
        (images.UNKNOWN_CHILD, "manifest"),
        (images.OCI_LAYER_GZIP, "blob"),
        (images.DOCKER_LAYER_GZIP, "blob"),
        (images.OCI_CONFIG, "blob"),
        (images.BUILDKIT_CACHE_CONFIG, "blob"),
        (images.IN_TOTO, "blob"),
    ],
)
def test_a_child_of_an_index_is_a_manifest_unless_its_type_is_a_blobs(
    media_type: str, kind: str
) -> None:
    child = {**CHILD, "mediaType": media_type}
    manifest = parsed({**INDEX, "manifests": [child]}, images.OCI_INDEX)
    (found,) = (*manifest.manifests, *manifest.blobs)
    assert found.kind == kind
    assert len(manifest.manifests) == (kind == "manifest")


def test_a_manifest_of_unknown_type_is_opaque_whatever_it_holds() -> None:
    manifest = parsed(b"\xff no JSON", "application/vnd.example")
    assert manifest.opaque
    assert manifest.raw == b"\xff no JSON"
    assert manifest.manifests == manifest.blobs == ()


def test_a_subject_is_an_edge_and_no_child() -> None:
    manifest = parsed({**IMAGE, "subject": CHILD}, images.OCI_MANIFEST)
    assert manifest.subject is not None
    assert str(manifest.subject.digest) == CHILD["digest"]
    assert manifest.subject.kind == "manifest"
    assert manifest.manifests == ()


@pytest.mark.parametrize(
    ("stated", "config", "artifact_type"),
    [
        ("application/vnd.x", images.OCI_EMPTY, "application/vnd.x"),
        ("", "application/vnd.y", "application/vnd.y"),
        ("", images.OCI_CONFIG, ""),
        ("", images.DOCKER_CONFIG, ""),
    ],
)
def test_the_artifact_type_is_the_configs_where_none_is_stated(
    stated: str, config: str, artifact_type: str
) -> None:
    document = {**IMAGE, "config": {**CONFIG, "mediaType": config}}
    if stated:
        document["artifactType"] = stated
    assert parsed(document, images.OCI_MANIFEST).artifact_type == artifact_type


# --- descriptors --------------------------------------------------------------------------------


def test_a_descriptor_has_all_that_its_parent_says() -> None:
    value = {
        **CHILD,
        "platform": {"os": "windows", "architecture": "amd64", "os.version": "10", "x": 1},
        "annotations": {"a": "é"},
        "artifactType": "application/vnd.x",
        "urls": ["https://example.com/x"],
        "data": "Y2hpbGQ=",
        "x-unknown": [1],
    }
    descriptor = Descriptor.parse(value, "it")
    assert descriptor.platform is not None
    assert str(descriptor.platform) == "windows/amd64"
    assert descriptor.platform.os_version == "10"
    assert descriptor.annotations == {"a": "é"}
    assert descriptor.urls == ("https://example.com/x",)
    assert descriptor.data == b"child"
    assert descriptor.artifact_type == "application/vnd.x"


def test_descriptors_are_equal_where_they_name_the_same_content_as_the_same_thing() -> None:
    one = Descriptor.parse({**CHILD, "annotations": {"a": "b"}}, "it")
    assert one == Descriptor.parse(CHILD, "it")
    assert hash(one) == hash(Descriptor.parse(CHILD, "it"))
    assert one != Descriptor.parse({**CHILD, "size": 6}, "it")
    assert one != Descriptor.parse(CHILD, "it", "manifest")


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": 2**63},
        {"size": "5"},
        {"size": 5.0},
        {"size": True},
        {"size": None},
        {"mediaType": "text/plain\n"},
        {"mediaType": 5},
        {"digest": None},
        {"digest": 5},
        {"digest": "sha256:../x"},
        {"urls": "https://example.com"},
        {"urls": [5]},
        {"annotations": []},
        {"annotations": {"a": 5}},
        {"platform": "linux/amd64"},
        {"platform": {"os": 5}},
        {"artifactType": 5},
        {"data": 5},
        {"data": "Y2hpbGQ"},
        {"data": "b3RoZXI="},
        {"data": ""},
    ],
    ids=str,
)
def test_a_descriptor_that_breaks_the_specification_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedManifest, match=r"^layer 3"):
        Descriptor.parse({**CHILD, **change}, "layer 3")


@pytest.mark.parametrize("value", [None, "x", 5, [], [CHILD]], ids=repr)
def test_what_is_no_object_is_no_descriptor(value: object) -> None:
    with pytest.raises(MalformedManifest):
        Descriptor.parse(value, "it")
