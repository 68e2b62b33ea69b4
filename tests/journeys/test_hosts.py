"""hosts: settings as they are printed, judged by the engines that they are for.

The names of the source registries end in .invalid, which never resolves: what is pulled by them
came from the mirror.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.engines import (
    Containerd,
    Podman,
    podman_in,
    remove,
    run,
    run_containerd,
    run_dockerd,
    short_directory,
)
from tests.support.servers import run_docker_registry
from tests.support.serving import serving
from tests.support.witness import Registry

SOURCE, PORTED = "source.invalid", "source.invalid:5000"
IMAGE, OTHER = images.multi(), images.single()
HUB_IMAGE = "docker.io/library/fixture:2.0"


def settings(*arguments: str | Path) -> dict[str, str]:
    """Return path → content of the files that a command prints; the last of each path."""
    done = ocimirror("hosts", *arguments, "--json")
    assert done.code == 0, done.stderr
    return {file["path"]: file["content"] for file in done.document["files"]}


def layout_of(tmp_path: Path, *names: str) -> Path:
    return images.write_layout(tmp_path / "layout", dict.fromkeys(names, IMAGE))


def manifests() -> set[str]:
    return {IMAGE.root, json.loads(IMAGE.raw)["manifests"][0]["digest"]}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Run a registry that push has filled, with hosts in paths and without."""
    directory = tmp_path_factory.mktemp("mirror")
    with run_docker_registry(directory / "registry") as registry:
        layout = layout_of(directory, f"{PORTED}/team/app:1.0")
        assert ocimirror("push", layout, registry.host).code == 0
        assert ocimirror("push", layout, f"{registry.host}/prefix", "--keep-host").code == 0
        yield registry


@pytest.fixture
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    directory = short_directory(tmp_path_factory, "p")
    yield podman_in(directory)
    remove(directory)


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    directory = short_directory(tmp_path_factory, "c")
    with run_containerd(directory) as containerd:
        yield containerd
    remove(directory)


# --- podman -------------------------------------------------------------------------------------


def pull_with_podman(podman: Podman, configuration: str, name: str) -> None:
    file = podman.directory / "registries.conf"
    podman.directory.mkdir(exist_ok=True)
    file.write_text(configuration)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CONTAINERS_REGISTRIES_CONF": str(file)}
    run([*podman.argv, "pull", "-q", name], env=environment)


@pytest.mark.parametrize("kept", [False, True], ids=["same path", "host in the path"])
def test_podman_pulls_by_tag_and_digest_from_the_mirror_alone(
    mirror: Registry, podman: Podman, kept: bool
) -> None:
    where = [f"http://{mirror.host}/prefix", "--keep-host"] if kept else [f"http://{mirror.host}"]
    (configuration,) = settings(*where, PORTED, "--for", "podman").values()
    for name in (f"{PORTED}/team/app:1.0", f"{PORTED}/team/app@{IMAGE.root}"):
        pull_with_podman(podman, configuration, name)
        assert "image" in podman.podman("image", "inspect", name, "--format", "an image")
    found = json.loads(podman.podman("image", "inspect", f"{PORTED}/team/app:1.0"))[0]
    assert {f"{PORTED}/team/app@{digest}" for digest in manifests()} <= set(found["RepoDigests"])


def test_podman_asks_a_digest_only_mirror_for_no_tag(mirror: Registry, podman: Podman) -> None:
    url = f"http://{mirror.host}"
    (configuration,) = settings(url, PORTED, "--for", "podman", "--digest-only").values()
    pull_with_podman(podman, configuration, f"{PORTED}/team/app@{IMAGE.root}")
    with pytest.raises(AssertionError, match="lookup"):
        pull_with_podman(podman, configuration, f"{PORTED}/team/app:1.0")


# --- containerd ---------------------------------------------------------------------------------


def place_for_containerd(containerd: Containerd, files: dict[str, str]) -> Path:
    """Put files of /etc/containerd/certs.d where a containerd of the test reads them."""
    root = containerd.directory / "certs.d"
    for path, content in files.items():
        if path.endswith("hosts.toml"):
            file = root / Path(path).relative_to("/etc/containerd/certs.d")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    return root


