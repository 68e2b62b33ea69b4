"""Which manifest leads where: the plan of one image."""

from __future__ import annotations

import json
import time

import pytest

from ocimirror.copy.plan import Plan
from ocimirror.copy.walk import Walk, refuse_foreign, walk
from ocimirror.errors import ForeignLayer, MalformedManifest, NotFound
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import MAX_DEPTH
from ocimirror.model.manifest import Manifest
from tests.support import images
from tests.support.evil import index_bomb
from tests.support.images import Builder, Graph
from tests.support.stores import Failing, fill, manifests_of, memory, root_of


def planned(graph: Graph) -> Plan:
    return walk(memory({"v1": graph}), root_of(graph))


@pytest.mark.parametrize("case", images.ALL)
def test_a_plan_holds_all_of_an_image_and_nothing_else(case: str) -> None:
    graph = images.ALL[case]()
    plan = planned(graph)
    held = {str(m.digest): m.raw for m in plan.manifests}
    known = {d: raw for d, (_, raw) in graph.manifests.items()}
    assert {d: raw for d, raw in held.items() if d in known} == known
    assert {str(b.digest) for b in plan.blobs} | held.keys() == graph.contents.keys()
    assert {str(b.digest) for b in plan.foreign} == graph.absent


@pytest.mark.parametrize("case", images.ALL)
def test_children_come_before_their_parents_and_the_root_last(case: str) -> None:
    graph = images.ALL[case]()
    plan = planned(graph)
    assert str(plan.root.digest) == graph.root
    assert plan.manifests[-1] is plan.root
    level_of = {m.digest: n for n, level in enumerate(plan.levels) for m in level}
    for manifest in plan.manifests:
        for child in manifest.manifests:
            assert level_of[child.digest] < level_of[manifest.digest]


def test_each_digest_is_planned_once() -> None:
    plan = planned(images.nested_index())
    digests = [m.digest for m in plan.manifests] + [b.digest for b in plan.blobs]
    assert len(digests) == len(set(digests))


def test_each_manifest_is_read_once() -> None:
    graph = images.nested_index()
    source = Failing()
    fill(source, {"v1": graph})
    walk(source, root_of(graph))
    assert sorted(source.reads) == sorted(graph.manifests)


def test_no_blob_is_read() -> None:
    graph = images.multi()
    source = Failing()
    fill(source, {"v1": graph})
    walk(source, root_of(graph))
    assert not set(source.reads) & set(graph.blobs)


def test_a_plan_knows_the_bytes_of_all_of_it() -> None:
    graph = images.multi()
    assert planned(graph).size_bytes == sum(map(len, graph.contents.values()))


def test_blobs_are_in_document_order() -> None:
    graph = images.single()
    document = json.loads(graph.raw)
    assert [str(b.digest) for b in planned(graph).blobs] == [
        child["digest"] for child in (document["config"], *document["layers"])
    ]


def test_a_subject_is_not_followed() -> None:
    subject = images.single()
    plan = planned(images.with_subject(subject))
    assert subject.root not in {str(m.digest) for m in plan.manifests}
    assert str(plan.root.subject.digest if plan.root.subject else "") == subject.root


def test_indexes_may_be_nested_eight_levels_deep() -> None:
    assert len(planned(images.deep_index(MAX_DEPTH - 1)).levels) == MAX_DEPTH


@pytest.mark.parametrize("depth", [MAX_DEPTH, 50])
@pytest.mark.bar("R41")
def test_indexes_nested_deeper_are_refused(depth: int) -> None:
    with pytest.raises(MalformedManifest, match="deeper"):
        planned(images.deep_index(depth))


@pytest.mark.bar("R41")
def test_what_repeats_without_end_is_read_once() -> None:
    graph = index_bomb(levels=7, repeats=1000)
    assert len(planned(graph).manifests) == 8


@pytest.mark.bar("R41")
def test_a_bomb_of_repeated_children_is_planned_in_no_time() -> None:
    """Each of these is a manifest of nearly 4 MiB, the most that is read."""
    graph = index_bomb(levels=2, repeats=12_000)
    started = time.process_time()
    planned(graph)
    assert time.process_time() - started < 5


