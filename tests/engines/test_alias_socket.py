"""load --route alias: the dockerd behind the given socket, and no other one, is told anything."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.engines.test_alias import command, files, load, started
from tests.engines.test_load import into, only_receipt, parts
from tests.engines.test_load import load as load_beside
from tests.support import images
from tests.support.command import environment, ocimirror
from tests.support.engines import (
    Dockerd,
    remove,
    run_dockerd,
    short_directory,
    start_dockerd,
    stop_dockerd,
)

pytestmark = pytest.mark.timeout(120)


def reloads(dockerd: Dockerd) -> int:
    """Return how often a dockerd was told to read its configuration."""
    return (dockerd.directory / "log").read_text().count("Got signal to reload")


@pytest.fixture
def neighbour(dockerd, tmp_path_factory) -> Iterator[Dockerd]:
    """A second dockerd that has the configuration file of the first one."""
    directory = short_directory(tmp_path_factory, "n")
    (directory / "daemon.json").symlink_to(dockerd.config_file)
    with run_dockerd(directory) as other:
        yield other
    remove(directory)


def test_a_dockerd_with_the_same_configuration_file_is_left_alone(
    dockerd, neighbour, layout, repository
) -> None:
    before, told = files(dockerd), reloads(dockerd)
    path = layout({f"docker.io/{repository}:v1": images.single()})
    result = load(dockerd, path, "--route", "alias")
    assert result.code == 0, result.stdout + result.stderr
    assert only_receipt(result)["manifest"] == "kept"
    assert reloads(dockerd) == told + 2
    assert reloads(neighbour) == 0
    assert files(dockerd) == before


@pytest.mark.parametrize("beside", ["neighbour", "nobody"])
def test_undo_tells_the_dockerd_of_the_journal(
    beside, dockerd, neighbour, layout, repository, tmp_path
) -> None:
    hosts_file = dockerd.directory / "etc" / "hosts"
    before = files(dockerd)
    names = (f"docker.io/{repository}:v1", f"killed.example.com/{repository}:v1")
    process = started(dockerd, layout({name: images.single() for name in names}), hosts_file)
    while dockerd.docker("info", "-f", "{{len .RegistryConfig.Mirrors}}").strip() == "0":
        assert process.poll() is None
    process.kill()
    process.communicate()
    journal = json.loads((dockerd.directory / "ocimirror-undo.json").read_bytes())
    assert journal["reader"]["pid"] == dockerd.pid
    assert journal["reader"]["socket"] == f"{dockerd.directory}/d.sock"
    host = neighbour.host if beside == "neighbour" else f"unix://{tmp_path}/absent.sock"
    told = reloads(dockerd)
    done = subprocess.run(
        command(dockerd, "load", "--undo", "--host", host, "--json"),
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["undone"] is True
    assert (reloads(dockerd), reloads(neighbour)) == (told + 1, 0)
    assert dockerd.docker("info", "-f", "{{len .RegistryConfig.Mirrors}}").strip() == "0"
    assert files(dockerd) == before


def test_a_socket_that_was_handed_on_leads_to_the_dockerd_that_has_it(
    layout, repository, tmp_path_factory
) -> None:
    """As systemd does: it listens, and dockerd gets the socket as a file descriptor."""
    directory = short_directory(tmp_path_factory, "h")
    daemon = start_dockerd(directory, isolated=True)
    words = Path(f"/proc/{daemon.pid}/cmdline").read_bytes().split(b"\0")[:-1]
    arguments = [word.decode() for word in words]
    arguments[arguments.index(daemon.host)] = "fd://"
    stop_dockerd(daemon)
    (directory / "d.sock").unlink(missing_ok=True)
    script = (
        "import os, socket, subprocess, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "os.dup2(s.fileno(), 3)\n"
        "child = ['sh', '-c', 'LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"', 'sh', *sys.argv[2:]]\n"
        "p = subprocess.Popen(child, pass_fds=[3]); print(p.pid, flush=True); p.wait()\n"
    )
    etc = directory / "etc"
    mounts = (
        f'mount --bind {etc}/hosts /etc/hosts && mount --bind {etc}/docker /etc/docker && exec "$@"'
    )
    isolated = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, "sh"]
    listener = [sys.executable, "-c", script, f"{directory}/d.sock", *arguments]
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen([*isolated, *listener], stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    handed = Dockerd(
        directory,
        int(process.stdout.readline()),
        ("nsenter", "--mount", f"--target={process.pid}"),
    )
    try:
        handed.docker("version")
        told = reloads(handed)
        path = layout({f"docker.io/{repository}:v1": images.single()})
        result = load(handed, path, "--route", "alias")
        assert result.code == 0, result.stdout + result.stderr
        assert only_receipt(result)["manifest"] == "kept"
        assert reloads(handed) == told + 2
    finally:
        os.kill(handed.pid, 15)
        process.wait(20)
        process.stdout.close()
        remove(directory)


def test_a_socket_of_a_program_that_is_no_dockerd_is_refused(
    dockerd, layout, repository, tmp_path_factory
) -> None:
    before, told = files(dockerd), reloads(dockerd)
    directory = short_directory(tmp_path_factory, "p")
    path = layout({f"docker.io/{repository}:v1": images.single()})
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(f"{directory}/p.sock")
        listening.listen()
        threading.Thread(
            target=forward, args=(listening, f"{dockerd.directory}/d.sock"), daemon=True
        ).start()
        through = Dockerd(directory, dockerd.pid, dockerd.namespace)
        (directory / "d.sock").symlink_to(directory / "p.sock")
        result = load(through, path, "--route", "alias")
        listening.shutdown(socket.SHUT_RDWR)
    assert result.code == 2, result.stdout + result.stderr
    assert f"process {os.getpid()}" in result.stderr
    assert (files(dockerd), reloads(dockerd)) == (before, told)
    shutil.rmtree(directory)


def test_a_docker_that_is_not_reached_by_a_socket_is_refused(
    dockerd, layout, repository, tmp_path
) -> None:
    """Another machine's dockerd has the same paths as this one's."""
    path = layout({f"docker.io/{repository}:v1": images.single()})
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        threading.Thread(
            target=forward, args=(listening, f"{dockerd.directory}/d.sock"), daemon=True
        ).start()
        host = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        words = ["load", path, "--into", "docker", "--route", "alias", "--host", host]
        done = subprocess.run(
            command(dockerd, *words), env=environment(), capture_output=True, check=False
        )
        listening.shutdown(socket.SHUT_RDWR)
    assert done.returncode == 2, done.stderr
    assert b"--host unix://" in done.stderr


def forward(listening: socket.socket, target: str) -> None:
    """Carry each connection to a socket and back, until it is closed."""

    def carry(source: socket.socket, sink: socket.socket) -> None:
        while chunk := source.recv(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)

    while True:
        try:
            client = listening.accept()[0]
        except OSError:
            return
        server = socket.socket(socket.AF_UNIX)
        server.connect(target)
        for pair in ((client, server), (server, client)):
            threading.Thread(target=carry, args=pair, daemon=True).start()


def test_a_name_by_digest_that_docker_does_not_find_is_exit_code_9(
    dockerd, layout, repository
) -> None:
    for number, graph in enumerate((images.single(), images.multi())):
        name = f"reg.example.com/{repository}/{number}@{graph.root}"
        path = layout({name: graph})
        loaded = load_beside(path, *into(dockerd))
        assert loaded.code == 9, loaded.document
        assert parts(only_receipt(loaded))[0] == "not_applicable"
        verified = ocimirror("verify", path, "--in", "docker", "--host", dockerd.host, "--json")
        assert verified.code == 9
        pulled = load(dockerd, path, "--route", "alias")
        assert pulled.code == 0, pulled.stdout + pulled.stderr
        assert ocimirror("verify", path, "--in", "docker", "--host", dockerd.host).code == 0
        shutil.rmtree(path)
