"""load: what each engine has afterwards, as the engine itself tells it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import PROGRAM, at_terminal, environment, ocimirror
from tests.support.engines import Containerd, Dockerd, remove, run_dockerd, short_directory
from tests.support.images import Graph
from tests.support.locks import locked

pytestmark = pytest.mark.timeout(120)

HOST = "reg.example.com"


def children(graph: Graph) -> dict[str, dict]:
    """Return the image manifests of an index, by platform."""
    index = json.loads(graph.raw)
    found = {}
    for child in index["manifests"]:
        platform = child.get("platform", {})
        if platform.get("os") == "linux":
            name = "/".join(platform[k] for k in ("os", "architecture", "variant") if k in platform)
            found[name] = {
                **json.loads(graph.manifests[child["digest"]][1]),
                "digest": child["digest"],
            }
    return found


def config_of(graph: Graph, platform: str = "linux/amd64") -> str:
    """Return the digest of the config for a platform."""
    manifest = json.loads(graph.raw)
    return (manifest if "config" in manifest else children(graph)[platform])["config"]["digest"]


def load(layout: Path, *arguments: object, **options: object):
    """Run `ocimirror load` with a JSON document."""
    return ocimirror("load", layout, *map(str, arguments), "--json", **options)


def only_receipt(result) -> dict:
    """Return the one receipt of a run."""
    (receipt,) = result.document["receipts"]
    return receipt


def parts(receipt: dict) -> tuple[str, str, str, str]:
    """Return the four words of a receipt."""
    return receipt["tag"], receipt["index"], receipt["manifest"], receipt["config"]


ALL_KEPT = ("kept", "kept", "kept", "kept")


# --- containerd ----------------------------------------------------------------------------------


def into(engine: Containerd | Dockerd) -> list[str]:
    """Return the options that name an engine."""
    if isinstance(engine, Containerd):
        return ["--into", "containerd", "--host", engine.address]
    return ["--into", "docker", "--host", engine.host]


def test_containerd_has_exactly_the_names_of_an_image(containerd, layout, repository) -> None:
    graph = images.multi()
    name = f"{HOST}/{repository}"
    space = ["--namespace", repository.replace("/", "-")]
    result = load(layout({f"{name}:v1": graph}), *into(containerd), *space)
    assert result.code == 0, result.stderr
    receipt = only_receipt(result)
    assert parts(receipt) == ALL_KEPT
    assert receipt["platforms"]["kept"] == list(children(graph))
    wanted = {f"{name}:v1", f"{name}@{graph.root}"}
    wanted |= {f"{name}@{child['digest']}" for child in children(graph).values()}
    assert set(containerd.names(space[1])) == wanted


def test_containerd_keeps_every_byte_past_a_garbage_collection(
    containerd, layout, repository
) -> None:
    graph, space = images.multi(), repository.replace("/", "-")
    name = f"{HOST}/{repository}:v1"
    assert load(layout({name: graph}), *into(containerd), "--namespace", space).code == 0
    containerd.ctr("images", "tag", name, "gone.example.com/x:1", namespace=space)
    containerd.ctr("images", "rm", "--sync", "gone.example.com/x:1", namespace=space)
    content = set(containerd.ctr("content", "ls", "-q", namespace=space).split())
    assert content >= set(graph.contents)
    for digest, raw in graph.contents.items():
        assert containerd.content(digest, space) == raw


def test_zstd_layers_come_into_any_docker_or_it_says_how(dockerd, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.uncompressed_and_zstd()})
    version = dockerd.docker("version", "--format", "{{.Server.Version}}")
    pulled = load(path, *into(dockerd), "--route", "registry")
    if int(version.partition(".")[0]) < 23:
        assert pulled.code == 4
        assert "zstd" in pulled.document["failures"][0]["error"]["message"]
    else:
        assert pulled.code == 0, pulled.document
    assert load(path, *into(dockerd)).code == 0


def test_a_second_load_sends_nothing(containerd, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.single()})
    space = ["--namespace", repository.replace("/", "-")]
    first, second = (load(path, *into(containerd), *space) for _ in range(2))
    assert (only_receipt(first)["route"], only_receipt(first)["unchanged"]) == ("archive", False)
    assert (only_receipt(second)["route"], only_receipt(second)["unchanged"]) == (None, True)


def test_a_sparse_image_is_loaded_for_its_platform(
    containerd, layout, repository, tmp_path
) -> None:
    graph, name = images.multi(), f"{HOST}/{repository}:v1"
    whole = layout({name: graph})
    sparse, space = tmp_path / "sparse", ["--namespace", repository.replace("/", "-")]
    copied = ocimirror("copy", f"oci:{whole}:{name}", f"oci:{sparse}", "--platform", "linux/amd64")
    assert copied.code == 0, copied.stderr
    receipt = only_receipt(load(sparse, *into(containerd), *space))
    assert parts(receipt) == ALL_KEPT
    assert receipt["platforms"] == {"kept": ["linux/amd64"], "asked": ["linux/amd64"]}
    refused = load(sparse, *into(containerd), *space, "--platform", "linux/s390x")
    assert refused.code == 4
    assert refused.document["failures"][0]["error"]["code"] == "not_found"


def test_a_sparse_image_of_two_platforms_keeps_both(
    containerd, layout, repository, tmp_path
) -> None:
    graph, name = images.multi(), f"{HOST}/{repository}:v1"
    whole, sparse = layout({name: graph}), tmp_path / "sparse"
    space = repository.replace("/", "-")
    two = ["--platform", "linux/amd64", "--platform", "linux/arm64"]
    assert ocimirror("copy", f"oci:{whole}:{name}", f"oci:{sparse}", *two).code == 0
    receipt = only_receipt(load(sparse, *into(containerd), "--namespace", space))
    assert parts(receipt) == ALL_KEPT
    containerd.ctr("images", "tag", name, "gone.example.com/x:1", namespace=space)
    containerd.ctr("images", "rm", "--sync", "gone.example.com/x:1", namespace=space)
    audited = only_receipt(load(sparse, *into(containerd), "--namespace", space))
    assert audited["unchanged"]
    assert audited["platforms"]["kept"] == ["linux/amd64", "linux/arm64"]


def test_a_flipped_bit_is_caught_before_anything_is_sent(containerd, layout, repository) -> None:
    graph = images.single()
    path, space = layout({f"{HOST}/{repository}:v1": graph}), repository.replace("/", "-")
    layer = json.loads(graph.raw)["layers"][1]["digest"]
    file = path / "blobs" / layer.replace(":", "/")
    damaged = bytearray(file.read_bytes())
    damaged[100] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(damaged))
    result = load(path, *into(containerd), "--namespace", space)
    assert result.code == 5
    assert layer in result.document["failures"][0]["error"]["message"]
    assert containerd.names(space) == []
    assert containerd.ctr("content", "ls", "-q", namespace=space) == ""


def test_a_name_of_another_image_is_moved_only_when_asked(containerd, layout, repository) -> None:
    name, space = f"{HOST}/{repository}:v1", ["--namespace", repository.replace("/", "-")]
    assert load(layout({name: images.single()}), *into(containerd), *space).code == 0
    path = layout({name: images.docker_schema2()})
    refused = load(path, *into(containerd), *space)
    assert refused.code == 9
    assert "--replace" in refused.document["failures"][0]["error"]["diagnostics"]
    assert load(path, *into(containerd), *space, "--dry-run").code == 9
    moved = load(path, *into(containerd), *space, "--replace")
    assert moved.code == 0
    assert only_receipt(moved)["tag"] == "kept"


def test_an_engine_that_is_not_there_is_named_by_its_socket(layout, tmp_path) -> None:
    path = layout({f"{HOST}/app:v1": images.single()})
    for engine in ("docker", "containerd"):
        socket = f"unix://{tmp_path}/absent.sock"
        result = load(path, "--into", engine, "--host", socket)
        assert result.code == 4
        assert result.document["error"]["code"] == "engine_unavailable"
        assert f"{tmp_path}/absent.sock" in result.document["error"]["message"]


def test_an_artifact_is_no_image_for_an_engine(containerd, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.artifact()})
    result = load(path, *into(containerd), "--namespace", "x")
    assert result.code == 4
    assert "artifacts" in result.document["error"]["message"]
    asked = load(path, f"{HOST}/{repository}:v1", *into(containerd), "--namespace", "x")
    assert asked.code == 4
    assert "artifacts" in asked.document["failures"][0]["error"]["message"]


def test_what_containerd_cannot_address_is_not_called_kept(containerd, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.sha512_image()})
    result = load(path, *into(containerd), "--namespace", repository.replace("/", "-"))
    assert result.code in (4, 9), result.document
    assert all(r["config"] == "lost" for r in result.document["receipts"])


# --- docker --------------------------------------------------------------------------------------


def test_docker_keeps_tag_and_image_id_and_says_what_is_lost(dockerd, layout, repository) -> None:
    graph, name = images.multi(), f"{HOST}/{repository}:v1"
    result = load(layout({name: graph}), *into(dockerd))
    assert result.code == 0, result.stderr
    receipt = only_receipt(result)
    assert parts(receipt) == ("kept", "lost", "lost", "kept")
    assert receipt["platforms"] == {"kept": ["linux/amd64"], "asked": ["linux/amd64"]}
    assert "moby#22011" in receipt["notes"][0]
    assert dockerd.inspect(name)["Id"] == config_of(graph)
    digests = dockerd.inspect(name)["RepoDigests"]
    assert not any(digest.startswith(name.removesuffix(":v1")) for digest in digests)


def test_what_docker_lost_is_exit_code_9_where_it_was_required(dockerd, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.multi()})
    assert load(path, *into(dockerd), "--require", "tag,config").code == 0
    assert load(path, *into(dockerd), "--require", "index").code == 9
    told = ocimirror("load", path, *into(dockerd), "--require", "index")
    assert "not kept: index lost" in told.stdout


def test_docker_loads_the_platform_that_is_asked_for(dockerd, layout, repository) -> None:
    graph, name = images.multi(), f"{HOST}/{repository}:v1"
    result = load(layout({name: graph}), *into(dockerd), "--platform", "linux/arm64")
    assert result.code == 0, result.stderr
    assert dockerd.inspect(name)["Id"] == config_of(graph, "linux/arm64")


def test_docker_gets_zstd_layers_decompressed(dockerd, layout, repository) -> None:
    graph, name = images.uncompressed_and_zstd(), f"{HOST}/{repository}:v1"
    result = load(layout({name: graph}), *into(dockerd))
    assert result.code == 0, result.document
    assert dockerd.inspect(name)["Id"] == config_of(graph)


# --- podman --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["multi", "docker_schema2", "docker_list"])
def test_podman_finds_an_image_by_index_and_manifest(
    kind, podman, podman_environment, layout, repository
) -> None:
    graph: Graph = getattr(images, kind)()
    name = f"{HOST}/{repository}"
    result = load(layout({f"{name}:v1": graph}), "--into", "podman", env=podman_environment)
    assert result.code == 0, result.stderr
    receipt = only_receipt(result)
    expected = "not_applicable" if kind == "docker_schema2" else "kept"
    assert parts(receipt) == ("kept", expected, "kept", "kept")
    (told,) = json.loads(podman.podman("image", "inspect", f"{name}:v1"))
    assert f"{name}@{graph.root}" in told["RepoDigests"]
    assert f"sha256:{told['Id']}" == config_of(graph)
    assert os.listdir(podman_environment["TMPDIR"]) == []


# --- odd images and names, into each -------------------------------------------------------------


def without_platform() -> Graph:
    """An image whose config says nothing of a platform."""
    builder = images.Builder()
    return builder.graph(images.add_image(builder, "bare", {}, with_platform=False))


def beside_artifacts() -> Graph:
    """An index of an image, and of an artifact that has no platform."""
    builder = images.Builder()
    children = [images.add_image(builder, "beside", images.PLATFORMS[0])]
    children.append(
        images.add_artifact(builder, "application/x.sbom", [builder.blob(b"x", "text/x")])
    )
    return builder.graph(builder.index(children))


@pytest.mark.parametrize("engine", ["containerd", "dockerd", "podman"])
@pytest.mark.parametrize(
    "make",
    [without_platform, beside_artifacts, images.nested_index, images.data_fields],
)
def test_an_odd_image_is_loaded(
    make, engine, request, podman_environment, layout, repository
) -> None:
    graph, name = make(), f"{HOST}/{repository}:v1"
    path = layout({name: graph})
    result = load(path, *options_of(engine, request, repository), env=env_of(engine, request))
    assert result.code == 0, result.document
    assert only_receipt(result)["platforms"]["asked"] == only_receipt(result)["platforms"]["kept"]


def options_of(engine: str, request, repository: str) -> list[str]:
    """Return the options that name an engine by its fixture."""
    if engine == "podman":
        return ["--into", "podman"]
    space = ["--namespace", repository.replace("/", "-")] if engine == "containerd" else []
    return [*into(request.getfixturevalue(engine)), *space]


def env_of(engine: str, request) -> dict[str, str] | None:
    """Return the environment in which an engine's client runs."""
    return request.getfixturevalue("podman_environment") if engine == "podman" else None


