"""save: what comes out of an engine, and what of it is original."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocimirror.stores.layout import Layout
from tests.engines.test_load import ALL_KEPT, HOST, config_of, into, load, only_receipt, parts
from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.engines import Containerd, Dockerd

pytestmark = pytest.mark.timeout(120)


def save(engine: Containerd | Dockerd, name: str, out: Path, *options: object) -> Result:
    """Run `ocimirror save` with a JSON document."""
    _, kind, *where = into(engine)
    words = [name, out, "--from", kind, *where, *options, "--json"]
    return ocimirror("save", *map(str, words))


def entry_of(layout: Path, name: str):
    """Return the entry of a name."""
    with Layout(str(layout)) as store:
        return store.index().find(name)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A layout that is not there yet."""
    return tmp_path / "out"


@pytest.fixture
def name(repository: str) -> str:
    """The name of an image that no other test uses."""
    return f"{HOST}/{repository}:v1"


@pytest.fixture
def space(repository: str) -> list[str]:
    """A namespace that no other test uses."""
    return ["--namespace", repository.replace("/", "-")]


@pytest.mark.parametrize("kind", ["multi", "docker_list", "single"])
def test_containerd_gives_every_byte_back(kind, containerd, layout, out, name, space) -> None:
    graph = getattr(images, kind)()
    assert load(layout({name: graph}), *into(containerd), *space).code == 0
    saved = save(containerd, name, out, *space)
    assert saved.code == 0, saved.stderr
    assert only_receipt(saved)["manifest"] == "kept"
    for digest, raw in graph.contents.items():
        assert (out / "blobs" / digest.replace(":", "/")).read_bytes() == raw
    assert str(entry_of(out, name).descriptor.digest) == graph.root
    assert entry_of(out, name).platforms == ()


def test_what_containerd_holds_of_an_index_is_saved_sparse(
    containerd, layout, out, name, space, tmp_path
) -> None:
    graph, file = images.multi(), tmp_path / "any.tar"
    path = layout({name: graph})
    assert ocimirror("copy", f"oci:{path}:{name}", f"oci-archive:{file}").code == 0
    containerd.ctr("images", "import", str(file), namespace=space[1])
    for command in (["tag", name, "gone:1"], ["rm", "--sync", "gone:1"]):
        containerd.ctr("images", *command, namespace=space[1])
    saved = save(containerd, name, out, *space)
    assert saved.code == 0, saved.stderr
    assert parts(only_receipt(saved)) == ALL_KEPT
    assert only_receipt(saved)["platforms"]["kept"] == ["linux/amd64"]
    assert str(entry_of(out, name).descriptor.digest) == graph.root
    assert ocimirror("verify", out).code == 0
    (listed,) = ocimirror("list", out, "--json").document["images"]
    assert listed["platforms"] == ["linux/amd64"]


def test_a_later_pull_completes_what_was_saved_without_attestations(
    containerd, layout, out, name, space, tmp_path
) -> None:
    graph, file = images.multi(), tmp_path / "any.tar"
    path = layout({name: graph})
    assert ocimirror("copy", f"oci:{path}:{name}", f"oci-archive:{file}").code == 0
    containerd.ctr("images", "import", str(file), namespace=space[1])
    for command in (["tag", name, "gone:1"], ["rm", "--sync", "gone:1"]):
        containerd.ctr("images", *command, namespace=space[1])
    assert save(containerd, name, out, *space).code == 0
    source = f"oci:{path}:{name}"
    again = ocimirror("copy", source, f"oci:{out}", "--platform", "linux/amd64", "--json")
    assert again.document["images"][0]["status"] == "copied"
    assert [str(platform) for platform in entry_of(out, name).platforms] == ["linux/amd64"]
    assert ocimirror("verify", out).code == 0
    assert ocimirror("copy", source, f"oci:{out}").code == 0
    assert entry_of(out, name).platforms == ()


def test_an_index_that_containerd_has_nothing_of_is_refused(
    containerd, layout, out, name, space
) -> None:
    assert save(containerd, name, out, *space).code == 4


def test_docker_gives_the_image_id_and_a_manifest_that_is_marked_as_new(
    dockerd, layout, out, name
) -> None:
    graph = images.multi()
    assert load(layout({name: graph}), *into(dockerd)).code == 0
    saved = save(dockerd, name, out)
    assert saved.code == 0, saved.stderr
    receipt = only_receipt(saved)
    assert parts(receipt) == ("kept", "lost", "synthesised", "kept")
    assert any("NEW" in note for note in receipt["notes"])
    entry = entry_of(out, name)
    assert entry.descriptor.annotations["dev.ocimirror.manifest"] == "synthesised"
    manifest = json.loads(
        (out / "blobs" / str(entry.descriptor.digest).replace(":", "/")).read_text()
    )
    assert manifest["config"]["digest"] == config_of(graph)
    assert save(dockerd, name, out, "--require", "manifest").code == 9


@pytest.mark.parametrize("where", ["with", "there"])
def test_docker_gives_the_original_where_it_can_be_proved(
    where, dockerd, layout, out, name
) -> None:
    graph = images.multi()
    path = layout({name: graph})
    assert load(path, *into(dockerd)).code == 0
    options = ["--with", path] if where == "with" else []
    if where == "there":
        assert ocimirror("copy", f"oci:{path}:{name}", f"oci:{out}").code == 0
    saved = save(dockerd, name, out, *options, "--require", "index,manifest")
    assert saved.code == 0, saved.stdout
    assert str(entry_of(out, name).descriptor.digest) == graph.root
    assert ocimirror("verify", out).code == 0


def test_another_image_is_no_proof(dockerd, layout, out, name, tmp_path) -> None:
    assert load(layout({name: images.multi()}), *into(dockerd)).code == 0
    with Layout(str(tmp_path / "other"), "write") as store:
        from tests.support.stores import fill

        fill(store, {name: images.docker_schema2()})
    saved = save(dockerd, name, out, "--with", tmp_path / "other")
    assert saved.code == 9
    assert ocimirror("list", out, "--json").document["images"] == []


def test_a_failed_image_does_not_keep_the_others_back(dockerd, layout, out, name) -> None:
    assert load(layout({name: images.single()}), *into(dockerd)).code == 0
    _, kind, *where = into(dockerd)
    words = ["save", f"{HOST}/absent:v1", name, out, "--from", kind, *where, "--json"]
    saved = ocimirror(*map(str, words))
    assert saved.code == 4
    assert only_receipt(saved)["image"] == name
    assert saved.document["failures"][0]["image"] == f"{HOST}/absent:v1"


def test_podman_gives_the_original_where_it_can_be_proved(
    podman, podman_environment, layout, out, name
) -> None:
    graph = images.multi()
    path = layout({name: graph})
    assert load(path, "--into", "podman", env=podman_environment).code == 0
    words = ["save", name, out, "--from", "podman", "--json"]
    made = ocimirror(*map(str, words), env=podman_environment)
    assert made.code == 0, made.stderr
    assert parts(only_receipt(made)) == ("kept", "lost", "synthesised", "kept")
    restored = ocimirror(*map(str, words), "--with", path, env=podman_environment)
    assert parts(only_receipt(restored)) == ALL_KEPT, restored.document
    assert str(entry_of(out, name).descriptor.digest) == graph.root
