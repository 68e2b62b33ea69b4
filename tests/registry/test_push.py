"""Writing to a repository."""

from __future__ import annotations

import io
import socket
import threading
import time

import pytest

from ocimirror import (
    DigestMismatch,
    DigestNotPreserved,
    Interrupted,
    Manifest,
    ManifestBlobUnknown,
    MemoryStore,
    PushRejected,
    RegistryUnavailable,
    SizeMismatch,
    Stored,
    VerifiedStream,
)
from tests.support import images
from tests.support.faults import (
    CutUpload,
    Reset,
    Respond,
    Rule,
    SetHeader,
    SetStatus,
)
from tests.support.stores import blob_of, fill, manifests_of, push_blob, root_of, stream_of

CONTENT = images.noise("registry push", 700_000)
BLOB = blob_of(CONTENT)


def error(status: int, code: str, message: str = "because I say so") -> Respond:
    """Return an answer with the specification's error document."""
    body = f'{{"errors": [{{"code": "{code}", "message": "{message}"}}]}}'.encode()
    return Respond(status, {"Content-Type": "application/json"}, body)


def put(store) -> Stored:
    return store.push(BLOB, stream_of(BLOB, CONTENT))


def sent(server) -> list[tuple[str, str]]:
    """Return method and last path component of each request."""
    return [(seen.method, seen.path.partition("?")[0].split("/")[-2]) for seen in server.requests]


@pytest.mark.bar("gar-no-chunks", "ecr-empty-put")
def test_a_blob_costs_one_post_and_one_put_after_its_head(registry, connect, repository) -> None:
    assert put(connect(registry).repository(repository)) is Stored.COPIED
    assert sent(registry) == [("HEAD", "blobs"), ("POST", "uploads"), ("PUT", "uploads")]
    assert registry.get_blob(repository, str(BLOB.digest)) == CONTENT


def test_a_blob_known_to_be_absent_is_not_asked_for_again(registry, connect, repository) -> None:
    store = connect(registry).repository(repository)
    assert not store.exists(BLOB)
    put(store)
    assert store.exists(BLOB)
    assert put(store) is Stored.PRESENT
    assert [method for method, _ in sent(registry)] == ["HEAD", "GET", "POST", "PUT"]


def test_a_blob_that_is_there_is_not_sent(registry, connect, repository) -> None:
    registry.put_blob(repository, CONTENT)
    assert put(connect(registry).repository(repository)) is Stored.PRESENT
    assert sent(registry) == [("HEAD", "blobs")]


def test_replacing_sends_what_is_there_already(registry, connect, repository) -> None:
    registry.put_blob(repository, CONTENT)
    store = connect(registry).repository(repository)
    assert store.push(BLOB, stream_of(BLOB, CONTENT), replace=True) is Stored.COPIED
    assert sent(registry) == [("POST", "uploads"), ("PUT", "uploads")]


def test_a_blob_has_a_length_a_type_and_the_locations_own_query(
    registry, connect, proxy, repository
) -> None:
    front = proxy(registry)
    put(connect(front).repository(repository))
    seen = front.requests[-1]
    assert seen.headers["content-length"] == str(BLOB.size)
    assert seen.headers["content-type"] == "application/octet-stream"
    assert "transfer-encoding" not in seen.headers
    assert seen.path.count("_state=") == 1
    assert seen.path.endswith(f"&digest={BLOB.digest}")


@pytest.mark.parametrize("query", ["?a=%2fb&flag&e=&c=d+e%20f~", ""])
def test_the_query_of_a_location_is_sent_as_it_came(query, canary, connect, repository) -> None:
    location = f"/v2/{repository}/blobs/uploads/1{query}"

    def script(visit):
        if visit.method == "HEAD":
            return Respond(404)
        stored = Respond(201, {"Docker-Content-Digest": str(BLOB.digest)})
        return Respond(202, {"Location": location}) if visit.method == "POST" else stored

    server = canary(script)
    put(connect(server.host).repository(repository))
    joint = "&" if query else "?"
    expected = f"{location}{joint}digest={BLOB.digest}"
    # (urllib3 writes the hexadecimal digits of %2f in capitals, which means the same.)
    assert server.visits[-1].path.replace("%2F", "%2f") == expected


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT])
@pytest.mark.bar("distribution-sha512")
def test_docker_registry_keeps_blobs_of_any_size_and_algorithm(
    content, algorithm, docker_registry, connect, repository
) -> None:
    store = connect(docker_registry).repository(repository)
    blob = push_blob(store, content, algorithm)
    with connect(docker_registry).repository(repository).fetch(blob) as stream:
        assert stream.read_all(blob.size) == content


