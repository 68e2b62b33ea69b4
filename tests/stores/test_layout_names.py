"""Names in a layout: what index.json says, and what it keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocimirror import DamagedLayout, Digest, Layout, NotFound, OciMirrorError, UsageError
from tests.support import images
from tests.support.evil import REFERENCE, SHOWN_ESCAPED
from tests.support.images import IMAGE_NAME_ANNOTATION, REF_NAME_ANNOTATION, Graph
from tests.support.judge import faults_of, names_of
from tests.support.stores import fill

ALPINE = "docker.io/library/alpine:3.19"
OTHER = "ghcr.io/org/app:3.19"
SINGLE, MULTI, NOTE = images.single(), images.multi(), images.artifact_without_layers()


def write(directory: Path, named: dict[str, Graph]) -> None:
    with Layout(str(directory), write=True, durable=False) as layout:
        fill(layout, named)


def resolved(directory: Path, name: str) -> str:
    with Layout(str(directory)) as layout:
        return str(layout.resolve(name).digest)


def index_of(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "index.json").read_bytes())
    return document


def put_index(directory: Path, entries: list[dict[str, Any]], **keys: Any) -> None:
    """Write index.json as another tool would."""
    document = {"schemaVersion": 2, **keys, "manifests": entries}
    (directory / "index.json").write_bytes(images.indented(document))


def entry(graph: Graph, **annotations: str) -> dict[str, Any]:
    return {**graph.descriptor, "annotations": annotations}


def test_an_entry_carries_the_full_reference_and_the_tag(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: MULTI})
    assert index_of(tmp_path)["manifests"] == [
        {
            **MULTI.descriptor,
            "annotations": {IMAGE_NAME_ANNOTATION: ALPINE, REF_NAME_ANNOTATION: "3.19"},
        }
    ]


def test_a_name_that_is_only_a_tag_is_no_image_name_to_containerd(tmp_path: Path) -> None:
    write(tmp_path, {"v1": SINGLE})
    assert index_of(tmp_path)["manifests"] == [entry(SINGLE, **{REF_NAME_ANNOTATION: "v1"})]
    assert resolved(tmp_path, "v1") == SINGLE.root


def test_a_name_that_is_only_a_tag_moves(tmp_path: Path) -> None:
    write(tmp_path, {"v1": SINGLE})
    write(tmp_path, {"v1": MULTI})
    assert names_of(tmp_path) == {"v1": MULTI.root}
    assert len(index_of(tmp_path)["manifests"]) == 1


def test_a_reference_by_digest_has_no_tag(tmp_path: Path) -> None:
    name = f"ghcr.io/org/app@{SINGLE.root}"
    write(tmp_path, {name: SINGLE})
    assert index_of(tmp_path)["manifests"] == [entry(SINGLE, **{IMAGE_NAME_ANNOTATION: name})]
    assert resolved(tmp_path, name) == SINGLE.root


def test_one_digest_may_have_two_names(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: SINGLE, OTHER: SINGLE})
    assert names_of(tmp_path) == {ALPINE: SINGLE.root, OTHER: SINGLE.root}
    assert resolved(tmp_path, "3.19") == SINGLE.root


def test_a_name_that_moves_keeps_its_place_and_leaves_the_others(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: SINGLE, OTHER: NOTE})
    write(tmp_path, {ALPINE: MULTI})
    assert list(names_of(tmp_path).items()) == [(ALPINE, MULTI.root), (OTHER, NOTE.root)]
    assert faults_of(tmp_path) == []


def test_naming_again_does_not_write_the_index_again(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: SINGLE})
    before = (tmp_path / "index.json").stat()
    write(tmp_path, {ALPINE: SINGLE})
    after = (tmp_path / "index.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_what_other_tools_wrote_survives(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: SINGLE})
    theirs: list[dict[str, Any]] = [
        {**NOTE.descriptor, "x-scanner": {"score": 7.5, "tags": [None, True]}},
        entry(MULTI, **{REF_NAME_ANNOTATION: "their-tag", "com.example.owner": "ops"}),
        {"mediaType": "application/vnd.unheard.of", "digest": "sha256:" + "0" * 64, "size": 1},
    ]
    keys = {"annotations": {"com.example": "é\u2028"}, "x-top": [1, {"b": 1.5}], "mediaType": OCI}
    put_index(tmp_path, theirs, **keys)
    write(tmp_path, {OTHER: SINGLE})
    document = index_of(tmp_path)
    assert document["manifests"][:3] == theirs
    assert document["manifests"][3]["annotations"][IMAGE_NAME_ANNOTATION] == OTHER
    assert {key: document[key] for key in keys} == keys


OCI = images.OCI_INDEX


def test_what_an_entry_said_of_the_old_image_goes_with_it(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: SINGLE})
    named = {IMAGE_NAME_ANNOTATION: ALPINE, "com.example.scanned": "yes"}
    put_index(tmp_path, [{**entry(SINGLE, **named), "platform": {"os": "linux"}}])
    write(tmp_path, {ALPINE: MULTI})
    assert index_of(tmp_path)["manifests"] == [
        entry(MULTI, **{IMAGE_NAME_ANNOTATION: ALPINE, REF_NAME_ANNOTATION: "3.19"})
    ]


def test_what_an_entry_says_of_an_image_that_stays_is_kept(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: SINGLE})
    kept = entry(SINGLE, **{IMAGE_NAME_ANNOTATION: ALPINE, "com.example.scanned": "yes"})
    put_index(tmp_path, [kept])
    write(tmp_path, {ALPINE: SINGLE, OTHER: MULTI})
    assert index_of(tmp_path)["manifests"][0] == kept


@pytest.mark.parametrize(
    "name", [ALPINE, "alpine:3.19", "library/alpine:3.19", "index.docker.io/library/alpine:3.19"]
)
def test_an_image_is_found_under_every_spelling_of_its_reference(tmp_path: Path, name: str) -> None:
    write(tmp_path, {ALPINE: MULTI, "ghcr.io/org/app:v2": SINGLE})
    assert resolved(tmp_path, name) == MULTI.root


def test_a_reference_without_a_tag_is_latest(tmp_path: Path) -> None:
    write(tmp_path, {"docker.io/library/alpine:latest": MULTI, ALPINE: SINGLE})
    assert resolved(tmp_path, "alpine") == MULTI.root


@pytest.mark.parametrize("theirs", [IMAGE_NAME_ANNOTATION, REF_NAME_ANNOTATION])
def test_a_reference_is_found_in_whichever_annotation_a_tool_wrote_it(
    tmp_path: Path, theirs: str
) -> None:
    write(tmp_path, {"ghcr.io/x/y:z": SINGLE})
    put_index(tmp_path, [entry(SINGLE, **{theirs: "alpine:3.19"})])
    assert resolved(tmp_path, ALPINE) == SINGLE.root


def test_a_unique_tag_finds_its_image(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: MULTI, "ghcr.io/org/app:v2": SINGLE})
    assert resolved(tmp_path, "v2") == SINGLE.root


def test_a_tag_of_two_images_is_an_error_that_lists_them(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: MULTI, OTHER: SINGLE})
    with pytest.raises(UsageError) as caught:
        resolved(tmp_path, "3.19")
    assert ALPINE in caught.value.diagnostics()
    assert OTHER in caught.value.diagnostics()


def test_the_full_reference_wins_over_a_tag_of_the_same_spelling(tmp_path: Path) -> None:
    write(tmp_path, {"docker.io/library/v2:latest": MULTI, "ghcr.io/org/app:v2": SINGLE})
    assert resolved(tmp_path, "v2") == MULTI.root


def test_no_name_means_the_only_image(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: MULTI})
    assert resolved(tmp_path, "") == MULTI.root


def test_no_name_is_an_error_that_lists_several_images(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: MULTI, OTHER: SINGLE})
    with pytest.raises(UsageError) as caught:
        resolved(tmp_path, "")
    assert ALPINE in caught.value.diagnostics()
    assert OTHER in caught.value.diagnostics()


def test_an_unknown_name_is_an_error_that_lists_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: MULTI})
    with pytest.raises(NotFound) as caught:
        resolved(tmp_path, "alpine:3.20")
    assert ALPINE in caught.value.diagnostics()


def test_a_root_is_found_by_its_digest(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: MULTI})
    assert resolved(tmp_path, MULTI.root) == MULTI.root


def test_a_manifest_below_a_root_is_found_by_its_digest_with_its_type(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: MULTI})
    child = next(iter(MULTI.manifests))
    with Layout(str(tmp_path)) as layout:
        found = layout.resolve(child)
        assert layout.read_manifest(found).raw == MULTI.manifests[child][1]


def test_a_layer_is_no_image_and_not_found_as_one(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: MULTI})
    layer = next(digest for digest, data in MULTI.blobs.items() if data[:2] == b"\x1f\x8b")
    with pytest.raises(NotFound):
        resolved(tmp_path, layer)


@pytest.mark.parametrize(
    "name", ["sha256:" + "0" * 64, "md5:abc", "sha256:../../etc/passwd", "blake3:" + "0" * 64]
)
def test_a_digest_that_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    write(tmp_path, {ALPINE: MULTI})
    with pytest.raises(NotFound):
        resolved(tmp_path, name)


def test_the_names_are_listed_in_the_order_of_the_index(tmp_path: Path) -> None:
    write(tmp_path, {OTHER: SINGLE, ALPINE: MULTI})
    with Layout(str(tmp_path)) as layout:
        assert layout.names() == [OTHER, ALPINE]


def test_another_object_on_the_layout_sees_a_name_move(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: SINGLE})
    with (
        Layout(str(tmp_path)) as reader,
        Layout(str(tmp_path), write=True, durable=False) as writer,
    ):
        assert str(reader.resolve(ALPINE).digest) == SINGLE.root
        fill(writer, {ALPINE: MULTI})
        assert str(reader.resolve(ALPINE).digest) == MULTI.root


def test_two_writers_that_take_turns_lose_no_name(tmp_path: Path) -> None:
    with (
        Layout(str(tmp_path), write=True, durable=False) as one,
        Layout(str(tmp_path), write=True, durable=False) as two,
    ):
        for turn in range(6):
            fill((one, two)[turn % 2], {f"ghcr.io/org/app{turn}:v1": NOTE})
    assert len(names_of(tmp_path)) == 6


def test_the_previous_index_is_kept_as_a_copy_and_not_as_a_link(tmp_path: Path) -> None:
    write(tmp_path, {ALPINE: SINGLE})
    before = (tmp_path / "index.json").read_bytes()
    write(tmp_path, {ALPINE: MULTI})
    assert (tmp_path / "index.json.prev").read_bytes() == before
    assert (tmp_path / "index.json.prev").stat().st_nlink == 1
    assert (tmp_path / "index.json").stat().st_nlink == 1


TORN = [
    "index-empty",
    "index-torn",
    "index-torn-zeros",
    "index-not-json",
    "index-not-an-index",
    "index-is-a-manifest",
    "index-duplicate-keys",
    "index-huge",
    "index-missing",
    "index-is-fifo",
    "index-is-directory",
    "index-is-symlink",
    "layout-file-wrong-version",
    "layout-file-not-json",
    "layout-file-empty",
    "layout-file-huge",
    "layout-file-is-symlink",
    "layout-file-is-fifo",
    "entry-traversal-digest",
    "entry-negative-size",
]


@pytest.mark.parametrize("name", [n for n in TORN if not n.startswith("entry-")])
@pytest.mark.bar("R12")
def test_a_damaged_layout_is_refused_by_a_writer_and_not_touched(
    evil: dict[str, Path], name: str
) -> None:
    directory = evil[name]
    before = _snapshot(directory)
    with pytest.raises(DamagedLayout):
        Layout(str(directory), write=True)
    assert _snapshot(directory) == before


@pytest.mark.parametrize("name", TORN)
def test_a_damaged_layout_is_refused_by_a_reader(evil: dict[str, Path], name: str) -> None:
    with pytest.raises(DamagedLayout):
        resolved(evil[name], REFERENCE)


def test_an_index_that_tears_between_opening_and_naming_is_not_overwritten(
    tmp_path: Path,
) -> None:
    write(tmp_path, {ALPINE: SINGLE})
    write(tmp_path, {ALPINE: MULTI})
    previous = (tmp_path / "index.json.prev").read_bytes()
    with Layout(str(tmp_path), write=True, durable=False) as layout:
        (tmp_path / "index.json").write_bytes(b'{"schemaVersion":2,"manif')
        with pytest.raises(DamagedLayout, match=r"index\.json"):
            fill(layout, {OTHER: SINGLE})
    assert (tmp_path / "index.json").read_bytes() == b'{"schemaVersion":2,"manif'
    assert (tmp_path / "index.json.prev").read_bytes() == previous


@pytest.mark.parametrize("name", sorted(n for n in SHOWN_ESCAPED if n.startswith("entry")))
@pytest.mark.bar("R42")
def test_a_hostile_name_does_not_reach_a_terminal_raw(evil: dict[str, Path], name: str) -> None:
    with pytest.raises(OciMirrorError) as caught:
        resolved(evil[name], "no such image")
    shown = caught.value.diagnostics()
    assert all(character.isprintable() for character in shown.replace("\n", "", 1))
    assert len(shown) < 1000


def test_a_digest_is_kept_whatever_its_algorithm(tmp_path: Path) -> None:
    root = images.sha512_root()
    write(tmp_path, {ALPINE: root})
    assert resolved(tmp_path, ALPINE) == root.root
    assert Digest.parse(resolved(tmp_path, ALPINE)).algorithm == "sha512"


def _snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    """Return size and inode of everything that the layout's owner can see changed."""
    return {
        str(path.relative_to(directory)): (path.lstat().st_size, path.lstat().st_ino)
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
        if ".ocimirror" not in path.parts
    }
