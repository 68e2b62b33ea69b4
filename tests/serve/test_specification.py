"""The distribution specification's rules for pull and discovery, one test a rule.

Each test names the section that it is from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.serve.conftest import Command
from tests.support.images import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Builder,
    Graph,
    compact,
    index_with_subject,
    multi,
    sha512_root,
    single,
    with_subject,
    write_layout,
)
from tests.support.witness import Answer, Registry

HOST = "registry.example.com"
ABSENT = f"sha256:{'0' * 64}"
CODES = {
    "BLOB_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
}
SUBJECT = multi()


def plain_referrer(subject: Graph) -> Graph:
    """An ordinary image with a subject and no artifactType."""
    builder = Builder()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": builder.blob(b'{"architecture":"amd64","os":"linux"}', OCI_CONFIG),
        "layers": [],
        "subject": subject.descriptor,
        "annotations": {"com.example.kind": "plain"},
    }
    return builder.graph(builder.manifest(compact(document), OCI_MANIFEST))


def index_referrer(subject: Graph) -> Graph:
    """An index with a subject and no artifactType."""
    builder = Builder()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [],
        "subject": subject.descriptor,
    }
    return builder.graph(builder.manifest(compact(document), OCI_INDEX))


ATTACHED = {
    "artifact": with_subject(SUBJECT),
    "report": index_with_subject(SUBJECT),
    "plain": plain_referrer(SUBJECT),
    "index": index_referrer(SUBJECT),
}


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, serve_module: Callable[..., Command]
) -> Registry:
    """A server of `app` with four attachments, tags in an odd order, and a sha512 root."""
    images = {f"{HOST}/app:{tag}": SUBJECT for tag in ("v2", "v10", "V1", "a", "_x")}
    images[f"{HOST}/other:v1"] = single()
    layout = tmp_path_factory.mktemp("served") / "layout"
    write_layout(layout, images, [*ATTACHED.values(), sha512_root()])
    return serve_module(layout).client


def manifests_of(answer: Answer) -> dict[str, dict[str, object]]:
    """Return the descriptors of a list of referrers by their digests."""
    assert (answer.status, answer.headers["Content-Type"]) == (200, OCI_INDEX)
    index = json.loads(answer.body)
    assert (index["schemaVersion"], index["mediaType"]) == (2, OCI_INDEX)
    return {entry["digest"]: entry for entry in index["manifests"]}


def objects(graph: Graph) -> list[tuple[str, bytes]]:
    """Return path and content of everything below a root."""
    manifests = [(f"manifests/{d}", raw) for d, (_, raw) in graph.manifests.items()]
    return manifests + [(f"blobs/{d}", raw) for d, raw in graph.blobs.items()]


def test_support_is_determined_by_v2(client: Registry) -> None:
    """API, Determining Support: 200."""
    for method in ("GET", "HEAD"):
        assert client.request(method, "/v2/").status == 200


def test_an_existing_manifest_is_200_with_its_digest(client: Registry) -> None:
    """Pulling manifests: `200 OK`, `Docker-Content-Digest`, the exact bytes."""
    for reference in ("v2", "V1", "_x", SUBJECT.root):
        answer = client.request("GET", f"/v2/app/manifests/{reference}")
        assert (answer.status, answer.body) == (200, SUBJECT.raw)
        assert answer.headers["Docker-Content-Digest"] == SUBJECT.root
        assert answer.headers["Content-Type"] == SUBJECT.root_media_type


def test_a_manifest_of_another_algorithm_has_its_digest(client: Registry) -> None:
    """Pulling manifests: the digest that was asked for, in whatever algorithm."""
    root = sha512_root()
    answer = client.request("GET", f"/v2/app/manifests/{root.root}")
    assert (answer.status, answer.body) == (200, root.raw)
    assert answer.headers["Docker-Content-Digest"] == root.root
    assert root.root.startswith("sha512:")


@pytest.mark.parametrize("reference", ["absent", ABSENT, ".INVALID_MANIFEST_NAME", "a" * 129])
def test_an_absent_manifest_is_404(client: Registry, reference: str) -> None:
    """Pulling manifests: not found MUST be 404, be it that the reference can never exist."""
    for method in ("GET", "HEAD"):
        assert client.request(method, f"/v2/app/manifests/{reference}").status == 404


def test_an_existing_blob_is_200_with_its_digest(client: Registry) -> None:
    """Pulling blobs: `200 OK`, `Docker-Content-Digest`, the exact bytes."""
    for digest, content in SUBJECT.blobs.items():
        answer = client.request("GET", f"/v2/app/blobs/{digest}")
        assert (answer.status, answer.body) == (200, content)
        assert answer.headers["Docker-Content-Digest"] == digest


def test_an_absent_blob_is_404(client: Registry) -> None:
    """Pulling blobs: not found MUST be 404."""
    for method in ("GET", "HEAD"):
        assert client.request(method, f"/v2/app/blobs/{ABSENT}").status == 404


def test_a_range_of_a_blob_is_given(client: Registry) -> None:
    """Pulling blobs: a registry SHOULD support the `Range` request header."""
    digest, content = max(SUBJECT.blobs.items(), key=lambda item: len(item[1]))
    answer = client.request("GET", f"/v2/app/blobs/{digest}", headers={"Range": "bytes=5-14"})
    assert (answer.status, answer.body) == (206, content[5:15])
    assert answer.headers["Content-Range"] == f"bytes 5-14/{len(content)}"
    beyond = {"Range": f"bytes={len(content)}-"}
    assert client.request("GET", f"/v2/app/blobs/{digest}", headers=beyond).status == 416


@pytest.mark.parametrize("graph", [SUBJECT, *ATTACHED.values()])
def test_head_is_get_without_the_body(client: Registry, graph: Graph) -> None:
    """Checking if content exists: 200, `Docker-Content-Digest`, and `Content-Length` the size."""
    for path, content in [*objects(graph), ("manifests/v2", SUBJECT.raw)]:
        head = client.request("HEAD", f"/v2/app/{path}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(content))
        got = client.request("GET", f"/v2/app/{path}")
        assert dict(head.headers) | {"Date": ""} == dict(got.headers) | {"Date": ""}


def test_head_of_anything_is_what_get_says(client: Registry) -> None:
    """RFC 9110 section 9.3.2: HEAD has the status and the headers of GET."""
    for path in ("/", "/v2/", "/v2/app/tags/list", f"/v2/app/referrers/{SUBJECT.root}", "/v2/x"):
        head, got = client.request("HEAD", path), client.request("GET", path)
        assert (head.status, head.body) == (got.status, b"")
        assert dict(head.headers) | {"Date": ""} == dict(got.headers) | {"Date": ""}


def test_accept_does_not_change_what_is_sent(client: Registry) -> None:
    """Pulling manifests: the manifest's own type, whatever the client prefers."""
    for accept in (OCI_MANIFEST, "text/html", "*/*;q=0.1", ""):
        answer = client.request("GET", "/v2/app/manifests/v2", headers={"Accept": accept})
        assert (answer.status, answer.headers["Content-Type"]) == (200, SUBJECT.root_media_type)


