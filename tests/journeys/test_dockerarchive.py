"""docker-archive: in and out, judged by dockerd, podman, containerd and skopeo."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import platform
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.support import images
from tests.support.command import PROGRAM, Result, environment, ocimirror
from tests.support.dockerarchives import (
    DockerTar,
    Saved,
    docker_before_1_10,
    docker_before_25,
    docker_since_25,
    flat,
    of_builders,
    platform_parts,
    saved,
)
from tests.support.engines import (
    Dockerd,
    podman_in,
    run_containerd,
    run_dockerd,
    short_directory,
)
from tests.support.judge import contents_of, faults_of, names_of
from tests.support.programs import require_program

NAME = "reg.example.com/team/app:1.0"
MULTI = images.multi()
IMAGE = saved()


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    with run_dockerd(short_directory(tmp_path_factory, "d")) as daemon:
        yield daemon


def layout_of(tmp_path: Path, graph: images.Graph, name: str = NAME) -> str:
    images.write_layout(tmp_path / "layout", {name: graph})
    return f"oci:{tmp_path}/layout:{name}"


def written(tmp_path: Path, graph: images.Graph, *options: str) -> Path:
    path = tmp_path / "a.tar"
    result = ocimirror("copy", layout_of(tmp_path, graph), f"docker-archive:{path}", *options)
    assert result.code == 0, result.stderr
    return path


def document_of(path: Path) -> Any:
    with tarfile.open(path) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        return json.loads(file.read())


def image_id_by_skopeo(path: Path) -> str:
    skopeo = require_program("skopeo", "skopeo")
    command = [skopeo, "inspect", "--config", "--raw", f"docker-archive:{path}"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def image_of(result: Result) -> dict[str, Any]:
    assert result.code == 0, result.stderr
    (image,) = result.document["images"]
    return dict(image)


CASES = {
    "an index": (MULTI, "linux/amd64", platform_parts(MULTI, "amd64")[0]),
    "another platform": (MULTI, "linux/arm64", platform_parts(MULTI, "arm64")[0]),
    **{
        name: (graph, "", json.loads(graph.raw)["config"]["digest"])
        for name, graph in {
            "one manifest": images.single(),
            "docker schema 2": images.docker_schema2(),
            "plain and zstd layers": images.uncompressed_and_zstd(),
            "odd bytes": images.odd_bytes(),
        }.items()
    },
}


@pytest.mark.parametrize("case", CASES)
def test_an_image_keeps_its_id_out_and_in_and_out_again(tmp_path: Path, case: str) -> None:
    graph, platform, image_id = CASES[case]
    first = written(tmp_path, graph, *(["--platform", platform] if platform else []))
    back = ocimirror("copy", first, f"oci:{tmp_path}/back", "--json")
    again = ocimirror("copy", f"oci:{tmp_path}/back", f"docker-archive:{tmp_path}/b.tar")

    assert again.code == 0, again.stderr
    assert image_id_by_skopeo(first) == image_id_by_skopeo(tmp_path / "b.tar") == image_id
    assert (tmp_path / "b.tar").read_bytes() == first.read_bytes()
    assert image_of(back)["synthesised"] is True
    assert names_of(tmp_path / "back") == {NAME: image_of(back)["digest"]}
    assert faults_of(tmp_path / "back") == []
    assert contents_of(tmp_path / "back")[image_id] == graph.blobs[image_id]


@pytest.mark.parametrize("case", [case for case in CASES if case != "odd bytes"])
def test_docker_loads_what_we_write_and_we_read_what_it_saves(
    tmp_path: Path, dockerd: Dockerd, case: str
) -> None:
    graph, platform, image_id = CASES[case]
    path = written(tmp_path, graph, *(["--platform", platform] if platform else []))
    dockerd.docker("load", "-i", str(path))
    found = dockerd.inspect(NAME)
    dockerd.docker("save", "-o", str(tmp_path / "saved.tar"), NAME)
    result = ocimirror("copy", tmp_path / "saved.tar", f"oci:{tmp_path}/back", "--json")
    dockerd.docker("rmi", "-f", image_id)

    assert found["Id"] == image_id
    assert found["RepoTags"] == [NAME]
    assert image_of(result)["synthesised"] is True
    notes = " ".join(image_of(result)["notes"])
    assert f"image ID {image_id}: original, verified" in notes
    assert "NEW" in notes
    assert "will not equal the registry's" in notes
    assert faults_of(tmp_path / "back") == []
    assert contents_of(tmp_path / "back")[image_id] == graph.blobs[image_id]


def test_docker_saves_several_images_and_each_is_read(tmp_path: Path, dockerd: Dockerd) -> None:
    ids = {}
    for name, graph in {"one:1": images.single(), "two:2": images.docker_schema2()}.items():
        path = tmp_path / "a.tar"
        copied = ocimirror(
            "copy", layout_of(tmp_path, graph, name), f"docker-archive:{path}:{name}"
        )
        assert copied.code == 0, copied.stderr
        dockerd.docker("load", "-i", str(path))
        ids[name] = json.loads(graph.raw)["config"]["digest"]
    dockerd.docker("save", "-o", str(tmp_path / "both.tar"), *ids)

    listed = ocimirror("list", tmp_path / "both.tar", "--json").document["images"]
    assert {image["name"] for image in listed} == {
        "docker.io/library/one:1",
        "docker.io/library/two:2",
    }
    for name, image_id in ids.items():
        place = f"docker-archive:{tmp_path}/both.tar:{name}"
        assert image_id in " ".join(
            image_of(ocimirror("copy", place, f"oci:{tmp_path}/out", "--json"))["notes"]
        )
    several = ocimirror("copy", tmp_path / "both.tar", f"oci:{tmp_path}/out")
    assert several.code == 2
    assert "docker.io/library/two:2" in several.stderr


def test_podman_loads_what_we_write_and_we_read_what_it_saves(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graph, platform, image_id = CASES["an index"]
    path = written(tmp_path, graph, "--platform", platform)
    engine = podman_in(short_directory(tmp_path_factory, "p"))
    engine.podman("load", "-q", "-i", str(path))
    (found,) = json.loads(engine.podman("image", "inspect", NAME))
    saved_by_podman = tmp_path / "saved.tar"
    engine.podman("save", "-q", "--format", "docker-archive", "-o", str(saved_by_podman), NAME)
    result = ocimirror("inspect", saved_by_podman, "--json")

    assert f"sha256:{found['Id']}" == image_id
    assert result.document["blobs"][0]["digest"] == image_id
    assert result.document["synthesised"] is True
    assert ocimirror("verify", saved_by_podman).code == 0


def test_containerd_imports_what_we_write_and_we_read_what_it_exports(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path, images.single())
    archive = tmp_path / "oci.tar"
    assert ocimirror("copy", layout_of(tmp_path, MULTI), f"oci-archive:{archive}").code == 0
    with run_containerd(short_directory(tmp_path_factory, "c")) as daemon:
        daemon.ctr("images", "import", "--no-unpack", str(path))
        assert daemon.names() == [NAME]
        daemon.ctr("images", "rm", NAME)
        daemon.ctr("images", "import", "--no-unpack", "--all-platforms", str(archive))
        exported = tmp_path / "exported.tar"
        daemon.ctr("images", "export", "--all-platforms", str(exported), NAME)
    result = ocimirror("copy", f"docker-archive:{exported}", f"oci:{tmp_path}/back", "--json")

    assert image_of(result)["digest"] == MULTI.root
    assert image_of(result)["synthesised"] is False
    assert contents_of(tmp_path / "back") == MULTI.contents


# --- what is said --------------------------------------------------------------------------------


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    source = layout_of(tmp_path, MULTI)
    options = ("--platform", "linux/amd64", "--json")
    image = image_of(ocimirror("copy", source, f"docker-archive:{tmp_path}/a.tar", *options))
    config, _ = platform_parts(MULTI, "amd64")
    assert image["notes"] == [
        f"image ID {config}: kept",
        f"index {MULTI.root}: lost, with the other platforms",
        f"manifest digest {image['digest']}: lost",
        "signatures, SBOMs and attestations: lost",
    ]
    assert image["destination"] == f"docker-archive:{tmp_path}/a.tar:{NAME}"


def test_list_and_inspect_say_that_a_manifest_is_new(tmp_path: Path) -> None:
    path = flat(IMAGE, [NAME]).write(tmp_path / "a.tar")
    listed = ocimirror("list", path)
    shown = ocimirror("inspect", f"docker-archive:{path}:{NAME}")
    assert "NEW" in listed.stdout
    assert f"image ID {IMAGE.image_id}: original" in shown.stdout
    assert "will not equal the registry's" in shown.stdout
    (image,) = ocimirror("list", path, "--json").document["images"]
    assert (image["name"], image["synthesised"]) == (NAME, True)


def test_the_mark_goes_along_from_layout_to_archive(tmp_path: Path) -> None:
    path = flat(IMAGE, [NAME]).write(tmp_path / "a.tar")
    assert ocimirror("copy", path, f"oci:{tmp_path}/layout").code == 0
    again = ocimirror("copy", path, f"oci:{tmp_path}/layout", "--json")
    onward = ocimirror("copy", f"oci:{tmp_path}/layout", f"oci-archive:{tmp_path}/b.tar", "--json")
    (listed,) = ocimirror("list", tmp_path / "b.tar", "--json").document["images"]
    assert image_of(again)["status"] == "unchanged"
    assert image_of(onward)["synthesised"] is True
    assert listed["synthesised"] is True


def test_what_docker_has_saved_before_and_since_25_is_one_image(tmp_path: Path) -> None:
    docker_before_25(IMAGE, NAME).write(tmp_path / "a.tar")
    docker_since_25(IMAGE, NAME).write(tmp_path / "b.tar")
    first = ocimirror("copy", f"docker-archive:{tmp_path}/a.tar", f"oci:{tmp_path}/out", "--json")
    second = ocimirror("copy", f"docker-archive:{tmp_path}/b.tar", f"oci:{tmp_path}/out", "--json")
    assert image_of(first)["digest"] == image_of(second)["digest"]
    assert image_of(second)["status"] == "unchanged"


def test_verify_finds_a_layer_that_is_not_its_diff_id(tmp_path: Path) -> None:
    other = Saved(saved("other").config, IMAGE.tars)
    path = flat(other, [NAME]).write(tmp_path / "a.tar")
    result = ocimirror("verify", path, "--json")
    assert result.code == 5
    assert {fault["kind"] for fault in result.document["faults"]} <= {"corrupt", "wrong_size"}
    assert len(result.document["faults"]) == 2


def test_an_archive_of_old_docker_is_refused_with_advice(tmp_path: Path) -> None:
    path = docker_before_1_10(IMAGE, NAME).write(tmp_path / "a.tar")
    result = ocimirror("copy", path, f"oci:{tmp_path}/out")
    assert result.code == 4
    assert "Docker before 1.10" in result.stderr
    assert not (tmp_path / "out").exists()


# --- as a destination ----------------------------------------------------------------------------


def test_standard_output_carries_the_same_archive_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path, images.uncompressed_and_zstd())
    piped = ocimirror("copy", layout_of(tmp_path, images.single()), "docker-archive:-", "--json")
    assert piped.code == 2
    piped = ocimirror("copy", f"oci:{tmp_path}/layout:{NAME}", "docker-archive:-")
    written(tmp_path, images.single())
    assert piped.code == 0
    assert piped.raw == path.read_bytes()
    assert "image ID" in piped.stderr


def test_an_archive_on_standard_input_is_read(tmp_path: Path) -> None:
    path = flat(IMAGE, [NAME]).write(tmp_path / "a.tar")
    command = [PROGRAM, "list", "docker-archive:-"]
    done = subprocess.run(
        command, input=path.read_bytes(), capture_output=True, env=environment(), check=True
    )
    assert NAME in done.stdout.decode()


@pytest.mark.parametrize(
    ("name", "reference", "tags"),
    [
        ("docker.io/library/alpine:3", "", ["docker.io/library/alpine:3"]),
        ("alpine:3", "busybox", ["docker.io/library/busybox:latest"]),
        ("alpine:3", "host:5000/a/b:2", ["host:5000/a/b:2"]),
        (f"reg.example.com/app@{images.single().root}", "", None),
        ("v1", "", None),
        ("v1", "app:1", ["docker.io/library/app:1"]),
    ],
)
def test_a_reference_names_the_image_in_the_archive(
    tmp_path: Path, name: str, reference: str, tags: list[str] | None
) -> None:
    images.write_layout(tmp_path / "layout", {name: images.single()})
    place = f"docker-archive:{tmp_path}/a.tar" + (f":{reference}" if reference else "")
    result = ocimirror("copy", tmp_path / "layout", place, "--json")
    assert document_of(tmp_path / "a.tar")[0]["RepoTags"] == tags
    assert any(note.startswith("tag: none") for note in image_of(result)["notes"]) == (tags is None)


@pytest.mark.parametrize("reference", [f"app@{MULTI.root}", f"@{MULTI.root}", "App"])
def test_docker_has_no_images_named_by_digest(tmp_path: Path, reference: str) -> None:
    place = f"docker-archive:{tmp_path}/a.tar:{reference}"
    result = ocimirror("copy", layout_of(tmp_path, images.single()), place)
    assert result.code == 2
    assert not (tmp_path / "a.tar").exists()


@pytest.mark.parametrize("platforms", [["linux/amd64", "linux/arm64"], ["linux/s390x"]])
def test_one_platform_is_wanted_and_the_others_are_listed(
    tmp_path: Path, platforms: list[str]
) -> None:
    options = [word for platform in platforms for word in ("--platform", platform)]
    place = f"docker-archive:{tmp_path}/a.tar"
    result = ocimirror("copy", layout_of(tmp_path, MULTI), place, *options)
    assert result.code == (2 if len(platforms) > 1 else 4)
    assert "linux/amd64, linux/arm64, linux/arm/v7" in result.stderr
    assert not (tmp_path / "a.tar").exists()


def test_a_sparse_layout_gives_the_platform_that_it_has(tmp_path: Path) -> None:
    source = layout_of(tmp_path, MULTI)
    sparse = ocimirror("copy", source, f"oci:{tmp_path}/sparse", "--platform", "linux/arm/v7")
    assert sparse.code == 0, sparse.stderr
    path = tmp_path / "a.tar"
    assert ocimirror("copy", f"oci:{tmp_path}/sparse", f"docker-archive:{path}").code == 0
    assert image_id_by_skopeo(path) == platform_parts(MULTI, "arm")[0]


def test_a_sparse_layout_of_several_platforms_gives_this_machines(tmp_path: Path) -> None:
    source = layout_of(tmp_path, MULTI)
    options = ("--platform", "linux/arm64", "--platform", "linux/amd64")
    assert ocimirror("copy", source, f"oci:{tmp_path}/sparse", *options).code == 0
    result = ocimirror("copy", f"oci:{tmp_path}/sparse", f"docker-archive:{tmp_path}/a.tar")
    known = {name: platform_parts(MULTI, name)[0] for name in ("amd64", "arm64")}
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
    assert result.code == (0 if machine in known else 2), result.stderr
    if machine in known:
        assert image_id_by_skopeo(tmp_path / "a.tar") == known[machine]


@pytest.mark.parametrize("graph", [images.artifact(), images.foreign_layer()])
def test_what_docker_could_not_load_is_not_written(tmp_path: Path, graph: images.Graph) -> None:
    place = f"docker-archive:{tmp_path}/a.tar"
    result = ocimirror("copy", layout_of(tmp_path, graph), place, "--allow-foreign")
    assert result.code == 4, result.stderr
    assert not (tmp_path / "a.tar").exists()


def test_a_damaged_layer_spoils_no_archive(tmp_path: Path) -> None:
    graph = images.single()
    source = layout_of(tmp_path, graph)
    blob = images.blob_path(tmp_path / "layout", list(graph.blobs)[-1])
    blob.write_bytes(blob.read_bytes()[::-1])
    (tmp_path / "a.tar").write_bytes(b"the old one")
    result = ocimirror("copy", source, f"docker-archive:{tmp_path}/a.tar", "--json")
    assert result.code == 5
    assert (tmp_path / "a.tar").read_bytes() == b"the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "layout"]


def test_without_the_library_zstd_layers_are_found_out_before_anything_moves(
    tmp_path: Path,
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "zstandard.py").write_text("raise ImportError")
    source = layout_of(tmp_path, images.uncompressed_and_zstd())
    env = environment(PYTHONPATH=str(tmp_path / "hidden"))
    result = ocimirror("copy", source, f"docker-archive:{tmp_path}/a.tar", "--dry-run", env=env)
    assert result.code == 2
    assert "ocimirror[docker-archive]" in result.stderr


def test_a_config_that_does_not_fit_is_the_sources_fault(tmp_path: Path) -> None:
    builder = images.Builder()
    raw = images.compact(images.config_of([], images.PLATFORMS[0]))
    config = builder.blob(raw, images.OCI_CONFIG)
    layer = builder.blob(images.gzip_stored(b"layer"), images.OCI_LAYER_GZIP)
    document = {"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "config": config}
    raw = images.compact({**document, "layers": [layer]})
    graph = builder.graph(builder.manifest(raw, images.OCI_MANIFEST))
    place = f"docker-archive:{tmp_path}/a.tar"
    result = ocimirror("copy", layout_of(tmp_path, graph), place, "--json")
    assert result.code == 5
    assert result.document["images"][0]["error"]["side"] == "source"
    assert not (tmp_path / "a.tar").exists()


def test_a_bomb_becomes_no_archive(tmp_path: Path) -> None:
    source = layout_of(tmp_path, images.decompression_bomb(3 * 10**9))
    result = ocimirror("copy", source, f"docker-archive:{tmp_path}/a.tar")
    assert result.code == 5
    assert "256 times" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout"]


def test_an_image_of_a_layout_is_read_once_and_staged_nowhere(tmp_path: Path) -> None:
    """What goes to standard output passes through: the temporary directory stays empty."""
    (large,) = images.shared_layers(1, 2, 8_000_000, 0.0)
    source = layout_of(tmp_path, large)
    (tmp_path / "tmp").mkdir()
    command = ["strace", "-f", "-e", "trace=openat", PROGRAM, "copy", source, "docker-archive:-"]
    require_program("strace", "strace")
    env = {**environment(), "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(command, capture_output=True, env=env, check=True)
    made = [line for line in done.stderr.decode().splitlines() if "O_CREAT" in line]
    layers = [digest for digest, content in large.blobs.items() if len(content) > 1_000_000]
    assert layers
    assert not any(digest.partition(":")[2] in line for digest in layers for line in made)


@pytest.mark.parametrize("scheme", ["docker-archive", "oci-archive"])
def test_a_signal_ends_the_writing_of_an_archive(tmp_path: Path, scheme: str) -> None:
    (large,) = images.shared_layers(1, 2, 8_000_000, 0.0)
    source = layout_of(tmp_path, large)
    (tmp_path / "tmp").mkdir()
    env = environment(TMPDIR=str(tmp_path / "tmp"))
    command = [PROGRAM, "copy", source, f"{scheme}:-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as run:
        assert run.stdout is not None
        begun = run.stdout.read(1_000_000)  # (then it waits for us)
        run.send_signal(signal.SIGTERM)
        rest = run.stdout.read()
    assert run.returncode == 143
    assert len(begun + rest) < sum(map(len, large.blobs.values()))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_signal_ends_the_hashing_of_compressed_layers(tmp_path: Path) -> None:
    zeros = zstandard.compress(bytes(64 * 1024 * 1024)) * 15
    tar = DockerTar()
    tar.file("layer", zeros)
    config = images.config_of([b"another"], images.PLATFORMS[0])
    tar.json("config.json", config)
    tar.json("manifest.json", [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer"]}])
    path = tar.write(tmp_path / "a.tar")
    command = [PROGRAM, "copy", f"docker-archive:{path}", f"oci:{tmp_path}/out"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as run:
        deadline = time.monotonic() + 10
        while f"{path}" not in _open_files(run.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        run.send_signal(signal.SIGTERM)
        assert run.stderr is not None
        told = run.stderr.read().decode()
    assert run.returncode == 143, told


def _open_files(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    place = f"docker-archive:{tmp_path}/a.tar"
    result = ocimirror("copy", layout_of(tmp_path, images.single()), place, "--dry-run", "--json")
    assert image_of(result)["status"] == "planned"
    assert not (tmp_path / "a.tar").exists()


@pytest.mark.parametrize("padding", [b"\0", b"\0" * 1000, b"\0" * 70_000])
def test_a_gzip_layer_padded_with_zeros_is_written_and_read_back(
    tmp_path: Path, padding: bytes
) -> None:
    tar = images.tar_of(images.files_of("padded"))
    image = Saved(images.compact(images.config_of((tar,), images.PLATFORMS[0])), (tar,))
    half = len(tar) // 2
    layer = gzip.compress(tar[:half]) + padding + gzip.compress(tar[half:]) + padding
    archive = DockerTar()
    archive.file("config.json", image.config)
    archive.file("layer.tar.gz", layer)
    archive.json(
        "manifest.json",
        [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar.gz"]}],
    )
    archive.write(tmp_path / "in.tar")

    read = ocimirror("copy", f"docker-archive:{tmp_path}/in.tar", f"oci:{tmp_path}/l:{NAME}")
    again = ocimirror("copy", f"oci:{tmp_path}/l:{NAME}", f"docker-archive:{tmp_path}/out.tar")
    back = ocimirror("copy", f"docker-archive:{tmp_path}/out.tar", f"oci:{tmp_path}/m:{NAME}")

    assert (read.code, again.code, back.code) == (0, 0, 0), read.stderr + back.stderr
    assert layer in contents_of(tmp_path / "m").values()


def test_archives_of_builders_are_read(tmp_path: Path) -> None:
    """Docker 20.10 and 28, podman 4.3 and skopeo were seen to load each of them."""
    image = saved("builders")
    for name, tar in of_builders(image).items():
        path = tar.write(tmp_path / f"{name}.tar")
        done = ocimirror("copy", path, f"oci:{tmp_path}/{name}", "--json")
        assert done.code == 0, (name, done.stderr)
        assert names_of(tmp_path / name) == {f"reg.example.com/{name}:1": image_of(done)["digest"]}
        assert contents_of(tmp_path / name)[image.image_id] == image.config


def test_a_config_that_is_not_what_its_name_says_is_read_with_a_warning(tmp_path: Path) -> None:
    """docker, podman, skopeo and crane take it; but a changed byte looks the same."""
    image, name = saved("odd"), "a" * 64 + ".json"
    tar = flat(image, ["reg.example.com/odd:1"], Config=name)
    tar.file(name, image.config)
    archive = tar.write(tmp_path / "a.tar")
    done = ocimirror("copy", archive, f"oci:{tmp_path}/out")
    assert done.code == 0, done.stderr
    assert f"has digest {image.image_id}: it is damaged, or was named so" in done.stderr
    assert contents_of(tmp_path / "out")[image.image_id] == image.config
    assert ocimirror("list", archive).stderr.count("it is damaged, or was named so") == 1
    checked = ocimirror("verify", archive, "--json")
    assert checked.code == 5
    assert [fault["kind"] for fault in checked.document["faults"]] == ["corrupt"]


def test_a_config_that_is_kept_by_its_digest_has_to_have_it(tmp_path: Path) -> None:
    image, name = saved("odd"), "blobs/sha256/" + "a" * 64
    tar = flat(image, ["reg.example.com/odd:1"], Config=name)
    tar.file(name, image.config)
    done = ocimirror("copy", tar.write(tmp_path / "a.tar"), f"oci:{tmp_path}/out")
    assert done.code == 5
    assert "wanted sha256:aaaa" in done.stderr


def test_the_bytes_of_a_docker_archive_are_those_of_the_file(tmp_path: Path) -> None:
    """A zstd layer is decompressed in there, and layers of a layout are read at the end."""
    path = tmp_path / "a.tar"
    layout = images.write_layout(tmp_path / "layout", {NAME: images.uncompressed_and_zstd()})
    done = ocimirror("copy", f"oci:{layout}:{NAME}", f"docker-archive:{path}", "--json")
    size = path.stat().st_size
    assert image_of(done)["bytes"] == {"total": size, "copied": size}
    assert done.document["totals"]["bytes_copied"] == size


def test_the_keys_of_manifest_json_are_read_in_any_case_as_go_does(tmp_path: Path) -> None:
    archive = DockerTar()
    archive.file("config.json", IMAGE.config)
    names = []
    for number, tar in enumerate(IMAGE.tars):
        names.append(f"{number}.tar")
        archive.file(names[-1], tar)
    archive.json("manifest.json", [{"config": "config.json", "repoTags": [NAME], "layers": names}])
    archive.write(tmp_path / "jib.tar")

    result = ocimirror("copy", f"docker-archive:{tmp_path}/jib.tar", f"oci:{tmp_path}/l")

    assert result.code == 0, result.stderr
    assert IMAGE.config in contents_of(tmp_path / "l").values()
    assert image_id_by_skopeo(tmp_path / "jib.tar") == IMAGE.image_id


def test_one_bad_image_does_not_stop_the_others(tmp_path: Path) -> None:
    """And a layer may be there twice with the same bytes, as builders write it."""
    archive = DockerTar()
    archive.file("config.json", IMAGE.config)
    names = []
    for number, tar in enumerate([*IMAGE.tars, IMAGE.tars[0]]):
        names.append(f"{number % len(IMAGE.tars)}.tar")
        archive.file(names[-1], tar)
    layers = names[: len(IMAGE.tars)]
    good = {"Config": "config.json", "RepoTags": [NAME], "Layers": layers}
    bad = [
        {"Config": "absent.json", "RepoTags": ["example.com/bad:1"], "Layers": layers},
        {"Config": "config.json", "RepoTags": ["NO NAME"], "Layers": layers},
    ]
    archive.json("manifest.json", [bad[0], good, bad[1]])
    archive.write(tmp_path / "three.tar")
    source = f"docker-archive:{tmp_path}/three.tar"

    assert ocimirror("copy", f"{source}:{NAME}", f"oci:{tmp_path}/l:{NAME}").code == 0
    assert IMAGE.config in contents_of(tmp_path / "l").values()
    assert ocimirror("copy", f"{source}:example.com/bad:1", f"oci:{tmp_path}/m").code == 5
    every = ocimirror("copy", source, f"oci:{tmp_path}/n:{NAME}", "--json")
    assert [image["status"] for image in every.document["images"]] == ["copied"] + 2 * ["failed"]
    verified = ocimirror("verify", source)
    assert (verified.code, verified.stdout.count("make the archive anew")) == (5, 2)
    assert "repair" not in verified.stdout
    listed = ocimirror("list", source).stdout.splitlines()
    assert listed[-1].startswith("manifests[2]  cannot be read: [2] of manifest.json")


def test_a_lone_image_for_another_platform_is_not_found(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, images.single())

    copied = ocimirror(
        "copy", layout, f"docker-archive:{tmp_path}/x.tar", "--platform", "linux/s390x"
    )

    assert copied.code == 4
    assert not (tmp_path / "x.tar").exists()


def test_the_image_id_of_a_sha512_config_is_not_said_to_be_kept(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, images.sha512_image())

    copied = ocimirror("copy", layout, f"docker-archive:{tmp_path}/x.tar", "--json")

    assert copied.code == 0, copied.stderr
    notes = " ".join(image_of(copied)["notes"])
    assert "image ID sha512" not in notes
    assert "another image ID" in notes
