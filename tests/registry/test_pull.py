"""Reading from a repository."""

from __future__ import annotations

import json

import pytest

from ocimirror import (
    Descriptor,
    DigestMismatch,
    InvalidReference,
    MalformedManifest,
    NotFound,
    RegistryRefused,
    RegistryUnavailable,
    SizeMismatch,
    Store,
    Unsupported,
)
from tests.registry.conftest import Connect
from tests.support import images
from tests.support.command import ocimirror
from tests.support.faults import (
    Chunked,
    Cut,
    Endless,
    Flip,
    Gzip,
    NoLength,
    Reset,
    Respond,
    Rule,
    SetHeader,
    SetStatus,
    WrongLength,
)
from tests.support.images import Graph
from tests.support.registry import StrictRegistry
from tests.support.stores import blob_of, root_of
from tests.support.witness import Registry

LAYER = images.noise("registry layer", 700_000)


def layer_of(image: Graph) -> Descriptor:
    """Return the descriptor of the image's layer."""
    stated = json.loads(image.raw)["layers"][0]
    return Descriptor.parse(stated, "layer")


def read(store: Store, descriptor: Descriptor) -> bytes:
    with store.fetch(descriptor) as stream:
        return stream.read_all(descriptor.size)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.bar("hub-head-first")
def test_a_tag_is_resolved_with_one_head(
    filled: StrictRegistry, connect: Connect, repository: str, image: Graph
) -> None:
    assert connect(filled).repository(repository).resolve("v1") == root_of(image)
    assert [seen.method for seen in filled.requests] == ["HEAD"]


def test_docker_registry_is_pulled_from_byte_for_byte(
    docker_registry: Registry, connect: Connect, repository: str, image: Graph
) -> None:
    images.push(docker_registry, repository, "v1", image)
    store = connect(docker_registry).repository(repository)
    manifest = store.read_manifest(store.resolve("v1"))
    assert manifest.raw == image.raw
    for blob in manifest.blobs:
        with store.fetch(blob) as stream:
            assert stream.read_all(blob.size) == image.blobs[str(blob.digest)]


def test_a_loopback_registry_is_found_to_speak_plain_http(
    docker_registry: Registry, connect: Connect, repository: str, image: Graph
) -> None:
    images.push(docker_registry, repository, "v1", image)
    host = connect(docker_registry, plain_http=frozenset())
    assert host.repository(repository).resolve("v1") == root_of(image)
    with pytest.raises(NotFound, match="http://127"):
        host.repository(repository).resolve("absent")


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(SetStatus(404), id="nexus-404"),
        pytest.param(SetStatus(405), id="405"),
        pytest.param(SetStatus(412), id="harbor-412"),
        pytest.param(SetStatus(501), id="501"),
        pytest.param(SetHeader("Docker-Content-Digest", None), id="no-digest"),
        pytest.param(SetHeader("Docker-Content-Digest", "nonsense"), id="odd-digest"),
        pytest.param(SetHeader("Docker-Content-Digest", "blake3:" + "0" * 64), id="blake3"),
        pytest.param(SetHeader("Content-Type", "application/octet-stream"), id="artifactory-type"),
        pytest.param(SetHeader("Content-Type", None), id="no-type"),
        pytest.param(SetHeader("Content-Length", None), id="no-length"),
        pytest.param(SetHeader("Content-Length", "0"), id="zero-length"),
        pytest.param(SetHeader("Content-Length", "+5"), id="odd-length"),
        pytest.param(SetHeader("Content-Encoding", "gzip"), id="compressed-length"),
    ],
)
@pytest.mark.bar("R48", "harbor-head-412", "nexus-head-404", "artifactory-head", "no-digest-header")
def test_a_head_that_cannot_be_relied_on_is_confirmed_by_get(
    action, filled, connect, proxy, repository, image
) -> None:
    front = proxy(filled, Rule("HEAD", "/manifests/", action))
    store = connect(front).repository(repository)
    descriptor = store.resolve("v1")
    assert descriptor == root_of(image)
    assert store.read_manifest(descriptor).raw == image.raw
    assert front.count("HEAD") == 1


@pytest.mark.bar("R48", "no-digest-header")
def test_no_digest_header_anywhere_is_no_obstacle(filled, connect, repository, image) -> None:
    filled.options.digest_header = False
    store = connect(filled).repository(repository)
    assert store.resolve("v1") == root_of(image)
    assert store.named("v1", root_of(image))


