"""Which manifest leads where: the plan of one image."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from ocimirror import (
    Descriptor,
    ForeignLayer,
    Layout,
    MalformedManifest,
    MemoryStore,
    NotFound,
    Options,
    Outcome,
    Plan,
    Request,
    Source,
    copy_many,
)
from tests.support import images
from tests.support.evil import index_bomb
from tests.support.images import Builder, Graph
from tests.support.stores import Failing, Reader, fill, memory, request

MAX_DEPTH = 8


class Planned:
    """A reporter that keeps the plan of the only image; `over` is set once it is done or failed."""

    plan: Plan

    def __init__(self) -> None:
        self.over = threading.Event()

    def planned(self, request: Request, plan: Plan) -> None:
        self.plan = plan

    def moved(self, request: Request, count: int) -> None:
        pass

    def finished(self, outcome: Outcome) -> None:
        self.over.set()


def plan_of(source: Source, told: Planned | None = None) -> Plan:
    """Return what there is to do for `v1`, without doing it."""
    told = told or Planned()
    options = Options(jobs=1, dry_run=True, allow_foreign=True, referrers=False)
    (outcome,) = copy_many([request(source, "v1", MemoryStore())], options, told)
    if outcome.error is not None:
        raise outcome.error
    return told.plan


def planned(graph: Graph) -> Plan:
    return plan_of(memory({"v1": graph}))


def seconds_to_plan(directory: Path, graph: Graph) -> tuple[Plan, float]:
    """Return the plan of an image in a layout, and the processor time that it took."""
    with Layout(images.write_layout(directory, {"v1": graph})) as source:
        started = time.process_time()
        return plan_of(source), time.process_time() - started


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
    source.reads.clear()
    plan_of(source)
    assert sorted(source.reads) == sorted(graph.manifests)


def test_no_blob_is_read() -> None:
    graph = images.multi()
    source = Failing()
    fill(source, {"v1": graph})
    plan_of(source)
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
def test_a_bomb_of_repeated_children_is_planned_in_no_time(tmp_path: Path) -> None:
    """Each of these is a manifest of nearly 4 MiB, the most that is read."""
    graph = index_bomb(levels=2, repeats=12_000)
    plan, seconds = seconds_to_plan(tmp_path, graph)
    assert len(plan.manifests) == 3
    assert seconds < 5


def test_many_foreign_layers_are_planned_in_no_time(tmp_path: Path) -> None:
    builder = Builder()
    config = builder.blob(b"{}", images.OCI_CONFIG)
    layers = [
        images.describe(str(n).encode(), (images.OCI_LAYER, images.OCI_LAYER_FOREIGN)[n % 2])
        for n in range(16_000)
    ]
    raw = images.compact(
        {"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "config": config, "layers": layers}
    )
    graph = builder.graph(builder.manifest(raw, images.OCI_MANIFEST))
    plan, seconds = seconds_to_plan(tmp_path, graph)
    assert len(plan.foreign) == 8000
    assert seconds < 5


@pytest.mark.bar("R41")
def test_more_manifests_than_any_image_has_are_refused_before_they_are_read(
    tmp_path: Path,
) -> None:
    """Ten indexes name 110,000 manifests, which nobody has: they are not all asked for."""
    builder = Builder()
    parts = []
    for start in range(0, 110_000, 11_000):
        children = [
            {"mediaType": images.OCI_MANIFEST, "digest": f"sha256:{n:064x}", "size": 1}
            for n in range(start, start + 11_000)
        ]
        raw = images.compact(
            {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": children}
        )
        parts.append(builder.manifest(raw, images.OCI_INDEX))
    images.write_layout(tmp_path, {"v1": builder.graph(builder.index(parts))})
    told = Planned()
    with Waiting(tmp_path) as source:
        source.told = told
        # (One thread: it has read all ten before it comes to the children.)
        with pytest.raises(MalformedManifest, match="more than 100000 manifests"):
            plan_of(source, told)
        assert source.reads == 12


class Waiting(Layout):
    """Counts what is read; the children wait until the image has failed."""

    told: Planned
    reads = 0

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        self.reads += 1
        if descriptor.size == 1:
            assert self.told.over.wait(100)
        return super()._open(descriptor, position)


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
        plan_of(source)


def test_foreign_layers_are_refused_with_their_digest_and_url() -> None:
    graph = images.foreign_layer()
    (outcome,) = copy_many([request(memory({"v1": graph}), "v1", MemoryStore())])
    assert isinstance(outcome.error, ForeignLayer)
    (digest,) = graph.absent
    assert digest in outcome.error.message
    assert "https://foreign.example.com/layers/base.tar.gz" in outcome.error.message


@pytest.mark.parametrize(
    ("media_type", "foreign"),
    [
        (images.OCI_LAYER_FOREIGN, True),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", True),
        (images.OCI_LAYER_GZIP, False),
    ],
)
def test_a_layer_with_urls_is_foreign_only_by_its_type(media_type: str, foreign: bool) -> None:
    builder = Builder()
    layer = builder.blob(b"layer", media_type)
    document = {
        "schemaVersion": 2,
        "config": builder.blob(b"{}", images.OCI_CONFIG),
        "layers": [{**layer, "urls": ["https://foreign.example.com/layer"]}],
    }
    graph = builder.graph(builder.manifest(images.compact(document), images.OCI_MANIFEST))
    plan = planned(graph)
    assert [str(blob.digest) for blob in plan.foreign] == [layer["digest"]] * foreign
    assert [str(blob.digest) for blob in plan.blobs[1:]] == [layer["digest"]] * (not foreign)