@pytest.mark.parametrize("case", ["multi", "docker_list", "nested_index", "artifact", "odd_bytes"])
def test_an_image_arrives_with_every_byte(case, registry, connect, repository) -> None:
    graph = getattr(images, case)()
    fill(connect(registry).repository(repository), {"v1": graph})
    for digest, content in graph.blobs.items():
        assert registry.get_blob(repository, digest) == content
    for digest, (_, content) in graph.manifests.items():
        assert registry.get_manifest(repository, digest) == content
    assert registry.get_manifest(repository, "v1") == graph.raw


def test_manifests_carry_their_type_and_a_length(
    registry, connect, proxy, repository, image
) -> None:
    front = proxy(registry)
    fill(connect(front).repository(repository), {"v1": image})
    for seen in front.requests:
        if seen.method == "PUT" and "/manifests/" in seen.path:
            assert seen.headers["content-type"] == image.root_media_type
            assert seen.headers["content-length"] == str(len(image.raw))


def test_a_name_stands_for_its_manifest_only(registry, connect, repository, image) -> None:
    store = connect(registry).repository(repository)
    assert not store.named("v1", root_of(image))
    fill(store, {"v1": image})
    assert store.named("v1", root_of(image))
    assert not store.named("v1", root_of(images.multi()))


def test_a_root_by_sha512_is_known_again_under_its_tag(registry, connect, repository) -> None:
    graph = images.sha512_root()
    store = connect(registry).repository(repository)
    for blob in manifests_of(graph)[-1].blobs:
        store.push(blob, stream_of(blob, graph.blobs[str(blob.digest)]))
    store.tag([("v1", manifests_of(graph)[-1])])
    assert store.named("v1", root_of(graph))


# --- mounts --------------------------------------------------------------------------------------


def test_a_blob_of_the_same_registry_is_mounted(registry, connect, repository) -> None:
    registry.put_blob("elsewhere/x", CONTENT)
    host = connect(registry)
    source = host.repository("elsewhere/x")
    registry.requests.clear()
    with source.fetch(BLOB) as stream:
        assert host.repository(repository).push(BLOB, stream) is Stored.MOUNTED
    assert sent(registry) == [("HEAD", "blobs"), ("POST", "uploads")]
    assert registry.has_blob(repository, str(BLOB.digest))


def test_a_blob_seen_in_another_repository_of_this_run_is_mounted(
    registry, connect, repository
) -> None:
    host = connect(registry)
    put(host.repository("elsewhere/x"))
    assert put(host.repository(repository)) is Stored.MOUNTED


def test_docker_registry_mounts(docker_registry, connect, repository) -> None:
    host = connect(docker_registry)
    put(host.repository(f"{repository}/from"))
    assert put(host.repository(repository)) is Stored.MOUNTED