@pytest.mark.bar("harbor-head-length")
def test_a_head_length_that_lies_is_not_believed_a_second_time(
    filled, connect, proxy, repository, image
) -> None:
    front = proxy(filled, Rule("HEAD", "/manifests/", WrongLength(7)))
    store = connect(front).repository(repository)
    with pytest.raises(RegistryUnavailable, match="HEAD announced"):
        store.read_manifest(store.resolve("v1"))
    assert store.read_manifest(store.resolve("v1")).raw == image.raw


def test_a_digest_header_that_contradicts_the_content_is_an_integrity_error(
    filled, connect, proxy, repository
) -> None:
    other = f"sha256:{'0' * 64}"
    front = proxy(
        filled,
        Rule("HEAD", "/manifests/", SetStatus(404)),
        Rule("GET", "/manifests/", SetHeader("Docker-Content-Digest", other)),
    )
    with pytest.raises(DigestMismatch, match=other):
        connect(front).repository(repository).resolve("v1")


def test_a_digest_by_sha512_is_asked_for_and_verified_as_such(
    registry, connect, proxy, repository
) -> None:
    graph = images.sha512_root()
    images.push(registry, repository, None, graph)
    front = proxy(registry, Rule("HEAD", "/manifests/", SetHeader("Docker-Content-Digest", None)))
    store = connect(front).repository(repository)
    descriptor = store.resolve(graph.root)
    assert descriptor == root_of(graph)
    assert store.read_manifest(descriptor).raw == graph.raw


def test_a_manifest_that_is_not_there_is_not_found_after_head_and_get(
    filled, connect, repository
) -> None:
    with pytest.raises(NotFound, match="MANIFEST_UNKNOWN") as caught:
        connect(filled).repository(repository).resolve("absent")
    assert caught.value.exit_code == 4
    assert [seen.method for seen in filled.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "v1?n=1", "sha256:../../x", "é", "v1\n"])
def test_a_name_that_is_none_never_becomes_a_url(filled, connect, repository, name) -> None:
    with pytest.raises((NotFound, InvalidReference)):
        connect(filled).repository(repository).resolve(name)
    assert filled.requests == []


def test_an_unverifiable_digest_is_not_asked_for(filled, connect, repository) -> None:
    with pytest.raises(Unsupported, match="cannot be verified"):
        connect(filled).repository(repository).resolve("blake3:" + "0" * 64)
    assert filled.requests == []


@pytest.mark.parametrize("kind", ["json", "prettyjws"])
def test_schema_1_is_refused_as_such(kind, filled, connect, proxy, repository) -> None:
    schema1 = f"application/vnd.docker.distribution.manifest.v1+{kind}"
    front = proxy(filled, Rule("HEAD|GET", "/manifests/", SetHeader("Content-Type", schema1)))
    with pytest.raises(Unsupported, match="schema 1"):
        connect(front).repository(repository).resolve("v1")


def test_every_known_type_is_offered_on_every_manifest_request(
    docker_registry, connect, repository
) -> None:
    for tag, graph in {"index": images.multi(), "docker": images.docker_schema2()}.items():
        images.push(docker_registry, repository, tag, graph)
        store = connect(docker_registry).repository(repository)
        assert store.read_manifest(store.resolve(tag)).raw == graph.raw


# --- content -------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [Chunked(), NoLength()])
def test_a_body_without_length_is_read_to_its_end(
    framing, filled, connect, proxy, repository, image
) -> None:
    front = proxy(filled, Rule("GET", "", framing))
    store = connect(front).repository(repository)
    assert store.read_manifest(root_of(image)).raw == image.raw
    layer = layer_of(image)
    assert read(store, layer) == image.blobs[str(layer.digest)]


@pytest.mark.parametrize(
    ("action", "error"),
    [
        pytest.param(Flip(at=1000), DigestMismatch, id="flipped"),
        pytest.param(WrongLength(-1), SizeMismatch, id="announced-shorter"),
        pytest.param(WrongLength(1), SizeMismatch, id="announced-longer"),
        pytest.param(Endless("length"), SizeMismatch, id="10**15-bytes"),
        pytest.param(Endless("chunked"), SizeMismatch, id="endless"),
        pytest.param(Endless("close"), SizeMismatch, id="endless-without-length"),
        pytest.param(NoLength(after_bytes=1000), RegistryUnavailable, id="short-without-length"),
        pytest.param(Cut(after_bytes=1000), RegistryUnavailable, id="cut"),
        pytest.param(Cut(after_bytes=0), RegistryUnavailable, id="cut-at-0"),
        pytest.param(Reset(after_bytes=1000), RegistryUnavailable, id="reset"),
        pytest.param(Gzip(), RegistryRefused, id="gzip"),
    ],
)
@pytest.mark.bar("R14", "R15", "R16", "R45")
def test_a_body_that_is_not_the_blob_is_refused(
    action, error, registry, connect, proxy, repository
) -> None:
    registry.put_blob(repository, LAYER)
    front = proxy(registry, Rule("GET", "/blobs/", action))
    with pytest.raises(error) as caught:
        read(connect(front).repository(repository), blob_of(LAYER))
    assert caught.value.side == "source"
    assert str(blob_of(LAYER).digest) in caught.value.message
    assert front.requests[-1].sent_bytes < 64 << 20