def test_an_absent_repository_is_404(client: Registry) -> None:
    """Pushing/pulling: an attempt to pull a nonexistent repository MUST return 404."""
    for path in ("manifests/v1", f"manifests/{ABSENT}", f"blobs/{ABSENT}", "tags/list"):
        assert client.request("GET", f"/v2/absent/{path}").status == 404


def tags(client: Registry, query: str = "") -> tuple[list[str], Answer]:
    answer = client.request("GET", f"/v2/app/tags/list{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    document = json.loads(answer.body)
    assert document["name"] == "app"
    return document["tags"], answer


def test_tags_are_listed_in_order(client: Registry) -> None:
    """Listing Tags: 200, `name` and `tags`, in lexical or ASCIIbetical order."""
    assert tags(client)[0] == ["V1", "_x", "a", "v10", "v2"]


def test_n_limits_the_tags_and_links_to_the_next(client: Registry) -> None:
    """Listing Tags: `n` results, and a `Link` of RFC 5988 with rel="next" while there are more."""
    found, answer = tags(client, "?n=2")
    assert found == ["V1", "_x"]
    link = re.fullmatch(r'<(/v2/app/tags/list\?[^>]+)>; rel="next"', answer.headers["Link"])
    assert link
    second = client.request("GET", link[1])
    assert json.loads(second.body)["tags"] == ["a", "v10"]
    assert tags(client, "?n=5")[1].headers["Link"] is None
    assert tags(client, "?n=6")[0] == ["V1", "_x", "a", "v10", "v2"]


def test_n_of_zero_is_an_empty_list_without_a_link(client: Registry) -> None:
    """Listing Tags: when `n` is zero, an empty list, and no `Link`."""
    found, answer = tags(client, "?n=0")
    assert (found, answer.headers["Link"]) == ([], None)


def test_last_says_where_the_list_begins(client: Registry) -> None:
    """Listing Tags: what comes after `last`, which need not exist; `n` may be absent."""
    assert tags(client, "?last=_x")[0] == ["a", "v10", "v2"]
    assert tags(client, "?n=1&last=b")[0] == ["v10"]
    assert tags(client, "?last=v2")[0] == []


def test_referrers_are_an_index_with_types_and_annotations(client: Registry) -> None:
    """Listing Referrers: artifactType as stated, else the config's; an index may have none."""
    found = manifests_of(client.request("GET", f"/v2/app/referrers/{SUBJECT.root}"))
    assert set(found) == {graph.root for graph in ATTACHED.values()}
    types = {name: found[graph.root].get("artifactType") for name, graph in ATTACHED.items()}
    assert types == {
        "artifact": "application/vnd.example.signature",
        "report": "application/vnd.example.report",
        "plain": OCI_CONFIG,
        "index": None,
    }
    for graph in ATTACHED.values():
        entry = found[graph.root]
        assert (entry["mediaType"], entry["size"]) == (graph.root_media_type, len(graph.raw))
        assert entry.get("annotations") == json.loads(graph.raw).get("annotations")


@pytest.mark.parametrize("digest", [ABSENT, f"sha512:{'0' * 128}", "blake3:abc"])
def test_no_referrers_are_an_empty_index(client: Registry, digest: str) -> None:
    """Listing Referrers: no match MUST be an empty list; 404 MUST NOT be returned."""
    for repository in ("app", "absent"):
        answer = client.request("GET", f"/v2/{repository}/referrers/{digest}")
        assert manifests_of(answer) == {}


def test_a_digest_that_is_none_is_400(client: Registry) -> None:
    """Listing Referrers: an invalid `<digest>` MUST be 400."""
    for text in ("v1", "sha256:xyz", "sha256:" + "A" * 64):
        assert client.request("GET", f"/v2/app/referrers/{text}").status == 400


@pytest.mark.parametrize("name", sorted(ATTACHED))
def test_referrers_are_filtered_by_artifact_type(client: Registry, name: str) -> None:
    """Listing Referrers: a filter that was applied MUST be said in `OCI-Filters-Applied`."""
    every = manifests_of(client.request("GET", f"/v2/app/referrers/{SUBJECT.root}"))
    wanted = every[ATTACHED[name].root].get("artifactType", "application/none")
    query = str(wanted).replace("+", "%2B")
    answer = client.request("GET", f"/v2/app/referrers/{SUBJECT.root}?artifactType={query}")
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    found = manifests_of(answer)
    assert set(found) == (
        {ATTACHED[name].root} if "artifactType" in every[ATTACHED[name].root] else set()
    )


def test_errors_have_the_form_and_the_codes_of_the_specification(client: Registry) -> None:
    """Error Codes: `errors`, each with one of the codes of the table."""
    paths = (
        "/v2/app/manifests/absent",
        f"/v2/app/blobs/{ABSENT}",
        "/v2/app/blobs/v1",
        "/v2/APP/tags/list",
        "/v2/absent/tags/list",
        "/v2/app/tags/list?n=x",
        "/v2/app/nothing/of/this",
        "/v2/app/manifests/.x",
        "/v2/app/manifests/blake3:abc",
    )
    for path in paths:
        answer = client.request("GET", path)
        assert 400 <= answer.status < 500
        assert answer.headers["Content-Type"] == "application/json"
        assert {error["code"] for error in json.loads(answer.body)["errors"]} <= CODES
    digest = next(iter(SUBJECT.blobs))
    beyond = client.request("GET", f"/v2/app/blobs/{digest}", headers={"Range": "bytes=99999999-"})
    assert {error["code"] for error in json.loads(beyond.body)["errors"]} <= CODES


def test_deletion_that_is_disabled_is_405(client: Registry) -> None:
    """Content Management: disabled deletion MUST be 400 or 405; so is every push."""
    for path in ("manifests/v2", f"manifests/{SUBJECT.root}", f"blobs/{ABSENT}"):
        assert client.request("DELETE", f"/v2/app/{path}").status == 405
    assert client.request("POST", "/v2/app/blobs/uploads/").status == 405
    assert client.request("PUT", "/v2/app/manifests/new", body=b"{}").status == 405
    assert client.manifest_answer("app", "v2").body == SUBJECT.raw