@pytest.mark.bar("R35")
def test_a_mount_that_becomes_an_upload_needs_no_second_post(registry, connect, repository) -> None:
    registry.options.mount = False
    host = connect(registry)
    put(host.repository("elsewhere/x"))
    registry.requests.clear()
    assert put(host.repository(repository)) is Stored.COPIED
    assert [method for method, _ in sent(registry)] == ["HEAD", "POST", "PUT"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
@pytest.mark.bar("R35", "harbor-mount-400")
def test_a_mount_that_is_refused_is_followed_by_an_upload(
    status, registry, connect, proxy, repository
) -> None:
    front = proxy(registry, Rule("POST", "mount=", Respond(status)))
    host = connect(front)
    put(host.repository("elsewhere/x"))
    assert put(host.repository(repository)) is Stored.COPIED
    assert registry.get_blob(repository, str(BLOB.digest)) == CONTENT


# --- filling a repository ------------------------------------------------------------------------

MANY = [images.noise(f"blob {number}", 500) for number in range(20)]


def requests_of(server) -> list[str]:
    """Return method and kind of each request, a mount by its name."""
    return [
        "mount" if "mount=" in seen.path else f"{seen.method} {seen.path.split('/')[-2]}"
        for seen in server.requests
    ]


def push_all(store, contents=MANY) -> list[Stored]:
    blobs = [(blob_of(content), content) for content in contents]
    return [store.push(blob, stream_of(blob, content)) for blob, content in blobs]


def test_a_blob_of_a_repository_that_lacked_the_last_eight_costs_one_post_and_one_put(
    registry, connect, repository
) -> None:
    push_all(connect(registry).repository(repository))
    asked = requests_of(registry)
    assert asked[:24] == ["HEAD blobs", "POST uploads", "PUT uploads"] * 8
    assert asked[24:] == ["mount"] + ["mount", "PUT uploads"] * 12
    assert all(registry.has_blob(repository, str(blob_of(each).digest)) for each in MANY)


def test_docker_registry_is_filled_with_two_requests_a_blob(
    docker_registry, connect, proxy, repository
) -> None:
    front = proxy(docker_registry)
    assert set(push_all(connect(front).repository(repository))) == {Stored.COPIED}
    assert requests_of(front).count("HEAD blobs") == 8
    assert len(front.requests) == 3 * 8 + 1 + 2 * 12
    for content in MANY:
        assert docker_registry.get_blob(repository, str(blob_of(content).digest)) == content


def test_what_is_there_is_found_while_a_repository_is_filled(registry, connect, repository) -> None:
    for content in MANY[10:]:
        registry.put_blob(repository, content)
    store = connect(registry).repository(repository)
    assert push_all(store) == [Stored.COPIED] * 10 + [Stored.PRESENT] * 10
    # One by its upload; then a HEAD is the cheaper question again.
    assert requests_of(registry)[-11:] == ["mount"] + ["HEAD blobs"] * 10


def test_a_registry_that_does_not_find_its_own_is_asked_as_ever(
    registry, connect, repository
) -> None:
    registry.options.mount = False
    push_all(connect(registry).repository(repository))
    asked = requests_of(registry)
    assert asked[24:26] == ["mount", "DELETE uploads"]
    assert asked[26:] == ["HEAD blobs", "POST uploads", "PUT uploads"] * 12


def test_a_damaged_blob_is_sent_again_while_a_repository_is_filled(
    registry, connect, proxy, repository
) -> None:
    last = blob_of(MANY[-1])
    registry.put_blob(repository, MANY[-1])
    front = proxy(registry, Rule("HEAD", str(last.digest), SetHeader("Content-Length", "7")))
    assert push_all(connect(front).repository(repository))[-1] is Stored.COPIED
    assert requests_of(front)[-4:] == ["mount", "HEAD blobs", "POST uploads", "PUT uploads"]


@pytest.mark.bar("quay-mount-from")
def test_mount_is_never_sent_without_from(registry, connect, proxy, repository) -> None:
    front = proxy(registry)
    host = connect(front)
    put(host.repository("elsewhere/x"))
    put(host.repository(repository))
    mounts = [seen.path for seen in front.requests if "mount=" in seen.path]
    assert mounts == [f"/v2/{repository}/blobs/uploads/?mount={BLOB.digest}&from=elsewhere/x"]


def test_a_blob_is_not_mounted_from_another_registry(
    registry, docker_registry, connect, repository
) -> None:
    docker_registry.put_blob(repository, CONTENT)
    with connect(docker_registry).repository(repository).fetch(BLOB) as stream:
        assert connect(registry).repository(repository).push(BLOB, stream) is Stored.COPIED
    assert not any("mount=" in seen.path for seen in registry.requests)


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (CONTENT[:-1] + b"\0", DigestMismatch),
        (CONTENT[:-1], SizeMismatch),
        (CONTENT + b"x", SizeMismatch),
    ],
)
def test_a_stream_that_fails_its_check_stores_nothing_and_says_why(
    content, expected, registry, connect, repository
) -> None:
    store = connect(registry).repository(repository)
    with pytest.raises(expected) as caught:
        store.push(BLOB, stream_of(BLOB, content))
    assert caught.value.side == "source"
    assert not registry.has_blob(repository, str(BLOB.digest))
    assert ("DELETE", "uploads") in sent(registry)  # (a busy server may note the PUT after it)
    assert not list((registry.directory / "uploads").glob("*"))


