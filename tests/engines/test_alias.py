"""load --route alias: a running, unmodified dockerd learns the original name and digests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.engines.test_load import ALL_KEPT, children, only_receipt, parts
from tests.support import images
from tests.support.command import PROGRAM, Result, environment, ocimirror
from tests.support.engines import Dockerd, remove, run_dockerd, short_directory
from tests.support.runnable import SAYS, runnable

pytestmark = pytest.mark.timeout(120)


def command(dockerd: Dockerd, *arguments: object) -> list[str]:
    """Return a command line in the mount namespace of dockerd."""
    return [*dockerd.namespace, PROGRAM, *map(str, arguments)]


def load(dockerd: Dockerd, *arguments: object, **variables: str) -> Result:
    """Run `ocimirror load --into docker` beside dockerd, with a JSON document."""
    done = subprocess.run(
        command(dockerd, "load", *arguments, "--into", "docker", "--host", dockerd.host, "--json"),
        env=environment(**variables),
        capture_output=True,
        timeout=100,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def files(dockerd: Dockerd) -> dict[str, bytes]:
    """Return everything that dockerd reads of its machine."""
    found = [path for path in (dockerd.directory / "etc").rglob("*") if path.name != "key.json"]
    return {
        str(path): path.read_bytes() if path.is_file() else b""
        for path in [dockerd.config_file, *found]
    }


def digests(dockerd: Dockerd, name: str) -> list[str]:
    """Return the RepoDigests of an image that belong to a repository, or to a loopback one."""
    found = dockerd.inspect(name)["RepoDigests"]
    assert isinstance(found, list)
    own = name.rpartition(":")[0].removeprefix("docker.io/")
    return [digest for digest in found if digest.startswith((f"{own}@", "127.0.0.1:"))]


@pytest.fixture
def hosts_file(dockerd) -> Path:
    """The hosts file of dockerd."""
    return dockerd.directory / "etc" / "hosts"


@pytest.mark.parametrize("host", ["reg.example.com", "other.example.com:5443", "docker.io"])
def test_dockerd_learns_tag_index_and_manifest_and_nothing_else_changes(
    host, dockerd, layout, repository
) -> None:
    graph, before = runnable(), files(dockerd)
    name = f"{host}/{repository}"
    result = load(dockerd, layout({f"{name}:v1": graph}), "--route", "alias")
    assert result.code == 0, result.stdout + result.stderr
    receipt = only_receipt(result)
    assert (parts(receipt), receipt["route"]) == (ALL_KEPT, "alias")
    assert files(dockerd) == before
    familiar = name.removeprefix("docker.io/")
    manifest = children(graph)["linux/amd64"]["digest"]
    wanted = {f"{familiar}@{graph.root}", f"{familiar}@{manifest}"}
    assert set(digests(dockerd, f"{name}:v1")) == wanted
    assert f"{familiar}:v1" in dockerd.inspect(f"{name}@{graph.root}")["RepoTags"]
    assert dockerd.docker("info", "-f", "{{len .RegistryConfig.Mirrors}}").strip() == "0"
    for pinned in (f"{name}@{graph.root}", f"{name}@{manifest}"):
        assert dockerd.say(pinned) == SAYS


def test_settings_of_the_user_stay_in_force(dockerd, layout, repository) -> None:
    text = '{"insecure-registries":   ["127.0.0.0/8"],\n "registry-mirrors": ["http://127.0.0.9"]}'
    before = dockerd.config_file.read_bytes()
    try:
        dockerd.config_file.write_text(text)
        path = layout({f"docker.io/{repository}:v1": images.single()})
        assert load(dockerd, path, "--route", "alias").code == 0
        assert dockerd.config_file.read_text() == text
        told = dockerd.docker("info", "-f", "{{json .RegistryConfig.Mirrors}}")
        assert json.loads(told) == ["http://127.0.0.9/"]
    finally:
        dockerd.config_file.write_bytes(before.replace(b"}", b', "registry-mirrors": []}'))
        subprocess.run(["kill", "-HUP", str(dockerd.pid)], check=True)
        time.sleep(0.5)
        dockerd.config_file.write_bytes(before)


def started(dockerd: Dockerd, path: Path, hosts_file: Path) -> subprocess.Popen[bytes]:
    """Start a load, and return when the machine is changed."""
    before = hosts_file.read_bytes()
    process = subprocess.Popen(
        command(
            dockerd, "load", path, "--into", "docker", "--route", "alias", "--host", dockerd.host
        ),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while hosts_file.read_bytes() == before:
        assert process.poll() is None
        time.sleep(0.002)
    return process


@pytest.fixture
def two_ways(layout, repository) -> Path:
    """A layout whose images need the hosts file, certs.d and daemon.json."""
    return layout(
        {
            f"killed.example.com/{repository}:v1": images.multi(),
            f"docker.io/{repository}:v1": images.single(),
        }
    )


@pytest.mark.parametrize("delay_s", [0, 0.1])
def test_what_a_killed_load_left_is_undone(delay_s, dockerd, two_ways, hosts_file) -> None:
    before = files(dockerd)
    process = started(dockerd, two_ways, hosts_file)
    time.sleep(delay_s)
    at_work = process.poll() is None
    process.kill()
    process.communicate()
    undone = load(dockerd, "--undo")
    assert undone.code == 0, undone.stderr
    assert undone.document["undone"] is at_work
    assert files(dockerd) == before
    assert dockerd.docker("info", "-f", "{{len .RegistryConfig.Mirrors}}").strip() == "0"
    assert load(dockerd, "--undo").document["undone"] is False


def test_the_next_load_undoes_what_a_killed_one_left(dockerd, two_ways, hosts_file) -> None:
    before = files(dockerd)
    process = started(dockerd, two_ways, hosts_file)
    process.kill()
    process.communicate()
    assert load(dockerd, two_ways, "--route", "alias").code == 0
    assert files(dockerd) == before


def test_a_signal_puts_everything_back(dockerd, two_ways, hosts_file) -> None:
    before = files(dockerd)
    process = started(dockerd, two_ways, hosts_file)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert files(dockerd) == before


def test_a_second_load_at_the_same_time_is_refused(dockerd, two_ways, hosts_file) -> None:
    process = started(dockerd, two_ways, hosts_file)
    process.send_signal(signal.SIGSTOP)
    second = load(dockerd, two_ways, "--route", "alias")
    undo = load(dockerd, "--undo")
    process.send_signal(signal.SIGCONT)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert (second.code, undo.code) == (7, 7)


def test_a_line_that_somebody_adds_meanwhile_stays(dockerd, two_ways, hosts_file) -> None:
    before = hosts_file.read_bytes()
    process = started(dockerd, two_ways, hosts_file)
    time.sleep(0.1)
    with hosts_file.open("ab") as file:
        file.write(b"10.0.0.9 new.example.com\n")
    assert process.wait() == 0
    assert hosts_file.read_bytes() == before + b"10.0.0.9 new.example.com\n"
    hosts_file.write_bytes(before)


def test_a_name_that_the_hosts_file_has_is_refused(dockerd, layout, repository, hosts_file) -> None:
    before = hosts_file.read_bytes()
    hosts_file.write_bytes(before + b"10.0.0.9 taken.example.com\n")
    try:
        path = layout({f"taken.example.com/{repository}:v1": images.single()})
        refused = load(dockerd, path, "--route", "alias")
        planned = load(dockerd, path, "--route", "alias", "--dry-run")
        assert planned.code == 2
        assert refused.code == 2
        assert "taken.example.com" in refused.document["error"]["message"]
        assert not (dockerd.directory / "etc" / "docker" / "certs.d").exists()
    finally:
        hosts_file.write_bytes(before)


def test_an_address_cannot_be_made_to_lead_here(dockerd, layout, repository) -> None:
    path = layout({f"10.1.2.3:5000/{repository}:v1": images.single()})
    assert load(dockerd, path, "--route", "alias").code == 2


def test_a_dockerd_that_reads_other_files_is_refused(dockerd, layout, repository) -> None:
    path = layout({f"reg.example.com/{repository}:v1": images.single()})
    outside = ocimirror(
        "load", path, "--into", "docker", "--route", "alias", "--host", dockerd.host
    )
    assert outside.code == 2
    assert "nsenter" in outside.stderr


def test_a_dockerd_with_certificates_of_its_own_is_refused(
    dockerd, layout, repository, tmp_path
) -> None:
    path = layout({f"reg.example.com/{repository}:v1": images.single()})
    script = f'mount --bind {tmp_path} /etc/docker && exec "$@"'
    beside = ["unshare", "--mount", "sh", "-c", script, "sh"]
    words = [PROGRAM, "load", path, "--into", "docker", "--route", "alias"]
    words += ["--host", dockerd.host]
    done = subprocess.run(
        [*dockerd.namespace, *beside, *map(str, words)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "/etc/docker" in done.stderr
    assert not list(tmp_path.glob("certs.d"))


def test_a_registry_of_this_machine_is_served_at_its_own_port(dockerd, layout, repository) -> None:
    graph, before = images.docker_schema2(), files(dockerd)
    name = f"localhost:25999/{repository}"
    result = load(dockerd, layout({f"{name}:v1": graph}), "--route", "alias")
    assert result.code == 0, result.stdout
    assert digests(dockerd, f"{name}:v1") == [f"{name}@{graph.root}"]
    assert files(dockerd) == before


def test_by_registry_the_digest_is_known_under_a_name_of_this_machine(
    dockerd, layout, repository
) -> None:
    graph, name = images.multi(), f"reg.example.com/{repository}"
    result = load(dockerd, layout({f"{name}:v1": graph}), "--route", "registry")
    assert result.code == 0, result.stdout
    receipt = only_receipt(result)
    assert parts(receipt) == ("kept", "lost", "lost", "kept")
    (here,) = digests(dockerd, f"{name}:v1")
    assert here.startswith("127.0.0.1:")
    assert here.endswith(f"@{graph.root}")
    assert here in receipt["notes"][0]


@pytest.mark.parametrize("host", ["localhost", "reg.example.com:443"])
def test_a_port_that_goes_without_saying(host, dockerd, layout, repository) -> None:
    graph, before = images.single(), files(dockerd)
    name = f"{host}/{repository}"
    result = load(dockerd, layout({f"{name}:v1": graph}), "--route", "alias")
    assert result.code == 0, result.stdout
    assert digests(dockerd, f"{name}:v1") == [f"{name}@{graph.root}"]
    assert files(dockerd) == before


@pytest.mark.parametrize("route", ["alias", "registry"])
def test_the_one_platform_of_a_sparse_image_is_pulled(
    route, dockerd, layout, repository, tmp_path
) -> None:
    graph, name = images.multi(), f"reg.example.com/{repository}:v1"
    whole, sparse = layout({name: graph}), tmp_path / "sparse"
    copied = ocimirror("copy", f"oci:{whole}:{name}", f"oci:{sparse}", "--platform", "linux/arm64")
    assert copied.code == 0, copied.stderr
    result = load(dockerd, sparse, "--route", route)
    assert result.code == 0, result.stdout
    assert only_receipt(result)["platforms"]["kept"] == ["linux/arm64"]


def test_an_image_that_only_its_digest_names_is_pulled_by_it(dockerd, layout, repository) -> None:
    graph = images.multi()
    name = f"reg.example.com/{repository}@{graph.root}"
    result = load(dockerd, layout({name: graph}), "--route", "alias")
    assert result.code == 0, result.stdout
    assert parts(only_receipt(result)) == ("not_applicable", "kept", "kept", "kept")


def test_nothing_stays_where_pulls_fail(dockerd, layout, repository) -> None:
    before = files(dockerd)
    # (A layer of its own: dockerd takes what another test has loaded already.)
    path = layout({f"reg.example.com/{repository}:v1": images.not_a_tar(repository)})
    result = load(dockerd, path, "--route", "alias")
    assert result.code == 4, result.stdout
    assert files(dockerd) == before


def test_an_image_that_docker_refuses_is_not_asked_for_again_and_again(
    dockerd, layout, repository, tmp_path
) -> None:
    client = tmp_path / "docker"
    client.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\nexec {shutil.which("docker")} "$@"\n'
    )
    client.chmod(0o755)
    name = f"reg.example.com/{repository}"
    refused = images.not_a_tar(repository)
    path = layout({f"{name}:v1": images.single(), f"{name}:v2": refused})
    result = load(dockerd, path, "--route", "alias", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert result.code == 4
    assert only_receipt(result)["image"] == f"{name}:v1"
    pulls = [line for line in (tmp_path / "asked").read_text().splitlines() if " pull " in line]
    assert [line.endswith(f"{name}:v2") for line in pulls].count(True) == 1


def test_a_dockerd_that_dies_meanwhile_leaves_nothing_changed(
    layout, repository, tmp_path_factory
) -> None:
    directory = short_directory(tmp_path_factory, "dead")
    images_of = {
        f"docker.io/{repository}:v{number}": images.shared_layers(
            1, 3, 2_000_000, shared_fraction=0.0
        )[0]
        for number in range(3)
    }
    path = layout({**images_of, f"killed.example.com/{repository}:v1": images.multi()})
    with run_dockerd(directory, isolated=True) as daemon:
        before = files(daemon)
        process = started(daemon, path, directory / "etc" / "hosts")
        os.kill(daemon.pid, signal.SIGKILL)
        said = process.communicate()[0].decode()
        assert process.returncode == 4, said
        assert files(daemon) == before
    remove(directory)


def test_undo_has_no_dry_run(dockerd) -> None:
    assert load(dockerd, "--undo", "--dry-run").code == 2


def test_a_dry_run_changes_nothing(dockerd, two_ways) -> None:
    before = files(dockerd)
    result = load(dockerd, two_ways, "--route", "alias", "--dry-run")
    assert result.code == 0, result.stdout
    assert {planned["route"] for planned in result.document["planned"]} == {"alias"}
    assert files(dockerd) == before
