"""Receipts: each name is asked for, and all that was carried is judged."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.engines.test_audit import audit
from tests.engines.test_load import ALL_KEPT, HOST, children, into, load, only_receipt, parts
from tests.support import images
from tests.support.command import ocimirror

pytestmark = pytest.mark.timeout(120)


def collected(containerd, name: str, space: str) -> set[str]:
    """Return the content of a namespace after a garbage collection."""
    containerd.ctr("images", "tag", name, "gone.example.com/x:1", namespace=space)
    containerd.ctr("images", "rm", "--sync", "gone.example.com/x:1", namespace=space)
    return set(containerd.ctr("content", "ls", "-q", namespace=space).split())


def attestation_of(graph) -> str:
    """Return the digest of the attestation's manifest."""
    (found,) = (c["digest"] for c in json.loads(graph.raw)["manifests"] if "annotations" in c)
    return str(found)


def test_the_attestation_of_the_one_platform_stays_past_a_garbage_collection(
    containerd, layout, repository
) -> None:
    graph, name, space = images.multi(), f"{HOST}/{repository}:v1", repository.replace("/", "-")
    path, where = layout({name: graph}), ["--namespace", repository.replace("/", "-")]
    result = load(path, *into(containerd), *where, "--platform", "linux/amd64")
    assert result.code == 0, result.document
    attestation = attestation_of(graph)
    blobs = json.loads(graph.manifests[attestation][1])
    content = collected(containerd, name, space)
    wanted = {attestation, blobs["config"]["digest"], *(b["digest"] for b in blobs["layers"])}
    assert wanted <= content
    options = [*into(containerd)[2:], *where, "--platform", "linux/amd64"]
    assert audit(path, "containerd", *options).code == 0


def test_an_attestation_that_is_gone_is_told_and_sent_again(
    containerd, layout, repository, tmp_path
) -> None:
    graph, name, space = images.multi(), f"{HOST}/{repository}:v1", repository.replace("/", "-")
    path, file = layout({name: graph}), tmp_path / "a.tar"
    copied = ocimirror("copy", f"oci:{path}:{name}", f"oci-archive:{file}", "--profile=containerd")
    assert copied.code == 0, copied.stderr
    words = ("images", "import", "--no-unpack", "--platform", "linux/amd64", str(file))
    containerd.ctr(*words, namespace=space)
    attestation = attestation_of(graph)
    assert attestation not in collected(containerd, name, space)
    options = [*into(containerd)[2:], "--namespace", space, "--platform", "linux/amd64"]
    told = audit(path, "containerd", *options)
    assert told.code == 9
    assert parts(only_receipt(told)) == ("kept", "lost", "kept", "kept")
    assert attestation in only_receipt(told)["notes"][0]
    again = load(path, *into(containerd), *options[2:])
    assert again.code == 0
    assert only_receipt(again)["unchanged"] is False
    assert attestation in collected(containerd, name, space)
    assert parts(only_receipt(audit(path, "containerd", *options))) == ALL_KEPT


def test_two_manifests_of_one_platform_are_both_kept(containerd, layout, repository) -> None:
    builder = images.Builder()
    platform = images.PLATFORMS[0]
    twins = [images.add_image(builder, f"twin {n}", platform) for n in range(2)]
    other = images.add_image(builder, "other", images.PLATFORMS[1])
    graph = builder.graph(builder.index([*twins, other]))
    name, space = f"{HOST}/{repository}:v1", repository.replace("/", "-")
    options = ["--namespace", space, "--platform", "linux/amd64"]
    result = load(layout({name: graph}), *into(containerd), *options)
    assert result.code == 0, result.document
    assert parts(only_receipt(result)) == ALL_KEPT
    assert {twin["digest"] for twin in twins} <= collected(containerd, name, space)


def test_docker_is_asked_for_digests_when_the_tag_is_gone(dockerd, layout, repository) -> None:
    from tests.engines.test_alias import load as load_by_alias

    graph, name = images.multi(), f"{HOST}/{repository}"
    path = layout({f"{name}:v1": graph})
    assert load_by_alias(dockerd, path, "--route", "alias").code == 0
    dockerd.docker("tag", f"{name}:v1", f"{name}:v2")  # (with the last tag the digests go too)
    dockerd.docker("rmi", f"{name}:v1")
    result = audit(path, "docker", "--host", dockerd.host, "--require", "index,manifest")
    assert result.code == 9
    assert parts(only_receipt(result)) == ("lost", "kept", "kept", "kept")
    assert only_receipt(result)["platforms"]["kept"] == ["linux/amd64"]


def test_podman_is_asked_for_each_digest(
    podman, podman_environment, layout, repository, tmp_path
) -> None:
    graph, name = images.multi(), f"{HOST}/{repository}"
    path = layout({f"{name}:v1": graph})
    words = ["--into", "podman", "--require", "index,manifest"]
    result = ocimirror("load", path, *words, "--json", env=podman_environment)
    assert result.code == 0, result.document
    manifest = children(graph)["linux/amd64"]["digest"]
    asked = " ".join(only_receipt(result)["evidence"])
    assert f"{name}@{manifest}" in asked
    assert f"{name}@{graph.root}" in asked
    podman.podman("tag", f"{name}:v1", f"{name}:v2")
    podman.podman("untag", f"{name}:v1", f"{name}:v1")
    gone = ocimirror("verify", path, "--in", "podman", "--json", env=podman_environment)
    assert gone.code == 9
    assert parts(only_receipt(gone)) == ("lost", "kept", "kept", "kept")


def test_an_image_that_lost_its_layers_after_unpacking_still_runs(
    containerd, layout, repository, tmp_path
) -> None:
    """As with containerd's `discard_unpacked_layers`; without the snapshot it is lost."""
    graph, name, space = images.single(), f"{HOST}/{repository}:v1", repository.replace("/", "-")
    path, file = layout({name: graph}), tmp_path / "a.tar"
    copied = ocimirror("copy", f"oci:{path}:{name}", f"oci-archive:{file}", "--profile=containerd")
    assert copied.code == 0, copied.stderr
    words = ("images", "import", "--snapshotter", "native", str(file))
    containerd.ctr(*words, namespace=space)
    layers = [layer["digest"] for layer in json.loads(graph.raw)["layers"]]
    containerd.ctr("content", "rm", *layers, namespace=space)
    options = [*into(containerd)[2:], "--namespace", space]
    told = audit(path, "containerd", *options)
    assert told.code == 0, told.document
    assert "kept (unpacked)" in only_receipt(told)["notes"][0]
    again = load(path, *into(containerd), *options[2:])
    assert only_receipt(again)["unchanged"] is True
    snapshots = ("snapshots", "--snapshotter", "native")
    keys = [
        line.split()[0]
        for line in containerd.ctr(*snapshots, "ls", namespace=space).splitlines()[1:]
    ]
    for _ in keys:  # (a snapshot goes before its parent)
        for key in keys:
            with contextlib.suppress(AssertionError):
                containerd.ctr(*snapshots, "rm", key, namespace=space)
    assert audit(path, "containerd", *options).code == 9
