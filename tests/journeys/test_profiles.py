"""`copy … oci-archive: --profile`: the same image in archives that suit one engine each."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.command import Result, ocimirror
from tests.support.engines import podman_in, run_containerd, run_dockerd, short_directory
from tests.support.images import IMAGE_NAME_ANNOTATION

REPOSITORY = "reg.example.com/team/app"
NAME = f"{REPOSITORY}:1.0"
MULTI = images.multi()
AMD64 = ("--platform", "linux/amd64")


def archived(tmp_path: Path, profile: str, *options: str, graph: images.Graph = MULTI) -> Path:
    images.write_layout(tmp_path / "layout", {NAME: graph})
    archive = tmp_path / "a.tar"
    result = copied(tmp_path, archive, "--profile", profile, *AMD64, *options)
    assert result.code == 0, result.stderr
    return archive


def copied(tmp_path: Path, archive: Path, *options: str, fresh: bool = False) -> Result:
    layout = tmp_path / "layout"
    return ocimirror("copy", layout, f"oci-archive:{archive}", *options, fresh=fresh)


def config_of(graph: images.Graph, architecture: str = "amd64") -> str:
    for child in json.loads(graph.raw)["manifests"]:
        if child["platform"]["architecture"] == architecture:
            _, raw = graph.manifests[child["digest"]]
            return str(json.loads(raw)["config"]["digest"])
    raise AssertionError(architecture)


def members(archive: Path) -> dict[str, Any]:
    documents = {}
    with tarfile.open(archive) as tar:
        for name in tar.getnames():
            if name.endswith(".json"):
                file = tar.extractfile(name)
                assert file is not None
                documents[name] = json.loads(file.read())
    return documents


@pytest.mark.parametrize("profile", ["any", "docker", "containerd", "podman"])
def test_every_profile_is_read_back_as_the_same_image(tmp_path: Path, profile: str) -> None:
    archive = archived(tmp_path, profile)
    back = ocimirror("copy", f"oci-archive:{archive}:{NAME}", f"oci:{tmp_path}/back", "--json")
    assert back.code == 0, back.stderr
    assert back.document["images"][0]["digest"] == MULTI.root
    assert ocimirror("verify", archive).code == 0


def test_a_profile_gives_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Also in another Python, whose sets have another order."""
    one = archived(tmp_path, "any").read_bytes()
    assert copied(tmp_path, tmp_path / "b.tar", "--profile", "any", *AMD64, fresh=True).code == 0
    assert (tmp_path / "b.tar").read_bytes() == one


def test_without_a_profile_an_archive_has_no_docker_manifest(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {NAME: MULTI})
    assert copied(tmp_path, tmp_path / "a.tar").code == 0
    assert set(members(tmp_path / "a.tar")) == {"index.json"}


def test_what_refers_to_an_image_stays_out_of_an_engines_archive(tmp_path: Path) -> None:
    graphs = {NAME: MULTI}
    images.write_layout(tmp_path / "layout", graphs, unnamed=[images.with_subject(MULTI)])
    source, archive = f"oci:{tmp_path}/layout:{NAME}", f"oci-archive:{tmp_path}/a.tar"
    result = ocimirror("copy", source, archive, "--profile", "podman", "--json")
    assert result.document["images"][0]["referrers"] == 0
    assert "without signatures" in result.document["images"][0]["notes"][-1]
    assert len(members(tmp_path / "a.tar")["index.json"]["manifests"]) == 1


def test_a_profile_is_for_oci_archives_only(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {NAME: MULTI})
    result = ocimirror(
        "copy", tmp_path / "layout", f"oci:{tmp_path}/b", "--profile", "docker", "--json"
    )
    assert result.code == 2
    assert "--profile" in result.document["error"]["message"]


def test_a_platform_that_docker_is_to_load_must_be_there(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {NAME: MULTI})
    options = ("--profile", "docker", "--platform", "linux/s390x", "--json")
    result = copied(tmp_path, tmp_path / "a.tar", *options)
    assert result.code == 4
    assert "linux/arm64" in result.document["error"]["diagnostics"]
    assert not (tmp_path / "a.tar").exists()


def test_containerd_is_given_no_archive_without_a_full_name(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {"v1": images.single()})
    result = copied(tmp_path, tmp_path / "a.tar", "--profile", "containerd")
    assert result.code == 2
    assert "HOST/REPOSITORY:TAG" in result.stderr


@pytest.mark.parametrize("profile", ["any", "docker"])
def test_docker_loads_its_archive_with_image_id_and_tag(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, profile: str
) -> None:
    archive = archived(tmp_path, profile)
    with run_dockerd(short_directory(tmp_path_factory, "d")) as daemon:
        daemon.docker("load", "-i", str(archive))
        found = daemon.inspect(NAME)
    assert found["Id"] == config_of(MULTI)
    assert found["RepoTags"] == [NAME]


def test_containerd_imports_its_archive_with_every_name(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    archive = archived(tmp_path, "containerd")
    wanted = {
        entry["annotations"][IMAGE_NAME_ANNOTATION]
        for entry in members(archive)["index.json"]["manifests"]
    }
    with run_containerd(short_directory(tmp_path_factory, "c")) as daemon:
        daemon.ctr("images", "import", "--no-unpack", str(archive))
        assert set(daemon.names()) == wanted
    assert f"{REPOSITORY}@{MULTI.root}" in wanted


def test_podman_pulls_its_archive_with_the_digest(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    archive = archived(tmp_path, "podman")
    engine = podman_in(short_directory(tmp_path_factory, "p"))
    engine.podman("pull", "-q", f"oci-archive:{archive}")
    (found,) = json.loads(engine.podman("image", "inspect", NAME))
    assert f"{REPOSITORY}@{MULTI.root}" in found["RepoDigests"]
    assert f"sha256:{found['Id']}" == config_of(MULTI)
