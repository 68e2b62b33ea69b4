"""Hypothesis strategies: any content a mirror may meet, as `tests.support.images.Graph`s."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.support import images
from tests.support.images import Builder, Descriptor, Graph

LAYER_BYTES = 2000
NESTING = 3

_WHITESPACE = st.text(" \t\r\n", max_size=4)
_ANNOTATIONS = st.dictionaries(st.text(max_size=12), st.text(max_size=20), max_size=3)
_EXTENSIONS = st.dictionaries(
    st.from_regex(r"x-[a-z]{1,6}", fullmatch=True),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=4,
    ),
    max_size=2,
)
_PLATFORMS = st.sampled_from(
    [*images.PLATFORMS, {"architecture": "unknown", "os": "unknown"}, {"architecture": "s390x"}]
)
_CONFIG_TYPES = [images.OCI_CONFIG, images.OCI_EMPTY, "application/vnd.example.config.v7+json"]
_LAYER_TYPES = [
    images.OCI_LAYER,
    images.OCI_LAYER_GZIP,
    images.OCI_LAYER_ZSTD,
    images.IN_TOTO,
    "text/plain",
    "application/octet-stream",
]


@dataclass(frozen=True)
class _Node:
    """A descriptor, how many levels of indexes it has, and every digest at or below it."""

    descriptor: Descriptor
    height: int
    reaches: frozenset[str]


def graphs(*, docker_registry: bool = False) -> SearchStrategy[Graph]:
    """Generate a graph: an image manifest or artifact, or up to three levels of indexes.

    OCI and Docker types, children shared and repeated, children of unknown type, sha256 and sha512,
    layers of 0 to 2000 arbitrary bytes, `data`, and JSON whose bytes no serialiser would write. No
    foreign layers and no `subject`: those have cases of their own in tests.support.images.

    Args:
        docker_registry: only what docker-registry 2.8.2 takes and gives back: every manifest is
            named by sha256.
    """
    return _graphs(docker_registry)


@st.composite
def json_bytes(draw: DrawFn, document: dict[str, Any]) -> bytes:
    """Generate one of the many ways to write a document: order, whitespace, escapes."""
    keys = draw(st.permutations(list(document)))
    text = json.dumps(
        {key: document[key] for key in keys},
        indent=draw(st.sampled_from([None, 0, 2, 3, "\t"])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", "\t: ")])),
        ensure_ascii=draw(st.booleans()),
    )
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return (draw(_WHITESPACE) + text + draw(_WHITESPACE)).encode()


@st.composite
def _graphs(draw: DrawFn, docker_registry: bool) -> Graph:
    builder = Builder()
    algorithms = st.sampled_from(["sha256", "sha256", "sha512"])
    manifest_algorithms = st.just("sha256") if docker_registry else algorithms
    nodes = [
        draw(_leaf(builder, algorithms, manifest_algorithms))
        for _ in range(draw(st.integers(1, 4)))
    ]
    root = nodes[0]
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 2, 3, 4]))):
        root = draw(_index(builder, nodes, algorithms, manifest_algorithms))
        nodes.append(root)
    return Graph(
        blobs={d: data for d, data in builder.blobs.items() if d in root.reaches},
        manifests={d: entry for d, entry in builder.manifests.items() if d in root.reaches},
        root=root.descriptor["digest"],
        root_media_type=root.descriptor["mediaType"],
    )


@st.composite
def _blob(
    draw: DrawFn, builder: Builder, media_type: str, algorithms: SearchStrategy[str]
) -> Descriptor:
    """Generate a blob, which may be one that is there already."""
    known = list(dict.fromkeys(builder.blobs.values()))
    contents = st.binary(max_size=LAYER_BYTES)
    if known:
        contents = st.sampled_from(known) | contents
    data = draw(contents)
    descriptor = builder.blob(data, media_type, algorithm=draw(algorithms))
    if len(data) <= 100 and draw(st.booleans()):
        descriptor["data"] = base64.b64encode(data).decode()
    annotations = draw(_ANNOTATIONS)
    return {**descriptor, "annotations": annotations} if annotations else descriptor


@st.composite
def _leaf(
    draw: DrawFn,
    builder: Builder,
    algorithms: SearchStrategy[str],
    manifest_algorithms: SearchStrategy[str],
) -> _Node:
    """Generate an image manifest or artifact."""
    docker = draw(st.booleans())
    media_type = images.DOCKER_MANIFEST if docker else images.OCI_MANIFEST
    layer_types = [images.DOCKER_LAYER_GZIP] if docker else _LAYER_TYPES
    config_type = images.DOCKER_CONFIG if docker else draw(st.sampled_from(_CONFIG_TYPES))
    config = draw(_blob(builder, config_type, algorithms))
    layers = [
        draw(_blob(builder, draw(st.sampled_from(layer_types)), algorithms))
        for _ in range(draw(st.integers(0, 3)))
    ]
    document = {"schemaVersion": 2, "config": config, "layers": layers}
    if docker or draw(st.booleans()):
        document["mediaType"] = media_type
    if not docker:
        if config_type == images.OCI_EMPTY or draw(st.booleans()):
            document["artifactType"] = "application/vnd.example.thing"
        document["annotations"] = draw(_ANNOTATIONS)
        document.update(draw(_EXTENSIONS))
    raw = draw(json_bytes(document))
    descriptor = builder.manifest(raw, media_type, algorithm=draw(manifest_algorithms))
    digests = [child["digest"] for child in (config, *layers)]
    return _Node(descriptor, 0, frozenset([descriptor["digest"], *digests]))


@st.composite
def _index(
    draw: DrawFn,
    builder: Builder,
    nodes: list[_Node],
    algorithms: SearchStrategy[str],
    manifest_algorithms: SearchStrategy[str],
) -> _Node:
    """Generate an index of nodes that are there, and of children of unknown type."""
    docker = draw(st.booleans())
    media_type = images.DOCKER_LIST if docker else images.OCI_INDEX
    low = [node for node in nodes if node.height < NESTING]
    chosen = draw(st.lists(st.sampled_from(low), max_size=4))
    children = [{**node.descriptor, "platform": draw(_PLATFORMS)} for node in chosen]
    if not docker:
        children.extend(
            draw(_blob(builder, images.UNKNOWN_CHILD, algorithms))
            for _ in range(draw(st.integers(0, 1)))
        )
    document = {"schemaVersion": 2, "manifests": children}
    if docker or draw(st.booleans()):
        document["mediaType"] = media_type
    if not docker:
        document["annotations"] = draw(_ANNOTATIONS)
        document.update(draw(_EXTENSIONS))
    raw = draw(json_bytes(document))
    descriptor = builder.manifest(raw, media_type, algorithm=draw(manifest_algorithms))
    reaches = {descriptor["digest"], *(child["digest"] for child in children)}
    height = 1 + max((node.height for node in chosen), default=0)
    return _Node(descriptor, height, frozenset(reaches.union(*(n.reaches for n in chosen))))