@pytest.mark.parametrize("engine", ["containerd", "dockerd", "podman"])
def test_an_image_that_only_its_digest_names(engine, request, layout, repository) -> None:
    graph = images.multi()
    path = layout({f"{HOST}/{repository}@{graph.root}": graph})
    result = load(path, *options_of(engine, request, repository), env=env_of(engine, request))
    # (Docker's older store learns no digest from an archive, so it has no name for it.)
    assert result.code == (9 if engine == "dockerd" else 0), result.document
    receipt = only_receipt(result)
    kept = "lost" if engine == "dockerd" else "kept"
    assert parts(receipt) == ("not_applicable", kept, kept, "kept")


@pytest.mark.parametrize("engine", ["containerd", "dockerd", "podman"])
def test_a_foreign_layer_is_fetched_by_nobody(engine, request, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.foreign_layer()})
    result = load(path, *options_of(engine, request, repository), env=env_of(engine, request))
    if engine == "containerd":
        assert result.code == 0
        assert "foreign layer" in only_receipt(result)["notes"][0]
        return
    assert result.code == 4
    error = result.document["failures"][0]["error"]
    assert error["code"] == "foreign_layer"
    assert "--allow-foreign" not in error["diagnostics"]


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_platform_that_is_not_here_is_refused_with_those_that_are(
    kind, dockerd, layout, repository
) -> None:
    path = layout({f"{HOST}/{repository}:v1": getattr(images, kind)()})
    result = load(path, *into(dockerd), "--platform", "linux/s390x")
    assert result.code == 4
    assert "It has: linux/amd64" in result.document["failures"][0]["error"]["diagnostics"]


