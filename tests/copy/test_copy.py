"""The copy engine: many images, one run, and names last of all."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from ocimirror import (
    AuthenticationFailed,
    Descriptor,
    Digest,
    DigestMismatch,
    ForeignLayer,
    IntegrityError,
    Interrupted,
    Layout,
    Manifest,
    ManifestBlobUnknown,
    MemoryStore,
    NotFound,
    OciMirrorError,
    Options,
    Outcome,
    Plan,
    PushRejected,
    RegistryUnavailable,
    Request,
    SizeMismatch,
    Stored,
    Unsupported,
    VerifiedStream,
    copy_many,
)
from tests.support import images
from tests.support.evil import EVIL_MANIFESTS, MEDIA_TYPES, REFUSED_ON_COPY
from tests.support.images import Builder, Graph
from tests.support.judge import contents_of, faults_of, names_of
from tests.support.stores import (
    Failing,
    LikeARegistry,
    Reader,
    broken_after,
    copy_all,
    copy_into_layout,
    failures,
    fill,
    flipped,
    lengthened,
    memory,
    named,
    request,
    shortened,
)

SINGLE, MULTI = images.single(), images.multi()
LAYER = list(SINGLE.blobs)[-1]
NAME = "registry.example.com/app0:v1"


def failing(*graphs: Graph) -> Failing:
    """Return a source of these images, which counts reads from now on."""
    store = Failing()
    fill(store, named(graphs))
    store.reads.clear()
    return store


def unavailable() -> RegistryUnavailable:
    """Return a passing fault, after which one need not wait."""
    error = RegistryUnavailable("503 Service Unavailable")
    error.retry_after_s = 0.0
    return error


def error_of(outcomes: Sequence[Outcome]) -> OciMirrorError:
    """Return the error of the only outcome."""
    (outcome,) = outcomes
    assert outcome.error is not None
    assert outcome.status == "failed"
    return outcome.error


def raw_of(store: MemoryStore, digest: str, size: int) -> bytes:
    descriptor = Descriptor("application/octet-stream", Digest.parse(digest), size)
    with store.fetch(descriptor) as stream:
        return stream.read_all(size)


# --- what is copied -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", [name for name in images.ALL if name != "foreign_layer"])
def test_an_image_arrives_with_every_byte_and_nothing_else(tmp_path: Path, case: str) -> None:
    graph = images.ALL[case]()
    outcomes = copy_into_layout(memory({NAME: graph}), tmp_path, [NAME])
    assert failures(outcomes) == []
    assert contents_of(tmp_path, lists=False) == graph.contents
    names = {n: d for n, d in names_of(tmp_path).items() if not n.startswith("sha256-")}
    assert names == {NAME: graph.root}
    assert faults_of(tmp_path) == []


def test_an_outcome_says_what_was_copied() -> None:
    (outcome,) = copy_all(memory({NAME: MULTI}), MemoryStore(), [NAME])
    assert outcome.status == "copied"
    assert outcome.error is None
    assert str(outcome.root.digest if outcome.root else "") == MULTI.root
    assert outcome.manifests == {"copied": len(MULTI.manifests), "present": 0}
    others = {"present": 0, "mounted": 0, "linked": 0, "skipped": 0}
    assert outcome.blobs == {"copied": len(MULTI.blobs), **others}
    assert outcome.bytes_total == outcome.bytes_copied == sum(map(len, MULTI.contents.values()))


@pytest.mark.parametrize("kind", [MemoryStore, LikeARegistry])
def test_an_outcome_says_what_was_there(kind: type[MemoryStore]) -> None:
    destination = kind()
    fill(destination, {"other": SINGLE})
    (outcome,) = copy_all(memory({NAME: SINGLE}), destination, [NAME])
    assert outcome.status == "copied"
    assert outcome.blobs["present"] == len(SINGLE.blobs)
    assert outcome.blobs["copied"] == 0


def test_an_image_without_a_new_name_is_copied_by_digest_alone() -> None:
    destination = MemoryStore()
    outcomes = copy_many([request(memory({NAME: MULTI}), NAME, destination, "")])
    assert failures(outcomes) == []
    assert destination.names() == []
    assert str(destination.resolve(MULTI.root).digest) == MULTI.root


def test_an_image_is_copied_by_its_digest() -> None:
    child = next(iter(MULTI.manifests))
    destination = MemoryStore()
    outcomes = copy_many([request(memory({NAME: MULTI}), child, destination, "child")])
    assert failures(outcomes) == []
    assert str(destination.resolve("child").digest) == child


def test_one_image_may_get_two_names_in_one_run(tmp_path: Path) -> None:
    source = failing(SINGLE)
    with Layout(tmp_path, write=True, durable=False) as layout:
        outcomes = copy_many([request(source, NAME, layout), request(source, NAME, layout, "v2")])
    assert failures(outcomes) == []
    assert names_of(tmp_path) == {NAME: SINGLE.root, "v2": SINGLE.root}


def test_copying_nothing_is_done_at_once() -> None:
    assert copy_many([]) == []


def test_the_layers_of_many_images_are_carried_once() -> None:
    graphs = images.shared_layers(6, 4, 3000, shared_fraction=0.75)
    source = failing(*graphs)
    destination = Failing()
    outcomes = copy_all(source, destination, list(named(graphs)))
    assert failures(outcomes) == []
    every = {digest for graph in graphs for digest in graph.contents}
    assert Counter(source.reads) == Counter(every)
    assert sum(o.blobs["copied"] for o in outcomes) == len(
        {digest for graph in graphs for digest in graph.blobs}
    )


def test_a_layer_that_two_images_size_differently_spoils_only_the_wrong_one() -> None:
    """Image 0 lies about the size of image 1's layer."""
    right = images.single()
    liar = Builder()
    config = liar.blob(b"{}", images.OCI_CONFIG)
    layer = {"mediaType": images.OCI_LAYER_GZIP, "digest": LAYER, "size": 5}
    raw = images.compact(
        {"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "config": config, "layers": [layer]}
    )
    wrong = liar.graph(liar.manifest(raw, images.OCI_MANIFEST))
    for graphs in ([wrong, right], [right, wrong]):
        outcomes = copy_all(failing(*graphs), MemoryStore(), list(named(graphs)), jobs=1)
        by_root = {str(o.root.digest): o.error for o in outcomes if o.root}
        assert by_root[right.root] is None
        assert isinstance(by_root[wrong.root], SizeMismatch)


# --- order --------------------------------------------------------------------------------------


def test_outcomes_come_in_the_order_asked_for_whichever_is_done_first() -> None:
    graphs = [images.multi(), images.artifact_without_layers(), images.single()]
    names = list(named(graphs))
    outcomes = copy_all(failing(*graphs), MemoryStore(), names, jobs=4)
    assert [outcome.request.name for outcome in outcomes] == names


def test_a_failed_image_does_not_stop_the_others() -> None:
    graphs = [images.single(), images.artifact(), images.multi()]
    source = failing(*graphs)
    source.forget(LAYER)
    destination = MemoryStore()
    outcomes = copy_all(source, destination, [*named(graphs), "absent"])
    assert [o.status for o in outcomes] == ["failed", "copied", "copied", "failed"]
    assert sorted(destination.names()) == list(named(graphs))[1:]


def test_more_images_than_the_run_holds_open_are_all_copied(tmp_path: Path) -> None:
    graphs = images.shared_layers(150, 1, 100, shared_fraction=1.0)
    outcomes = copy_into_layout(failing(*graphs), tmp_path, list(named(graphs)))
    assert failures(outcomes) == []
    assert names_of(tmp_path) == {name: graph.root for name, graph in named(graphs).items()}
    assert faults_of(tmp_path) == []


def test_nothing_is_pushed_before_its_children_and_no_name_before_its_closure() -> None:
    destination = Witnessing()
    graph = images.nested_index()
    outcomes = copy_all(memory({NAME: graph}), destination, [NAME], jobs=4)
    assert failures(outcomes) == []
    assert destination.complaints == []


class Witnessing(MemoryStore):
    """Notes what was pushed or named before what it refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.complaints: list[str] = []

    def _ingest(self, descriptor: Descriptor, stream: VerifiedStream, replace: bool) -> Stored:
        stored = super()._ingest(descriptor, stream, replace)
        if descriptor.kind == "manifest":
            self._look_below(self.read_manifest(descriptor))
        return stored

    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        for _, manifest in names:
            if not self._exists(manifest.descriptor):
                self.complaints.append(f"{manifest.digest} was named before it was there")
            self._look_below(manifest)
        super()._tag(names)

    def _look_below(self, manifest: Manifest) -> None:
        for child in (*manifest.manifests, *manifest.blobs):
            if not self._exists(child):
                self.complaints.append(f"{manifest.digest} came before {child.digest}")


@pytest.mark.bar("R29")
def test_a_tag_that_moves_meanwhile_does_not_tear_a_copy() -> None:
    source = failing(MULTI)

    def moved(reader: Reader) -> Reader:
        fill(source, {NAME: SINGLE})
        return reader

    source.faults[MULTI.root].append(moved)
    destination = MemoryStore()
    (outcome,) = copy_all(source, destination, [NAME])
    assert outcome.error is None
    assert str(destination.resolve(NAME).digest) == MULTI.root


# --- trying again -------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_a_passing_fault_is_tried_again(times: int) -> None:
    source = failing(SINGLE)
    source.faults[LAYER].extend(unavailable() for _ in range(times))
    (outcome,) = copy_all(source, MemoryStore(), [NAME], retries=3)
    assert outcome.error is None
    assert source.reads.count(LAYER) == times + 1


@pytest.mark.parametrize("retries", [0, 2])
def test_a_fault_that_stays_is_given_up_after_the_retries(retries: int) -> None:
    source = failing(SINGLE)
    source.faults[LAYER].extend(unavailable() for _ in range(9))
    error = error_of(copy_all(source, MemoryStore(), [NAME], retries=retries))
    assert (type(error), error.exit_code, error.side) == (RegistryUnavailable, 3, "source")
    assert source.reads.count(LAYER) == retries + 1


def test_a_try_begins_with_a_fresh_fetch() -> None:
    source = failing(SINGLE)
    source.faults[LAYER].append(broken_after(100, unavailable()))
    destination = MemoryStore()
    (outcome,) = copy_all(source, destination, [NAME])
    assert outcome.error is None
    assert raw_of(destination, LAYER, len(SINGLE.blobs[LAYER])) == SINGLE.blobs[LAYER]


@pytest.mark.parametrize("lasting", [NotFound("gone"), AuthenticationFailed("denied")])
def test_a_lasting_fault_is_not_tried_again(lasting: OciMirrorError) -> None:
    source = failing(SINGLE)
    source.faults[LAYER].append(lasting)
    assert error_of(copy_all(source, MemoryStore(), [NAME])) is lasting
    assert source.reads.count(LAYER) == 1


def test_a_fault_that_was_tried_again_already_is_not_tried_again_here() -> None:
    source = failing(SINGLE)
    exhausted = unavailable()
    exhausted.exhausted = True
    source.faults[LAYER].append(exhausted)
    assert error_of(copy_all(source, MemoryStore(), [NAME])) is exhausted
    assert source.reads.count(LAYER) == 1


SPOILED = [
    pytest.param(flipped(5), DigestMismatch, id="flipped"),
    pytest.param(shortened(1), SizeMismatch, id="short"),
    pytest.param(lengthened(b"x"), SizeMismatch, id="long"),
]


@pytest.mark.parametrize("digest", [LAYER, SINGLE.root], ids=["layer", "manifest"])
@pytest.mark.parametrize(("fault", "error"), SPOILED)
@pytest.mark.bar("R16")
def test_spoiled_content_is_fetched_once_more(
    fault: object, error: type[OciMirrorError], digest: str
) -> None:
    source = failing(SINGLE)
    source.faults[digest].append(fault)  # type: ignore[arg-type]
    destination = MemoryStore()
    (outcome,) = copy_all(source, destination, [NAME])
    assert outcome.error is None
    assert source.reads.count(digest) == 2


@pytest.mark.parametrize("digest", [LAYER, SINGLE.root], ids=["layer", "manifest"])
@pytest.mark.parametrize(("fault", "error"), SPOILED)
@pytest.mark.bar("R16")
def test_content_that_is_spoiled_twice_is_an_integrity_violation(
    fault: object, error: type[OciMirrorError], digest: str
) -> None:
    source = failing(SINGLE)
    source.faults[digest].extend([fault] * 9)  # type: ignore[list-item]
    destination = MemoryStore()
    raised = error_of(copy_all(source, destination, [NAME]))
    assert type(raised) is error
    assert (raised.exit_code, raised.side) == (5, "source")
    assert source.reads.count(digest) == 2
    assert destination.names() == []


def test_a_refusal_by_the_destination_is_its_own() -> None:
    destination = Failing()
    destination.refusals[LAYER].append(PushRejected("quota exceeded"))
    error = error_of(copy_all(memory({NAME: SINGLE}), destination, [NAME]))
    assert (error.side, error.exit_code) == ("destination", 4)
    assert destination.pushes.count(LAYER) == 1


def test_a_passing_fault_of_the_destination_is_tried_again_with_a_fresh_fetch() -> None:
    source, destination = failing(SINGLE), Failing()
    destination.refusals[LAYER].append(unavailable())
    assert failures(copy_all(source, destination, [NAME])) == []
    assert destination.pushes.count(LAYER) == 2


def test_an_unknown_name_fails_at_the_source() -> None:
    error = error_of(copy_all(memory({NAME: SINGLE}), MemoryStore(), ["absent"]))
    assert (type(error), error.side) == (NotFound, "source")


def test_a_failed_name_fails_every_image_that_was_to_be_named_with_it() -> None:
    graphs = [images.single(), images.artifact()]
    destination = Failing()
    destination.name_refusals.append(PushRejected("no"))
    outcomes = copy_all(failing(*graphs), destination, list(named(graphs)))
    assert len(failures(outcomes)) + len(destination.names()) == 2
    assert {o.error.side for o in outcomes if o.error} == {"destination"}


def test_a_bug_in_a_store_fails_one_image_as_a_bug() -> None:
    graphs = [images.single(), images.artifact()]
    source = failing(*graphs)
    source.faults[LAYER].append(ZeroDivisionError("oops"))
    outcomes = copy_all(source, MemoryStore(), list(named(graphs)))
    assert [o.status for o in outcomes] == ["failed", "copied"]
    assert outcomes[0].error is not None
    assert outcomes[0].error.exit_code == 1
    assert "ZeroDivisionError" in outcomes[0].error.message


def test_a_shared_layer_that_one_source_lost_is_carried_from_another() -> None:
    graphs = images.shared_layers(2, 3, 3000, shared_fraction=1.0)
    shared = list(graphs[0].blobs)[-1]
    broken, whole = failing(graphs[0]), MemoryStore()
    broken.faults[shared].append(NotFound("gone"))
    fill(whole, {"second": graphs[1]})
    destination = MemoryStore()
    outcomes = copy_many(
        [request(broken, NAME, destination), request(whole, "second", destination)],
        Options(jobs=1),
    )
    assert [o.status for o in outcomes] == ["failed", "copied"]
    assert destination.names() == ["second"]


def test_a_shared_layer_that_the_source_lost_fails_every_image_with_it() -> None:
    graphs = images.shared_layers(3, 2, 3000, shared_fraction=1.0)
    source = failing(*graphs)
    source.forget(list(graphs[0].blobs)[-1])
    outcomes = copy_all(source, MemoryStore(), list(named(graphs)), jobs=1)
    assert [type(o.error) for o in outcomes] == [NotFound] * 3


# --- a destination that knows less than it said -------------------------------------------------


class Forgetful(LikeARegistry):
    """A registry that says it has what it lost, until a manifest needs it."""

    def __init__(self, lost: str) -> None:
        super().__init__()
        self.lost = lost

    def _exists(self, descriptor: Descriptor) -> bool:
        return str(descriptor.digest) == self.lost or super()._exists(descriptor)

    def _ingest(self, descriptor: Descriptor, stream: VerifiedStream, replace: bool) -> Stored:
        stored = super()._ingest(descriptor, stream, replace)
        if descriptor.kind == "manifest" and stored is Stored.COPIED:
            self._refuse_gaps(self.read_manifest(descriptor))
        return stored

    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        for _, manifest in names:
            self._refuse_gaps(manifest)
        super()._tag(names)

    def _refuse_gaps(self, manifest: Manifest) -> None:
        for child in (*manifest.manifests, *manifest.blobs):
            if child.digest not in self._content:
                raise ManifestBlobUnknown(f"{child.digest} is unknown")


@pytest.mark.parametrize(
    "lost", [*MULTI.blobs, *list(MULTI.manifests)[:-1]], ids=lambda digest: digest[7:15]
)
@pytest.mark.bar("R33")
def test_what_the_destination_had_lost_is_pushed_again(lost: str) -> None:
    destination = Forgetful(lost)
    outcomes = copy_all(memory({NAME: MULTI}), destination, [NAME])
    assert failures(outcomes) == []
    for digest, content in MULTI.contents.items():
        assert raw_of(destination, digest, len(content)) == content


def test_a_layer_named_with_two_media_types_is_pushed_again_too() -> None:
    builder = Builder()
    config = builder.blob(b"{}", images.OCI_CONFIG)
    layer = builder.blob(b"layer", images.OCI_LAYER)
    manifests = []
    for media_type in (images.OCI_LAYER, images.OCI_LAYER_GZIP):
        document = {
            "schemaVersion": 2,
            "config": config,
            "layers": [{**layer, "mediaType": media_type}],
        }
        manifests.append(builder.manifest(images.compact(document), images.OCI_MANIFEST))
    graph = builder.graph(builder.index(manifests))
    destination = Forgetful(layer["digest"])
    assert failures(copy_all(memory({NAME: graph}), destination, [NAME])) == []


def test_a_destination_that_keeps_missing_content_is_given_up() -> None:
    destination = LikeARegistry()
    destination.name_refusals.extend(ManifestBlobUnknown("again") for _ in range(9))
    error = error_of(copy_all(memory({NAME: SINGLE}), destination, [NAME]))
    assert isinstance(error, ManifestBlobUnknown)
    assert len(destination.name_refusals) == 7


# --- foreign, opaque, unsupported ---------------------------------------------------------------


def test_foreign_layers_are_an_error_before_anything_is_carried() -> None:
    graph = images.foreign_layer()
    source, destination = failing(graph), Failing()
    (outcome,) = copy_all(source, destination, [NAME])
    assert isinstance(outcome.error, ForeignLayer)
    assert outcome.error.exit_code == 4
    assert "--allow-foreign" in outcome.error.diagnostics()
    assert destination.pushes == []


def test_foreign_layers_that_are_allowed_are_skipped_and_said_so() -> None:
    graph = images.foreign_layer()
    destination = MemoryStore()
    (outcome,) = copy_all(failing(graph), destination, [NAME], allow_foreign=True)
    assert outcome.status == "copied"
    assert outcome.blobs["skipped"] == 1
    (digest,) = graph.absent
    assert [note for note in outcome.notes if digest in note]
    assert destination.names() == [NAME]


def test_a_child_of_unknown_type_is_carried_and_said_so() -> None:
    graph = images.unknown_child()
    (outcome,) = copy_all(failing(graph), MemoryStore(), [NAME])
    assert outcome.error is None
    assert [note for note in outcome.notes if images.UNKNOWN_CHILD in note]


def test_content_that_cannot_be_verified_is_not_carried() -> None:
    builder = Builder()
    config = builder.blob(b"{}", images.OCI_CONFIG)
    layer = {**config, "mediaType": images.OCI_LAYER, "digest": "blake3:" + "0" * 64}
    document = {"schemaVersion": 2, "config": config, "layers": [layer]}
    graph = builder.graph(builder.manifest(images.compact(document), images.OCI_MANIFEST))
    destination = MemoryStore()
    error = error_of(copy_all(failing(graph), destination, [NAME]))
    assert (type(error), error.side, error.exit_code) == (Unsupported, "source", 4)
    assert "blake3" in error.message
    assert destination.names() == []


@pytest.mark.parametrize("name", sorted(set(EVIL_MANIFESTS) - REFUSED_ON_COPY))
def test_an_evil_manifest_leaves_no_file_and_no_name(tmp_path: Path, name: str) -> None:
    """Whatever it calls a digest or a size: nothing of it becomes a path."""
    raw = EVIL_MANIFESTS[name].read_bytes()
    root = Descriptor(MEDIA_TYPES[name], Digest.of(raw), len(raw), "manifest")
    source = Failing()
    source.tag([(NAME, Manifest(raw, root))])
    with Layout(tmp_path / "layout", write=True, durable=False) as layout:
        before = sorted(tmp_path.rglob("*"))
        error = error_of(copy_all(source, layout, [NAME]))
    assert error.exit_code in (4, 5)
    assert error.side == "source"
    assert {str(root.digest)} >= set(source.reads)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_layer_of_zero_bytes_with_another_digest_is_the_sources_fault() -> None:
    builder = Builder()
    config = builder.blob(b"{}", images.OCI_CONFIG)
    layer = {**builder.blob(b"something", images.OCI_LAYER), "size": 0}
    document = {"schemaVersion": 2, "config": config, "layers": [layer]}
    graph = builder.graph(builder.manifest(images.compact(document), images.OCI_MANIFEST))
    error = error_of(copy_all(failing(graph), MemoryStore(), [NAME]))
    assert (type(error), error.side) == (DigestMismatch, "source")


# --- unchanged, deep, dry run -------------------------------------------------------------------


def test_an_unchanged_image_in_a_layout_is_looked_at_and_not_read(tmp_path: Path) -> None:
    source = failing(MULTI)
    copy_into_layout(source, tmp_path, [NAME])
    source.reads.clear()
    flip(tmp_path, next(iter(MULTI.blobs)))
    (outcome,) = copy_into_layout(source, tmp_path, [NAME])
    assert outcome.status == "unchanged"
    assert outcome.bytes_copied == 0
    assert source.reads == []


@pytest.mark.bar("zot-same-digest")
def test_an_unchanged_image_in_a_registry_is_known_by_its_name_alone() -> None:
    source, destination = failing(SINGLE), LikeARegistry()
    copy_all(source, destination, [NAME])
    source.reads.clear()
    destination.reads.clear()
    destination.pushes.clear()
    (outcome,) = copy_all(source, destination, [NAME])
    assert outcome.status == "unchanged"
    assert source.reads == destination.reads == destination.pushes == []


@pytest.mark.parametrize("digest", [*MULTI.contents], ids=lambda digest: digest[7:15])
@pytest.mark.parametrize("how", ["missing", "cut short"])
def test_an_image_that_lost_a_file_is_not_unchanged(tmp_path: Path, digest: str, how: str) -> None:
    source = memory({NAME: MULTI})
    copy_into_layout(source, tmp_path, [NAME])
    path = images.blob_path(tmp_path, digest)
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    (outcome,) = copy_into_layout(source, tmp_path, [NAME])
    assert outcome.status == "copied"
    assert outcome.blobs["copied"] + outcome.manifests["copied"] == 1
    assert contents_of(tmp_path) == MULTI.contents


@pytest.mark.parametrize("digest", [*MULTI.contents], ids=lambda digest: digest[7:15])
def test_a_deep_copy_finds_and_replaces_a_flipped_byte(tmp_path: Path, digest: str) -> None:
    source = memory({NAME: MULTI})
    copy_into_layout(source, tmp_path, [NAME])
    flip(tmp_path, digest)
    (outcome,) = copy_into_layout(source, tmp_path, [NAME], deep=True)
    assert outcome.error is None
    assert outcome.blobs["copied"] + outcome.manifests["copied"] == 1
    assert contents_of(tmp_path) == MULTI.contents


def test_a_deep_copy_of_what_is_whole_replaces_nothing(tmp_path: Path) -> None:
    source = memory({NAME: MULTI})
    copy_into_layout(source, tmp_path, [NAME])
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    (outcome,) = copy_into_layout(source, tmp_path, [NAME], deep=True)
    assert outcome.bytes_copied == 0
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def test_a_damaged_manifest_is_replaced_before_it_is_named_again(tmp_path: Path) -> None:
    """A new name does not vouch for a file that has the right size and other bytes."""
    source = memory({NAME: MULTI, "v2": MULTI})
    copy_into_layout(source, tmp_path, [NAME])
    for digest in MULTI.manifests:
        flip(tmp_path, digest)
    (outcome,) = copy_into_layout(source, tmp_path, ["v2"])
    assert outcome.error is None
    assert contents_of(tmp_path) == MULTI.contents


def test_a_dry_run_changes_nothing_and_says_what_is_missing() -> None:
    source, destination = failing(MULTI), Failing()
    fill(destination, {"other": SINGLE})
    destination.pushes.clear()
    (outcome,) = copy_all(source, destination, [NAME], dry_run=True)
    assert outcome.status == "planned"
    assert outcome.blobs["copied"] == len(MULTI.blobs.keys() - SINGLE.blobs.keys())
    assert outcome.blobs["present"] == len(MULTI.blobs.keys() & SINGLE.blobs.keys()) > 0
    assert outcome.bytes_total == sum(map(len, MULTI.contents.values()))
    assert not set(source.reads) & set(MULTI.blobs)
    assert destination.pushes == []
    assert destination.names() == ["other"]


def test_a_dry_run_knows_what_is_there(tmp_path: Path) -> None:
    source = memory({NAME: MULTI, "v2": MULTI})
    copy_into_layout(source, tmp_path, [NAME])
    before = sorted(tmp_path.rglob("*"))
    unchanged, planned = copy_into_layout(source, tmp_path, [NAME, "v2"], dry_run=True)
    assert unchanged.status == "unchanged"
    assert planned.status == "planned"
    assert planned.blobs["present"] == len(MULTI.blobs)
    assert sorted(tmp_path.rglob("*")) == before
    assert names_of(tmp_path) == {NAME: MULTI.root}


def flip(layout: Path, digest: str) -> None:
    path = images.blob_path(layout, digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# --- reports ------------------------------------------------------------------------------------


class Ledger:
    """A reporter that adds up."""

    def __init__(self) -> None:
        self.planned_bytes: dict[str, int] = {}
        self.moved_bytes: dict[str, int] = defaultdict(int)
        self.finished_names: list[str] = []
        self._guard = threading.Lock()

    def planned(self, request: Request, plan: Plan) -> None:
        self.planned_bytes[request.name] = plan.size_bytes

    def moved(self, request: Request, count: int) -> None:
        with self._guard:
            self.moved_bytes[request.name] += count

    def finished(self, outcome: Outcome) -> None:
        self.finished_names.append(outcome.request.name)


@pytest.mark.parametrize("options", [{}, {"deep": True}, {"dry_run": True}], ids=str)
@pytest.mark.parametrize("kind", [MemoryStore, LikeARegistry])
@pytest.mark.parametrize("there", [0, 2])
def test_the_bytes_reported_add_up_to_those_planned(
    kind: type[MemoryStore], options: dict[str, bool], there: int
) -> None:
    graphs = images.shared_layers(4, 3, 3000, shared_fraction=0.67)
    source = failing(*graphs)
    source.faults[list(graphs[0].blobs)[-1]].extend([broken_after(1000, unavailable()), flipped(7)])
    destination = kind()
    fill(destination, {f"other{n}": graph for n, graph in enumerate(graphs[:there])})
    ledger = Ledger()
    requests = [request(source, name, destination) for name in named(graphs)]
    outcomes = copy_many(requests, Options(jobs=2, **options), ledger)
    assert failures(outcomes) == []
    if options.get("dry_run"):
        ledger.planned_bytes = {
            name: size - len(graph.raw)
            for (name, graph), size in zip(
                named(graphs).items(), ledger.planned_bytes.values(), strict=True
            )
        }
    assert ledger.moved_bytes == ledger.planned_bytes
    assert sorted(ledger.finished_names) == sorted(named(graphs))


def test_each_image_is_reported_finished_once_whatever_befalls_it() -> None:
    graphs = [images.single(), images.multi(), images.foreign_layer()]
    source = failing(*graphs)
    source.forget(LAYER)
    ledger = Ledger()
    requests = [request(source, name, MemoryStore()) for name in [*named(graphs), "absent"]]
    copy_many(requests, Options(), ledger)
    assert sorted(ledger.finished_names) == sorted([*named(graphs), "absent"])


def test_trying_again_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    source = failing(SINGLE)
    source.faults[LAYER].append(unavailable())
    with caplog.at_level(logging.WARNING, "ocimirror"):
        copy_all(source, MemoryStore(), [NAME])
    assert ["503" in record.getMessage() for record in caplog.records] == [True]


# --- stopping -----------------------------------------------------------------------------------


class Dripping:
    """A reader of one byte at a time, and slow."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read(self, amount: int, /) -> bytes:
        time.sleep(0.02)
        return self._reader.read(min(1, amount))

    def close(self) -> None:
        self._reader.close()


def test_a_stop_ends_transfers_at_once_and_names_nothing_more() -> None:
    graphs = [images.artifact(), *images.shared_layers(5, 2, 3000, 0.0)]
    source, destination = failing(*graphs), MemoryStore()
    for graph in graphs[1:]:
        source.faults[list(graph.blobs)[-1]].extend([Dripping] * 9)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    outcomes = copy_all(source, destination, list(named(graphs)), stop=stop)
    assert time.monotonic() - started < 30  # (a layer takes a minute)
    assert {type(o.error) for o in outcomes[1:]} == {Interrupted}
    assert all(o.error.exit_code == 130 for o in outcomes[1:] if o.error)
    assert set(destination.names()) <= {NAME}


def test_a_stop_ends_a_pause_between_tries() -> None:
    source = failing(SINGLE)
    error = unavailable()
    error.retry_after_s = 600.0
    source.faults[LAYER].append(error)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    started = time.monotonic()
    raised = error_of(copy_all(source, MemoryStore(), [NAME], stop=stop))
    assert time.monotonic() - started < 60
    assert isinstance(raised, Interrupted)


def test_a_run_that_was_stopped_before_it_began_does_nothing() -> None:
    source, stop = failing(SINGLE), threading.Event()
    stop.set()
    outcomes = copy_all(source, MemoryStore(), [NAME] * 20, stop=stop)
    assert {type(o.error) for o in outcomes} == {Interrupted}
    assert source.reads == []


def test_a_stop_does_not_wait_for_a_source_that_hangs() -> None:
    source, release = failing(SINGLE), threading.Event()

    def hang(reader: Reader) -> Reader:
        release.wait(100)
        return io.BytesIO()

    source.faults[LAYER].append(hang)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    started = time.monotonic()
    raised = error_of(copy_all(source, MemoryStore(), [NAME], stop=stop))
    took = time.monotonic() - started
    release.set()
    assert isinstance(raised, Interrupted)
    assert took < 50


def test_names_that_are_ready_do_not_wait_for_an_image_that_is_slow() -> None:
    graphs = [*images.shared_layers(1, 2, 3000, 0.0), images.artifact()]
    source, destination = failing(*graphs), MemoryStore()
    release = threading.Event()

    def hang(reader: Reader) -> Reader:
        release.wait(30)
        return reader

    source.faults[list(graphs[0].blobs)[-1]].append(hang)
    names = list(named(graphs))
    copying = threading.Thread(target=copy_all, args=(source, destination, names))
    copying.start()
    deadline = time.monotonic() + 5
    while not destination.names() and time.monotonic() < deadline:
        time.sleep(0.01)
    named_meanwhile = destination.names()
    release.set()
    copying.join(10)
    assert named_meanwhile == [names[1]]
    assert sorted(destination.names()) == sorted(names)


def test_integrity_errors_are_no_os_errors_so_that_requests_lets_them_pass() -> None:
    assert not issubclass(IntegrityError, OSError)


class CountingLayout(Layout):
    """Counts how often its index is written anew."""

    moves = 0

    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        self.moves += 1
        super()._tag(names)


def test_names_move_sixty_four_at_once_however_few_jobs_there_are(tmp_path: Path) -> None:
    """Otherwise a layout of ten thousand names would be written thousands of times."""
    graphs = named(images.shared_layers(130, 2, 50, 0.5))
    source = memory(graphs)
    with CountingLayout(tmp_path / "layout", write=True, durable=False) as layout:
        outcomes = copy_many([request(source, name, layout) for name in graphs], Options(jobs=1))
    assert failures(outcomes) == []
    # (Three; on a slow machine one a second besides.)
    assert layout.moves <= 8
