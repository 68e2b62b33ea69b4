"""Under which names an image is found, and which of two is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serve.conftest import Command, Serve
from tests.support.images import (
    Graph,
    blob_path,
    compact,
    docker_schema2,
    multi,
    single,
    write_layout,
)
from tests.support.witness import Registry

HUB, QUAY = multi(), single()


@pytest.fixture
def client(tmp_path: Path, serve: Serve) -> Registry:
    images = {
        "docker.io/library/alpine:3.19": HUB,
        "quay.io:5000/library/alpine:3.19": QUAY,
        "quay.io:5000/team/app:v1": QUAY,
    }
    return serve(write_layout(tmp_path / "layout", images))


@pytest.mark.parametrize(
    ("path", "graph"),
    [
        ("library/alpine/manifests/3.19", HUB),
        ("docker.io/library/alpine/manifests/3.19", HUB),
        ("quay.io_5000/library/alpine/manifests/3.19", QUAY),
        ("library/alpine/manifests/3.19?ns=docker.io", HUB),
        ("library/alpine/manifests/3.19?ns=registry-1.docker.io", HUB),
        ("library/alpine/manifests/3.19?ns=quay.io:5000", QUAY),
        ("quay.io_5000/library/alpine/manifests/3.19?ns=quay.io:5000", QUAY),
        ("team/app/manifests/v1", QUAY),
    ],
)
def test_an_image_is_found_under_its_original_names(
    client: Registry, path: str, graph: Graph
) -> None:
    assert client.request("GET", f"/v2/{path}").body == graph.raw


@pytest.mark.parametrize(
    "path",
    [
        "team/app/manifests/v1?ns=docker.io",
        "docker.io/team/app/manifests/v1",
        "docker.io/library/alpine/manifests/3.19?ns=quay.io:5000",
        "library/alpine/manifests/3.19?ns=absent.example.com",
        "alpine/manifests/3.19",
    ],
)
def test_an_image_of_one_host_is_not_found_under_another(client: Registry, path: str) -> None:
    assert client.request("GET", f"/v2/{path}").status == 404


def test_the_catalog_lists_names_that_are_found(client: Registry) -> None:
    def listed(query: str = "") -> list[str]:
        found: list[str] = json.loads(client.request("GET", f"/v2/_catalog{query}").body)[
            "repositories"
        ]
        return found

    assert listed() == ["library/alpine", "quay.io_5000/library/alpine", "team/app"]
    assert all(client.tags(name) for name in listed())
    assert listed("?ns=docker.io") == ["library/alpine"]
    assert listed("?ns=quay.io:5000") == ["library/alpine", "team/app"]


def test_which_of_two_hosts_is_meant_is_said_at_the_start(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    images = {"docker.io/library/alpine:1": HUB, "quay.io/library/alpine:1": QUAY}
    command = serve_command(write_layout(tmp_path / "layout", images))
    _, stderr = command.stop()
    assert "library/alpine is in docker.io and quay.io" in stderr


def test_the_first_layout_goes_first(
    tmp_path: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    name = "registry.example.com/app"
    one = write_layout(tmp_path / "one", {f"{name}:v1": HUB, f"{name}:v2": HUB})
    two = write_layout(tmp_path / "two", {f"{name}:v1": QUAY, f"{name}:v3": QUAY})
    client = serve(two, one)
    assert client.tags("app") == ["v1", "v2", "v3"]
    assert client.get_manifest("app", "v1") == QUAY.raw
    assert client.get_manifest("app", "v2") == HUB.raw
    assert f"{name}:v1" in caplog.text
    assert client.get_blob("app", next(iter(HUB.blobs)))


def test_one_host_is_served_as_that_host(tmp_path: Path, serve: Serve) -> None:
    images = {
        "docker.io/library/alpine:3.19": HUB,
        "quay.io/library/alpine:3.19": QUAY,
        "quay.io/team/app:v1": QUAY,
    }
    client = serve(write_layout(tmp_path / "layout", images), only="quay.io")
    assert client.get_manifest("library/alpine", "3.19") == QUAY.raw
    assert client.tags("team/app") == ["v1"]
    assert client.request("GET", "/v2/library/alpine/tags/list?ns=docker.io").status == 404
    assert json.loads(client.request("GET", "/v2/_catalog").body)["repositories"] == [
        "library/alpine",
        "team/app",
    ]


def test_tags_without_a_repository_are_called_like_their_directory(
    tmp_path: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """As skopeo, umoci and oras write them: `org.opencontainers.image.ref.name` alone."""
    paths = ("tree/team/tool", "tree/quay.io_5000/team/app", "single", "No Name")
    for path in paths:
        layout = write_layout(tmp_path / path, {"registry.example.com/x:v1": QUAY})
        index = json.loads((layout / "index.json").read_bytes())
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "v9"}
        (layout / "index.json").write_bytes(compact(index))
    client = serve(tmp_path / "tree", tmp_path / "single", tmp_path / "No Name")
    assert json.loads(client.request("GET", "/v2/_catalog").body)["repositories"] == [
        "single",
        "team/app",
        "team/tool",
    ]
    assert client.get_manifest("team/tool", "v9") == QUAY.raw
    assert client.get_manifest("single", "v9") == QUAY.raw
    assert client.request("GET", "/v2/team/app/tags/list?ns=quay.io:5000").status == 200
    assert "No Name" in caplog.text


def test_a_tree_is_searched_for_layouts(
    tmp_path: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    tree = tmp_path / "tree"
    write_layout(tree / "docker.io/library/alpine", {"docker.io/library/alpine:1": HUB})
    write_layout(tree / "quay.io/app", {"quay.io/app:v1": QUAY})
    (tree / "quay.io/app/blobs/sha256/oci-layout").write_bytes(b"{}")
    damaged = write_layout(tree / "quay.io/damaged", {"quay.io/damaged:v1": QUAY})
    (damaged / "index.json").write_bytes(b"{")
    (tree / "loop").symlink_to(tree)
    client = serve(tree)
    assert json.loads(client.request("GET", "/v2/_catalog").body)["repositories"] == [
        "app",
        "library/alpine",
    ]
    assert f"{damaged}" in caplog.text


def test_a_layout_that_was_named_and_cannot_be_read_is_an_error(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    layout = write_layout(tmp_path / "layout", {"quay.io/app:v1": docker_schema2()})
    (layout / "index.json").write_bytes(b"{")
    with pytest.raises(AssertionError, match=r"index\.json"):
        serve_command(layout)
    with pytest.raises(AssertionError, match="no directory"):
        serve_command(tmp_path / "absent")


def test_content_that_another_layout_holds_is_found(tmp_path: Path, serve: Serve) -> None:
    """Layouts of one tree share blobs; a repository's own are looked at first."""
    one = write_layout(tmp_path / "one", {"quay.io/a:v1": HUB})
    two = write_layout(tmp_path / "two", {"quay.io/b:v1": HUB})
    digest = next(iter(HUB.blobs))
    blob_path(one, digest).unlink()
    blob_path(two, digest).write_bytes(HUB.blobs[digest])
    assert serve(one, two).get_blob("a", digest) == HUB.blobs[digest]
