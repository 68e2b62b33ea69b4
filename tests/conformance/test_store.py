"""What Source and Store promise, kept by every one of them."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ocimirror import (
    Descriptor,
    Digest,
    DigestMismatch,
    IntegrityError,
    Manifest,
    MissingContent,
    NotFound,
    RegistryUnavailable,
    SizeMismatch,
    Source,
    Stored,
    Unsupported,
    UsageError,
    VerifiedStream,
)
from tests.conformance.conftest import KINDS, Place
from tests.support import images
from tests.support.stores import (
    OCTETS,
    blob_of,
    broken_after,
    fill,
    manifests_of,
    push_blob,
    root_of,
    stream_of,
)

# What a registry does not take: a layer that is elsewhere, a child that the graph has as a blob, a
# root whose tag it answers with a sha256 digest; the strict one also wants manifests in an index.
NOT_IN_A_REGISTRY = {"foreign_layer", "unknown_child", "sha512_root"}
TAKEN = {
    "docker-registry": set(images.DOCKER_REGISTRY_OK) - NOT_IN_A_REGISTRY,
    "strict-registry": set(images.ALL) - NOT_IN_A_REGISTRY - {"buildkit_cache"},
}
CASES = [(kind, case) for kind in KINDS for case in images.ALL if case in TAKEN.get(kind, {case})]
CONTENT = images.noise("conformance", 700_000)
pytestmark = pytest.mark.filterwarnings("ignore:.*without commit")


def read(source: Source, descriptor: Descriptor) -> bytes:
    with source.fetch(descriptor) as stream:
        return stream.read_all(descriptor.size)


def test_content_comes_out_as_it_went_in(place: Place) -> None:
    descriptor = push_blob(place.store, CONTENT)
    assert read(place.store, descriptor) == CONTENT


def test_a_new_object_on_the_same_place_finds_what_was_pushed(place: Place) -> None:
    graph = images.single()
    fill(place.store, {place.name("v1"): graph})
    other = place.reopened()
    for digest, content in graph.contents.items():
        kind = "manifest" if digest in graph.manifests else "blob"
        media_type = graph.manifests.get(digest, (OCTETS,))[0]
        descriptor = Descriptor(media_type, Digest.parse(digest), len(content), kind)
        assert read(other, descriptor) == content


def test_pushing_twice_stores_once_and_says_so(place: Place) -> None:
    descriptor = blob_of(CONTENT)
    assert place.store.push(descriptor, stream_of(descriptor, CONTENT)) is Stored.COPIED
    assert place.store.push(descriptor, stream_of(descriptor, CONTENT)) is Stored.PRESENT
    assert read(place.store, descriptor) == CONTENT


def test_pushing_a_manifest_twice_stores_it_once_and_says_so(place: Place) -> None:
    graph = images.artifact_without_layers()
    for content in graph.blobs.values():
        push_blob(place.store, content)
    (manifest,) = manifests_of(graph)
    assert place.store.push_manifest(manifest) is Stored.COPIED
    assert place.store.push_manifest(manifest) is Stored.PRESENT
    assert place.store.push_manifest(manifest, replace=True) is Stored.COPIED


def test_content_that_is_present_is_not_read_again(place: Place) -> None:
    descriptor = push_blob(place.store, CONTENT)
    stream = stream_of(descriptor, CONTENT)
    place.store.push(descriptor, stream)
    assert not stream.verified


@pytest.mark.parametrize(
    ("content", "error"),
    [
        pytest.param(CONTENT[:-1], SizeMismatch, id="short"),
        pytest.param(b"", SizeMismatch, id="nothing"),
        pytest.param(CONTENT + b"\n", SizeMismatch, id="one trailing byte"),
        pytest.param(CONTENT * 2, SizeMismatch, id="long"),
        pytest.param(b"\0" + CONTENT[1:], DigestMismatch, id="first byte corrupt"),
        pytest.param(CONTENT[:-1] + b"\0", DigestMismatch, id="last byte corrupt"),
    ],
)
def test_wrong_content_is_refused_and_leaves_nothing(
    place: Place, content: bytes, error: type[IntegrityError]
) -> None:
    descriptor = blob_of(CONTENT)
    with pytest.raises(error) as caught:
        place.store.push(descriptor, stream_of(descriptor, content))
    assert caught.value.side == "source"
    assert not place.store.exists(descriptor)


def test_content_that_was_refused_can_be_pushed_right(place: Place) -> None:
    descriptor = blob_of(CONTENT)
    with pytest.raises(DigestMismatch):
        place.store.push(descriptor, stream_of(descriptor, CONTENT[::-1]))
    assert place.store.push(descriptor, stream_of(descriptor, CONTENT)) is Stored.COPIED
    assert read(place.store, descriptor) == CONTENT


def test_a_source_that_breaks_off_is_reported_as_it_is_and_leaves_nothing(place: Place) -> None:
    descriptor = blob_of(CONTENT)
    gone = RegistryUnavailable("connection reset")
    reader = broken_after(300_000, gone)(io.BytesIO(CONTENT))
    with pytest.raises(RegistryUnavailable) as caught:
        place.store.push(descriptor, VerifiedStream(descriptor, lambda _: reader))
    assert caught.value is gone
    assert caught.value.side == "source"
    assert not place.store.exists(descriptor)


def test_content_of_zero_bytes_is_content(place: Place) -> None:
    descriptor = push_blob(place.store, b"")
    assert place.store.exists(descriptor)
    assert read(place.store, descriptor) == b""


def test_sha512_content_comes_out_as_it_went_in(place: Place) -> None:
    descriptor = push_blob(place.store, CONTENT, "sha512")
    assert place.store.exists(descriptor)
    assert read(place.store, descriptor) == CONTENT


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(blob_of(b"other"), id="digest"),
        pytest.param(Descriptor(OCTETS, blob_of(CONTENT).digest, 5), id="size"),
    ],
)
def test_a_stream_of_another_descriptor_is_a_programming_error(
    place: Place, other: Descriptor
) -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        place.store.push(other, stream_of(blob_of(CONTENT), CONTENT))
    assert not place.store.exists(other)


@pytest.mark.parametrize("amount", [1, len(CONTENT)])
def test_a_stream_that_was_read_from_is_a_programming_error(place: Place, amount: int) -> None:
    descriptor = blob_of(CONTENT)
    stream = stream_of(descriptor, CONTENT)
    stream.read(amount)
    with pytest.raises(ValueError, match="read from"):
        place.store.push(descriptor, stream)
    assert not place.store.exists(descriptor)


def test_the_same_content_at_once_from_eight_threads_is_stored(place: Place) -> None:
    descriptor = blob_of(CONTENT)
    start = threading.Barrier(8)

    def push(_: int) -> Stored:
        start.wait()
        return place.store.push(descriptor, stream_of(descriptor, CONTENT))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(push, range(8)))
    assert Stored.COPIED in results
    assert read(place.store, descriptor) == CONTENT


def test_content_of_an_algorithm_we_cannot_compute_is_refused(place: Place) -> None:
    descriptor = Descriptor(OCTETS, Digest.parse("blake3:" + "a" * 64), 3)
    with pytest.raises(Unsupported) as caught:
        place.store.fetch(descriptor)
    assert caught.value.side == "source"


def test_what_is_absent_does_not_exist(place: Place) -> None:
    assert not place.store.exists(blob_of(b"absent"))
    assert not place.store.exists(blob_of(b"absent", "sha512"))


def test_content_of_another_size_does_not_exist(place: Place) -> None:
    descriptor = push_blob(place.store, CONTENT)
    assert not place.store.exists(Descriptor(OCTETS, descriptor.digest, descriptor.size - 1))


def test_fetching_is_lazy(place: Place) -> None:
    stream = place.store.fetch(blob_of(b"absent"))
    stream.close()


def test_reading_what_is_absent_names_it_and_the_source(place: Place) -> None:
    descriptor = blob_of(b"absent")
    with pytest.raises((NotFound, MissingContent)) as caught:
        read(place.store, descriptor)
    assert str(descriptor.digest) in caught.value.message
    assert caught.value.side == "source"


@pytest.mark.parametrize("name", ["", "v9", f"sha256:{'0' * 64}"])
def test_an_unknown_name_is_not_found(place: Place, name: str) -> None:
    with pytest.raises(NotFound):
        place.store.resolve(place.name(name) if name == "v9" else name)


@pytest.mark.parametrize(("place", "case"), CASES, indirect=["place"])
def test_manifests_keep_every_byte(place: Place, case: str) -> None:
    graph = images.ALL[case]()
    fill(place.store, {place.name("v1"): graph})
    source = place.reopened()
    root = source.resolve(place.name("v1"))
    assert (root.media_type, root.digest, root.size, root.kind) == (
        graph.root_media_type,
        Digest.parse(graph.root),
        len(graph.raw),
        "manifest",
    )
    for manifest in manifests_of(graph):
        assert source.read_manifest(manifest.descriptor).raw == manifest.raw


def test_a_manifest_is_found_by_its_digest(place: Place) -> None:
    graph = images.multi()
    fill(place.store, {place.name("v1"): graph})
    for manifest in manifests_of(graph):
        found = place.store.resolve(str(manifest.digest))
        assert (found.digest, found.media_type) == (manifest.digest, manifest.media_type)


def test_a_manifest_without_a_name_is_found_by_its_digest(place: Place) -> None:
    graph = images.single()
    fill(place.store, {place.name("other"): graph})
    artifact = images.artifact()
    for content in artifact.blobs.values():
        push_blob(place.store, content)
    (manifest,) = manifests_of(artifact)
    place.store.push_manifest(manifest)
    assert place.store.resolve(artifact.root).digest == manifest.digest


def test_a_name_moves_to_another_image(place: Place) -> None:
    old, new = images.single(), images.multi()
    fill(place.store, {place.name("v1"): old})
    fill(place.store, {place.name("v1"): new})
    assert str(place.reopened().resolve(place.name("v1")).digest) == new.root


def test_naming_twice_changes_nothing(place: Place) -> None:
    graph = images.single()
    fill(place.store, {place.name("v1"): graph})
    fill(place.store, {place.name("v1"): graph})
    assert place.store.names() == [place.name("v1")]


def test_a_name_that_moves_is_always_the_old_or_the_new_image(place: Place) -> None:
    name = place.name("v1")
    graphs = [images.single(), images.artifact()]
    fill(place.store, {name: graphs[0]})
    fill(place.store, {name: graphs[1]})
    roots = [manifests_of(graph)[-1] for graph in graphs]
    done = threading.Event()
    seen: set[str] = set()

    def look() -> None:
        while not done.is_set():
            seen.add(str(place.store.resolve(name).digest))

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        for turn in range(12):
            place.store.tag([(name, roots[turn % 2])])
        done.set()
        looking.result()
    assert seen <= {graph.root for graph in graphs}
    assert place.store.resolve(name).digest == roots[1].digest


def test_several_names_move_in_one_call(place: Place) -> None:
    graphs = {place.name("v1"): images.single(), place.name("v2"): images.artifact()}
    fill(place.store, graphs)
    assert {n: str(place.store.resolve(n).digest) for n in graphs} == {
        name: graph.root for name, graph in graphs.items()
    }


def test_two_names_may_stand_for_one_image(place: Place) -> None:
    graph = images.single()
    fill(place.store, {place.name("v1"): graph, place.name("latest"): graph})
    assert str(place.store.resolve(place.name("v1")).digest) == graph.root
    assert str(place.store.resolve(place.name("latest")).digest) == graph.root


def test_every_name_is_listed_once(place: Place) -> None:
    graph = images.single()
    names = [place.name(tag) for tag in ("v1", "v2", "latest", "V_1.0-rc")]
    fill(place.store, dict.fromkeys(names, graph))
    assert sorted(place.reopened().names()) == sorted(names)


@pytest.mark.parametrize("place", [k for k in KINDS if k != "docker-registry"], indirect=True)
def test_nothing_is_listed_where_nothing_is_named(place: Place) -> None:
    push_blob(place.store, CONTENT)
    assert place.store.names() == []


def test_named_knows_whether_a_name_stands_for_this_manifest(place: Place) -> None:
    graph, other = images.single(), images.artifact()
    assert not place.store.named(place.name("v1"), root_of(graph))
    fill(place.store, {place.name("v1"): graph})
    assert place.store.named(place.name("v1"), root_of(graph))
    assert not place.store.named(place.name("v1"), root_of(other))
    assert not place.store.named(place.name("v2"), root_of(graph))


def test_what_refers_to_an_image_is_found_by_its_subject(place: Place) -> None:
    subject, about = images.multi(), images.with_subject(images.multi())
    fill(place.store, {place.name("v1"): subject})
    assert place.store.referrers(root_of(subject)) == []
    for content in about.blobs.values():
        push_blob(place.store, content)
    (manifest,) = manifests_of(about)
    place.store.push_manifest(manifest)
    place.store.tag([("", manifest)])
    for source in (place.store, place.reopened()):
        found = source.referrers(root_of(subject))
        assert [(r.tag, str(r.descriptor.digest)) for r in found] == [("", about.root)]
        assert source.referrers(root_of(about)) == []


def test_replacing_reads_the_new_bytes_though_content_is_present(place: Place) -> None:
    descriptor = push_blob(place.store, CONTENT)
    stream = stream_of(descriptor, CONTENT)
    assert place.store.push(descriptor, stream, replace=True) is Stored.COPIED
    assert stream.verified
    assert read(place.store, descriptor) == CONTENT


def test_replacing_with_wrong_content_keeps_what_was_there(place: Place) -> None:
    descriptor = push_blob(place.store, CONTENT)
    with pytest.raises(DigestMismatch):
        place.store.push(descriptor, stream_of(descriptor, CONTENT[::-1]), replace=True)
    assert read(place.store, descriptor) == CONTENT


def test_a_manifest_is_pushed_as_what_it_is_though_a_blob_has_its_bytes(place: Place) -> None:
    graph = images.artifact_without_layers()
    for content in graph.contents.values():
        push_blob(place.store, content)
    (manifest,) = manifests_of(graph)
    place.store.push_manifest(manifest)
    assert place.store.resolve(graph.root).digest == manifest.digest


def test_a_manifest_announced_as_another_type_is_refused(place: Place) -> None:
    graph = images.single()
    fill(place.store, {place.name("v1"): graph})
    root = root_of(graph)
    index = Descriptor(images.OCI_INDEX, root.digest, root.size, "manifest")
    with pytest.raises(IntegrityError):
        place.store.read_manifest(index)


def test_a_manifest_larger_than_four_megabytes_is_not_read(place: Place) -> None:
    root = root_of(images.single())
    huge = Descriptor(root.media_type, root.digest, 4 * 1024 * 1024 + 1, "manifest")
    with pytest.raises(SizeMismatch, match="limit"):
        place.store.read_manifest(huge)


def test_a_location_says_where_the_place_is(place: Place) -> None:
    assert place.store.location.partition(":")[0] in {"memory", "oci", "oci-archive", "docker"}


def test_closing_twice_is_closing_once(place: Place) -> None:
    place.store.close()
    place.store.close()


def test_a_manifest_says_what_it_is_made_of_wherever_it_is_kept(place: Place) -> None:
    fill(place.store, {place.name("v1"): images.multi()})
    source = place.reopened()
    index: Manifest = source.read_manifest(source.resolve(place.name("v1")))
    assert [str(child.platform) for child in index.manifests] == [
        "linux/amd64",
        "linux/arm64",
        "linux/arm/v7",
        "unknown/unknown",
    ]


def test_a_closed_store_refuses_everything(place: Place) -> None:
    graph = images.single()
    fill(place.store, {place.name("v1"): graph})
    root = root_of(graph)
    (manifest,) = manifests_of(graph)
    new = blob_of(b"new")
    place.store.close()
    for use in (
        lambda: place.store[place.name("v1")],
        lambda: place.store.resolve(place.name("v1")),
        lambda: read(place.store, root),
        lambda: place.store.read_manifest(root),
        lambda: place.store.exists(root),
        lambda: place.store.referrers(root),
        lambda: place.store.named(place.name("v1"), root),
        lambda: place.store.push(new, stream_of(new, b"new")),
        lambda: place.store.push_manifest(manifest),
        lambda: place.store.tag([(place.name("v2"), manifest)]),
        place.store.names,
        place.store.commit,
    ):
        with pytest.raises(UsageError, match="is closed"):
            use()