def test_a_stop_in_the_middle_of_an_upload_comes_out_as_it_is(
    registry, connect, repository
) -> None:
    def watch(_: int) -> None:
        raise Interrupted("stopped")

    stream = VerifiedStream(BLOB, lambda _: io.BytesIO(CONTENT), watch=watch)
    with pytest.raises(Interrupted):
        connect(registry).repository(repository).push(BLOB, stream)
    assert not registry.has_blob(repository, str(BLOB.digest))


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(CutUpload(1000), id="cut"),
        pytest.param(Reset(), id="reset-before-the-answer"),
        pytest.param(Respond(500), id="500"),
        pytest.param(Respond(503), id="503"),
        pytest.param(error(404, "BLOB_UPLOAD_UNKNOWN"), id="session-lost"),
        pytest.param(error(400, "BLOB_UPLOAD_INVALID"), id="session-of-another-replica"),
        pytest.param(error(400, "DIGEST_INVALID"), id="damaged-on-the-way"),
        pytest.param(Respond(401, {"WWW-Authenticate": "Basic"}), id="401-at-the-end"),
        pytest.param(Respond(307, {"Location": "/elsewhere"}), id="redirect"),
        pytest.param(Respond(202), id="accepted-only"),
    ],
)
@pytest.mark.bar("R34", "distribution-stale-session", "distribution-replicas")
def test_an_upload_that_failed_for_now_is_sent_once_and_may_be_tried_again(
    action, registry, connect, proxy, repository
) -> None:
    front = proxy(registry, Rule("PUT", "/uploads/", action, nth=1))
    store = connect(front, retries=3).repository(repository)
    with pytest.raises(RegistryUnavailable) as caught:
        put(store)
    assert caught.value.retryable
    assert front.count("PUT") == 1
    assert put(store) is Stored.COPIED
    assert registry.get_blob(repository, str(BLOB.digest)) == CONTENT


def test_an_answer_before_the_blob_was_sent_is_not_believed(connect, repository) -> None:
    big = blob_of(bytes(64 << 20))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=_hasty, args=(listener,), daemon=True).start()
        store = connect(host).repository(repository)
        with pytest.raises(RegistryUnavailable):
            store.push(big, stream_of(big, bytes(64 << 20)), replace=True)


def _hasty(listener: socket.socket) -> None:
    """Open an upload, then say 201 to the headers of its PUT and close."""
    opened = b"HTTP/1.1 202 Accepted\r\nLocation: /v2/u\r\nContent-Length: 0\r\n\r\n"
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(opened)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("where", "action"),
    [
        ("PUT /uploads/", error(413, "SIZE_INVALID")),
        ("PUT /uploads/", error(403, "DENIED", "quota exceeded")),
        ("POST /uploads/", error(403, "DENIED")),
        ("POST /uploads/", error(404, "NAME_UNKNOWN")),
        ("POST /uploads/", error(400, "NAME_INVALID")),
        ("PUT /manifests/", error(400, "MANIFEST_INVALID", "http: request body too large")),
        ("PUT /manifests/", error(412, "PRECONDITION", "the tag is immutable")),
        ("PUT /manifests/", error(405, "UNSUPPORTED")),
        ("PUT /manifests/", Respond(403, {"Content-Type": "text/plain"}, b"because I say so")),
    ],
)
@pytest.mark.bar("R31", "harbor-immutable-412", "ecr-no-repository")
def test_a_refusal_for_good_says_what_the_registry_said(
    where, action, registry, connect, proxy, repository, image
) -> None:
    method, path = where.split()
    front = proxy(registry, Rule(method, path, action))
    with pytest.raises(PushRejected) as caught:
        fill(connect(front).repository(repository), {"v1": image})
    assert caught.value.exit_code == 4
    assert not caught.value.retryable
    assert str(action.status) in caught.value.message
    assert front.count(method, path) == 1