@pytest.mark.parametrize("engine", ["dockerd", "podman"])
def test_an_engine_of_one_platform_refuses_two(engine, request, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.multi()})
    two = ["--platform", "linux/amd64", "--platform", "linux/arm64"]
    options = [*options_of(engine, request, repository), *two]
    result = load(path, *options, env=env_of(engine, request))
    assert result.code == 2
    assert "one platform" in result.document["error"]["message"]


def test_a_sparse_image_beside_platforms_that_run_here_too(
    containerd, layout, repository, tmp_path
) -> None:
    builder = images.Builder()
    children = [
        images.add_image(builder, n, {"os": "linux", **platform})
        for n, platform in enumerate(
            [
                {"architecture": "amd64"},
                {"architecture": "386"},
                {"architecture": "arm", "variant": "v6"},
                {"architecture": "arm", "variant": "v7"},
                {"architecture": "arm64", "variant": "v8"},
            ]
        )
    ]
    graph, name = builder.graph(builder.index(children)), f"{HOST}/{repository}:v1"
    whole, sparse = layout({name: graph}), tmp_path / "sparse"
    some = [w for p in ("linux/amd64", "linux/arm64", "linux/arm/v7") for w in ("--platform", p)]
    assert ocimirror("copy", f"oci:{whole}:{name}", f"oci:{sparse}", *some).code == 0
    space = ["--namespace", repository.replace("/", "-")]
    result = load(sparse, *into(containerd), *space)
    assert result.code == 0, result.document
    assert parts(only_receipt(result)) == ALL_KEPT
    assert len(only_receipt(result)["platforms"]["kept"]) == 3


