"""docker-archive: as a source: what every tool and version saves, and what is refused."""

from __future__ import annotations

import gzip
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ocimirror import (
    DamagedLayout,
    DigestMismatch,
    DockerArchive,
    IntegrityError,
    Layout,
    MalformedManifest,
    OciMirrorError,
    Options,
    SizeMismatch,
    Unsupported,
    UsageError,
    copy_many,
)
from tests.support import images
from tests.support.command import ocimirror
from tests.support.dockerarchives import (
    DockerTar,
    Saved,
    docker_before_1_10,
    docker_before_25,
    docker_since_25,
    flat,
    hybrid,
    platform_parts,
    saved,
)
from tests.support.evil import (
    CANARY,
    DOCKER_MAY_PASS,
    EVIL_ARCHIVES,
    EVIL_DOCKER_ARCHIVES,
    MAY_PASS,
    SHOWN_ESCAPED,
)
from tests.support.judge import contents_of, faults_of
from tests.support.stores import copy_all, failures, request

NAME = "registry.example.com/team/app:v1"
FIXTURES = Path(__file__).parents[2] / "fixtures" / "images"
IMAGE = saved()
MULTI = images.multi()


def read(path: Path, name: str = "") -> tuple[Any, dict[str, bytes], bool]:
    """Copy an image out; return its manifest, its content, and whether it says it was made."""
    with tempfile.TemporaryDirectory() as directory:
        with DockerArchive(str(path)) as archive, Layout(directory, write=True) as layout:
            (outcome,) = copy_many([request(archive, name, layout, NAME)], Options(jobs=2))
        if outcome.error is not None:
            raise outcome.error
        contents = contents_of(Path(directory))
        (entry,) = json.loads((Path(directory) / "index.json").read_bytes())["manifests"]
    made = entry["annotations"].get("dev.ocimirror.manifest") == "synthesised"
    return json.loads(contents[entry["digest"]]), contents, made


def assert_is(image: Saved, document: Any, contents: dict[str, bytes]) -> None:
    assert document["config"]["digest"] == image.image_id
    assert contents[image.image_id] == image.config
    assert [layer["digest"] for layer in document["layers"]] == image.diff_ids
    assert {layer["mediaType"] for layer in document["layers"]} == {images.OCI_LAYER}
    assert [contents[digest] for digest in image.diff_ids] == list(image.tars)


# --- what tools write ----------------------------------------------------------------------------

WRITTEN: dict[str, Callable[[], DockerTar]] = {
    "podman": lambda: flat(IMAGE, [NAME]),
    "docker 1.10 to 24": lambda: docker_before_25(IMAGE, NAME),
    "docker 25": lambda: docker_since_25(IMAGE, NAME, version=25),
    "docker 28": lambda: docker_since_25(IMAGE, NAME),
}


@pytest.mark.parametrize("writer", WRITTEN)
def test_image_id_layers_and_name_survive_and_the_manifest_says_it_is_new(
    tmp_path: Path, writer: str
) -> None:
    path = WRITTEN[writer]().write(tmp_path / "a.tar")
    document, contents, made = read(path)
    assert_is(IMAGE, document, contents)
    assert made
    with DockerArchive(str(path)) as archive:
        assert archive.names() == [NAME]


def test_whatever_wrote_it_an_image_gets_the_same_manifest(tmp_path: Path) -> None:
    """Docker since 26 or so makes the very same one up, so both name one digest."""
    found = set()
    for number, write in enumerate(WRITTEN.values()):
        with DockerArchive(str(write().write(tmp_path / f"{number}.tar"))) as archive:
            found.add(archive.resolve(NAME).digest)
    assert len(found) == 1


def test_the_mark_is_on_the_entry_and_not_in_the_manifest(tmp_path: Path) -> None:
    path = flat(IMAGE, [NAME]).write(tmp_path / "a.tar")
    with DockerArchive(str(path)) as archive, Layout(str(tmp_path / "out"), write=True) as layout:
        assert failures(copy_all(archive, layout, [NAME])) == []
    (entry,) = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    assert entry["annotations"]["dev.ocimirror.manifest"] == "synthesised"
    manifest = contents_of(tmp_path / "out")[entry["digest"]]
    assert b"annotations" not in manifest
    assert faults_of(tmp_path / "out") == []


def test_an_archive_with_the_original_blobs_keeps_index_and_manifests(tmp_path: Path) -> None:
    config, layers = platform_parts(MULTI, "amd64")
    path = hybrid(MULTI, NAME, config, layers).write(tmp_path / "a.tar")
    _, contents, made = read(path)
    assert contents == MULTI.contents
    assert not made


