"""Taking turns, and what one turn used: wall time, CPU time, peak memory, the servers' CPU time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

LAUNCHER = Path(__file__).with_name("launch.py")
TIMEOUT_S = 600
LEVEL_MIB = 1200
_TICKS = os.sysconf("SC_CLK_TCK")


Bar = float | Literal["best"] | None


class Failed(Exception):
    """A command failed, or did not do what it was asked for."""


class Sample(NamedTuple):
    """What one process used; `server_s` is the CPU time of the registries meanwhile."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    server_s: float


class Ratio(NamedTuple):
    """The median of the ratios of neighbouring runs, between the smallest and the largest."""

    median: float
    low: float
    high: float


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of every tool: nothing of ours, and an empty home of its own.

    skopeo remembers in $HOME what it saw in registries; as root only when it believes to be an
    ordinary user. A warm memory of an earlier run would save it work that others do.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "_CONTAINERS_ROOTLESS_UID": "1000",
        **more,
    }


def run(
    command: Sequence[str],
    *,
    servers: Sequence[int] = (),
    scratch: Path,
    env: Mapping[str, str] | None = None,
) -> Sample:
    """Run a command to its end in a fresh home and return what it used.

    Args:
        servers: pids of the registries that serve it.
        scratch: where the home and its output are for the moment.
        env: variables besides the common ones.

    Raises:
        Failed: an exit code other than 0, or no end within ten minutes.
    """
    with tempfile.TemporaryDirectory(prefix="run-", dir=scratch) as name:
        home = Path(name)
        result, output = home / "result", home / "output"
        os.sync()  # what was written before is not this run's to pay for
        _level_memory(home / "level")
        before = sum(map(_cpu_s, servers))
        with output.open("wb") as out:
            launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), str(result), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment(home, **(env or {})),
                start_new_session=True,
            )
            try:
                launcher.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise Failed(f"{command[0]} did not end within {TIMEOUT_S} s") from None
            finally:
                if launcher.poll() is None:
                    os.killpg(launcher.pid, signal.SIGKILL)
                    launcher.wait()
        server_s = sum(map(_cpu_s, servers)) - before
        said = output.read_text(errors="replace").strip()
        used = json.loads(result.read_text()) if result.exists() else {"code": "none"}
        code = used.pop("code")
        if code != 0:
            raise Failed(f"exit code {code}: {said[-300:]}")
    return Sample(**used, server_s=server_s)


def _level_memory(path: Path) -> None:
    """Let every run find as much memory that was free a moment ago.

    A virtual machine may give freed memory back to its host, and has to ask for it again page by
    page: a second for a GiB, which fell to whoever came after the longest pause.
    """
    piece = bytes(1024 * 1024)
    with path.open("wb", buffering=0) as file:
        for _ in range(LEVEL_MIB):
            file.write(piece)
    path.unlink()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass
class Contender:
    """One tool at one piece of work.

    Attributes:
        name: the command as the table shows it.
        work: does the work once in an empty directory and returns a sample for each phase.
        bars: the ratio to skopeo to reach, for each phase, or "best": that of the best peer;
            empty for what only stands by.
        samples: a list for each run, filled by `race`.
        failure: why it could not do it; then there are no samples.
    """

    name: str
    work: Callable[[Path], Sequence[Sample]]
    bars: Sequence[Bar] = ()
    samples: list[Sequence[Sample]] = field(default_factory=list)
    failure: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is ocimirror."""
        return self.name.startswith("ocimirror")

    def of(self, phase: int) -> list[Sample]:
        """Return its samples of one phase, in the order of the runs."""
        return [sample[phase] for sample in self.samples]


def race(title: str, contenders: Sequence[Contender], runs: int, scratch: Path) -> None:
    """Let the contenders take turns; each run begins with another one."""
    for lap in range(runs):
        say(f"{title}: run {lap + 1} of {runs}")
        shift = lap % len(contenders)
        for contender in [*contenders[shift:], *contenders[:shift]]:
            if contender.failure:
                continue
            directory = scratch / "turn"
            directory.mkdir()
            try:
                contender.samples.append(contender.work(directory))
            except Failed as error:
                contender.failure = str(error)
                contender.samples.clear()
                say(f"{title}: {contender.name} failed: {error}")
            finally:
                shutil.rmtree(directory)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """Compare runs that were neighbours; None where one side has none."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=False) if b > 0]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def say(text: str) -> None:
    """Tell whoever waits what is being done."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