def test_all_among_platforms_is_all(containerd, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.multi()})
    space = ["--namespace", repository.replace("/", "-")]
    platforms = ["--platform", "all", "--platform", "linux/amd64"]
    receipt = only_receipt(load(path, *into(containerd), *space, *platforms))
    assert len(receipt["platforms"]["kept"]) == 3


def test_podman_without_room_for_temporary_files(podman_environment, layout, repository) -> None:
    big, _ = images.shared_layers(2, 2, 1_500_000, shared_fraction=0.5)
    path, where = layout({f"{HOST}/{repository}:v1": big}), podman_environment["TMPDIR"]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", where], check=True)
    try:
        result = load(path, "--into", "podman", env=podman_environment)
        assert result.code == 8, result.document
        assert result.document["error"]["code"] == "no_space"
        assert os.listdir(where) == []
    finally:
        subprocess.run(["umount", where], check=True)


def test_a_layout_that_gc_has_is_not_read(containerd, layout, repository) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.single()})
    with locked(path):
        for words in (
            ["load", path, "--into", "containerd"],
            ["verify", path, "--in", "containerd"],
        ):
            result = ocimirror(*words, "--host", containerd.address, "--json")
            assert result.code == 7
            assert result.document["error"]["code"] == "locked"


def test_what_ends_a_run_does_not_hide_what_was_done(layout, repository, tmp_path_factory) -> None:
    directory = short_directory(tmp_path_factory, "ends")
    big, _ = images.shared_layers(2, 3, 8_000_000, shared_fraction=0.1)
    first = f"{HOST}/{repository}:a"
    named = {first: images.single(), f"{HOST}/{repository}:b": images.docker_schema2()}
    path = layout({**named, f"{HOST}/{repository}:v1": big})
    with run_dockerd(directory) as daemon:
        command = [PROGRAM, "load", str(path), *into(daemon), "--json"]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE)
        while daemon.docker("images").count(repository) < 2:
            time.sleep(0.01)
        os.kill(daemon.pid, signal.SIGKILL)
        document = json.loads(process.communicate()[0])
    remove(directory)
    assert process.returncode == document["exit_code"] == 4
    assert document["receipts"][0]["image"] == first
    assert document["error"]["code"] == "engine_unavailable"


