"""Runs the transcripts of a page of the documentation, and compares what is printed.

A transcript is a `console` block: a line with `$ ` is a command, a line with `# ` says on which
machine what follows runs, all others are what the command prints. `…` stands for anything; after
eight digits of a digest, in a command too, for the rest of it; alone on a line, for any lines.

Run as a program it needs a mount and a network namespace of its own, in which engines, a registry
and the files of /etc are where the page says they are. `--write` puts what was printed where the
page says something else.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support import images
from tests.support.certificates import write_certificates
from tests.support.command import PROGRAM
from tests.support.dockerservice import DockerService
from tests.support.engines import Dockerd, remove, run, run_containerd, start_dockerd, stop_dockerd
from tests.support.servers import run_docker_registry

CONNECTED, ISOLATED = "# on a machine with a network", "# on the machine without one"
HOSTS = ("registry.example.com", "registry-1.docker.io", "registry.k8s.io")
IMAGES = {
    ("team/app", "1.0"): images.multi,
    ("team/legacy", "1.0"): images.docker_schema2,
    ("library/alpine", "3.19"): images.multi,
    ("pause", "3.9"): images.docker_list,
}
MIRROR_PORT = 5000
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHORT = re.compile(r"\b([0-9a-f]{8})…")
_FULL = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
_MARK = "\x01"
# (ctr's progress asks once more for what is being committed; on a busy machine it says so.)
_NOISE = re.compile(
    r'time="\S+" level=error msg="failed to get content info" error="context canceled"'
)


def main() -> int:
    """Run one page; return 1 where something else is printed than it says."""
    page, write = Path(sys.argv[1]), "--write" in sys.argv
    directory = Path(tempfile.mkdtemp(prefix="page-"))
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    try:
        with Machine(directory) as machine:
            text = page.read_text()
            made = _BLOCK.sub(lambda block: f"```console\n{machine.play(block[1])}```", text)
    finally:
        remove(directory)
    if write and made != text:
        page.write_text(made)
    print("\n".join(machine.differences))
    return 1 if machine.differences else 0


class Machine:
    """Engines and registries in this process's namespaces; it plays both machines of the page."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._work = directory / "work"
        self._stack = contextlib.ExitStack()
        self._network = contextlib.ExitStack()
        self._graphs = {name: make() for name, make in IMAGES.items()}
        self._digests = {
            digest.partition(":")[2] for graph in self._graphs.values() for digest in graph.contents
        }
        self.differences: list[str] = []

    def __enter__(self) -> Machine:
        with self._stack:
            self._work.mkdir()
            hub = {"docker.io/library/alpine:3.19": self._graphs["team/legacy", "1.0"]}
            images.write_layout(self._work / "hub", hub)
            self._place_files()
            os.environ.update(self._environment())
            self._start_engines()
            self._stack.enter_context(
                run_docker_registry(self._directory / "mirror", port=MIRROR_PORT)
            )
            self._stack.callback(self._network.close)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _place_files(self) -> None:
        """Put files of /etc and /run where only this process and its children see them."""
        run(["ip", "link", "set", "lo", "up"])
        run(["mount", "--make-rprivate", "/"])
        run(["mount", "-t", "tmpfs", "tmpfs", "/run"])
        Path("/run/systemd/system").mkdir(parents=True)
        etc = self._directory / "etc"
        (etc / "docker").mkdir(parents=True)
        (etc / "hosts").write_text(f"127.0.0.1 localhost {' '.join(HOSTS)}\n")
        (etc / "resolv.conf").write_text("")
        Path("/etc/docker").mkdir(exist_ok=True)
        for name in ("docker", "hosts", "resolv.conf"):
            run(["mount", "--bind", etc / name, f"/etc/{name}"])
        self._hosts = etc / "hosts"

    def _environment(self) -> dict[str, str]:
        programs = self._directory / "programs"
        programs.mkdir()
        if Path("/usr/bin/docker").exists():  # (Debian's, of the same version as its dockerd)
            (programs / "docker").symlink_to("/usr/bin/docker")
        self._certificates = write_certificates(
            self._directory / "tls", names=(*HOSTS, "127.0.0.1")
        )
        storage = self._directory / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{self._directory}/p"\nrunroot = "/run/p"\n'
        )
        (self._directory / "tmp").mkdir()
        return {
            "HOME": str(self._work),
            "LC_ALL": "C.UTF-8",
            "PATH": f"{programs}:{Path(PROGRAM).parent}:{os.environ['PATH']}",
            "SSL_CERT_FILE": str(self._certificates.ca_file),
            "OCIMIRROR_CA_FILE": str(self._certificates.ca_file),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERD_SNAPSHOTTER": "native",
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            "TMPDIR": str(self._directory / "tmp"),
        }

    def _start_engines(self) -> None:
        daemon = start_dockerd(self._directory / "d")
        service = DockerService(daemon)
        self._stack.callback(_end, service, daemon)
        systemctl = self._directory / "programs" / "systemctl"
        systemctl.write_text(service.systemctl)
        systemctl.chmod(0o755)
        Path("/run/docker.sock").symlink_to(f"{daemon.directory}/d.sock")
        Path("/etc/docker/daemon.json").symlink_to(daemon.config_file)
        Path("/var/lib/docker").mkdir(exist_ok=True)
        run(["mount", "--bind", daemon.data_root, "/var/lib/docker"])
        containerd = self._stack.enter_context(run_containerd(self._directory / "c"))
        Path("/run/containerd").mkdir(exist_ok=True)  # (newer ones put their plugins there)
        Path("/run/containerd/containerd.sock").symlink_to(containerd.address)

    def play(self, block: str) -> str:
        """Run a block; return it with what was printed instead of what it says."""
        made: list[str] = []
        part: list[str] = []
        for line in block.splitlines():
            if line in (CONNECTED, ISOLATED):
                made += self._run(part)
                made.append(line)
                part = []
                self._empty(block)
                self._connect(line == CONNECTED, known="--route alias" not in block)
            else:
                part.append(line)
        made += self._run(part)
        return "".join(f"{line}\n" for line in made)

    def _connect(self, connected: bool, *, known: bool) -> None:
        """Start or stop the registry.

        Its names stay in the hosts file, but where the name has to be unknown: an engine keeps
        what it read there for five seconds.
        """
        self._network.close()
        names = ("localhost", *HOSTS) if known else ("localhost",)
        self._hosts.write_text(f"127.0.0.1 {' '.join(names)}\n")
        if connected:
            registry = self._network.enter_context(
                run_docker_registry(
                    self._directory / "origin", certificates=self._certificates, port=443
                )
            )
            for (repository, tag), graph in self._graphs.items():
                images.push(registry, repository, tag, graph)

    def _empty(self, block: str) -> None:
        """Take every image out of the engines that a block is about."""
        if "docker" in block:
            for image in set(run(["docker", "image", "ls", "-aq"]).split()):
                subprocess.run(["docker", "image", "rm", "-f", image], capture_output=True)
        if "ctr" in block or "containerd" in block:
            for space in ("default", "k8s.io"):
                ctr = ["ctr", "-n", space, "images"]
                for name in run([*ctr, "ls", "-q"]).split():
                    subprocess.run([*ctr, "rm", "--sync", name], capture_output=True)
        if "podman" in block:
            run(["podman", "rmi", "--all", "--force"])

    def _run(self, lines: list[str]) -> list[str]:
        if not any(line.startswith("$ ") for line in lines):
            return lines
        before, commands = _parsed(lines)
        script = ["exec 2>&1\n", "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n"]
        for command, _ in commands:
            # (CRI takes in what containerd tells it a moment later.)
            wait = "sleep 1\n" if "--in cri" in command else ""
            script.append(f"{wait}{self._lengthened(command)}\nprintf '{_MARK}'\n")
        done = subprocess.run(
            ["bash", "-c", "".join(script)],
            cwd=self._work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
        printed = done.stdout.split(_MARK)
        made = before
        for number, (command, expected) in enumerate(commands):
            actual = printed[number].splitlines() if number < len(printed) else ["(not run)"]
            actual = [line for line in actual if not _NOISE.fullmatch(line)]
            self._digests.update(_full(actual))
            made += [f"$ {line}" if not at else line for at, line in enumerate(command.split("\n"))]
            if _says(expected, actual):
                made += expected
                continue
            short = [_FULL.sub(r"\1…", line) for line in actual]
            made += short
            self.differences += [f"$ {command}", *(f"- {line}" for line in expected)]
            self.differences += [f"+ {line}" for line in short]
        return made

    def _lengthened(self, command: str) -> str:
        def whole(short: re.Match[str]) -> str:
            (digest,) = {each for each in self._digests if each.startswith(short[1])} or {"?"}
            return digest

        return _SHORT.sub(whole, command)


def _end(service: DockerService, daemon: Dockerd) -> None:
    service.end()
    stop_dockerd(daemon)


def _parsed(lines: Iterable[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the lines before the first command, and each command with what it prints."""
    before: list[str] = []
    commands: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("$ "):
            commands.append((line.removeprefix("$ "), []))
        elif not commands:
            before.append(line)
        elif commands[-1][0].endswith("\\") and not commands[-1][1]:
            commands[-1] = (f"{commands[-1][0]}\n{line}", [])
        else:
            commands[-1][1].append(line)
    return before, commands


def _full(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield from (found[0] for found in _FULL.finditer(line))


def _says(expected: list[str], actual: list[str]) -> bool:
    """Return whether what was printed is what a page says."""
    pieces = [
        r"(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n"
        for line in expected
    ]
    return re.fullmatch("".join(pieces), "".join(f"{line}\n" for line in actual)) is not None


def play(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a page in namespaces of its own."""
    program = [sys.executable, "-m", "tests.support.transcripts", str(page), *options]
    return subprocess.run(
        ["unshare", "--mount", "--net", *program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