def test_what_ctr_exports_keeps_its_digest() -> None:
    _, contents, made = read(FIXTURES / "ctr-export.tar")
    assert contents == MULTI.contents
    assert not made


def test_a_layout_without_manifest_json_is_read_by_its_index(tmp_path: Path) -> None:
    """As Docker's containerd store saves an image that is not for this machine."""
    config, layers = platform_parts(MULTI, "arm64")
    tar = hybrid(MULTI, NAME, config, layers)
    tar.members = [member for member in tar.members if member[0].name != "manifest.json"]
    assert read(tar.write(tmp_path / "a.tar"))[1] == MULTI.contents


def test_an_image_that_index_json_forgot_is_read_by_manifest_json(tmp_path: Path) -> None:
    tar = docker_since_25(IMAGE, NAME)
    tar.members = [member for member in tar.members if member[0].name != "index.json"]
    tar.file("index.json", b'{"schemaVersion":2,"manifests":null}')
    document, contents, made = read(tar.write(tmp_path / "a.tar"))
    assert_is(IMAGE, document, contents)
    assert made


def test_tags_that_only_manifest_json_has_are_names_too(tmp_path: Path) -> None:
    config, layers = platform_parts(MULTI, "amd64")
    tar = hybrid(MULTI, NAME, config, layers)
    tar.members = [member for member in tar.members if member[0].name != "manifest.json"]
    blobs = [f"blobs/{digest.replace(':', '/')}" for digest in layers]
    entry = {"Config": f"blobs/{config.replace(':', '/')}", "RepoTags": ["other:2"]}
    tar.json("manifest.json", [{**entry, "Layers": blobs}])
    with DockerArchive(str(tar.write(tmp_path / "a.tar"))) as archive:
        assert archive.names() == [NAME, "docker.io/library/other:2"]
        assert str(archive.resolve("other:2").digest) == MULTI.root


def test_a_tag_that_only_manifest_json_has_is_marked_like_the_others(tmp_path: Path) -> None:
    tar = docker_since_25(IMAGE, NAME)
    for place, (member, content) in enumerate(tar.members):
        if member.name == "manifest.json":
            (entry,) = json.loads(content)
            del tar.members[place]
            tar.json("manifest.json", [{**entry, "RepoTags": [NAME, "other:2"]}])
    with DockerArchive(str(tar.write(tmp_path / "a.tar"))) as archive:
        assert archive.resolve("other:2").digest == archive.resolve(NAME).digest
        marks = archive.resolve("other:2").annotations
        assert marks["dev.ocimirror.manifest"] == "synthesised"