def pull_with_ctr(containerd: Containerd, files: dict[str, str], name: str) -> None:
    root = place_for_containerd(containerd, files)
    containerd.ctr("content", "fetch", "--hosts-dir", str(root), "--all-platforms", name)


@pytest.mark.parametrize("kept", [False, True], ids=["same path", "host in the path"])
def test_containerd_pulls_from_the_mirror_alone(
    mirror: Registry, containerd: Containerd, kept: bool
) -> None:
    where = [f"http://{mirror.host}/prefix", "--keep-host"] if kept else [f"http://{mirror.host}"]
    files = settings(*where, PORTED, "--for", "containerd")
    assert "/etc/containerd/certs.d/source.invalid_5000_/hosts.toml" in files
    name = f"{PORTED}/team/app:1.0"
    pull_with_ctr(containerd, files, name)
    assert IMAGE.root in containerd.ctr("images", "ls", f"name=={name}")
    containerd.ctr("images", "rm", "--sync", name)


def test_containerd_asks_a_mirror_for_every_registry(
    mirror: Registry, containerd: Containerd
) -> None:
    files = settings(f"http://{mirror.host}", "--for", "containerd")
    name = "another.invalid/team/app:1.0"
    pull_with_ctr(containerd, files, name)
    assert IMAGE.root in containerd.ctr("images", "ls", f"name=={name}")
    containerd.ctr("images", "rm", "--sync", name)
    (containerd.directory / "certs.d" / "_default" / "hosts.toml").unlink()


def test_containerd_trusts_the_ca_that_is_named(
    tls_registry: Registry, containerd: Containerd, tmp_path: Path
) -> None:
    assert tls_registry.ca_file is not None
    layout = layout_of(tmp_path, f"{SOURCE}/hosts/tls:1.0")
    ca = ["--ca-file", tls_registry.ca_file]
    pushed = ocimirror("push", layout, tls_registry.host, *ca)
    assert pushed.code == 0, pushed.stderr
    files = settings(f"https://{tls_registry.host}", SOURCE, "--for", "containerd", *ca)
    name = f"{SOURCE}/hosts/tls:1.0"
    pull_with_ctr(containerd, files, name)
    assert IMAGE.root in containerd.ctr("images", "ls", f"name=={name}")


def test_a_digest_only_mirror_is_asked_by_containerd_for_no_tag(
    mirror: Registry, containerd: Containerd
) -> None:
    url = f"http://{mirror.host}"
    files = settings(url, PORTED, "--for", "containerd", "--digest-only")
    pull_with_ctr(containerd, files, f"{PORTED}/team/app@{IMAGE.root}")
    with pytest.raises(AssertionError, match="failed to resolve"):
        pull_with_ctr(containerd, files, f"{PORTED}/team/app:1.0")


def pull_over_cri(containerd: Containerd, name: str) -> None:
    """Ask for a pull as a kubelet does: PullImage of runtime.v1, whose messages are short."""

    def field_one(content: bytes) -> bytes:
        assert len(content) < 0x4000
        return bytes([10, len(content) & 0x7F | 0x80, len(content) >> 7]) + content

    with grpc.insecure_channel(
        f"unix://{containerd.address}", options=[("grpc.default_authority", "localhost")]
    ) as channel:
        pull = channel.unary_unary("/runtime.v1.ImageService/PullImage")
        pull(field_one(field_one(name.encode())), timeout=60)


def test_a_kubelet_pulls_by_tag_and_digest_from_the_mirror(
    mirror: Registry, containerd: Containerd
) -> None:
    """Through the directory that config_path names, which the test's containerd has."""
    url = f"http://{mirror.host}/prefix"
    place_for_containerd(containerd, settings(url, PORTED, "--for", "containerd", "--keep-host"))
    for name in (f"{PORTED}/team/app:1.0", f"{PORTED}/team/app@{IMAGE.root}"):
        pull_over_cri(containerd, name)
        assert name in containerd.names("k8s.io")


# --- Docker -------------------------------------------------------------------------------------


