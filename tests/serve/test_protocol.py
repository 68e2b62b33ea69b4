"""What a client of the registry is answered: the distribution-spec's pull and discovery."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serve.conftest import Command, Serve
from tests.support.images import (
    ALL,
    OCI_INDEX,
    Graph,
    blob_path,
    foreign_layer,
    multi,
    noise,
    single,
    with_subject,
    write_layout,
)
from tests.support.witness import Answer, Registry

HOST = "registry.example.com"


@pytest.fixture
def graph() -> Graph:
    return multi()


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, serve_module: Callable[..., Command]
) -> Command:
    """A server of `app:v1`, with an attachment."""
    graph = multi()
    layout = tmp_path_factory.mktemp("served") / "layout"
    write_layout(layout, {f"{HOST}/app:v1": graph}, [with_subject(graph)])
    return serve_module(layout)


@pytest.fixture
def client(served: Command) -> Registry:
    return served.client


def code_of(answer: Answer) -> str:
    """Return the code of an error document."""
    assert answer.headers["Content-Type"] == "application/json"
    (error,) = json.loads(answer.body)["errors"]
    assert error["message"]
    return str(error["code"])


def largest_blob(graph: Graph) -> tuple[str, bytes]:
    return max(graph.blobs.items(), key=lambda item: len(item[1]))


@pytest.fixture(scope="module")
def every_image(
    tmp_path_factory: pytest.TempPathFactory, serve_module: Callable[..., Command]
) -> Registry:
    """A server of a tree: a layout for each image."""
    tree = tmp_path_factory.mktemp("tree")
    for name, graph in ALL.items():
        write_layout(tree / name, {f"{HOST}/{name}:v1": graph()})
    return serve_module(tree).client


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_image_is_served_byte_for_byte(name: str, every_image: Registry) -> None:
    graph, client = ALL[name](), every_image
    assert client.get_manifest(name, "v1") == graph.raw
    for digest, (media_type, raw) in graph.manifests.items():
        answer = client.manifest_answer(name, digest)
        assert (answer.body, answer.headers["Content-Type"]) == (raw, media_type)
    for digest, content in graph.blobs.items():
        assert client.get_blob(name, digest) == content


def test_the_api_says_its_version(client: Registry) -> None:
    for path in ("/v2/", "/v2"):
        answer = client.request("GET", path)
        assert answer.status == 200
        assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"


def test_a_manifest_comes_with_its_digest_and_an_etag(client: Registry, graph: Graph) -> None:
    for reference in ("v1", graph.root, graph.root.replace(":", "%3A")):
        answer = client.request("GET", f"/v2/app/manifests/{reference}")
        assert answer.headers["Docker-Content-Digest"] == graph.root
        assert answer.headers["ETag"] == f'"{graph.root}"'
        assert answer.headers["Content-Type"] == graph.root_media_type
        head = client.request("HEAD", f"/v2/app/manifests/{reference}")
        assert (head.status, head.body) == (200, b"")
        assert dict(head.headers) | {"Date": ""} == dict(answer.headers) | {"Date": ""}


@pytest.mark.parametrize("accept", ["application/json", "text/html", "", "*/*"])
def test_accept_is_no_reason_to_refuse(client: Registry, graph: Graph, accept: str) -> None:
    answer = client.request("GET", "/v2/app/manifests/v1", headers={"Accept": accept})
    assert answer.body == graph.raw


@pytest.mark.parametrize("form", ['"{}"', 'W/"{}"', '"x", "{}"', "*"])
def test_what_the_client_has_is_not_sent_again(client: Registry, graph: Graph, form: str) -> None:
    digest, _ = largest_blob(graph)
    for path, etag in ((f"blobs/{digest}", digest), ("manifests/v1", graph.root)):
        headers = {"If-None-Match": form.format(etag)}
        answer = client.request("GET", f"/v2/app/{path}", headers=headers)
        assert (answer.status, answer.body) == (304, b"")
        other = client.request("GET", f"/v2/app/{path}", headers={"If-None-Match": '"other"'})
        assert other.status == 200


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=0-99999999", 0, None),
        ("bytes=-99999999", 0, None),
    ],
)
def test_a_range_of_a_blob(
    client: Registry, graph: Graph, asked: str, start: int, end: int | None
) -> None:
    digest, content = largest_blob(graph)
    answer = client.request("GET", f"/v2/app/blobs/{digest}", headers={"Range": asked})
    assert (answer.status, answer.body) == (206, content[start:end])
    first, last, size = map(int, answer.headers["Content-Range"][6:].replace("/", "-").split("-"))
    assert content[first : last + 1] == answer.body
    assert size == len(content)


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0", "bytes=99999999-999999999"])
def test_a_range_that_is_not_there(client: Registry, graph: Graph, asked: str) -> None:
    digest, content = largest_blob(graph)
    answer = client.request("GET", f"/v2/app/blobs/{digest}", headers={"Range": asked})
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=5-4"},
        {"Range": "bytes=-"},
        {"Range": "bytes=0-1,4-5"},
        {"Range": "lines=1-2"},
        {"Range": "bytes=0-1", "If-Range": '"sha256:other"'},
        {"Range": "bytes=" + "9" * 100 + "-"},
    ],
)
def test_a_range_that_cannot_be_honoured_gets_the_whole(
    client: Registry, graph: Graph, headers: dict[str, str]
) -> None:
    digest, content = largest_blob(graph)
    answer = client.request("GET", f"/v2/app/blobs/{digest}", headers=headers)
    assert (answer.status, answer.body) == (200, content)


def test_a_range_of_what_the_client_began_to_read(client: Registry, graph: Graph) -> None:
    digest, content = largest_blob(graph)
    headers = {"Range": "bytes=3-", "If-Range": f'"{digest}"'}
    answer = client.request("GET", f"/v2/app/blobs/{digest}", headers=headers)
    assert (answer.status, answer.body) == (206, content[3:])


def test_tags_come_in_pages(tmp_path: Path, serve: Serve) -> None:
    tags = sorted(f"v{number}" for number in range(25))
    images = {f"{HOST}/app:{tag}": single() for tag in tags}
    client = serve(write_layout(tmp_path / "layout", images))
    seen: list[str] = []
    path = "/v2/app/tags/list?n=10"
    pages = 0
    while path:
        answer = client.request("GET", path)
        seen += json.loads(answer.body)["tags"]
        path = answer.headers.get("Link", "<>")[1:].partition(">")[0]
        pages += 1
    assert (seen, pages) == (tags, 3)
    some = client.request("GET", "/v2/app/tags/list?n=2&last=v11x")
    assert json.loads(some.body) == {"name": "app", "tags": ["v12", "v13"]}
    assert json.loads(client.request("GET", "/v2/app/tags/list?n=0").body)["tags"] == []
    everything = client.request("GET", "/v2/app/tags/list?n=999999999999999999")
    assert (json.loads(everything.body)["tags"], everything.headers["Link"]) == (tags, None)


@pytest.mark.parametrize("n", ["x", "-1", "9" * 30, "1e3", "%00"])
def test_a_count_that_is_none(client: Registry, n: str) -> None:
    for path in ("/v2/app/tags/list", "/v2/_catalog"):
        answer = client.request("GET", f"{path}?n={n}")
        assert (answer.status, code_of(answer)) == (400, "UNSUPPORTED")


def test_the_catalog_comes_in_pages(tmp_path: Path, serve: Serve) -> None:
    images = {f"{HOST}/{name}:v1": single() for name in ("c", "a/b", "b")}
    client = serve(write_layout(tmp_path / "layout", images))
    first = client.request("GET", "/v2/_catalog?n=2")
    assert json.loads(first.body) == {"repositories": ["a/b", "b"]}
    following = first.headers["Link"][1:].partition(">")[0]
    assert json.loads(client.request("GET", following).body) == {"repositories": ["c"]}


def test_referrers_are_found_by_their_subject(client: Registry, graph: Graph) -> None:
    attachment = with_subject(graph)
    answer = client.request("GET", f"/v2/app/referrers/{graph.root}")
    assert answer.headers["Content-Type"] == OCI_INDEX
    index = json.loads(answer.body)
    assert (index["schemaVersion"], index["mediaType"]) == (2, OCI_INDEX)
    (found,) = index["manifests"]
    document = json.loads(attachment.raw)
    assert found["digest"] == attachment.root
    assert found["size"] == len(attachment.raw)
    assert found["artifactType"] == document["artifactType"]
    assert found.get("annotations") == document.get("annotations")
    assert client.get_manifest("app", attachment.root) == attachment.raw


def test_referrers_are_filtered_by_their_type(client: Registry, graph: Graph) -> None:
    kind = json.loads(with_subject(graph).raw)["artifactType"]
    for wanted, count in ((kind, 1), ("application/other", 0)):
        path = f"/v2/app/referrers/{graph.root}?artifactType={wanted.replace('+', '%2B')}"
        answer = client.request("GET", path)
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
        assert len(json.loads(answer.body)["manifests"]) == count


def test_nothing_refers_to_what_nothing_refers_to(client: Registry) -> None:
    answer = client.request("GET", f"/v2/app/referrers/sha256:{'0' * 64}")
    assert (answer.status, json.loads(answer.body)["manifests"]) == (200, [])


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/app/manifests/nope", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/app/manifests/sha256:{'0' * 64}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/app/blobs/sha256:{'0' * 64}", 404, "BLOB_UNKNOWN"),
        (f"/v2/app/blobs/sha512:{'0' * 128}", 404, "BLOB_UNKNOWN"),
        ("/v2/app/blobs/blake3:abc", 404, "BLOB_UNKNOWN"),
        ("/v2/app/manifests/sha256:xyz", 400, "DIGEST_INVALID"),
        ("/v2/app/blobs/v1", 400, "DIGEST_INVALID"),
        ("/v2/app/blobs/sha256:..%2f..%2findex.json", 404, "UNSUPPORTED"),
        ("/v2/app/manifests/%2e%2e", 404, "MANIFEST_UNKNOWN"),
        ("/v2/app/manifests/" + "a" * 129, 404, "MANIFEST_UNKNOWN"),
        ("/v2/app/referrers/v1", 400, "DIGEST_INVALID"),
        ("/v2/nope/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/nope/manifests/v1", 404, "NAME_UNKNOWN"),
        ("/v2/APP/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/..%2f..%2fetc/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/.%2e/.%2e/etc/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/a%00b/tags/list", 400, "NAME_INVALID"),
        ("/v2/" + "a" * 300 + "/tags/list", 400, "NAME_INVALID"),
        ("/v2/app/tags/list?ns=%0d%0a", 400, "NAME_INVALID"),
        ("/v2/app/manifests/", 404, "UNSUPPORTED"),
        ("/v2/app", 404, "UNSUPPORTED"),
        ("/v2/unknown", 404, "UNSUPPORTED"),
        ("/v2/app/tags/list?" + "a=1&" * 100, 400, "UNSUPPORTED"),
    ],
)
def test_what_is_not_there_or_malformed(
    client: Registry, path: str, status: int, code: str
) -> None:
    answer = client.request("GET", path)
    assert (answer.status, code_of(answer)) == (status, code)


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
def test_every_write_is_refused(client: Registry, graph: Graph, method: str) -> None:
    for path in ("manifests/v1", "blobs/uploads/", f"blobs/{graph.root}"):
        answer = client.request(method, f"/v2/app/{path}", body=b"x" * 100_000)
        assert (answer.status, code_of(answer)) == (405, "UNSUPPORTED")
        assert answer.headers["Allow"] == "GET, HEAD"


def test_a_blob_is_no_manifest(client: Registry, graph: Graph) -> None:
    for digest in graph.blobs:
        answer = client.request("GET", f"/v2/app/manifests/{digest}")
        assert (answer.status, code_of(answer)) == (404, "MANIFEST_UNKNOWN")


def test_the_children_that_a_sparse_layout_lacks_are_absent(tmp_path: Path, serve: Serve) -> None:
    graph = multi()
    layout = write_layout(tmp_path / "layout", {f"{HOST}/app:v1": graph})
    child = next(iter(graph.manifests))
    blob_path(layout, child).unlink()
    client = serve(layout)
    answer = client.request("GET", f"/v2/app/manifests/{child}")
    assert (answer.status, code_of(answer)) == (404, "MANIFEST_UNKNOWN")
    assert client.get_manifest("app", "v1") == graph.raw


def test_a_foreign_layer_is_absent(tmp_path: Path, serve: Serve) -> None:
    graph = foreign_layer()
    client = serve(write_layout(tmp_path / "layout", {f"{HOST}/app:v1": graph}))
    for digest in graph.absent:
        assert not client.has_blob("app", digest)


@pytest.mark.parametrize("damage", ["flip", "cut", "extend"])
def test_a_damaged_blob_is_never_sent(
    tmp_path: Path, serve_command: Callable[..., Command], damage: str
) -> None:
    graph = single()
    layout = write_layout(tmp_path / "layout", {f"{HOST}/app:v1": graph})
    digest, content = largest_blob(graph)
    command = serve_command(layout)
    client = command.client
    path = blob_path(layout, digest)
    assert client.get_blob("app", digest) == content
    damaged = {
        "flip": content[:-1] + bytes([content[-1] ^ 1]),
        "cut": content[:-1],
        "extend": content + b"x",
    }[damage]
    path.write_bytes(damaged)
    for _ in range(2):
        for headers in ({}, {"Range": "bytes=0-9"}):
            answer = client.request("GET", f"/v2/app/blobs/{digest}", headers=headers)
            assert (answer.status, code_of(answer)) == (500, "UNKNOWN")
            assert str(layout) not in answer.body.decode()
    assert command.said().count(f"{digest}") >= 1
    assert "not served" in command.said()
    path.write_bytes(content)
    assert client.get_blob("app", digest) == content


def test_damage_that_keeps_the_size_and_the_times_is_seen(tmp_path: Path, serve: Serve) -> None:
    graph = single()
    layout = write_layout(tmp_path / "layout", {f"{HOST}/app:v1": graph})
    digest, content = largest_blob(graph)
    client = serve(layout)
    assert client.get_blob("app", digest) == content
    path = blob_path(layout, digest)
    before = path.stat()
    with path.open("r+b") as file:
        file.write(bytes([content[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert client.request("GET", f"/v2/app/blobs/{digest}").status == 500


def test_a_damaged_manifest_is_never_sent(tmp_path: Path, serve: Serve) -> None:
    graph = single()
    layout = write_layout(tmp_path / "layout", {f"{HOST}/app:v1": graph})
    client = serve(layout)
    assert client.get_manifest("app", "v1") == graph.raw
    blob_path(layout, graph.root).write_bytes(graph.raw.replace(b"schemaVersion", b"schemaversion"))
    for reference in ("v1", graph.root):
        answer = client.request("GET", f"/v2/app/manifests/{reference}")
        assert (answer.status, code_of(answer)) == (500, "UNKNOWN")


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "linked directory"])
def test_only_regular_files_of_the_layout_are_sent(tmp_path: Path, serve: Serve, kind: str) -> None:
    graph = single()
    layout = write_layout(tmp_path / "layout", {f"{HOST}/app:v1": graph})
    digest, content = largest_blob(graph)
    path = blob_path(layout, digest)
    elsewhere = tmp_path / "elsewhere"
    if kind == "linked directory":
        path.parent.rename(elsewhere)
        path.parent.symlink_to(elsewhere)
    else:
        path.unlink()
        elsewhere.write_bytes(content)
        if kind == "link":
            path.symlink_to(elsewhere)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
    answer = serve(layout).request("GET", f"/v2/app/blobs/{digest}")
    assert (answer.status, code_of(answer)) == (404, "BLOB_UNKNOWN")


def test_two_hundred_read_ranges_at_once(tmp_path: Path, serve: Serve) -> None:
    graph = single()
    layout = write_layout(tmp_path / "layout", {f"{HOST}/app:v1": graph})
    content = noise("large", 20 << 20)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blob_path(layout, digest).write_bytes(content)
    client = serve(layout)
    size = len(content) // 200

    def read(number: int) -> bytes:
        last = (number + 1) * size - 1 if number < 199 else len(content) - 1
        headers = {"Range": f"bytes={number * size}-{last}"}
        answer = client.request("GET", f"/v2/app/blobs/{digest}", headers=headers)
        assert answer.status == 206
        return answer.body

    with ThreadPoolExecutor(200) as pool:
        assert b"".join(pool.map(read, range(200))) == content


def test_many_requests_on_one_connection(client: Registry, graph: Graph) -> None:
    digest, content = largest_blob(graph)
    host, _, port = client.host.partition(":")
    asked = f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(asked * 5)
        received = b""
        while received.count(content) < 5:
            received += connection.recv(1 << 20)
    assert received.count(b"HTTP/1.1 200") == 5


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
    ],
    ids=["path", "field", "fields", "tls", "version"],
)
def test_what_is_too_large_or_no_http_ends_the_connection(
    served: Command, client: Registry, sent: bytes
) -> None:
    host, _, port = client.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
    assert re.match(rb"HTTP/1\.[01] 400 ", received) or not received
    assert served.said() == ""
    assert client.request("GET", "/v2/").status == 200
