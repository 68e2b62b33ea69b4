"""The real engines of Debian, started for tests in private directories, stopped by pid.

Docker keeps its images in the graphdriver's store (20.10 or 26.1), containerd is 1.6 or 1.7 with
CRI, Podman needs no daemon. Each needs root; without it the test is skipped, loudly.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.programs import require_program

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


def require_root() -> None:
    """Skip the test where engines cannot be started; fail it under CI."""
    if os.geteuid() == 0:
        return
    if os.environ.get("CI"):
        pytest.fail("container engines need root", pytrace=False)
    pytest.skip("container engines need root")


def run(command: Sequence[str | Path], **options: object) -> str:
    """Run a command that must succeed; return what it prints."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return str(done.stdout)


@dataclass
class Dockerd:
    """A dockerd of its own. `namespace` is the program prefix that enters its mount namespace."""

    directory: Path
    pid: int
    namespace: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """What `docker -H` takes."""
        return f"unix://{self.directory}/d.sock"

    @property
    def data_root(self) -> Path:
        """Where it keeps everything."""
        return self.directory / "data"

    @property
    def config_file(self) -> Path:
        """Its daemon.json."""
        return self.directory / "daemon.json"

    def docker(self, *arguments: str) -> str:
        """Run the docker client against it."""
        return run(["docker", "-H", self.host, *arguments])

    def say(self, name: str) -> str:
        """Run an image that is there; return what it printed (an attached client may miss it)."""
        container = self.docker("run", "--detach", "--network=none", "--pull=never", name).strip()
        try:
            self.docker("wait", container)
            return self.docker("logs", container).strip()
        finally:
            self.docker("rm", "--force", container)

    def inspect(self, name: str) -> dict[str, object]:
        """Return `docker image inspect` of one image."""
        found: dict[str, object] = json.loads(self.docker("image", "inspect", name))[0]
        return found


def start_dockerd(directory: Path, *, isolated: bool = False) -> Dockerd:
    """Start dockerd on a data root; on one that was used before it has its images again.

    Args:
        directory: for its files; short, since it holds sockets.
        isolated: in a mount namespace of its own, where /etc/hosts and /etc/docker are copies
            in `directory`.
    """
    require_root()
    program = require_program("dockerd", "docker.io")
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "daemon.json"
    if not config.exists():
        config.write_text('{"insecure-registries": ["127.0.0.0/8"]}\n')
    command = [
        *(program, "--config-file", config, "--data-root", directory / "data"),
        *("--exec-root", directory / "exec", "-p", directory / "pid"),
        *("-H", f"unix://{directory}/d.sock", "--iptables=false", "--ip6tables=false"),
        *("--bridge=none", "--storage-driver=vfs"),
    ]
    if isolated:
        etc = directory / "etc"
        (etc / "docker").mkdir(parents=True, exist_ok=True)
        if not (etc / "hosts").exists():
            (etc / "hosts").write_text("127.0.0.1 localhost\n")
        Path("/etc/docker").mkdir(exist_ok=True)
        script = (
            f"mount --bind {etc}/hosts /etc/hosts && mount --bind {etc}/docker /etc/docker"
            ' && exec "$@"'
        )
        command = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
            *command,
        ]
    log = (directory / "log").open("ab")
    process = subprocess.Popen(
        list(map(str, command)), stdout=log, stderr=log, stdin=subprocess.DEVNULL
    )
    log.close()
    namespace = ("nsenter", "--mount", f"--target={process.pid}") if isolated else ()
    daemon = Dockerd(directory, process.pid, namespace)
    ready = ["docker", "-H", daemon.host, "version"]
    _wait(process, ready, directory / "log")
    return daemon


def stop_dockerd(daemon: Dockerd) -> None:
    """Stop dockerd, and wait until the containerd that it started is gone too."""
    _stop(daemon.pid)


@contextmanager
def run_dockerd(directory: Path, *, isolated: bool = False) -> Iterator[Dockerd]:
    """Run dockerd until the block ends."""
    daemon = start_dockerd(directory, isolated=isolated)
    try:
        yield daemon
    finally:
        stop_dockerd(daemon)


@dataclass
class Containerd:
    """A containerd of its own, with CRI."""

    directory: Path
    pid: int

    @property
    def address(self) -> str:
        """Its socket."""
        return f"{self.directory}/c.sock"

    def ctr(self, *arguments: str, namespace: str = "default") -> str:
        """Run ctr against it."""
        return run(["ctr", "-a", self.address, "-n", namespace, *arguments])

    def content(self, digest: str, namespace: str) -> bytes:
        """Return the bytes that it has under a digest."""
        command = ["ctr", "-a", self.address, "-n", namespace, "content", "get", digest]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def names(self, namespace: str = "default") -> list[str]:
        """Return the names of its image records."""
        return self.ctr("images", "ls", "-q", namespace=namespace).split()


@contextmanager
def run_containerd(directory: Path) -> Iterator[Containerd]:
    """Run containerd until the block ends."""
    require_root()
    program = require_program("containerd", "containerd")
    directory.mkdir(parents=True, exist_ok=True)
    plugins = [
        f"io.containerd.snapshotter.v1.{name}" for name in ("btrfs", "zfs", "devmapper", "aufs")
    ]
    config = directory / "config.toml"
    config.write_text(
        f"""version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = {json.dumps([*plugins, "io.containerd.internal.v1.opt"])}
[grpc]
  address = "{directory}/c.sock"
[ttrpc]
  address = "{directory}/c.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{directory}/cni"
  conf_dir = "{directory}/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{directory}/certs.d"
"""
    )
    log = (directory / "log").open("ab")
    process = subprocess.Popen(
        [program, "--config", str(config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
    )
    log.close()
    try:
        ready = ["ctr", "-a", f"{directory}/c.sock", "version"]
        _wait(process, ready, directory / "log")
        yield Containerd(directory, process.pid)
    finally:
        _stop(process.pid)


@dataclass
class Podman:
    """Podman with storage of its own."""

    directory: Path

    @property
    def argv(self) -> tuple[str, ...]:
        """The program with its storage options."""
        root, runroot = self.directory / "root", self.directory / "run"
        return ("podman", "--root", str(root), "--runroot", str(runroot), "--storage-driver", "vfs")

    def podman(self, *arguments: str) -> str:
        """Run podman on its storage."""
        temporary = self.directory / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        return run([*self.argv, *arguments], env={**os.environ, "TMPDIR": str(temporary)})


def podman_in(directory: Path) -> Podman:
    """Return a Podman that keeps everything in a directory."""
    require_root()
    require_program("podman", "podman")
    return Podman(directory)


def short_directory(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a directory whose path leaves room for a socket's (108 bytes)."""
    directory = tmp_path_factory.mktemp(name)
    assert len(str(directory)) < 80, directory
    return directory


def _wait(process: subprocess.Popen[bytes], ready: Sequence[str], log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
    _stop(process.pid)
    raise RuntimeError(f"{process.args} did not start: {log.read_text(errors='replace')[-3000:]}")


def _stop(pid: int) -> None:
    for number, patience_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 2.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            try:
                if os.waitpid(pid, os.WNOHANG)[0] == pid:
                    return
            except ChildProcessError:
                return
            time.sleep(0.02)


def remove(directory: Path) -> None:
    """Remove what an engine left, mounts and all."""
    for line in Path("/proc/mounts").read_text().splitlines():
        mounted = line.split()[1]
        if mounted.startswith(f"{directory}/"):
            subprocess.run(["umount", "-l", mounted], check=False, capture_output=True)
    shutil.rmtree(directory, ignore_errors=True)
