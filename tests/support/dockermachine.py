"""A machine whose dockerd learns what its files say, and nothing else: for what is done to those.

In a mount namespace of its own, /etc is a directory of the test. A program called dockerd has the
socket and reads daemon.json when it is told to; a program called docker asks it. Both are quick,
so that a command can be killed at each of its steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import PROGRAM, Result
from tests.support.engines import require_root
from tests.support.recorded import Runs, recorded

_DOCKERD = """
import json, os, signal, socket, sys
told, path = sys.argv[1], '/etc/docker/daemon.json'
def read(*_):
    raw = open(path).read() if os.path.exists(path) else ''
    mirrors = (json.loads(raw) if raw.strip() else {}).get('registry-mirrors')
    if mirrors is None:
        mirrors = read.last
    read.last = mirrors
    info = {'ServerVersion': '28', 'OSType': 'linux', 'Architecture': 'x86_64',
            'DriverStatus': [], 'RegistryConfig': {'Mirrors': [m + '/' for m in mirrors]}}
    with open(told + '.new', 'w') as file:
        json.dump(info, file)
    os.rename(told + '.new', told)
read.last = []
read()
signal.signal(signal.SIGHUP, read)
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[2]); s.listen()
print('ready', flush=True)
while True:
    s.accept()[0].close()
"""


@dataclass(frozen=True)
class Machine:
    """A machine, until the block of `run_machine` ends."""

    directory: Path
    pid: int

    @property
    def etc(self) -> Path:
        """What /etc is there."""
        return self.directory / "etc"

    @property
    def namespace(self) -> Sequence[str]:
        """What runs a program there."""
        return ("nsenter", "--mount", f"--target={self.pid}")

    def env(self, info: str = "", pull: str = "true") -> dict[str, str]:
        """Return the environment in which docker is this one.

        Args:
            info: a line of shell that goes ahead of its answer to `docker info`.
            pull: a line of shell that is `docker pull`.
        """
        absent = 'echo "Error: No such image" >&2; exit 1'
        return recorded(
            self.directory / "bin",
            "docker",
            {
                "context inspect --format {{.Endpoints.docker.Host}}": self.host.encode(),
                "info --format {{json .}}": Runs(f"{info}\ncat {self.told}"),
            },
            Runs(f'case "$*" in pull*) {pull} ;; *) {absent} ;; esac'),
        )

    @property
    def host(self) -> str:
        """What leads to the dockerd."""
        return f"unix://{self.directory}/d.sock"

    @property
    def told(self) -> Path:
        """What the dockerd says of itself."""
        return self.directory / "info.json"

    @property
    def mirrors(self) -> list[str]:
        """The mirrors that are in force."""
        return list(json.loads(self.told.read_text())["RegistryConfig"]["Mirrors"])

    def state(self) -> dict[str, object]:
        """Return all files there, with their modes, and the mirrors that are in force."""
        found: dict[str, object] = {
            str(path): (path.lstat().st_mode, path.is_file() and path.read_bytes())
            for path in self.etc.rglob("*")
        }
        return {**found, "mirrors": self.mirrors}

    def run(self, *arguments: str | Path, env: dict[str, str] | None = None) -> Result:
        """Run a command there to its end."""
        done = subprocess.run(
            [*self.namespace, PROGRAM, *map(str, arguments)],
            env=env or self.env(),
            capture_output=True,
            check=False,
            timeout=120,
        )
        return Result(done.returncode, done.stdout, done.stderr.decode())


@contextmanager
def run_machine(directory: Path) -> Iterator[Machine]:
    """Run a machine until the block ends, with what is in the directory's `etc`.

    The path of the directory has to leave room for a socket's.
    """
    require_root()
    (directory / "etc").mkdir(exist_ok=True)
    script = f'mount --bind {directory}/etc /etc && exec "$@"'
    here = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    words = [f"{directory}/info.json", f"{directory}/d.sock"]
    begin = ["bash", "-c", 'exec -a dockerd "$@"', "sh", sys.executable, "-c", _DOCKERD, *words]
    # (By its new name Python does not find its library.)
    env = {**os.environ, "PYTHONHOME": sys.base_prefix}
    with subprocess.Popen([*here, *begin], env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield Machine(directory, process.pid)
        finally:
            os.kill(process.pid, 9)