def test_many_foreign_layers_are_planned_in_no_time() -> None:
    builder = Builder()
    config = builder.blob(b"{}", images.OCI_CONFIG)
    layers = [
        images.describe(str(n).encode(), (images.OCI_LAYER, images.OCI_LAYER_FOREIGN)[n % 2])
        for n in range(16_000)
    ]
    raw = images.compact(
        {"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "config": config, "layers": layers}
    )
    (manifest,) = manifests_of(builder.graph(builder.manifest(raw, images.OCI_MANIFEST)))
    progress = Walk(manifest.descriptor)
    progress.add(manifest)
    started = time.process_time()
    assert len(progress.plan().foreign) == 8000
    assert time.process_time() - started < 2


@pytest.mark.bar("R41")
def test_more_manifests_than_any_image_has_are_refused_before_they_are_read() -> None:
    def index_of(numbers: range) -> Manifest:
        children = (
            Descriptor(images.OCI_MANIFEST, Digest("sha256", f"{n:064x}"), 1, "manifest")
            for n in numbers
        )
        raw = str(numbers).encode()
        own = Descriptor(images.OCI_INDEX, Digest.of(raw), len(raw), "manifest")
        return Manifest(raw, own, manifests=tuple(children))

    parts = [index_of(range(start, start + 11_000)) for start in range(0, 110_000, 11_000)]
    root = root_of(images.empty_index())
    progress = Walk(root)
    progress.add(Manifest(b"", root, manifests=tuple(part.descriptor for part in parts)))
    with pytest.raises(MalformedManifest, match="more than 100000 manifests"):
        for part in parts:
            progress.add(part)


def test_one_manifest_named_as_two_types_is_refused() -> None:
    builder = Builder()
    child = images.add_image(builder, "two types")
    index = builder.index([child, {**child, "mediaType": images.DOCKER_MANIFEST}])
    with pytest.raises(MalformedManifest, match="is named as"):
        planned(builder.graph(index))


@pytest.mark.parametrize("what", ["manifest", "layer"])
def test_one_digest_named_with_two_sizes_is_refused(what: str) -> None:
    builder = Builder()
    child = images.add_image(builder, "two sizes")
    layer = builder.blob(b"layer", images.OCI_LAYER_GZIP)
    other = child if what == "manifest" else layer
    index = builder.index([child, layer, {**other, "size": other["size"] + 1}])
    with pytest.raises(MalformedManifest, match="is named as"):
        planned(builder.graph(index))


def test_one_digest_may_be_a_manifest_here_and_a_layer_there() -> None:
    builder = Builder()
    child = images.add_image(builder, "both")
    layer = {**child, "mediaType": images.OCI_LAYER}
    plan = planned(builder.graph(builder.index([child, layer])))
    assert child["digest"] in {str(m.digest) for m in plan.manifests}
    assert child["digest"] in {str(b.digest) for b in plan.blobs}


@pytest.mark.parametrize("order", [1, -1])
def test_a_layer_that_is_foreign_here_and_not_there_is_carried(order: int) -> None:
    builder = Builder()
    ours = builder.blob(b"layer", images.OCI_LAYER_GZIP)
    index = builder.index([ours, {**ours, "mediaType": images.OCI_LAYER_FOREIGN}][::order])
    plan = planned(builder.graph(index))
    assert [str(b.digest) for b in plan.blobs] == [ours["digest"]]
    assert plan.foreign == ()


def test_a_manifest_of_unknown_type_is_carried_alone() -> None:
    graph = images.unknown_child()
    (opaque,) = planned(graph).opaque
    assert opaque.raw == graph.blobs[str(opaque.digest)]
    assert opaque.manifests == opaque.blobs == ()


def test_a_missing_manifest_ends_the_walk() -> None:
    graph = images.multi()
    source = Failing()
    fill(source, {"v1": graph})
    source.forget(next(iter(graph.manifests)))
    with pytest.raises(NotFound):
        walk(source, root_of(graph))


def test_foreign_layers_are_refused_with_their_digest_and_url() -> None:
    graph = images.foreign_layer()
    with pytest.raises(ForeignLayer) as caught:
        refuse_foreign(planned(graph))
    (digest,) = graph.absent
    assert digest in caught.value.message
    assert "https://foreign.example.com/layers/base.tar.gz" in caught.value.message


def test_a_plan_without_foreign_layers_is_not_refused() -> None:
    refuse_foreign(planned(images.multi()))
