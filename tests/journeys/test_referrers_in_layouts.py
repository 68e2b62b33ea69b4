"""Layouts that we write have the list of each image's referrers, as regctl and olareg read it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.registry import Options, StrictRegistry, run_registry
from tests.support.servers import run_docker_registry
from tests.support.signed import push_signed, signed_image

IMAGE = images.multi()
FIRST, SECOND = images.with_subject(IMAGE, 1), images.with_subject(IMAGE, 2)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[StrictRegistry]:
    """Run a registry that holds an image with one referrer."""
    (tmp_path / "here").mkdir()
    with run_registry(tmp_path / "here") as registry:
        images.push(registry, "app", "1.0", IMAGE)
        images.push(registry, "app", None, FIRST)
        yield registry


def lists_in(layout: Path) -> dict[str, Any]:
    """Return the lists of a layout by subject, as regctl finds them: by ref.name alone."""
    found = {}
    for entry in json.loads((layout / "index.json").read_bytes())["manifests"]:
        tag = entry.get("annotations", {}).get(images.REF_NAME_ANNOTATION, "")
        if tag.startswith("sha256-") and "." not in tag:
            assert entry["mediaType"] == images.OCI_INDEX
            assert images.IMAGE_NAME_ANNOTATION not in entry["annotations"]
            raw = images.blob_path(layout, entry["digest"]).read_bytes()
            assert images.describe(raw, images.OCI_INDEX).items() <= entry.items()
            found[tag.replace("-", ":")] = json.loads(raw)
    return found


def digests(listed: dict[str, Any]) -> set[str]:
    assert listed["schemaVersion"] == 2
    assert listed["mediaType"] == images.OCI_INDEX
    return {each["digest"] for each in listed["manifests"]}


def test_a_pull_writes_the_list_of_every_subject(here: StrictRegistry, tmp_path: Path) -> None:
    signed = signed_image()
    push_signed(here, "signed", signed, api=True)
    layout = tmp_path / "layout"

    assert ocimirror("pull", f"{here.host}/signed:1.0", layout).code == 0

    lists = lists_in(layout)
    expected = {subject: {g.root for g in graphs} for subject, graphs in signed.referrers.items()}
    assert {subject: digests(listed) for subject, listed in lists.items()} == expected
    for listed in lists.values():
        for each in listed["manifests"]:
            manifest = json.loads(images.blob_path(layout, each["digest"]).read_bytes())
            assert each.get("annotations", {}) == manifest.get("annotations", {})
            assert each["artifactType"] == manifest["artifactType"]
    assert ocimirror("verify", layout).code == 0


def test_the_list_is_kept_up_to_date(here: StrictRegistry, tmp_path: Path) -> None:
    name, layout = f"{here.host}/app:1.0", tmp_path / "layout"
    assert ocimirror("pull", name, layout).code == 0
    images.push(here, "app", None, SECOND)
    assert ocimirror("pull", name, layout).code == 0
    both = lists_in(layout)
    assert ocimirror("gc", layout, "--grace", "0s").code == 0
    assert ocimirror("gc", layout, "--grace", "0s").code == 0
    kept = lists_in(layout)
    again = ocimirror("pull", name, layout, "--json").document["images"][0]["status"]
    listed = ocimirror("list", layout, "--json").document["images"]

    assert digests(both[IMAGE.root]) == {FIRST.root, SECOND.root}
    assert kept == both
    assert again == "unchanged"
    assert {image["name"] for image in listed if image["name"]} == {name}
    assert ocimirror("verify", layout).code == 0

    assert ocimirror("remove", layout, name).code == 0
    assert lists_in(layout) == {}
    assert json.loads((layout / "index.json").read_bytes())["manifests"] == []


def test_a_referrer_that_is_removed_leaves_the_list(here: StrictRegistry, tmp_path: Path) -> None:
    images.push(here, "app", "signature", SECOND)
    names, layout = [f"{here.host}/app:{tag}" for tag in ("1.0", "signature")], tmp_path / "layout"
    assert ocimirror("pull", *names, layout).code == 0
    assert digests(lists_in(layout)[IMAGE.root]) == {FIRST.root, SECOND.root}
    document = json.loads((layout / "index.json").read_bytes())
    named = {images.IMAGE_NAME_ANNOTATION: names[1]}.items()
    document["manifests"] = [
        entry
        for entry in document["manifests"]
        if entry["digest"] != SECOND.root or named <= entry.get("annotations", {}).items()
    ]
    (layout / "index.json").write_bytes(images.compact(document))

    assert ocimirror("remove", layout, names[1]).code == 0

    assert digests(lists_in(layout)[IMAGE.root]) == {FIRST.root}
    assert ocimirror("verify", layout).code == 0


def test_what_others_wrote_into_the_list_stays(here: StrictRegistry, tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", {f"{here.host}/app:1.0": IMAGE}, [SECOND])
    theirs = {**SECOND.descriptor, "annotations": {"theirs": "kept"}}
    index = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [theirs]}
    raw = images.compact({**index, "annotations": {"also": "kept"}})
    images.blob_path(layout, images.digest_of(raw)).write_bytes(raw)
    document = json.loads((layout / "index.json").read_bytes())
    annotations = {images.REF_NAME_ANNOTATION: IMAGE.root.replace(":", "-")}
    entry = {**images.describe(raw, images.OCI_INDEX), "annotations": annotations}
    document["manifests"][1] = entry
    (layout / "index.json").write_bytes(images.compact(document))

    assert ocimirror("pull", f"{here.host}/app:1.0", layout).code == 0

    listed = lists_in(layout)[IMAGE.root]
    assert digests(listed) == {FIRST.root, SECOND.root}
    assert listed["manifests"][0] == theirs
    assert listed["annotations"] == {"also": "kept"}


@pytest.mark.parametrize("kind", ["layout", "registry"])
def test_a_referrer_without_a_type_gets_that_of_its_config(kind: str, tmp_path: Path) -> None:
    """Also if it is an ordinary image's: distribution-spec, listing referrers."""
    document = json.loads(images.single().raw)
    builder = images.Builder()
    for content in images.single().blobs.values():
        builder.blob(content, images.OCI_LAYER)
    raw = images.compact({**document, "subject": IMAGE.descriptor, "annotations": {"a": "b"}})
    referrer = builder.graph(builder.manifest(raw, images.OCI_MANIFEST))
    (tmp_path / "r").mkdir()
    with run_docker_registry(tmp_path / "r") as registry:
        source = images.write_layout(
            tmp_path / "source", {"docker.io/library/app:1.0": IMAGE}, [referrer]
        )
        if kind == "registry":
            assert ocimirror("push", source, registry.host).code == 0
            tag = IMAGE.root.replace(":", "-")
            listed = json.loads(registry.get_manifest("library/app", tag))
        else:
            assert ocimirror("copy", f"oci:{source}", f"oci:{tmp_path}/layout").code == 0
            listed = lists_in(tmp_path / "layout")[IMAGE.root]

    assert listed["manifests"] == [
        {**referrer.descriptor, "artifactType": images.OCI_CONFIG, "annotations": {"a": "b"}}
    ]


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_repair_makes_a_damaged_list_anew(
    damage: str, here: StrictRegistry, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    assert ocimirror("pull", f"{here.host}/app:1.0", layout).code == 0
    tag = IMAGE.root.replace(":", "-")
    (entry,) = [
        entry
        for entry in json.loads((layout / "index.json").read_bytes())["manifests"]
        if entry.get("annotations", {}).get(images.REF_NAME_ANNOTATION) == tag
    ]
    blob = images.blob_path(layout, entry["digest"])
    raw = blob.read_bytes()
    blob.unlink()
    if damage == "corrupt":
        blob.write_bytes(raw.replace(b"schemaVersion", b"schemaversion"))
    assert ocimirror("verify", layout).code == 5

    assert ocimirror("repair", layout).code == 0

    assert digests(lists_in(layout)[IMAGE.root]) == {FIRST.root}
    assert ocimirror("verify", layout).code == 0


def test_repair_corrects_an_entry_and_makes_a_list_anew_in_one_run(
    here: StrictRegistry, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    assert ocimirror("pull", f"{here.host}/app:1.0", layout).code == 0
    index = json.loads((layout / "index.json").read_bytes())
    tag = IMAGE.root.replace(":", "-")
    for entry in index["manifests"]:
        if entry.get("annotations", {}).get(images.REF_NAME_ANNOTATION) == tag:
            images.blob_path(layout, entry["digest"]).unlink()
        if entry["digest"] == IMAGE.root:
            entry["size"] += 1
    (layout / "index.json").write_text(json.dumps(index))
    here.requests.clear()

    assert ocimirror("repair", layout).code == 0

    assert here.requests == []
    assert digests(lists_in(layout)[IMAGE.root]) == {FIRST.root}
    assert ocimirror("verify", layout).code == 0


def test_oras_finds_the_referrers_in_our_layout(here: StrictRegistry, tmp_path: Path) -> None:
    if shutil.which("oras") is None:
        pytest.skip("oras is not installed")
    assert ocimirror("pull", f"{here.host}/app:1.0", tmp_path / "layout").code == 0

    command = ["oras", "discover", "--oci-layout", f"{tmp_path}/layout@{IMAGE.root}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert FIRST.root in found.stdout


def test_a_referrer_without_its_subject_can_be_pushed_from_our_layout(
    here: StrictRegistry, tmp_path: Path
) -> None:
    """Its subject's list is in the layout too, and follows it."""
    images.push(here, "app", "signature", FIRST)
    assert ocimirror("pull", f"{here.host}/app:signature", tmp_path / "layout").code == 0
    with run_registry(tmp_path / "there", Options(referrers=False)) as there:
        pushed = ocimirror("push", tmp_path / "layout", there.host, "--json")
        assert pushed.code == 0, pushed.stderr
        assert [image["digest"] for image in pushed.document["images"]] == [FIRST.root]
        listed = there.get_manifest("app", IMAGE.root.replace(":", "-"))
        assert digests(json.loads(listed)) == {FIRST.root}