def test_an_original_without_layers_is_not_taken_for_a_made_up_one(tmp_path: Path) -> None:
    builder = images.Builder()
    config = builder.blob(
        images.compact(images.config_of([], images.PLATFORMS[0])), images.OCI_CONFIG
    )
    document = {"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "config": config}
    raw = images.compact({**document, "layers": []})
    graph = builder.graph(builder.manifest(raw, images.OCI_MANIFEST))
    path = hybrid(graph, NAME, config["digest"], []).write(tmp_path / "a.tar")
    assert read(path)[2] is False


def test_what_podman_saves_is_read() -> None:
    document, contents, made = read(FIXTURES / "podman-docker-archive.tar")
    assert images.digest_of(contents[document["config"]["digest"]]).endswith("dfa552")
    assert made


@pytest.mark.parametrize("hard", [False, True])
def test_a_layer_that_is_a_link_to_another_is_read(tmp_path: Path, hard: bool) -> None:
    tar = flat(IMAGE, [NAME])
    names = [member.name for member, _ in tar.members[:2]]
    linked = [f"legacy{number}/layer.tar" for number in range(2)]
    for link, name in zip(linked, names, strict=True):
        tar.link(link, name if hard else f"../{name}", hard=hard)
    entry = {"Config": f"{IMAGE.hex}.json", "RepoTags": [NAME], "Layers": linked}
    tar.members = [member for member in tar.members if member[0].name != "manifest.json"]
    tar.json("manifest.json", [entry])
    document, contents, _ = read(tar.write(tmp_path / "a.tar"))
    assert_is(IMAGE, document, contents)


def test_a_layer_that_is_there_twice_is_read(tmp_path: Path) -> None:
    base = saved()
    tars = (base.tars[0], base.tars[1], base.tars[0])
    twice = Saved(images.compact(images.config_of(tars, images.PLATFORMS[0])), tars)
    path = docker_before_25(twice, NAME).write(tmp_path / "a.tar")
    document, contents, _ = read(path)
    assert_is(twice, document, contents)


@pytest.mark.parametrize("tags", [None, []])
def test_an_image_without_tags_is_the_only_image(tmp_path: Path, tags: list[str] | None) -> None:
    path = flat(IMAGE, tags).write(tmp_path / "a.tar")
    document, contents, _ = read(path)
    assert_is(IMAGE, document, contents)
    with DockerArchive(str(path)) as archive:
        assert archive.names() == []


def test_several_images_are_told_apart_by_name(tmp_path: Path) -> None:
    other = saved("other", 3)
    tar, second = flat(IMAGE, [NAME, "app:latest"]), flat(other, ["alpine:3"])
    (_, one), (_, two) = tar.members.pop(), second.members.pop()
    tar.members += second.members
    tar.json("manifest.json", [*json.loads(one), *json.loads(two)])
    path = tar.write(tmp_path / "a.tar")
    with DockerArchive(str(path)) as archive:
        assert archive.names() == [
            NAME,
            "docker.io/library/app:latest",
            "docker.io/library/alpine:3",
        ]
        with pytest.raises(UsageError, match="several images"):
            archive.resolve("")
    assert_is(other, *read(path, "alpine:3")[:2])
    assert_is(IMAGE, *read(path, "app")[:2])


def test_no_layers_at_all_are_an_image_too(tmp_path: Path) -> None:
    empty = Saved(images.compact(images.config_of([], images.PLATFORMS[0])), ())
    document, _, _ = read(flat(empty, [NAME]).write(tmp_path / "a.tar"))
    assert document["layers"] == []


@pytest.mark.parametrize("style", ["{}.json", "sha256:{}", "blobs/sha256/{}", "config.json"])
def test_a_config_may_have_any_name_that_does_not_lie(tmp_path: Path, style: str) -> None:
    name = style.format(IMAGE.hex)
    tar = flat(IMAGE, [NAME], Config=name)
    tar.file("./" + name if style == "config.json" else name, IMAGE.config)
    tar.members = [m for m in tar.members if m[0].name != f"{IMAGE.hex}.json"] + [
        m for m in tar.members[-1:] if style == "{}.json"
    ]
    document, contents, _ = read(tar.write(tmp_path / "a.tar"))
    assert_is(IMAGE, document, contents)


# --- compressed layers ---------------------------------------------------------------------------


def with_layers(image: Saved, layers: list[bytes]) -> DockerTar:
    """Make what kaniko, bazel and buildx write: layers as the registry has them."""
    tar = DockerTar()
    names = [f"layer{number}.tar.gz" for number in range(len(layers))]
    for name, content in zip(names, layers, strict=True):
        tar.file(name, content)
    tar.file(f"sha256:{image.hex}", image.config)
    entry = {"Config": f"sha256:{image.hex}", "RepoTags": [NAME], "Layers": names}
    tar.json("manifest.json", [entry])
    return tar


def test_compressed_layers_are_kept_as_they_are_and_checked(tmp_path: Path) -> None:
    layers = [gzip.compress(IMAGE.tars[0]), zstandard.compress(IMAGE.tars[1])]
    document, contents, made = read(with_layers(IMAGE, layers).write(tmp_path / "a.tar"))
    assert [layer["digest"] for layer in document["layers"]] == list(map(images.digest_of, layers))
    assert [layer["mediaType"] for layer in document["layers"]] == [
        images.OCI_LAYER_GZIP,
        images.OCI_LAYER_ZSTD,
    ]
    assert [contents[images.digest_of(layer)] for layer in layers] == layers
    assert made


def test_a_gzip_layer_of_several_members_is_one_layer(tmp_path: Path) -> None:
    first, second = IMAGE.tars
    layers = [gzip.compress(first[:700]) + gzip.compress(first[700:]), gzip.compress(second)]
    read(with_layers(IMAGE, layers).write(tmp_path / "a.tar"))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize(
    "damage",
    [
        lambda layer: layer[:-9],
        lambda layer: layer[:60] + bytes([layer[60] ^ 255]) + layer[61:],
        lambda layer: layer + b"more",
    ],
    ids=["cut", "flipped", "longer"],
)
def test_a_damaged_compressed_layer_is_refused(
    tmp_path: Path, compress: Callable[[bytes], bytes], damage: Callable[[bytes], bytes]
) -> None:
    layers = [damage(compress(IMAGE.tars[0])), compress(IMAGE.tars[1])]
    with pytest.raises(IntegrityError):
        read(with_layers(IMAGE, layers).write(tmp_path / "a.tar"))


def test_a_compressed_layer_that_is_another_is_refused(tmp_path: Path) -> None:
    layers = [gzip.compress(b"another"), gzip.compress(IMAGE.tars[1])]
    with pytest.raises(DigestMismatch, match="decompresses to"):
        DockerArchive(str(with_layers(IMAGE, layers).write(tmp_path / "a.tar")))


@pytest.mark.parametrize("magic", [b"BZh91AY&SY", b"\xfd7zXZ\x00"])
def test_what_oci_has_no_layer_type_for_is_not_supported(tmp_path: Path, magic: bytes) -> None:
    layers = [magic + b"...", IMAGE.tars[1]]
    with pytest.raises(Unsupported, match="compressed with"):
        DockerArchive(str(with_layers(IMAGE, layers).write(tmp_path / "a.tar")))


def test_a_tar_whose_first_file_is_called_like_a_compression_is_a_tar(tmp_path: Path) -> None:
    layer = images.tar_of({"BZh91AY": b"content"})
    image = Saved(images.compact(images.config_of([layer], images.PLATFORMS[0])), (layer,))
    document, contents, _ = read(flat(image, [NAME]).write(tmp_path / "a.tar"))
    assert_is(image, document, contents)


def test_a_bomb_is_defused(tmp_path: Path) -> None:
    layers = [images.zstd_zeros(10**11), IMAGE.tars[1]]
    with pytest.raises(DamagedLayout, match="256 times"):
        DockerArchive(str(with_layers(IMAGE, layers).write(tmp_path / "a.tar")))


def test_without_the_library_zstd_layers_are_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [zstandard.compress(tar) for tar in IMAGE.tars]
    path = with_layers(IMAGE, layers).write(tmp_path / "a.tar")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UsageError) as caught:
        DockerArchive(str(path))
    assert "ocimirror[docker-archive]" in caught.value.diagnostics()


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(EVIL_DOCKER_ARCHIVES) - DOCKER_MAY_PASS))
def test_a_hostile_docker_archive_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OciMirrorError) as caught:
        read(EVIL_DOCKER_ARCHIVES[name])
    assert caught.value.exit_code == 5
    shown = caught.value.diagnostics()
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert list(tmp_path.iterdir()) == []
    assert not (Path("/tmp") / CANARY).exists()
    assert name not in SHOWN_ESCAPED or "\\x1b" in shown