def test_docker_pulls_images_of_docker_hub_from_its_registry_mirror(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = short_directory(tmp_path_factory, "d")
    with run_docker_registry(tmp_path / "registry") as registry:
        layout = layout_of(tmp_path, HUB_IMAGE)
        assert ocimirror("push", layout, registry.host).code == 0
        made = settings(f"http://{registry.host}", "--layout", layout, "--for", "docker")
        (directory / "daemon.json").write_text(made["/etc/docker/daemon.json"])
        with run_dockerd(directory) as daemon:
            daemon.docker("pull", "-q", "fixture:2.0")
            assert daemon.inspect("fixture:2.0")["RepoDigests"] == [f"fixture@{IMAGE.root}"]
    remove(directory)


# --- what is printed ----------------------------------------------------------------------------


def made(*arguments: str | Path) -> Any:
    done = ocimirror("hosts", *arguments, "--json")
    assert done.code == 0, done.stderr
    assert done.document["schema"] == "ocimirror.hosts/v1"
    return done.document


def test_every_toml_file_parses_and_says_what_was_asked_for() -> None:
    arguments = ["https://mirror.example.com:5000", "docker.io", "quay.io"]
    files = settings(*arguments, "--for", "containerd", "--ca-file", '/etc/a "b".pem')
    hub = tomllib.loads(files["/etc/containerd/certs.d/docker.io/hosts.toml"])
    assert hub == {
        "server": "https://mirror.example.com:5000",
        "ca": '/etc/a "b".pem',
        "host": {
            "https://mirror.example.com:5000": {
                "capabilities": ["pull", "resolve"],
                "ca": '/etc/a "b".pem',
            }
        },
    }
    with_fallback = settings(*arguments, "--for", "containerd", "--fallback")
    hub = tomllib.loads(with_fallback["/etc/containerd/certs.d/docker.io/hosts.toml"])
    assert hub["server"] == "https://registry-1.docker.io"
    (podman,) = settings(*arguments, "--for", "podman", "--fallback").values()
    assert tomllib.loads(podman)["registry"][1] == {
        "prefix": "quay.io",
        "location": "quay.io",
        "mirror": [{"location": "mirror.example.com:5000"}],
    }


def test_both_placements_of_containerds_config_path_are_printed() -> None:
    files = made("mirror.example.com", "docker.io", "--for", "containerd")["files"]
    config = [tomllib.loads(file["content"]) for file in files if file["merge"]]
    assert [list(document["plugins"]) for document in config] == [
        ["io.containerd.grpc.v1.cri"],
        ["io.containerd.cri.v1.images"],
    ]
    assert all("restart containerd" in file["apply"] for file in files if file["merge"])
    assert [file["apply"] for file in files if not file["merge"]] == [""]


def test_registries_yaml_says_endpoints_rewrites_and_certificates() -> None:
    arguments = ["https://mirror.example.com", PORTED, "--keep-host", "--ca-file", "/etc/ca.pem"]
    document = made(*arguments, "--for", "k3s", "--for", "rke2")
    k3s, rke2 = document["files"]
    assert k3s["path"] == "/etc/rancher/k3s/registries.yaml"
    assert rke2["path"] == "/etc/rancher/rke2/registries.yaml"
    assert k3s["content"] == rke2["content"]
    assert k3s["content"].splitlines() == [
        "mirrors:",
        '  "source.invalid:5000":',
        "    endpoint:",
        '      - "https://mirror.example.com"',
        "    rewrite:",
        '      "^(.*)$": "source.invalid_5000/$1"',
        "configs:",
        '  "mirror.example.com":',
        "    tls:",
        '      ca_file: "/etc/ca.pem"',
    ]
    assert any("--disable-default-registry-endpoint" in note for note in document["notes"])


def test_docker_is_told_apart_by_its_stores() -> None:
    document = made("mirror.example.com", "docker.io", "quay.io", "--for", "docker")
    daemon, *tomls = document["files"]
    assert json.loads(daemon["content"]) == {"registry-mirrors": ["https://mirror.example.com"]}
    assert daemon["merge"] is True
    assert "docker.io only" in daemon["purpose"]
    assert [file["path"] for file in tomls] == [
        "/etc/docker/certs.d/docker.io/hosts.toml",
        "/etc/docker/certs.d/quay.io/hosts.toml",
    ]
    assert all("containerd store" in file["purpose"] for file in tomls)
    assert any("graphdriver" in note for note in document["notes"])
    prefixed = made("mirror.example.com/team", "docker.io", "--for", "docker")
    assert all("daemon.json" not in file["path"] for file in prefixed["files"])
    assert any("cannot have a path" in note for note in prefixed["notes"])


def test_registries_come_from_layouts_too(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, HUB_IMAGE, f"{PORTED}/team/app:1.0")
    (content,) = settings(
        "m.example.com", "--layout", layout, "quay.io", "--for", "podman"
    ).values()
    prefixes = [registry["prefix"] for registry in tomllib.loads(content)["registry"]]
    assert prefixes == ["quay.io", "docker.io", PORTED]


CLASHES = {
    "quay.io/library/fixture:1.0": OTHER,
    "docker.io/library/fixture:1.0": IMAGE,
    "ghcr.io/library/fixture:1.0": OTHER,
}


def test_a_layouts_images_are_asked_for_by_their_registry(tmp_path: Path) -> None:
    """podman and CRI-O send no `ns`: the host is in the path."""
    layout = images.write_layout(tmp_path / "layout", CLASHES)
    for engine in ("podman", "cri-o"):
        (content,) = settings("m.example.com", "--layout", layout, "--for", engine).values()
        assert [registry["location"] for registry in tomllib.loads(content)["registry"]] == [
            "m.example.com/docker.io",
            "m.example.com/ghcr.io",
            "m.example.com/quay.io",
        ]
    made = settings("m.example.com", "--layout", layout, "--for", "containerd")
    assert "m.example.com/v2" not in made["/etc/containerd/certs.d/quay.io/hosts.toml"]


def test_each_clash_and_each_sparse_image_is_said(tmp_path: Path) -> None:
    source = images.write_layout(tmp_path / "source", CLASHES)
    layout = tmp_path / "layout"
    copy = ["copy", f"oci:{source}:docker.io/library/fixture:1.0", f"oci:{layout}"]
    assert ocimirror(*copy, "--platform", "linux/amd64").code == 0
    assert ocimirror("copy", f"oci:{source}:quay.io/library/fixture:1.0", f"oci:{layout}").code == 0
    done = ocimirror("hosts", "m.example.com", "--layout", layout, "--for", "podman", "--json")
    assert done.document["clashes"] == [
        {
            "repository": "library/fixture",
            "registries": ["docker.io", "quay.io"],
            "answered_by": "docker.io",
        }
    ]
    assert done.document["sparse"] == {"docker.io/library/fixture:1.0": ["linux/amd64"]}
    text = ocimirror("hosts", "m.example.com", "--layout", layout, "--for", "podman").stdout
    assert "# note: library/fixture is in docker.io and quay.io; a request that" in text
    assert "# note: docker.io/library/fixture:1.0 is sparse: only linux/amd64 is here" in text


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["m.example.com", "--for", "podman", "--no-keep-host"], True),
        (["m.example.com", "--for", "cri-o", "--no-keep-host"], True),
        (["m.example.com/prefix", "--for", "podman"], True),
        (["m.example.com/prefix", "--for", "containerd"], True),
        (["m.example.com/prefix", "--for", "k3s", "--keep-host"], False),
        (["m.example.com", "--for", "podman", "--keep-host"], False),
        (["m.example.com", "--for", "containerd"], False),
    ],
)
def test_settings_that_lead_to_another_registrys_image_are_refused(
    tmp_path: Path, arguments: list[str], refused: bool
) -> None:
    layout = images.write_layout(tmp_path / "layout", CLASHES)
    done = ocimirror("hosts", *arguments, "--layout", layout)
    assert done.code == (2 if refused else 0)
    assert ("library/fixture" in done.stderr) == refused
    alone = layout_of(tmp_path / "alone", "quay.io/team/app:1.0")
    assert ocimirror("hosts", *arguments, "--layout", alone).code == 0


