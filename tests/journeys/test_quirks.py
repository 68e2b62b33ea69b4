"""What real registries do differently, each behind the fault proxy in front of a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.faults import Cut, Respond, Rule, SetHeader
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry
from tests.support.witness import Registry

Front = Callable[..., Proxy]


@pytest.fixture
def graph(docker_registry: Registry, repository: str) -> images.Graph:
    made = images.multi()
    images.push(docker_registry, repository, "1.0", made)
    return made


@pytest.mark.bar("harbor-head-length")
def test_harbor_announces_another_length_in_head_than_it_sends(
    graph: images.Graph, docker_registry: Registry, repository: str, proxy: Front, tmp_path: Path
) -> None:
    lie = Rule("HEAD", r"/manifests/", SetHeader("Content-Length", str(len(graph.raw) - 7)))
    front = proxy(docker_registry, lie)

    pulled = ocimirror("pull", f"{front.host}/{repository}:1.0", tmp_path / "layout", "--json")

    assert pulled.code == 0, pulled.stderr
    assert pulled.document["images"][0]["digest"] == graph.root
    assert ocimirror("verify", tmp_path / "layout").code == 0


@pytest.mark.parametrize("status", [404, 405, 412])
@pytest.mark.bar("R48", "nexus-head-404", "harbor-head-412")
def test_nexus_and_harbor_refuse_head_and_answer_get(
    status: int,
    graph: images.Graph,
    docker_registry: Registry,
    repository: str,
    proxy: Front,
    tmp_path: Path,
) -> None:
    front = proxy(docker_registry, Rule("HEAD", r"/manifests/", Respond(status)))

    pulled = ocimirror("pull", f"{front.host}/{repository}:1.0", tmp_path / "layout", "--json")

    assert pulled.code == 0, pulled.stderr
    assert pulled.document["images"][0]["digest"] == graph.root


@pytest.mark.bar("R48", "no-digest-header")
def test_ecr_leaves_out_the_digest_header(
    graph: images.Graph, docker_registry: Registry, repository: str, proxy: Front, tmp_path: Path
) -> None:
    front = proxy(docker_registry, Rule(".*", r".*", SetHeader("Docker-Content-Digest", None)))

    pulled = ocimirror("pull", f"{front.host}/{repository}:1.0", tmp_path / "layout")
    pushed = ocimirror("push", tmp_path / "layout", f"{front.host}/again")

    assert (pulled.code, pushed.code) == (0, 0), pulled.stderr + pushed.stderr
    copied = docker_registry.get_manifest(f"again/{repository}", "1.0")
    assert copied == graph.raw


@pytest.mark.bar("R32", "ecr-immutable", "harbor-immutable-412")
def test_an_immutable_tag_with_the_same_digest_is_success_without_a_put(
    graph: images.Graph, docker_registry: Registry, repository: str, proxy: Front, tmp_path: Path
) -> None:
    assert ocimirror("pull", f"{docker_registry.host}/{repository}:1.0", tmp_path / "l").code == 0
    front = proxy(docker_registry, Rule("PUT", r"/manifests/", Respond(412)))
    layout, target = f"oci:{tmp_path}/l", f"docker://{front.host}/{repository}:1.0"

    again = ocimirror("copy", layout, target, "--json")

    assert again.document["images"][0]["status"] == "unchanged"
    assert front.count("PUT", "/manifests/") == 0


def is_large(request: object) -> bool:
    headers = {key.lower(): value for key, value in request.headers}  # type: ignore[attr-defined]
    return int(headers["content-length"]) > 5_000_000


@pytest.fixture
def large(tmp_path: Path) -> images.Graph:
    (graph,) = images.shared_layers(1, 2, 9_000_000, 0.0)
    images.write_layout(tmp_path / "large", {"reg.example.com/large:1": graph})
    return graph


@pytest.mark.parametrize("limits", ["ghcr", "minimum"])
@pytest.mark.bar("ghcr-patch-4-mib", "artifactory-patch")
def test_where_one_put_is_too_large_the_blob_goes_in_chunks(
    limits: str, large: images.Graph, registry: StrictRegistry, proxy: Front, tmp_path: Path
) -> None:
    if limits == "ghcr":
        registry.options.patch_limit_bytes = 4 * 1024 * 1024
    else:
        registry.options.chunk_min_bytes = 5_000_000
    refuse = Rule("PUT", r"/blobs/", Respond(413), when=is_large)
    front = proxy(registry, refuse)

    pushed = ocimirror("push", tmp_path / "large", front.host, "--json")

    assert pushed.code == 0, pushed.stderr
    for digest, content in large.blobs.items():
        assert registry.get_blob("large", digest) == content
    assert front.count("PATCH", "/blobs/") >= 4


@pytest.mark.bar("distribution-stale-session")
def test_a_chunk_that_was_lost_is_sent_again_from_where_the_registry_is(
    large: images.Graph, registry: StrictRegistry, proxy: Front, tmp_path: Path
) -> None:
    front = proxy(
        registry,
        Rule(
            "PUT",
            r"/blobs/",
            Respond(413),
            when=is_large,
        ),
        Rule("PATCH", r"/blobs/", Cut(forward=True), nth=2),
    )

    pushed = ocimirror("push", tmp_path / "large", front.host, "--json")

    assert pushed.code == 0, pushed.stderr
    for digest, content in large.blobs.items():
        assert registry.get_blob("large", digest) == content