@pytest.mark.bar("R31", "R42")
def test_the_registrys_words_are_shown_but_not_obeyed(
    registry, connect, proxy, repository, image
) -> None:
    evil = error(400, "MANIFEST_INVALID", r"\u001b]8;;http://x\u0007 \u202e evil" + "y" * 5000)
    front = proxy(registry, Rule("PUT", "/manifests/", evil))
    with pytest.raises(PushRejected) as caught:
        fill(connect(front).repository(repository), {"v1": image})
    assert "MANIFEST_INVALID" in caught.value.message
    assert "\x1b" not in caught.value.message
    assert "\u202e" not in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.bar("R31", "R32")
def test_an_immutable_tag_is_refused_and_its_own_digest_recognised(
    registry, connect, repository, image
) -> None:
    fill(connect(registry).repository(repository), {"v1": image})
    registry.options.immutable_tags = True
    store = connect(registry).repository(repository)
    assert store.named("v1", root_of(image))
    with pytest.raises(PushRejected, match="immutable"):
        fill(store, {"v1": images.multi()})


@pytest.mark.parametrize("server", ["docker_registry", "registry"])
@pytest.mark.bar("R33")
def test_a_child_that_is_missing_is_told_from_other_refusals(
    server, connect, repository, image, request
) -> None:
    manifest = manifests_of(image)[-1]
    store = connect(request.getfixturevalue(server)).repository(repository)
    with pytest.raises(ManifestBlobUnknown):
        store.push_manifest(manifest)
    with pytest.raises(ManifestBlobUnknown):
        store.tag([("v1", manifest)])


def test_another_digest_in_the_answer_is_not_preserved(
    registry, connect, proxy, repository, image
) -> None:
    other = SetHeader("Docker-Content-Digest", f"sha256:{'0' * 64}")
    front = proxy(registry, Rule("PUT", "/manifests/", other))
    with pytest.raises(DigestNotPreserved) as caught:
        fill(connect(front).repository(repository), {"v1": image})
    assert caught.value.exit_code == 9


def test_an_answer_without_digest_is_followed_by_a_look(
    registry, connect, repository, image
) -> None:
    registry.options.digest_header = False
    fill(connect(registry).repository(repository), {"v1": image})
    at_manifests = [seen.method for seen in registry.requests if "/manifests/sha256" in seen.path]
    # (HEAD states no digest either, so GET tells.)
    assert at_manifests == ["HEAD", "PUT", "HEAD", "GET"]


def test_a_manifest_that_is_gone_after_its_push_is_not_preserved(
    registry, connect, proxy, repository, image
) -> None:
    front = proxy(
        registry,
        Rule("PUT", "/manifests/", SetHeader("Docker-Content-Digest", None)),
        Rule("HEAD|GET", "/manifests/sha256", SetStatus(404)),
    )
    with pytest.raises(DigestNotPreserved):
        fill(connect(front).repository(repository), {"v1": image})


@pytest.mark.bar("R24", "acr-429")
@pytest.mark.parametrize("status", [429, 503])
def test_a_manifest_is_sent_again_where_the_registry_was_busy(
    status, registry, connect, proxy, repository, image
) -> None:
    front = proxy(registry, Rule("PUT", "/manifests/", Respond(status), nth=1))
    fill(connect(front).repository(repository), {"v1": image})
    assert registry.get_manifest(repository, "v1") == image.raw


def test_an_upload_without_location_is_no_upload(registry, connect, proxy, repository) -> None:
    front = proxy(registry, Rule("POST", "/uploads/", SetHeader("Location", None)))
    with pytest.raises(RegistryUnavailable, match="no upload was opened"):
        put(connect(front).repository(repository))


def test_content_moves_from_a_memory_store_and_back(registry, connect, repository, image) -> None:
    memory = MemoryStore()
    fill(memory, {"v1": image})
    store = connect(registry).repository(repository)
    manifest: Manifest = memory.read_manifest(memory.resolve("v1"))
    for blob in manifest.blobs:
        with memory.fetch(blob) as stream:
            store.push(blob, stream)
    store.tag([("v1", manifest)])
    other = MemoryStore()
    for blob in manifest.blobs:
        with store.fetch(blob) as stream:
            other.push(blob, stream)
    assert other.push_manifest(manifest) is Stored.COPIED
