"""docker-refs against a real dockerd: what it lost comes back, and nothing else changes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import ocimirror
from tests.support.dockerservice import DockerService
from tests.support.engines import (
    Dockerd,
    remove,
    run,
    short_directory,
    start_dockerd,
    stop_dockerd,
)
from tests.support.images import Graph
from tests.support.runnable import SAYS, docker_archive, image_id_of, manifest_of, runnable
from tests.support.traced import stopped

REPOSITORY = "registry.example.com/team/app"
APP = f"{REPOSITORY}:1.0"
HUB = "docker.io/library/fixture:2.0"


@pytest.fixture(scope="module")
def image() -> Graph:
    return runnable()


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerService]:
    """Run a dockerd of its own, which the test may stop and start."""
    directory = short_directory(tmp_path_factory, "d")
    daemon = start_dockerd(directory)
    service = DockerService(daemon)
    try:
        yield service
    finally:
        service.end()
        stop_dockerd(daemon)
        remove(directory)


@pytest.fixture
def layout(tmp_path: Path, image: Graph) -> Path:
    return images.write_layout(tmp_path / "layout", {APP: image})


@pytest.fixture
def loaded(service: DockerService, tmp_path: Path, image: Graph) -> Dockerd:
    """Load the image of the layout as docker has always done it."""
    archive = docker_archive(tmp_path / "image.tar", image, APP)
    service.daemon.docker("load", "-i", str(archive))
    return service.daemon


def store_of(daemon: Dockerd) -> Path:
    return daemon.data_root / "image" / "vfs" / "repositories.json"


def backups_of(daemon: Dockerd) -> list[Path]:
    return sorted(store_of(daemon).parent.glob("repositories.json.ocimirror-*"))


def digests_of(daemon: Dockerd, name: str = APP) -> set[str]:
    return set(daemon.inspect(name)["RepoDigests"])  # type: ignore[call-overload]


def by_digest(image: Graph, repository: str = REPOSITORY) -> set[str]:
    """Return the names by digest that the image has in its registry."""
    return {f"{repository}@{image.root}", f"{repository}@{manifest_of(image)}"}


def run_line(daemon: Dockerd, *arguments: str) -> str:
    return shlex.join(["docker", "-H", daemon.host, *arguments])


def add_by_hand(daemon: Dockerd, name: str, image_id: str) -> None:
    document = json.loads(store_of(daemon).read_bytes())
    document["Repositories"].setdefault(REPOSITORY, {})[name] = image_id
    store_of(daemon).write_bytes(images.compact(document))


# --- what Docker does ---------------------------------------------------------------------------


def test_docker_load_loses_the_digest_and_sighup_does_not_bring_it_back(
    service: DockerService, loaded: Dockerd, image: Graph
) -> None:
    assert loaded.inspect(APP)["Id"] == image_id_of(image)
    assert digests_of(loaded) == set()
    for name in by_digest(image):
        add_by_hand(loaded, name, image_id_of(image))
    os.kill(loaded.pid, signal.SIGHUP)
    deadline = time.monotonic() + 10
    log = loaded.directory / "log"
    while "Reloaded configuration" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "Reloaded configuration" in log.read_text()
    assert digests_of(loaded) == set()
    loaded.docker("tag", APP, "another:name")
    assert "@sha256" not in store_of(loaded).read_text()


# --- restore ------------------------------------------------------------------------------------


def test_restore_brings_the_digests_of_index_and_manifest_back(
    service: DockerService, loaded: Dockerd, layout: Path, image: Graph
) -> None:
    before = store_of(loaded).read_bytes()
    done = ocimirror("docker-refs", "restore", layout, *service.options, "--json")
    assert done.code == 0, done.stderr
    document = done.document
    assert document["schema"] == "ocimirror.docker-refs/v1"
    assert (document["action"], document["restarted"]) == ("restore", True)
    (restored,) = document["images"]
    assert (restored["name"], restored["status"]) == (APP, "restored")
    assert {d["name"] for d in restored["digests"]} == by_digest(image)

    listed = loaded.docker("images", "--digests", "--no-trunc")
    assert image.root in listed
    assert manifest_of(image) in listed
    assert digests_of(loaded) == by_digest(image)
    for name in by_digest(image):
        assert loaded.say(name) == SAYS

    asked = ["verify", layout, "--in", "docker", "--host", loaded.host]
    audited = ocimirror(*asked, "--require", "tag,index,manifest,config")
    assert audited.code == 0, audited.stdout

    assert [path.read_bytes() for path in backups_of(loaded)] == [before]
    assert document["backup"] == str(backups_of(loaded)[0])
    assert {os.stat(p).st_mode & 0o7777 for p in [store_of(loaded), *backups_of(loaded)]} == {0o600}
    # dockerd writes the whole file anew with each name: what it writes is what was written.
    written = store_of(loaded).read_bytes()
    loaded.docker("tag", APP, "another:name")
    loaded.docker("rmi", "another:name")
    assert store_of(loaded).read_bytes() == written


def test_restore_again_changes_nothing_and_does_not_stop_docker(
    service: DockerService, loaded: Dockerd, layout: Path
) -> None:
    assert ocimirror("docker-refs", "restore", layout, *service.options).code == 0
    pid = service.pid_file.read_text()
    again = ocimirror("docker-refs", "restore", layout, *service.options)
    assert (again.code, again.stdout) == (0, f"unchanged  {APP}\n")
    assert service.pid_file.read_text() == pid
    assert len(backups_of(loaded)) == 1


def test_an_image_of_docker_hub_gets_its_short_name_by_digest(
    service: DockerService, tmp_path: Path, image: Graph
) -> None:
    layout = images.write_layout(tmp_path / "layout", {HUB: image})
    daemon = service.daemon
    daemon.docker("load", "-i", str(docker_archive(tmp_path / "i.tar", image, "fixture:2.0")))
    assert ocimirror("docker-refs", "restore", layout, *service.options).code == 0
    assert digests_of(daemon, "fixture:2.0") == by_digest(image, "fixture")


def test_a_stopped_docker_is_not_started_and_needs_its_data_root(
    service: DockerService, loaded: Dockerd, layout: Path, image: Graph
) -> None:
    service.stop()
    where = ["--host", loaded.host]
    asked = ocimirror("docker-refs", "restore", layout, *where)
    assert asked.code == 4
    assert "--data-root" in asked.stderr
    done = ocimirror("docker-refs", "restore", layout, *where, "--data-root", loaded.data_root)
    assert done.code == 0, done.stderr
    assert "start Docker now" in done.stdout
    assert "moby#49386" in done.stdout
    assert not service.pid_file.exists()
    run([service.start_command])
    run(["sh", "-c", f"until docker -H {loaded.host} version >/dev/null 2>&1; do sleep 0.1; done"])
    assert digests_of(loaded) == by_digest(image)


def test_a_running_docker_is_refused_whatever_the_pid_file_says(
    service: DockerService, loaded: Dockerd, layout: Path
) -> None:
    before = store_of(loaded).read_bytes()
    asked = ocimirror("docker-refs", "restore", layout, "--host", loaded.host, "--json")
    assert asked.code == 4
    assert asked.document["error"]["code"] == "engine_running"
    blind = ["--host", "unix:///nonexistent.sock", "--data-root", str(loaded.data_root)]
    service.pid_file.rename(service.pid_file.with_name("moved"))
    not_asked = ocimirror("docker-refs", "restore", layout, *blind)
    service.pid_file.with_name("moved").rename(service.pid_file)
    assert not_asked.code == 4
    assert "metadata.db is locked" in not_asked.stderr
    assert store_of(loaded).read_bytes() == before
    assert backups_of(loaded) == []


def test_a_dry_run_says_what_it_would_write_beside_a_running_docker(
    service: DockerService, loaded: Dockerd, layout: Path, image: Graph
) -> None:
    before = store_of(loaded).read_bytes()
    planned = ocimirror("docker-refs", "restore", layout, "--host", loaded.host, "--dry-run")
    assert planned.code == 0, planned.stderr
    assert f"planned  {APP}" in planned.stdout
    for name in by_digest(image):
        assert f"  {name}  {image_id_of(image)}" in planned.stdout
    assert store_of(loaded).read_bytes() == before
    assert backups_of(loaded) == []


def test_whoever_restarts_docker_is_told_of_the_containers_that_it_stops(
    service: DockerService, loaded: Dockerd, layout: Path
) -> None:
    loaded.docker("run", "-d", "--network=none", "--name=long", APP, "sleep", "600")
    options = service.options
    planned = ocimirror("docker-refs", "restore", layout, *options, "--dry-run")
    assert "note: stopping Docker would stop 1 containers" in planned.stdout
    done = ocimirror("docker-refs", "restore", layout, *options)
    assert done.code == 0, done.stderr
    assert "WARNING stopping Docker stops 1 containers" in done.stderr
    loaded.docker("rm", "-f", "long")


def test_with_live_restore_a_container_lives_on_through_the_restart(
    tmp_path_factory: pytest.TempPathFactory, layout: Path, tmp_path: Path, image: Graph
) -> None:
    """Its containerd and shim run on while dockerd is down, and are no evidence of a dockerd."""
    directory = short_directory(tmp_path_factory, "d")
    (directory / "daemon.json").write_text('{"live-restore": true}')
    daemon = start_dockerd(directory)
    service = DockerService(daemon)
    try:
        daemon.docker("load", "-i", str(docker_archive(tmp_path / "image.tar", image, APP)))
        daemon.docker("run", "-d", "--network=none", "--name=long", APP, "sleep", "600")
        started = daemon.docker("inspect", "-f", "{{.State.Pid}}", "long")
        done = ocimirror("docker-refs", "restore", layout, *service.options)
        assert done.code == 0, done.stderr
        assert "stopping" not in done.stderr
        assert daemon.docker("inspect", "-f", "{{.State.Pid}}", "long") == started
        assert digests_of(daemon) == by_digest(image)
        daemon.docker("rm", "-f", "long")
    finally:
        service.end()
        stop_dockerd(daemon)
        remove(directory)


def test_the_old_file_is_put_back_where_docker_does_not_start_with_the_new_one(
    service: DockerService, loaded: Dockerd, layout: Path
) -> None:
    before = store_of(loaded).read_bytes()
    # A start that works only with a store without digests: as a later dockerd might.
    picky = loaded.directory / "picky"
    picky.write_text(
        f"#!/bin/sh\nif grep -q @sha256: {store_of(loaded)}; then echo 'will not' >&2; exit 1; fi\n"
        f"exec {service.start_command}\n"
    )
    picky.chmod(0o755)
    options = [o for o in service.options if not o.startswith("--start-command")]
    failed = ocimirror("docker-refs", "restore", layout, *options, f"--start-command={picky}")
    assert failed.code == 4
    assert "was put back, and it runs again: " in failed.stderr
    assert "will not" in failed.stderr
    assert store_of(loaded).read_bytes() == before
    assert digests_of(loaded) == set()
    assert [path.read_bytes() for path in backups_of(loaded)] == [before]


def test_a_dockerd_that_starts_while_the_file_is_written_gives_up(
    service: DockerService, loaded: Dockerd, layout: Path, tmp_path: Path
) -> None:
    """The lock that keeps it away is one that it takes before it reads the file."""
    service.stop()
    before = store_of(loaded).read_bytes()
    blind = ["--host", loaded.host, "--data-root", str(loaded.data_root)]
    arguments = ["docker-refs", "restore", layout, *blind]
    with stopped("rename", 1, arguments, tmp_path / "trace"):
        started = subprocess.run(
            service.command, capture_output=True, text=True, timeout=60, check=False
        )
        assert store_of(loaded).read_bytes() == before
    assert store_of(loaded).read_bytes() != before
    assert started.returncode == 1
    said = started.stderr + started.stdout
    assert "volume store metadata database" in said
    assert "timeout" in said


def test_a_signal_while_docker_is_down_does_not_leave_it_down(
    service: DockerService, loaded: Dockerd, layout: Path, image: Graph
) -> None:
    signalling = loaded.directory / "signalling"
    signalling.write_text(f"#!/bin/sh\n{service.stop_command}\nkill -TERM $PPID\n")
    signalling.chmod(0o755)
    options = [o for o in service.options if not o.startswith("--stop-command")]
    done = ocimirror("docker-refs", "restore", layout, *options, f"--stop-command={signalling}")
    assert done.code == 0, done.stderr
    assert digests_of(loaded) == by_digest(image)


# --- show ---------------------------------------------------------------------------------------


def test_show_lists_names_and_what_a_layout_knows_to_be_lost(
    service: DockerService, loaded: Dockerd, layout: Path, image: Graph
) -> None:
    shown = ocimirror("docker-refs", "show", layout, "--host", loaded.host, "--json")
    assert shown.code == 0, shown.stderr
    document = shown.document
    assert document["schema"] == "ocimirror.docker-refs/v1"
    assert (document["driver"], document["running"]) == ("vfs", True)
    assert document["path"] == str(store_of(loaded))
    (found,) = document["images"]
    assert found["image_id"] == image_id_of(image)
    assert (found["present"], found["tags"], found["digests"]) == (True, [APP], [])
    assert {lost["name"] for lost in found["lost"]} == by_digest(image)

    lines = ocimirror("docker-refs", "show", layout, "--host", loaded.host).stdout.splitlines()
    assert lines[:2] == [image_id_of(image), f"  tag     {APP}"]
    assert all(line.startswith("  lost    ") for line in lines[2:])


def test_show_needs_a_docker_or_a_data_root(tmp_path: Path) -> None:
    nowhere = ocimirror("docker-refs", "show", "--host", "unix:///nonexistent.sock")
    assert nowhere.code == 4
    assert "--data-root" in nowhere.stderr
    empty = ocimirror(
        *("docker-refs", "show", "--host", "unix:///nonexistent.sock"),
        *("--data-root", tmp_path),
    )
    assert empty.code == 4


def test_restart_docker_needs_to_know_how_where_systemd_does_not_run(layout: Path) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here")
    asked = ocimirror("docker-refs", "restore", layout, "--restart-docker")
    assert asked.code == 2
    assert "--stop-command" in asked.stderr


def test_help_says_that_upstream_calls_the_file_internal() -> None:
    assert "moby#49386" in ocimirror("docker-refs", "restore", "--help").stdout
