"""repair and gc against layouts whose blobs prove more than index.json says: nothing is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.images import Descriptor, blob_path
from tests.support.judge import contents_of, names_of

APP = "registry.example.com/app:v1"
IMAGE, INDEX = images.single(), images.multi()
EMPTY = {"mediaType": images.OCI_EMPTY, "digest": images.digest_of(b"{}"), "size": 2}


def put(layout: Path, document: object, media_type: str, algorithm: str = "sha256") -> Descriptor:
    raw = images.compact(document)
    descriptor = images.describe(raw, media_type, algorithm=algorithm)
    path = blob_path(layout, descriptor["digest"])
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(raw)
    return descriptor


def further_members(layout: Path) -> Descriptor:
    document = json.loads(IMAGE.raw)
    return put(layout, {**document, "rootfs": {"diff_ids": []}}, images.OCI_MANIFEST)


def index_in_a_config(layout: Path) -> Descriptor:
    config = {"rootfs": {"diff_ids": []}, "schemaVersion": 2, "manifests": [IMAGE.descriptor]}
    described = put(layout, config, images.OCI_CONFIG)
    manifest = {"schemaVersion": 2, "config": described, "layers": []}
    return put(layout, manifest, images.OCI_MANIFEST)


def manifest_as_a_layer(layout: Path) -> Descriptor:
    put(layout, {}, images.OCI_EMPTY)
    manifest = {"schemaVersion": 2, "config": EMPTY, "layers": [IMAGE.descriptor]}
    return put(layout, manifest, images.OCI_MANIFEST)


def unknown_type(layout: Path) -> Descriptor:
    document = {"mediaType": "application/x.custom+json", "items": [IMAGE.descriptor]}
    return put(layout, document, "application/x.custom+json")


@pytest.mark.parametrize("torn", [b"", b'{"schemaVersion":2,"manifests":{}}'])
@pytest.mark.parametrize(
    "add", [further_members, index_in_a_config, manifest_as_a_layer, unknown_type]
)
def test_repair_and_gc_lose_nothing_of_manifests_that_look_like_something_else(
    tmp_path: Path, add: Callable[[Path], Descriptor], torn: bytes
) -> None:
    layout = images.write_layout(tmp_path / "layout", {APP: IMAGE})
    root = add(layout)
    (layout / "index.json").write_bytes(torn)
    before = {path for path in (layout / "blobs").rglob("*") if path.is_file()}

    repaired = ocimirror("repair", layout, "--json")

    assert repaired.code == 5
    assert root["digest"] in repaired.document["unnamed"]
    for _ in range(2):
        assert ocimirror("gc", layout, "--grace", "0", "--after-repair").code == 0
    assert {path for path in (layout / "blobs").rglob("*") if path.is_file()} == before


def lock_of(path: Path, names: dict[str, Descriptor]) -> Path:
    records = [
        {
            "source": f"docker://{name}",
            "digest": descriptor["digest"],
            "size": 1,
            "media_type": descriptor["mediaType"],
            "time": "2026-01-01T00:00:00Z",
            "platforms": [],
            "attachments": [],
        }
        for name, descriptor in names.items()
    ]
    path.write_text(json.dumps({"schema": "ocimirror.lock/v1", "images": records}))
    return path


def test_a_name_of_a_platform_within_an_index_and_a_second_name_come_back(tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", {APP: INDEX})
    child = json.loads(INDEX.raw)["manifests"][0]
    again, one = "registry.example.com/app:latest", "registry.example.com/app:v1-amd64"
    lock = lock_of(tmp_path / "lock", {APP: INDEX.descriptor, again: INDEX.descriptor, one: child})
    (layout / "index.json").write_bytes(b"")

    repaired = ocimirror("repair", layout, "--lock", lock)

    assert repaired.code == 0, repaired.stdout + repaired.stderr
    assert names_of(layout) == {APP: INDEX.root, again: INDEX.root, one: child["digest"]}


def test_a_name_that_the_index_before_had_for_an_absent_image_moves_to_the_one_that_is_here(
    tmp_path: Path,
) -> None:
    layout = images.write_layout(tmp_path / "layout", {APP: INDEX})
    shutil.copy(layout / "index.json", layout / "index.json.prev")
    for digest in INDEX.contents:
        blob_path(layout, digest).unlink()
    images.write_layout(layout, {APP: IMAGE})
    (layout / "index.json").write_bytes(b"")
    lock = lock_of(tmp_path / "lock", {APP: IMAGE.descriptor})

    repaired = ocimirror("repair", layout, "--lock", lock)

    assert repaired.code == 0, repaired.stdout + repaired.stderr
    assert names_of(layout) == {APP: IMAGE.root}


@pytest.mark.parametrize(
    "wrong",
    [{"size": 3}, {"mediaType": images.OCI_INDEX}, {"digest": IMAGE.root.replace("a", "A")}],
)
def test_an_entry_that_describes_its_content_wrongly_is_corrected(
    tmp_path: Path, wrong: Descriptor
) -> None:
    layout = images.write_layout(tmp_path / "layout", {APP: IMAGE})
    right = (layout / "index.json").read_bytes()
    index = json.loads(right)
    index["manifests"][0].update(wrong)
    (layout / "index.json").write_bytes(images.compact(index))

    repaired = ocimirror("repair", layout)

    assert repaired.code == 0, repaired.stdout + repaired.stderr
    assert json.loads((layout / "index.json").read_bytes()) == json.loads(right)


def test_an_image_whose_entry_states_no_digest_is_kept_without_a_name(tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", {APP: IMAGE})
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0]["digest"] = "sha256:" + "A" * 63
    (layout / "index.json").write_bytes(images.compact(index))
    before = {path for path in (layout / "blobs").rglob("*") if path.is_file()}

    assert ocimirror("repair", layout, "--json").document["unnamed"] == [IMAGE.root]
    for _ in range(2):
        assert ocimirror("gc", layout, "--grace", "0", "--after-repair").code == 0
    assert {path for path in (layout / "blobs").rglob("*") if path.is_file()} == before


def test_lists_of_referrers_come_back_by_what_they_list(tmp_path: Path) -> None:
    signatures = [images.with_subject(IMAGE, number) for number in (0, 1)]
    source = images.write_layout(tmp_path / "source", {APP: IMAGE}, signatures[:1])
    layout = tmp_path / "layout"
    assert ocimirror("copy", f"oci:{source}:{APP}", f"oci:{layout}").code == 0
    images.write_layout(source, {APP: IMAGE}, signatures)
    assert ocimirror("copy", f"oci:{source}:{APP}", f"oci:{layout}").code == 0
    names = names_of(layout)
    for name in ("index.json", "index.json.prev"):
        (layout / name).write_bytes(b"")

    lock = lock_of(tmp_path / "lock", {APP: IMAGE.descriptor})
    repaired = ocimirror("repair", layout, "--lock", lock)

    assert repaired.code == 0, repaired.stdout + repaired.stderr
    assert names_of(layout) == names
    again = tmp_path / "again"
    assert ocimirror("copy", f"oci:{layout}:{APP}", f"oci:{again}").code == 0
    assert {graph.root for graph in signatures} <= set(contents_of(again, lists=False))


def test_a_damaged_file_that_may_have_been_an_image_is_told_after_a_torn_index(
    tmp_path: Path,
) -> None:
    layout = images.write_layout(tmp_path / "layout", {APP: IMAGE})
    (layout / "index.json").write_bytes(b"")
    blob_path(layout, IMAGE.root).write_bytes(IMAGE.raw[:-5])

    repaired = ocimirror("repair", layout, "--json")

    assert repaired.code == 5
    assert [fault["digest"] for fault in repaired.document["faults"]] == [IMAGE.root]


def test_gc_does_not_judge_what_it_cannot_hash(tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", {})
    config = put(layout, {}, images.OCI_EMPTY, "sha384")
    manifest = {"schemaVersion": 2, "config": config, "layers": []}
    root = put(layout, manifest, images.OCI_MANIFEST, "sha384")
    index = {"schemaVersion": 2, "manifests": [root]}
    (layout / "index.json").write_bytes(images.compact(index))

    assert ocimirror("gc", layout, "--grace", "0").code == 4
    index = {"schemaVersion": 2, "manifests": []}
    (layout / "index.json").write_bytes(images.compact(index))
    for _ in range(2):
        assert ocimirror("gc", layout, "--grace", "0").code == 0
    assert blob_path(layout, config["digest"]).exists()
    assert blob_path(layout, root["digest"]).exists()