@pytest.mark.parametrize("words", [["load", "--into"], ["verify", "--in"], ["save", "--from"]])
def test_a_signal_while_an_engine_hangs(words, layout, repository, tmp_path_factory) -> None:
    directory = short_directory(tmp_path_factory, "hangs")
    path = layout({f"{HOST}/{repository}:v1": images.single()})
    what, option = words
    names = [f"{HOST}/{repository}:v1"] if what == "save" else []
    with run_dockerd(directory) as daemon:
        os.kill(daemon.pid, signal.SIGSTOP)
        command = [PROGRAM, what, *names, path, option, "docker", "--host", daemon.host, "--json"]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE)
        clients = ["pgrep", "-f", f"^docker --host {daemon.host}"]
        while subprocess.run(clients, capture_output=True, check=False).returncode:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        document = json.loads(process.communicate(timeout=20)[0])
        assert process.returncode == document["exit_code"] == 143
        assert subprocess.run(clients, capture_output=True, check=False).returncode == 1
        os.kill(daemon.pid, signal.SIGCONT)
    remove(directory)


def test_engines_take_nothing_from_a_registry(layout) -> None:
    result = ocimirror("load", "docker://reg.example.com/app:v1", "--into", "podman")
    assert result.code == 2
    assert "layout or an archive" in result.stderr


def test_the_engine_is_named_by_whoever_loads(layout) -> None:
    path = layout({f"{HOST}/app:v1": images.single()})
    refused = ocimirror("load", path)
    assert refused.code == 2
    assert "--into" in refused.stderr


@pytest.mark.parametrize("path", ["absent", "./absent", "../absent"])
def test_a_layout_that_is_not_there_is_named_as_it_was_written(path, tmp_path) -> None:
    refused = ocimirror("load", path, "--into", "docker", cwd=tmp_path)
    assert refused.code == 4
    assert "././" not in refused.stderr


def test_on_a_terminal_bytes_are_shown_and_elsewhere_nothing(
    containerd, layout, repository
) -> None:
    path = layout({f"{HOST}/{repository}:v1": images.single()})
    words = ["load", str(path), *into(containerd), "--namespace", repository.replace("/", "-")]
    code, said = at_terminal(*words)
    assert code == 0
    assert "hashed and sent" in said
    assert "manifest  kept" in said
    assert ocimirror(*words).stderr == ""


@pytest.mark.parametrize("how", ["named", "all"])
def test_an_image_below_a_type_that_engines_do_not_know_is_not_loaded(
    how: str, podman, podman_environment, layout, repository
) -> None:
    builder = images.Builder()
    members = {"parts": [images.add_image(builder, "below unknown")]}
    root = builder.manifest(images.compact(members), "application/vnd.example.thing+json")
    name = f"{HOST}/{repository}:v1"
    names = [name] if how == "named" else []

    result = load(
        layout({name: builder.graph(root)}), *names, "--into", "podman", env=podman_environment
    )

    assert result.code == 4
    assert "engines run" in result.stdout
    assert repository not in podman.podman("images", "--format", "json")