def test_podman_gets_the_image_of_the_registry_that_it_names(
    tmp_path: Path, podman: Podman
) -> None:
    layout = images.write_layout(tmp_path / "layout", CLASHES)
    with serving(layout) as server:
        url = server.client.url
        (configuration,) = settings(url, "--layout", layout, "--for", "podman").values()
        for name, graph in CLASHES.items():
            pull_with_podman(podman, configuration, name)
            (found,) = json.loads(podman.podman("image", "inspect", name))
            assert f"{name.rpartition(':')[0]}@{graph.root}" in found["RepoDigests"]


def test_containerd_gets_the_image_of_the_registry_that_it_names(
    tmp_path: Path, containerd: Containerd
) -> None:
    layout = images.write_layout(tmp_path / "layout", CLASHES)
    with serving(layout) as server:
        made = settings(server.client.url, "--layout", layout, "--for", "containerd")
        directory = place_for_containerd(containerd, made)
        for name, graph in CLASHES.items():
            containerd.ctr("images", "pull", "--hosts-dir", str(directory), name)
            listed = containerd.ctr("images", "ls", f"name=={name}")
            assert graph.root in listed


def test_docker_gets_no_image_of_another_registry_from_its_mirror(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    others = {"quay.io/library/other:1.0": OTHER, "ghcr.io/library/other:1.0": OTHER}
    layout = images.write_layout(tmp_path / "layout", {**CLASHES, **others})
    with serving(layout) as server:
        made = settings(server.client.url, "--layout", layout, "--for", "docker")
        directory = short_directory(tmp_path_factory, "m")
        (directory / "daemon.json").write_text(made["/etc/docker/daemon.json"])
        with run_dockerd(directory) as engine:
            engine.docker("pull", "fixture:1.0")
            assert engine.inspect("fixture:1.0")["RepoDigests"] == [f"fixture@{IMAGE.root}"]
            with pytest.raises(AssertionError):
                engine.docker("pull", "other:1.0")
    remove(directory)


def test_text_says_where_each_file_goes_and_what_makes_it_read() -> None:
    printed = ocimirror("hosts", "http://m.example.com", "docker.io", "--for", "cri-o").stdout
    assert printed.startswith("# /etc/containers/registries.conf.d/50-ocimirror.conf\n")
    assert "#   then: systemctl reload crio\n" in printed
    assert "insecure = true\n" in printed
    tomllib.loads(printed)


def test_files_are_written_below_a_directory_and_never_in_place(tmp_path: Path) -> None:
    arguments = ["https://m.example.com", PORTED, "--for", "containerd", "--for", "k3s"]
    document = made(*arguments, "--write-to", tmp_path / "files")
    whole = {file["path"]: file["content"] for file in document["files"] if not file["merge"]}
    found = [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    assert sorted(map(str, found)) == sorted(document["written"])
    assert {f"/{path.relative_to(tmp_path / 'files')}": path.read_text() for path in found} == whole
    for root in ("/", "/etc/.."):
        assert ocimirror("hosts", *arguments, "--write-to", root).code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["mirror.example.com", "--for", "podman"],
        ["mirror.example.com", "--for", "containerd", "--keep-host"],
        ["mirror.example.com", "--for", "k3s", "--keep-host"],
        ["ftp://mirror.example.com", "docker.io", "--for", "podman"],
        ["mirror.example.com:port", "docker.io", "--for", "podman"],
        ["mirror.example.com", "docker.io/library", "--for", "podman"],
        ["mirror.example.com", "docker.io", "--for", "podman", "--ca-file", "ca.pem"],
        ["mirror.example.com", "docker.io"],
        ["mirror.example.com", "docker.io", "--for", "lxc"],
    ],
)
def test_what_cannot_be_said_is_a_usage_error(arguments: list[str]) -> None:
    assert ocimirror("hosts", *arguments).code == 2


def test_plain_http_names_a_mirror_without_a_scheme() -> None:
    arguments = ["m.example.com:5000", "docker.io", "--for", "k3s"]
    (content,) = settings(*arguments, "--plain-http", "m.example.com:5000").values()
    assert '"http://m.example.com:5000"' in content
    (content,) = settings(*arguments).values()
    assert '"https://m.example.com:5000"' in content
