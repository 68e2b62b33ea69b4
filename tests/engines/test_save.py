"""save: what comes out of an engine, and what of it is original."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engines.test_load import (
    ALL_KEPT,
    HOST,
    children,
    config_of,
    into,
    load,
    only_receipt,
    parts,
)
from tests.support import images
from tests.support.command import PROGRAM, Result, ocimirror
from tests.support.engines import Containerd, Dockerd

pytestmark = pytest.mark.timeout(120)


def save(engine: Containerd | Dockerd, name: str, out: Path, *options: object) -> Result:
    """Run `ocimirror save` with a JSON document."""
    _, kind, *where = into(engine)
    words = [name, out, "--from", kind, *where, *options, "--json"]
    return ocimirror("save", *map(str, words))


def entry_of(layout: Path, name: str) -> dict[str, Any]:
    """Return the entry of a name in index.json."""
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    found = (e for e in entries if e["annotations"][images.IMAGE_NAME_ANNOTATION] == name)
    return next(found)


def platforms_of(layout: Path, name: str) -> str:
    """Return what the entry says the image was asked for."""
    return str(entry_of(layout, name)["annotations"].get("dev.ocimirror.platforms", ""))


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
    assert entry_of(out, name)["digest"] == graph.root
    assert platforms_of(out, name) == ""


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
    assert entry_of(out, name)["digest"] == graph.root
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
    assert platforms_of(out, name) == "linux/amd64"
    assert ocimirror("verify", out).code == 0
    assert ocimirror("copy", source, f"oci:{out}").code == 0
    assert platforms_of(out, name) == ""


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
    assert entry["annotations"]["dev.ocimirror.manifest"] == "synthesised"
    manifest = json.loads((out / "blobs" / entry["digest"].replace(":", "/")).read_text())
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
    assert entry_of(out, name)["digest"] == graph.root
    assert ocimirror("verify", out).code == 0


def test_another_image_is_no_proof(dockerd, layout, out, name, tmp_path) -> None:
    assert load(layout({name: images.multi()}), *into(dockerd)).code == 0
    images.write_layout(tmp_path / "other", {name: images.docker_schema2()})
    saved = save(dockerd, name, out, "--with", tmp_path / "other")
    assert saved.code == 9
    assert not out.exists()  # (nothing came, so there is no layout)


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
    assert entry_of(out, name)["digest"] == graph.root


def manifest_of(graph: images.Graph) -> str:
    """Return the digest of the manifest for this machine."""
    return next(c["digest"] for p, c in children(graph).items() if p == "linux/amd64")


def test_an_image_id_is_no_name(dockerd, layout, out, name, tmp_path) -> None:
    graph = images.multi()
    assert load(layout({name: graph}), *into(dockerd)).code == 0
    for known in (config_of(graph), config_of(graph)[7:19]):
        saved = save(dockerd, known, out)
        assert saved.code == 2, saved.document
        assert name in saved.document["failures"][0]["error"]["diagnostics"]
    assert not out.exists()


def test_podman_says_what_a_short_name_is(podman, podman_environment, layout, out, name) -> None:
    assert (
        load(layout({name: images.single()}), "--into", "podman", env=podman_environment).code == 0
    )
    podman.podman("tag", name, "localhost/short:v1")
    words = ["save", "short:v1", out, "--from", "podman", "--json"]
    saved = ocimirror(*map(str, words), env=podman_environment)
    assert saved.code == 0, saved.document
    assert only_receipt(saved)["tag"] == "kept"
    (listed,) = ocimirror("list", out, "--json").document["images"]
    assert listed["name"] == "localhost/short:v1"


def test_a_digest_that_was_asked_for_is_given_or_refused(dockerd, layout, out, name) -> None:
    graph = images.multi()
    path = layout({name: graph})
    assert load(path, *into(dockerd)).code == 0
    repository = name.removesuffix(":v1")
    refused = save(dockerd, f"{repository}@{graph.root}", out)
    assert refused.code in (4, 9), refused.document
    refused = save(dockerd, f"{name}@{graph.root}", out)
    assert refused.code in (4, 9), refused.document
    assert not out.exists()


@pytest.mark.parametrize("which", ["root", "manifest"])
def test_containerd_gives_an_image_by_its_digest(
    which, containerd, layout, out, name, space
) -> None:
    graph = images.multi()
    path = layout({name: graph})
    assert load(path, *into(containerd), *space).code == 0
    digest = graph.root if which == "root" else manifest_of(graph)
    for known in (f"{name.removesuffix(':v1')}@{digest}", f"{name}@{digest}"):
        saved = save(containerd, known, out, *space)
        if which == "manifest" and known.startswith(f"{name}@"):
            assert saved.code == 9, saved.document  # (the tag stands for the index)
            continue
        assert saved.code == 0, saved.document
        assert entry_of(out, only_receipt(saved)["image"])["digest"] == digest


def test_a_record_that_lies_is_not_believed(containerd, layout, out, name, space) -> None:
    graph = images.single()
    assert load(layout({name: graph}), *into(containerd), *space).code == 0
    lie = f"{name.removesuffix(':v1')}@sha256:{'0' * 64}"
    containerd.ctr("images", "tag", name, lie, namespace=space[1])
    assert save(containerd, lie, out, *space).code == 4


def test_a_digest_of_another_repository_is_not_saved_under_this_name(
    containerd, layout, out, name, space
) -> None:
    other, graph = f"{name.removesuffix(':v1')}-other:v1", images.multi()
    path = layout({name: images.single(), other: graph})
    assert load(path, *into(containerd), *space).code == 0
    assert save(containerd, f"{name}@{graph.root}", out, *space).code == 4
    assert save(containerd, f"{other}@{graph.root}", out, *space).code == 0


def test_a_platform_that_docker_does_not_have_is_refused(dockerd, layout, out, name) -> None:
    assert load(layout({name: images.multi()}), *into(dockerd)).code == 0
    saved = save(dockerd, name, out, "--platform", "linux/arm64")
    assert saved.code == 4, saved.document
    assert "linux/amd64" in saved.document["failures"][0]["error"]["message"]
    assert save(dockerd, name, out, "--platform", "linux/amd64").code == 0


def test_another_platform_is_restored_into_a_layout_that_has_all(dockerd, layout, name) -> None:
    graph = images.multi()
    path = layout({name: graph})
    assert load(path, *into(dockerd), "--platform", "linux/arm64").code == 0
    saved = save(dockerd, name, path, "--with", path)
    assert saved.code == 0, saved.document
    assert only_receipt(saved)["platforms"] == {"kept": ["linux/arm64"], "asked": ["linux/arm64"]}
    assert entry_of(path, name)["digest"] == graph.root
    assert ocimirror("verify", path).code == 0


def test_with_is_opened_for_what_containerd_gives_too(containerd, layout, name, space) -> None:
    """Its manifests are the ones that it was given, which does not say that they are those."""
    graph = images.single()
    path = layout({name: graph, f"{name}-other": images.multi()})
    assert load(path, *into(containerd), *space).code == 0
    for number, (place, code, word) in enumerate(
        (
            (f"oci:{path}:{name}", 0, "is the original: nothing to restore"),
            (f"oci:{path}:{name}-other", 9, "no original manifest"),
            (f"oci:{path}-none", 4, "there is no directory"),
        )
    ):
        out = path.parent / f"out{number}"
        saved = save(containerd, name, out, *space, "--with", place)
        assert saved.code == code, saved.document
        assert word in saved.stdout
        assert out.exists() == (code == 0)


def test_a_forgotten_layout_is_not_made(dockerd, tmp_path) -> None:
    words = ["save", "app:v1", "app:v2", "--from", "docker", "--host", dockerd.host]
    assert ocimirror(*words, cwd=tmp_path).code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", ["dockerd", "containerd"])
def test_on_a_full_disk_the_layout_stays_valid(
    engine, request, layout, name, space, tmp_path
) -> None:
    engine = request.getfixturevalue(engine)
    where = space if isinstance(engine, Containerd) else []
    big, _ = images.shared_layers(2, 2, 1_500_000, shared_fraction=0.5)
    other = f"{name}-small"
    assert load(layout({name: big, other: images.single()}), *into(engine), *where).code == 0
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    try:
        assert save(engine, other, disk / "out", *where).code == 0
        _, kind, *rest = [*into(engine), *where]
        words = ["save", other, name, disk / "out", "--from", kind, *rest, "--json"]
        saved = ocimirror(*map(str, words))
        assert saved.code == 8, saved.document
        assert ocimirror("verify", disk / "out").code == 0
        names = [
            image["name"] for image in ocimirror("list", disk / "out", "--json").document["images"]
        ]
        assert names == [other]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("delay_s", [0.05, 0.2, 0.4])
def test_killed_in_the_middle_the_layout_stays_valid(delay_s, dockerd, layout, out, name) -> None:
    big, _ = images.shared_layers(2, 3, 1_500_000, shared_fraction=0.5)
    other = f"{name}-small"
    assert load(layout({name: big, other: images.single()}), *into(dockerd)).code == 0
    assert save(dockerd, other, out).code == 0
    words = ["save", name, out, "--from", "docker", "--host", dockerd.host]
    process = subprocess.Popen([PROGRAM, *map(str, words)], stderr=subprocess.DEVNULL)
    time.sleep(delay_s)
    process.kill()
    process.wait()
    assert ocimirror("verify", out).code == 0
    assert save(dockerd, name, out).code == 0


def test_images_that_share_blobs_are_saved_together(dockerd, layout, out, name) -> None:
    graphs = images.shared_layers(2, 3, 20_000, shared_fraction=0.5)
    named = {f"{name}{number}": graph for number, graph in enumerate(graphs)}
    path = layout(named)
    assert load(path, *into(dockerd)).code == 0
    _, kind, *where = into(dockerd)
    words = ["save", *named, out, "--from", kind, *where, "--with", path, "--json"]
    saved = ocimirror(*map(str, words))
    assert saved.code == 0, saved.document
    for full, graph in named.items():
        assert entry_of(out, full)["digest"] == graph.root