@pytest.mark.parametrize("name", sorted(set(EVIL_ARCHIVES) - MAY_PASS))
def test_what_is_hostile_as_a_layout_is_refused_here_too(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IntegrityError) as caught:
        read(EVIL_ARCHIVES[name])
    shown = caught.value.diagnostics()
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert list(tmp_path.iterdir()) == []
    assert not (Path("/tmp") / CANARY).exists()


def test_docker_before_1_10_is_refused_with_advice(tmp_path: Path) -> None:
    path = docker_before_1_10(IMAGE, NAME).write(tmp_path / "a.tar")
    with pytest.raises(Unsupported) as caught:
        DockerArchive(str(path))
    assert "before 1.10" in caught.value.message
    assert "save it from there" in caught.value.advice


@pytest.mark.parametrize("raw", [b"null", b"[]", b"{}", b"[1]", b"", b"[", b'[{"Config":1}]'])
def test_a_manifest_json_that_lists_no_image_is_refused(tmp_path: Path, raw: bytes) -> None:
    tar = flat(IMAGE, [NAME])
    tar.members.pop()
    tar.file("manifest.json", raw)
    with pytest.raises(MalformedManifest, match=r"manifest\.json"):
        DockerArchive(str(tar.write(tmp_path / "a.tar")))


@pytest.mark.parametrize(
    "changed",
    [
        {"Layers": None},
        {"Layers": ["x"]},
        {"Layers": "x"},
        {"Layers": [1, 2]},
        {"RepoTags": "app:1"},
        {"RepoTags": ["app"]},
        {"RepoTags": ["App:1"]},
        {"RepoTags": [f"app@{IMAGE.image_id}"]},
        {"Config": "../x"},
        {"Config": "/etc/passwd"},
    ],
    ids=repr,
)
def test_an_entry_that_does_not_fit_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        DockerArchive(str(flat(IMAGE, [NAME], **changed).write(tmp_path / "a.tar")))


def test_a_config_that_lists_other_layers_is_refused(tmp_path: Path) -> None:
    other = Saved(saved("other").config, IMAGE.tars)
    path = flat(other, [NAME]).write(tmp_path / "a.tar")
    # (Layers are named by their own digests here; the config names others.)
    with pytest.raises(DigestMismatch):
        read(path)