@pytest.mark.parametrize("method", ["/manifests/", "/blobs/"])
@pytest.mark.bar("R45")
def test_what_a_proxy_encoded_is_refused_by_name(
    method, filled, connect, proxy, repository, image
) -> None:
    front = proxy(filled, Rule("GET", method, Gzip()))
    descriptor = layer_of(image) if "blobs" in method else root_of(image)
    with pytest.raises(RegistryRefused, match="a proxy altered the content"):
        read(connect(front).repository(repository), descriptor)


def test_identity_is_the_only_encoding_asked_for(filled, connect, proxy, repository, image) -> None:
    front = proxy(filled)
    store = connect(front).repository(repository)
    store.read_manifest(store.resolve("v1"))
    read(store, layer_of(image))
    assert {seen.headers["accept-encoding"] for seen in front.requests} == {"identity"}


def test_a_manifest_sent_as_another_known_type_is_malformed(
    filled, connect, proxy, repository, image
) -> None:
    index = SetHeader("Content-Type", images.OCI_INDEX)
    front = proxy(filled, Rule("GET", "/manifests/", index))
    with pytest.raises(MalformedManifest, match="was named as"):
        connect(front).repository(repository).read_manifest(root_of(image))


@pytest.mark.parametrize("sent", [None, "application/json", images.OCI_MANIFEST + "; charset=x"])
def test_a_generic_type_and_parameters_are_no_contradiction(
    sent, filled, connect, proxy, repository, image
) -> None:
    front = proxy(filled, Rule("GET", "/manifests/", SetHeader("Content-Type", sent)))
    assert connect(front).repository(repository).read_manifest(root_of(image)).raw == image.raw


def test_a_manifest_longer_than_4_mib_is_not_read_on(filled, connect, proxy, repository) -> None:
    front = proxy(
        filled,
        Rule("HEAD", "/manifests/", SetStatus(404)),
        Rule("GET", "/manifests/", Endless("chunked")),
    )
    with pytest.raises(SizeMismatch, match="longer than 4194304"):
        connect(front).repository(repository).resolve("v1")
    assert front.requests[-1].sent_bytes < 64 << 20


def test_existence_is_asked_once_a_run(filled, connect, repository, image) -> None:
    store = connect(filled).repository(repository)
    absent = blob_of(b"absent")
    for _ in range(3):
        assert store.exists(layer_of(image))
        assert store.exists(root_of(image))
        assert not store.exists(absent)
    assert [seen.method for seen in filled.requests] == ["HEAD", "HEAD", "HEAD", "GET"]


def test_a_blob_of_another_size_does_not_exist(filled, connect, repository, image) -> None:
    layer = layer_of(image)
    shorter = Descriptor(layer.media_type, layer.digest, layer.size - 1)
    assert not connect(filled).repository(repository).exists(shorter)


def test_a_body_closed_early_costs_its_connection_and_nothing_else(
    registry, connect, repository
) -> None:
    registry.put_blob(repository, LAYER)
    store = connect(registry).repository(repository)
    for _ in range(3):
        with store.fetch(blob_of(LAYER)) as stream:
            stream.read(10)
    assert read(store, blob_of(LAYER)) == LAYER


def test_connections_are_kept_alive(filled, connect, repository, image, count_connections) -> None:
    store = connect(filled).repository(repository)
    opened = count_connections(filled)
    for _ in range(20):
        store.read_manifest(root_of(image))
        read(store, layer_of(image))
    with pytest.raises(NotFound):
        store.resolve("absent")
    store.resolve("v1")
    assert opened() == 1


# --- tags ----------------------------------------------------------------------------------------


