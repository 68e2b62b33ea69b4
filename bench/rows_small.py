"""Rows 9 and 10: peak memory with one huge layer, start-up, and what is imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import content
from bench.measure import Contender, Failed, Sample, environment, race, ratio, run, say
from bench.report import Line, failed_line, plain_line, show_ratio
from bench.sites import MIB, Image, Site, Sites
from bench.tools import OCIMIRROR, Command, Ocimirror

MEMORY_BAR_MIB = 90
STARTS = 20
START_BAR = 5
NETWORK = frozenset({"requests", "urllib3", "oras", "http.client", "ssl", "socket"})

Work = Callable[[Site, Path], Command]


def memory(sites: Sites) -> Iterator[Line]:
    """Row 9: each piece of work once; how long it takes is not what is asked."""
    image, source, ours = sites.sparse, sites.source, Ocimirror("--no-fsync")
    name = f"{image.repository}:1"
    works: dict[str, Work] = {
        "pull": lambda _, directory: ours.pull(source, name, directory / "layout"),
        "push": lambda site, _: ours.push(image.layout, site, name),
        "copy": lambda site, _: ours.copy(source, site, name),
    }
    for kind, work in works.items():
        title = f"{kind} one layer of {max(image.blobs.values()) / 1024 / MIB:.4g} GiB"
        say(f"row 9, {title}")
        tool = f"{ours.name} {kind}"
        try:
            sample = _once(sites, image, work)
        except Failed as error:
            yield failed_line("9", title, tool, str(error))
        else:
            peak = sample.peak_mib
            yield plain_line("9", title, tool, "", MEMORY_BAR_MIB, peak, unit=" MiB", peak=peak)


def _once(sites: Sites, image: Image, work: Work) -> Sample:
    with tempfile.TemporaryDirectory(dir=sites.scratch) as name:
        directory = Path(name)
        with sites.empty(directory / "registry") as (site, _):
            sample = run(work(site, directory), scratch=sites.scratch)
            if (directory / "layout").exists():
                content.check_layout(directory / "layout", image.blobs)
            else:
                content.check_registry(site.data, image.blobs)
    return sample


def start(sites: Sites) -> Iterator[Line]:
    """Row 10."""

    def runs(command: Command) -> Callable[[Path], Sequence[Sample]]:
        return lambda _: (run(command, scratch=sites.scratch),)

    python = Contender("python3 -c pass", runs([sys.executable, "-c", "pass"]))
    version = Contender("ocimirror --version", runs([OCIMIRROR, "--version"]))
    race("row 10", [version, python], STARTS, sites.scratch)
    if version.failure:
        yield failed_line("10", "start", version.name, version.failure)
        return
    walls = [[sample.wall_s for sample in one.of(0)] for one in (version, python)]
    found = ratio(*walls)
    assert found is not None
    shown = f"{show_ratio(found)} × {python.name}"
    peak = max(sample.peak_mib for sample in version.of(0))
    yield plain_line("10", "start", version.name, shown, START_BAR, found.median, peak=peak)
    modules = _modules(sites, OCIMIRROR, "--version")
    foreign = _distributions(modules) - {"ocimirror", "click"}
    yield plain_line("10", "imports", version.name, _told(modules), 0, len(foreign))
    modules = _modules(sites, OCIMIRROR, "verify", f"oci:{sites.tags.layout}")
    network = modules & NETWORK
    told = f"{_told(modules)}; of the network: {', '.join(sorted(network)) or 'nothing'}"
    yield plain_line("10", "imports", "ocimirror verify LAYOUT", told, 0, len(network))


def _modules(sites: Sites, *command: str) -> set[str]:
    """Return the modules that a Python program imports besides those of every program."""
    return _imported(sites, *command) - _imported(sites, "-c", "pass")


def _imported(sites: Sites, *command: str) -> set[str]:
    said = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        capture_output=True,
        text=True,
        check=True,
        env=environment(sites.scratch),
    ).stderr
    lines = (line.split("|") for line in said.splitlines() if line.startswith("import time:"))
    return {parts[2].strip() for parts in lines}


def _distributions(modules: set[str]) -> set[str]:
    """Return the top-level modules that are not Python's; an import that failed is none."""
    names = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    return {name for name in names if importlib.util.find_spec(name)}


def _told(modules: set[str]) -> str:
    return f"{len(modules)} modules; not of Python: {', '.join(sorted(_distributions(modules)))}"