def test_layers_in_another_order_are_refused(tmp_path: Path) -> None:
    layers = [f"{digest.removeprefix('sha256:')}.tar" for digest in reversed(IMAGE.diff_ids)]
    with pytest.raises(IntegrityError):
        read(flat(IMAGE, [NAME], Layers=layers).write(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("a/layer.tar", "../../layer.tar"),
        ("a/layer.tar", "/etc/passwd"),
        ("a/layer.tar", ""),
        ("layer.tar", "a/../../etc/passwd"),
    ],
)
@pytest.mark.parametrize("hard", [False, True])
def test_a_link_that_leads_outside_is_refused_wherever_it_is(
    tmp_path: Path, link: str, target: str, hard: bool
) -> None:
    tar = flat(IMAGE, [NAME])
    tar.link(link, target, hard=hard)
    with pytest.raises(DamagedLayout):
        DockerArchive(str(tar.write(tmp_path / "a.tar")))


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    tar = flat(IMAGE, [NAME], Layers=["a/layer.tar", "b/layer.tar"])
    tar.link("a/layer.tar", "../b/layer.tar")
    tar.link("b/layer.tar", "../a/layer.tar")
    with pytest.raises(DamagedLayout, match="leads to no member"):
        DockerArchive(str(tar.write(tmp_path / "a.tar")))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_is_refused(tmp_path: Path, kind: bytes) -> None:
    tar = flat(IMAGE, [NAME])
    member = tarfile.TarInfo("device")
    member.type = kind
    tar.members.append((member, b""))
    with pytest.raises(DamagedLayout, match="device"):
        DockerArchive(str(tar.write(tmp_path / "a.tar")))


def test_an_archive_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = flat(IMAGE, [NAME]).write(tmp_path / "a.tar")
    whole = path.read_bytes()
    for keep in range(0, len(whole) - 1024, 1536):
        path.write_bytes(whole[:keep])
        with pytest.raises(IntegrityError):
            read(path)


def test_an_original_manifest_that_is_damaged_is_refused(tmp_path: Path) -> None:
    config, layers = platform_parts(MULTI, "amd64")
    tar = hybrid(MULTI, NAME, config, layers)
    for member, content in tar.members:
        if member.name.endswith(layers[0].removeprefix("sha256:")):
            changed = bytes([content[0] ^ 1]) + content[1:]
            tar.members[tar.members.index((member, content))] = (member, changed)
    with pytest.raises(DigestMismatch):
        read(tar.write(tmp_path / "a.tar"))


def test_two_layers_that_claim_one_diff_id_must_both_be_it(tmp_path: Path) -> None:
    tars = (IMAGE.tars[0], IMAGE.tars[0])
    twice = Saved(images.compact(images.config_of(tars, images.PLATFORMS[0])), tars)
    tar = DockerTar()
    tar.file("one.tar", IMAGE.tars[0])
    tar.file("two.tar", IMAGE.tars[0] + b"\0" * 512)
    tar.file(f"{twice.hex}.json", twice.config)
    entry = {"Config": f"{twice.hex}.json", "RepoTags": [NAME], "Layers": ["one.tar", "two.tar"]}
    tar.json("manifest.json", [entry])
    with pytest.raises((MalformedManifest, SizeMismatch)):
        read(tar.write(tmp_path / "a.tar"))


# --- a bare path ---------------------------------------------------------------------------------


def kind_of(path: Path, tmp_path: Path) -> str:
    """Return what the command takes a bare path for."""
    done = ocimirror("copy", path, f"oci:{tmp_path / 'out'}", "--dry-run", "--json")
    assert done.code == 0, done.stdout
    (image,) = done.document["images"]
    return str(image["source"]).partition(":")[0]


def test_a_bare_path_is_what_the_tar_holds(tmp_path: Path) -> None:
    held = {"a": flat(IMAGE, [NAME])}
    held |= {f"b{v}": docker_since_25(IMAGE, NAME, version=v) for v in (25, 28)}
    for name, tar in held.items():
        assert kind_of(tar.write(tmp_path / f"{name}.tar"), tmp_path) == "docker-archive"
    config, layers = platform_parts(MULTI, "amd64")
    kept = hybrid(MULTI, NAME, config, layers).write(tmp_path / "c.tar")
    for path in (kept, FIXTURES / "ctr-export.tar", FIXTURES / "skopeo-oci-archive.tar"):
        assert kind_of(path, tmp_path) == "oci-archive"
    (tmp_path / "no.tar").write_bytes(b"no tar")
    for name, code in (("nothing.tar", 4), ("no.tar", 5)):
        done = ocimirror("copy", tmp_path / name, f"oci:{tmp_path / 'out'}", "--json")
        assert (done.code, "docker-archive" in done.stdout) == (code, False)
