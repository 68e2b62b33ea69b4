"""pull, verify, list, inspect, push and copy against the real docker-registry."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import environment, ocimirror
from tests.support.servers import run_docker_registry
from tests.support.witness import Registry

KEPT_BY_DOCKER_REGISTRY = sorted(images.DOCKER_REGISTRY_OK)


def index_of(layout: Path) -> list[dict[str, object]]:
    return json.loads((layout / "index.json").read_bytes())["manifests"]


def assert_holds(registry: Registry, repository: str, graph: images.Graph) -> None:
    """Every byte of the graph is at the registry, asked by somebody else than ocimirror."""
    for digest, (media_type, raw) in graph.manifests.items():
        answer = registry.manifest_answer(repository, digest)
        assert answer.body == raw
        assert answer.headers["Content-Type"] == media_type
    for digest, content in graph.blobs.items():
        assert registry.get_blob(repository, digest) == content


@pytest.mark.parametrize("name", KEPT_BY_DOCKER_REGISTRY)
def test_every_kind_of_content_keeps_every_byte_from_registry_to_registry(
    name: str, docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    graph = images.ALL[name]()
    images.push(docker_registry, repository, "1.0", graph)
    layout, archive = tmp_path / "layout", tmp_path / "image.tar"
    full_name = f"{docker_registry.host}/{repository}:1.0"

    assert ocimirror("pull", full_name, layout).code == 0
    assert ocimirror("verify", layout).code == 0
    assert ocimirror("copy", f"oci:{layout}", f"oci-archive:{archive}").code == 0
    assert ocimirror("verify", archive).code == 0
    target = f"docker://{docker_registry.host}/mirror/{repository}"
    copied = ocimirror("copy", f"oci-archive:{archive}", target, "--json")

    assert copied.code == 0, copied.stderr
    assert copied.document["images"][0]["digest"] == graph.root
    assert_holds(docker_registry, f"mirror/{repository}", graph)
    tagged = docker_registry.get_manifest(f"mirror/{repository}", "1.0")
    assert "sha256:" + hashlib.sha256(tagged).hexdigest() == graph.root


def test_push_keeps_repositories_and_tags_below_the_prefix(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    graphs = {"a": images.multi(), "b": images.docker_list()}
    for tag, graph in graphs.items():
        images.push(docker_registry, repository, tag, graph)
    host = docker_registry.host
    pulled = ocimirror("pull", *(f"{host}/{repository}:{t}" for t in graphs), tmp_path / "layout")
    assert pulled.code == 0, pulled.stderr

    pushed = ocimirror("push", tmp_path / "layout", f"{host}/prefix", "--json")

    assert [i["status"] for i in pushed.document["images"]] == ["copied", "copied"]
    for tag, graph in graphs.items():
        assert docker_registry.get_manifest(f"prefix/{repository}", tag) == graph.raw
    keep = ocimirror("push", tmp_path / "layout", host, "--keep-host")
    assert keep.code == 0, keep.stderr
    assert docker_registry.tags(f"{host.replace(':', '_')}/{repository}") == ["a", "b"]


def test_an_image_known_by_digest_only_is_pulled_and_pushed_by_digest(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    graph = images.multi()
    images.push(docker_registry, repository, "1.0", graph)
    host = docker_registry.host

    assert ocimirror("pull", f"{host}/{repository}@{graph.root}", tmp_path / "layout").code == 0
    (entry,) = index_of(tmp_path / "layout")
    assert entry["annotations"] == {"io.containerd.image.name": f"{host}/{repository}@{graph.root}"}
    assert ocimirror("push", tmp_path / "layout", f"{host}/by-digest").code == 0
    assert docker_registry.get_manifest(f"by-digest/{repository}", graph.root) == graph.raw
    assert docker_registry.tags(f"by-digest/{repository}") == []


@pytest.mark.parametrize(("mark", "end"), [("", "\n"), ("\ufeff", "\r\n")])
def test_images_file_takes_the_list_that_kubeadm_prints(
    mark: str, end: str, docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    """And one that an editor of Windows wrote."""
    for tag in ("v1", "v2"):
        images.push(docker_registry, f"{repository}/{tag}", tag, images.single())
    listed = "".join(
        f"{docker_registry.host}/{repository}/{tag}:{tag}\n# a comment\n\n" for tag in ("v1", "v2")
    )

    listed = mark + listed.replace("\n", end)
    result = ocimirror("pull", "--images-file", "-", tmp_path / "layout", stdin=listed)

    assert result.code == 0, result.stderr
    assert len(index_of(tmp_path / "layout")) == 2


@pytest.mark.bar("hub-head-first", "zot-same-digest")
def test_a_second_pull_asks_one_request_a_tag_and_says_unchanged(
    repository: str, tmp_path: Path
) -> None:
    with run_docker_registry(access_log=True) as registry:
        tags = [f"t{n}" for n in range(5)]
        for tag in tags:
            images.push(registry, repository, tag, images.multi())
        names = [f"{registry.host}/{repository}:{tag}" for tag in tags]
        assert ocimirror("pull", *names, tmp_path / "layout").code == 0
        before = len(registry.accesses())

        again = ocimirror("pull", *names, tmp_path / "layout", "--json")

        asked = registry.accesses()[before:]
    assert {i["status"] for i in again.document["images"]} == {"unchanged"}
    manifests = [(e.method, e.path) for e in asked if "/manifests/" in e.path]
    assert sorted(manifests) == sorted(("HEAD", f"/v2/{repository}/manifests/{t}") for t in tags)


@pytest.mark.bar("R22")
def test_a_failed_image_does_not_stop_the_others(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    images.push(docker_registry, repository, "good", images.single())
    host = docker_registry.host

    result = ocimirror(
        "pull", f"{host}/{repository}:absent", f"{host}/{repository}:good", tmp_path / "l", "--json"
    )

    assert result.code == 4
    bad, good = result.document["images"]
    assert bad["status"] == "failed"
    assert bad["error"]["code"] == "not_found"
    assert bad["error"]["side"] == "source"
    assert good["status"] == "copied"


def test_dry_run_says_what_is_missing_and_writes_nothing(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    graph = images.multi()
    images.push(docker_registry, repository, "1.0", graph)
    name = f"{docker_registry.host}/{repository}:1.0"

    result = ocimirror("pull", name, tmp_path / "layout", "--dry-run", "--json")

    (image,) = result.document["images"]
    assert (image["status"], image["blobs"]["copied"]) == ("planned", len(graph.blobs))
    assert not (tmp_path / "layout").exists()


def test_quiet_is_silent_on_success_and_speaks_on_failure(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    images.push(docker_registry, repository, "1.0", images.single())
    name = f"{docker_registry.host}/{repository}"

    good = ocimirror("pull", "-q", f"{name}:1.0", tmp_path / "layout")
    bad = ocimirror("pull", "-q", f"{name}:2.0", tmp_path / "layout")

    assert (good.code, good.stdout, good.stderr) == (0, "", "")
    assert bad.code == 4
    assert f"{name}:2.0" in bad.stderr


def test_raw_manifest_is_the_registry_s_bytes(docker_registry: Registry, repository: str) -> None:
    graph = images.odd_bytes()
    images.push(docker_registry, repository, "1.0", graph)
    location = f"docker://{docker_registry.host}/{repository}:1.0"

    assert ocimirror("inspect", "--raw", location).raw == graph.raw


def test_list_shows_the_tags_of_a_repository(docker_registry: Registry, repository: str) -> None:
    for tag in ("b", "a"):
        images.push(docker_registry, repository, tag, images.single())

    result = ocimirror("list", f"docker://{docker_registry.host}/{repository}", "--json")

    assert sorted(result.document["tags"]) == ["a", "b"]


def test_verify_of_a_registry_proves_presence_and_deep_proves_content(
    registry: Registry, tmp_path: Path
) -> None:
    graph = images.multi()
    images.push(registry, "app", "1.0", graph)
    location = f"docker://{registry.host}/app:1.0"
    damaged = next(iter(graph.blobs))
    path = registry.content_file(damaged)  # type: ignore[attr-defined]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    assert ocimirror("verify", location).code == 0
    deep = ocimirror("verify", location, "--deep", "--json")

    assert deep.code == 5
    assert [(f["kind"], f["digest"]) for f in deep.document["faults"]] == [("corrupt", damaged)]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("pull", "upper/Case:1", "layout"), "invalid_reference"),
        (("pull", "alpine:bad tag", "layout"), "invalid_reference"),
        (("pull", "alpine@sha256:123", "layout"), "invalid_reference"),
        (("pull", "alpine:3.19", "registry.example.com/alpine:3.19"), "usage_error"),
        (("push", ".", "not a host"), "invalid_reference"),
        (("push", "layout:alpine:3.19", "registry.example.com"), "usage_error"),
        (("push", "oci:./layout:alpine", "registry.example.com"), "usage_error"),
        (("gc", "layout:alpine:3.19"), "usage_error"),
        (("repair", f"layout:@sha256:{'0' * 64}"), "usage_error"),
        (("copy", "nonsense", "oci:x"), "invalid_reference"),
        (("verify", "http://registry.example.com/x"), "invalid_reference"),
        (("verify", "--no-such-option", "."), "usage_error"),
    ],
)
def test_a_wrong_command_line_is_exit_2_with_a_document(
    arguments: tuple[str, ...], code: str, tmp_path: Path
) -> None:
    result = ocimirror(*arguments, "--json", cwd=tmp_path)

    assert result.code == 2
    assert result.document["exit_code"] == 2
    assert result.document["error"]["code"] == code
    assert list(tmp_path.iterdir()) == []


def test_options_can_be_set_in_the_environment(
    docker_registry: Registry, repository: str, tmp_path: Path
) -> None:
    images.push(docker_registry, repository, "1.0", images.single())
    name = f"{docker_registry.host}/{repository}:1.0"

    result = ocimirror(
        "pull", name, tmp_path / "layout", env=environment(OCIMIRROR_JSON="1", OCIMIRROR_JOBS="1")
    )

    assert result.document["images"][0]["status"] == "copied"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str) -> None:
    result = ocimirror("completion", shell)

    assert result.code == 0
    assert "_OCIMIRROR_COMPLETE" in result.stdout


def test_completion_completes_commands() -> None:
    env = environment(
        _OCIMIRROR_COMPLETE="bash_complete", COMP_WORDS="ocimirror pu", COMP_CWORD="1"
    )

    assert ocimirror(env=env).stdout.split() == ["plain,pull", "plain,push"]


def test_help_of_every_command_teaches_by_example() -> None:
    told = ocimirror("--help").stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    commands = [line.split()[0] for line in told.splitlines()]
    assert {"pull", "push", "copy", "verify", "inspect", "list"} <= set(commands)
    for command in commands:
        told = ocimirror(command, "--help").stdout
        assert f"ocimirror {command} " in told.partition("Examples:")[2], command


def test_a_destination_is_not_named_by_a_digest(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {"reg.example.com/app:1": images.single()})
    zero = "sha256:" + "0" * 64

    for target in (f"docker://127.0.0.1:1/app@{zero}", f"oci:{tmp_path}/other:@{zero}"):
        assert ocimirror("copy", tmp_path / "layout", target).code == 2


def test_a_failure_has_its_document_also_where_the_environment_asks_for_json(
    tmp_path: Path,
) -> None:
    result = ocimirror("verify", tmp_path / "absent", env=environment(OCIMIRROR_JSON="1"))

    assert result.document["error"]["code"] == "not_found"


@pytest.mark.bar("R42")
def test_a_name_cannot_forge_a_line_of_output(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {"reg.example.com/app:1": images.single()})
    index = tmp_path / "layout" / "index.json"
    index.write_text(index.read_text().replace("app:1", "app:1\\nok  everything"))

    assert not [
        line
        for line in ocimirror("list", tmp_path / "layout").stdout.splitlines()
        if line.startswith("ok")
    ]
