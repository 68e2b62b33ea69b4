"""Under which names an image is found, and which of two is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serve.conftest import Command, Serve, eventually
from tests.support.command import ocimirror
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


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, serve_module: Callable[..., Command]
) -> Registry:
    images = {
        "docker.io/library/alpine:3.19": HUB,
        "quay.io:5000/library/alpine:3.19": QUAY,
        "quay.io:5000/team/app:v1": QUAY,
    }
    return serve_module(write_layout(tmp_path_factory.mktemp("served") / "a", images)).client


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


CLASHES = {
    "quay.io/team/app:v1": QUAY,  # (first, so that the order decides nothing)
    "docker.io/team/app:v2": HUB,
    "quay.io/other/tool:v1": QUAY,
    "ghcr.io/other/tool:v1": HUB,
    "ghcr.io/alone/tool:v1": HUB,
}


def test_a_path_without_a_registry_is_that_of_docker_hub(clashing: Command) -> None:
    client = clashing.client
    assert client.tags("team/app") == ["v2"]
    assert client.get_manifest("team/app", "v2") == HUB.raw
    assert client.request("GET", "/v2/team/app/manifests/v1").status == 404
    assert client.get_manifest("quay.io/team/app", "v1") == QUAY.raw
    assert client.request("GET", "/v2/team/app/manifests/v1?ns=quay.io").body == QUAY.raw
    assert client.get_manifest("alone/tool", "v1") == HUB.raw


@pytest.fixture(scope="module")
def clashing(
    tmp_path_factory: pytest.TempPathFactory, serve_module: Callable[..., Command]
) -> Command:
    return serve_module(write_layout(tmp_path_factory.mktemp("served") / "b", CLASHES))


@pytest.mark.parametrize(
    "path", ["manifests/v1", f"manifests/{HUB.root}", f"blobs/{next(iter(HUB.blobs))}", "tags/list"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_path_that_several_registries_have_is_that_of_none(
    clashing: Command, path: str, method: str
) -> None:
    command = clashing
    for _ in range(2):
        answer = command.client.request(method, f"/v2/other/tool/{path}")
        assert answer.status == 404
    if method == "GET":
        (error,) = json.loads(answer.body)["errors"]
        assert error["code"] == "NAME_UNKNOWN"
        assert "ghcr.io/other/tool or quay.io/other/tool" in error["message"]
    assert command.client.request("GET", f"/v2/other/tool/referrers/{HUB.root}").status == 404
    for host, graph in (("ghcr.io", HUB), ("quay.io", QUAY)):
        assert command.client.get_manifest(f"{host}/other/tool", "v1") == graph.raw
    assert command.said().count("not served: other/tool is in ghcr.io and quay.io") == 1


def test_each_clash_is_said_at_the_start_and_when_it_comes(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    layout = write_layout(tmp_path / "layout", CLASHES)
    command = serve_command(layout)
    assert command.document["clashes"] == [
        {"repository": "other/tool", "registries": ["ghcr.io", "quay.io"], "answered_by": None},
        {
            "repository": "team/app",
            "registries": ["docker.io", "quay.io"],
            "answered_by": "docker.io",
        },
    ]
    write_layout(layout, {**CLASHES, "quay.io/alone/tool:v1": QUAY})
    assert eventually(
        lambda: command.client.request("GET", "/v2/alone/tool/tags/list").status == 404
    )
    _, stderr = command.stop()
    for line in (
        "other/tool is in ghcr.io and quay.io; a request that names no registry gets 404",
        "team/app is in docker.io and quay.io; a request that names no registry gets that of",
        "alone/tool is in ghcr.io and quay.io; a request that names no registry gets 404",
    ):
        assert stderr.count(line) - stderr.count(f"not served: {line}") == 1


def test_the_catalog_names_every_repository_of_a_clash(clashing: Command) -> None:
    client = clashing.client
    listed = json.loads(client.request("GET", "/v2/_catalog").body)["repositories"]
    assert listed == [
        "alone/tool",
        "ghcr.io/other/tool",
        "quay.io/other/tool",
        "quay.io/team/app",
        "team/app",
    ]
    assert all(client.tags(name) for name in listed)


def test_only_and_prefer_say_whose_a_path_is(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    layout = write_layout(tmp_path / "layout", CLASHES)
    preferring = serve_command(layout, "--prefer", "quay.io")
    assert preferring.client.get_manifest("team/app", "v1") == QUAY.raw
    assert preferring.client.get_manifest("other/tool", "v1") == QUAY.raw
    only = serve_command(layout, "--only", "docker.io")
    assert only.document["clashes"] == []
    assert only.client.get_manifest("team/app", "v2") == HUB.raw
    for name in ("other/tool", "alone/tool", "quay.io/team/app"):
        assert only.client.request("GET", f"/v2/{name}/tags/list").status == 404
    assert only.client.request("GET", "/v2/team/app/tags/list?ns=quay.io").status == 404
    assert "is in" not in only.stop()[1]
    done = ocimirror("serve", layout, "--only", "not a host")
    assert (done.code, "Traceback" in done.stderr) == (2, False)


def test_a_sparse_image_is_named(tmp_path: Path, serve_command: Callable[..., Command]) -> None:
    """What is not there is 404, and ctr 2.3 gives up on that: the log says why."""
    source = write_layout(tmp_path / "source", {"quay.io/team/app:v1": HUB})
    layout = tmp_path / "layout"
    done = ocimirror(
        "copy", f"oci:{source}", f"oci:{layout}:quay.io/team/app:v1", "--platform", "linux/amd64"
    )
    assert done.code == 0, done.stderr
    command = serve_command(layout)
    assert command.document["sparse"] == {"quay.io/team/app:v1": ["linux/amd64"]}
    _, stderr = command.stop()
    assert stderr.count("quay.io/team/app:v1 is sparse: only linux/amd64 is here") == 1


def test_a_sparse_image_of_another_tool_is_named_when_it_is_asked_for(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    """Nothing in its entry says that it is one: `docker save` or `ctr`, unpacked."""
    name = "quay.io/team/app:v1"
    layout = write_layout(tmp_path / "layout", {name: HUB, "quay.io/team/whole:v1": single()})
    here, *absent = json.loads(HUB.raw)["manifests"]
    for child in absent:
        blob_path(layout, child["digest"]).unlink()
    command = serve_command(layout)
    for _ in range(2):
        assert command.client.get_manifest("team/app", "v1") == HUB.raw
    assert command.client.get_manifest("team/app", here["digest"])
    answer = command.client.request("GET", f"/v2/team/app/manifests/{absent[0]['digest']}")
    _, stderr = command.stop()
    listed = ocimirror("list", layout, "--json").document["images"]
    verified = ocimirror("verify", layout, "--json")
    hosts = ocimirror("hosts", "m.example.com", "--layout", layout, "--for", "k3s", "--json")

    (error,) = json.loads(answer.body)["errors"]
    assert (answer.status, error["code"]) == (404, "MANIFEST_UNKNOWN")
    assert HUB.root in error["message"]
    assert "sparse" in error["message"]
    assert stderr.count(f"team/app@{HUB.root} is sparse: only linux/amd64 is here") == 1
    assert listed[0]["platforms"] == ["linux/amd64"]
    assert "only linux/amd64 is here in whole: sparse, or damaged" in listed[0]["fault"]
    assert verified.code == 5  # (nobody can tell that no more was asked for)
    assert [note for note in verified.document["notes"] if "may be sparse" in note]
    assert hosts.document["sparse"] == {name: ["linux/amd64", "none/attestations"]}


def test_the_first_layout_goes_first(tmp_path: Path, serve_command: Callable[..., Command]) -> None:
    name = "registry.example.com/app"
    one = write_layout(tmp_path / "one", {f"{name}:v1": HUB, f"{name}:v2": HUB})
    two = write_layout(tmp_path / "two", {f"{name}:v1": QUAY, f"{name}:v3": QUAY})
    command = serve_command(two, one)
    client = command.client
    assert client.tags("app") == ["v1", "v2", "v3"]
    assert client.get_manifest("app", "v1") == QUAY.raw
    assert client.get_manifest("app", "v2") == HUB.raw
    assert f"{name}:v1" in command.said()
    assert client.get_blob("app", next(iter(HUB.blobs)))


def test_one_host_is_served_as_that_host(tmp_path: Path, serve: Serve) -> None:
    images = {
        "docker.io/library/alpine:3.19": HUB,
        "quay.io/library/alpine:3.19": QUAY,
        "quay.io/team/app:v1": QUAY,
    }
    client = serve(write_layout(tmp_path / "layout", images), "--only", "quay.io")
    assert client.get_manifest("library/alpine", "3.19") == QUAY.raw
    assert client.tags("team/app") == ["v1"]
    assert client.request("GET", "/v2/library/alpine/tags/list?ns=docker.io").status == 404
    assert json.loads(client.request("GET", "/v2/_catalog").body)["repositories"] == [
        "library/alpine",
        "team/app",
    ]


def test_tags_without_a_repository_are_called_like_their_directory(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    """As skopeo, umoci and oras write them: `org.opencontainers.image.ref.name` alone."""
    paths = ("tree/team/tool", "tree/quay.io_5000/team/app", "single", "No Name")
    for path in paths:
        layout = write_layout(tmp_path / path, {"registry.example.com/x:v1": QUAY})
        index = json.loads((layout / "index.json").read_bytes())
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "v9"}
        (layout / "index.json").write_bytes(compact(index))
    command = serve_command(tmp_path / "tree", tmp_path / "single", tmp_path / "No Name")
    client = command.client
    assert json.loads(client.request("GET", "/v2/_catalog").body)["repositories"] == [
        "single",
        "team/app",
        "team/tool",
    ]
    assert client.get_manifest("team/tool", "v9") == QUAY.raw
    assert client.get_manifest("single", "v9") == QUAY.raw
    assert client.request("GET", "/v2/team/app/tags/list?ns=quay.io:5000").status == 200
    assert "No Name" in command.said()


def test_a_tree_is_searched_for_layouts(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    tree = tmp_path / "tree"
    write_layout(tree / "docker.io/library/alpine", {"docker.io/library/alpine:1": HUB})
    write_layout(tree / "quay.io/app", {"quay.io/app:v1": QUAY})
    (tree / "quay.io/app/blobs/sha256/oci-layout").write_bytes(b"{}")
    damaged = write_layout(tree / "quay.io/damaged", {"quay.io/damaged:v1": QUAY})
    (damaged / "index.json").write_bytes(b"{")
    (tree / "loop").symlink_to(tree)
    command = serve_command(tree)
    client = command.client
    assert json.loads(client.request("GET", "/v2/_catalog").body)["repositories"] == [
        "app",
        "library/alpine",
    ]
    assert f"{damaged}" in command.said()


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


def test_a_bad_entry_stops_neither_serve_nor_hosts(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    layout = write_layout(tmp_path / "layout", {"quay.io/team/app:v1": QUAY})
    document = json.loads((layout / "index.json").read_bytes())
    document["manifests"].insert(0, {"mediaType": 7, "digest": "sha256:odd", "size": -1})
    (layout / "index.json").write_bytes(compact(document))

    made = ocimirror("hosts", "m.example.com", "--layout", layout, "--for", "podman", "--json")
    command = serve_command(layout)

    assert command.client.get_manifest("team/app", "v1") == QUAY.raw
    assert "manifests[0] of index.json" in command.stop()[1]
    assert made.code == 0, made.stderr
    assert any("manifests[0] of index.json" in note for note in made.document["notes"])


def test_an_image_that_is_called_like_a_digest_is_in_the_settings(tmp_path: Path) -> None:
    name = "quay.io/team/app:sha256-" + 64 * "a"
    layout = write_layout(tmp_path / "layout", {name: QUAY})

    made = ocimirror("hosts", "m.example.com", "--layout", layout, "--for", "podman")
    loaded = ocimirror("load", layout, "--into", "podman", "--dry-run", "--json")

    assert made.code == 0, made.stderr
    assert name in loaded.stdout, loaded.stderr
