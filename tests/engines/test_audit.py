"""verify --in: what an engine has of a layout's images, at any later time."""

from __future__ import annotations

import time

import pytest

from tests.engines.test_load import ALL_KEPT, HOST, config_of, into, load, only_receipt, parts
from tests.support import images
from tests.support.command import ocimirror

pytestmark = pytest.mark.timeout(120)

KUBELET = ["--namespace", "k8s.io"]


def audit(layout, engine: str, *options: object):
    """Run `ocimirror verify --in` with a JSON document."""
    return ocimirror("verify", layout, "--in", engine, *map(str, options), "--json")


def settled(layout, *options: object):
    """Audit CRI until it has taken in what containerd told it, at most two seconds."""
    deadline = time.monotonic() + 2
    while True:
        result = audit(layout, "cri", *options)
        if result.code == 0 or time.monotonic() > deadline:
            return result
        time.sleep(0.05)


def test_a_pod_finds_a_loaded_image_by_tag_by_index_and_by_manifest(
    containerd, layout, repository
) -> None:
    graph = images.multi()
    path = layout({f"{HOST}/{repository}:v1": graph})
    assert load(path, *into(containerd), *KUBELET).code == 0
    result = settled(path, "--host", containerd.address, "--require", "manifest")
    assert result.code == 0, result.document
    receipt = only_receipt(result)
    assert parts(receipt) == ALL_KEPT
    assert receipt["engine"] == "cri"
    assert all(config_of(graph) in line for line in receipt["evidence"])
    assert len(receipt["evidence"]) == 3


def test_after_a_plain_import_a_pod_pinned_by_digest_finds_nothing(
    containerd, layout, repository, tmp_path
) -> None:
    name = f"{HOST}/{repository}:v1"
    path = layout({name: images.multi()})
    file = tmp_path / "plain.tar"
    assert ocimirror("copy", f"oci:{path}:{name}", f"oci-archive:{file}").code == 0
    containerd.ctr("images", "import", "--all-platforms", str(file), namespace="k8s.io")
    host = ["--host", containerd.address]
    time.sleep(0.5)
    result = audit(path, "cri", *host)
    assert result.code == 9
    assert parts(only_receipt(result)) == ("kept", "lost", "lost", "kept")
    assert load(path, *into(containerd), *KUBELET).code == 0
    assert settled(path, *host).code == 0


def test_an_image_that_is_not_there_is_exit_code_9(containerd, dockerd, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.single()})
    for engine, options in (
        ("containerd", ["--host", containerd.address, "--namespace", "absent"]),
        ("docker", ["--host", dockerd.host]),
        ("cri", ["--host", containerd.address]),
    ):
        result = audit(path, engine, *options)
        assert result.code == 9, engine
        assert only_receipt(result)["tag"] == "lost"


def test_an_image_under_the_name_of_another_one_is_told(dockerd, layout, repository) -> None:
    name = f"{HOST}/{repository}:v1"
    assert load(layout({name: images.single()}), *into(dockerd)).code == 0
    result = audit(layout({name: images.docker_schema2()}), "docker", "--host", dockerd.host)
    assert result.code == 9
    assert only_receipt(result)["tag"] == "moved"


def test_a_runtime_that_is_not_there_is_named_by_its_socket(layout, tmp_path) -> None:
    path = layout({f"{HOST}/app:v1": images.single()})
    result = audit(path, "cri", "--host", tmp_path / "absent.sock")
    assert result.code == 4
    assert "absent.sock" in result.document["error"]["message"]


def test_the_options_of_engines_go_with_an_engine(layout) -> None:
    path = layout({f"{HOST}/app:v1": images.single()})
    assert ocimirror("verify", path, "--require", "index").code == 2
    assert ocimirror("verify", path, "--in", "cri", "--namespace", "x").code == 2
    assert ocimirror("verify", path, "--in", "cri", "--require", "digest").code == 2


def test_content_that_no_record_keeps_is_not_called_kept(
    containerd, layout, repository, tmp_path
) -> None:
    graph, name, space = images.multi(), f"{HOST}/{repository}:v1", repository.replace("/", "-")
    path, file = layout({name: graph}), tmp_path / "plain.tar"
    assert ocimirror("copy", f"oci:{path}:{name}", f"oci-archive:{file}").code == 0
    containerd.ctr("images", "import", str(file), namespace=space)
    by_digest = f"{HOST}/{repository}@{graph.root}"
    containerd.ctr("images", "tag", name, by_digest, namespace=space)
    options = ["--host", containerd.address, "--namespace", space]
    told = []
    for _ in range(2):
        receipt = only_receipt(audit(path, "containerd", *options))
        told.append((parts(receipt), receipt["platforms"]["kept"]))
        for words in (["tag", name, "gone:1"], ["rm", "--sync", "gone:1"]):
            containerd.ctr("images", *words, namespace=space)
    assert told[0] == told[1]
    assert told[0][1] == ["linux/amd64"]


def test_what_is_no_image_is_left_out_of_a_whole_layout(containerd, layout, repository) -> None:
    graph = images.multi()
    digest = graph.root.replace(":", "-")
    path = layout(
        {
            f"{HOST}/{repository}:v1": graph,
            f"{HOST}/{repository}:{digest}.sig": images.artifact(),
            f"{HOST}/{repository}:{digest}": images.index_with_subject(graph),
            f"{HOST}/{repository}/chart:1": images.artifact_without_layers(),
        }
    )
    options = ["--host", containerd.address, "--namespace", repository.replace("/", "-")]
    loaded = load(path, "--into", "containerd", *options)
    assert loaded.code == 0, loaded.document
    assert "chart:1 is left out" in loaded.stderr
    audited = audit(path, "containerd", *options)
    assert audited.code == 0, audited.document
    assert only_receipt(audited)["image"] == f"{HOST}/{repository}:v1"
    asked = load(path, f"{HOST}/{repository}/chart:1", "--into", "containerd", *options)
    assert asked.code == 4