@pytest.mark.bar("acr-pages")
def test_tags_of_all_pages_are_listed_once(registry, connect, repository, image) -> None:
    for number in range(7):
        images.push(registry, repository, f"v{number}", image)
    registry.options.page_size = 2
    assert sorted(connect(registry).repository(repository).names()) == [f"v{n}" for n in range(7)]


def test_docker_registry_lists_its_tags(docker_registry, connect, repository, image) -> None:
    images.push(docker_registry, repository, "v1", image)
    assert connect(docker_registry).repository(repository).names() == ["v1"]


def test_a_repository_that_is_not_there_has_no_tags_to_list(registry, connect) -> None:
    with pytest.raises(NotFound):
        connect(registry).repository("absent/repository").names()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"tags": null}', []),
        (b'{"tags": ["b", "a", "b"]}', ["b", "a"]),
        (b'{"tags": ["../x", "v\\n", "ok"]}', ["ok"]),
    ],
)
def test_a_list_of_tags_is_read_strictly(body, expected, canary, connect, repository) -> None:
    server = canary(Respond(200, {"Content-Type": "application/json"}, body))
    assert connect(server.host).repository(repository).names() == expected


NO_LIST = [
    b"<html>sign in</html>",
    b'{"tags": "v1"}',
    b'{"tags": {"v1": {}}}',
    b'{"tags": ["v1", 7]}',
    b'{"tags": [null]}',
    b'{"tags": ["../x", "not a tag"]}',
    b'{"name": "another/repository", "tags": ["v1"]}',
    b'{"name": null2, "tags": ["v1"]}',
    b'{"repositories": []}',
    b"{}",
    b"null",
    b"[]",
    b"",
]


@pytest.mark.parametrize("body", NO_LIST)
def test_what_is_no_list_of_tags_is_no_empty_list(body, canary, connect, repository) -> None:
    server = canary(Respond(200, {"Content-Type": "text/html"}, body))
    with pytest.raises(RegistryUnavailable):
        connect(server.host).repository(repository).names()


@pytest.mark.bar("R39")
def test_pages_that_go_round_in_a_circle_end(canary, connect, repository) -> None:
    link = f'</v2/{repository}/tags/list?last=a>; rel="next"'
    server = canary(Respond(200, {"Link": link}, b'{"tags": ["a"]}'))
    with pytest.raises(RegistryUnavailable, match="nothing new"):
        connect(server.host).repository(repository).names()
    assert len(server.visits) == 2


@pytest.mark.bar("R39")
def test_a_page_longer_than_16_mib_is_not_read_on(canary, connect, repository) -> None:
    endless = Respond(200, {}, lambda: iter(lambda: bytes(65536), None))
    with pytest.raises(SizeMismatch, match="longer than 16777216"):
        connect(canary(endless).host).repository(repository).names()


def test_a_page_size_that_is_refused_is_halved(registry, connect, proxy, repository, image) -> None:
    images.push(registry, repository, "v1", image)
    front = proxy(registry, Rule("GET", r"tags/list\?n=(1000|500)$", Respond(413)))
    assert connect(front).repository(repository).names() == ["v1"]
    assert [seen.path.partition("=")[2] for seen in front.requests] == ["1000", "500", "250"]


@pytest.mark.parametrize("framing", [None, Chunked()], ids=["length", "chunked"])
@pytest.mark.parametrize("encoding", ["gzip", "aws-chunked", "gzip, zstd"])
def test_an_encoding_that_changed_nothing_is_passed_over(
    encoding, framing, filled, proxy, repository, tmp_path
) -> None:
    """As S3 keeps the field with an object, whatever it was when it was put there."""
    front = proxy(filled, Rule("GET|HEAD", "", SetHeader("Content-Encoding", encoding)))
    if framing:
        front.rules.insert(0, Rule("GET", "", framing))
    done = ocimirror("pull", f"{front.host}/{repository}:v1", tmp_path / "l", "--retries", "0")
    assert done.code == 0, done
    assert ocimirror("list", f"docker://{front.host}/{repository}").stdout.split() == ["v1"]


@pytest.mark.parametrize("where", ["/manifests/", "/blobs/", "/referrers/"])
def test_an_encoding_that_changed_something_is_told(
    where, filled, proxy, repository, tmp_path
) -> None:
    front = proxy(filled, Rule("GET", where, Gzip()))
    done = ocimirror("pull", f"{front.host}/{repository}:v1", tmp_path / "l", "--retries", "0")
    assert done.code == 4, done
    assert "a proxy altered the content (Content-Encoding: gzip)" in done.stderr
