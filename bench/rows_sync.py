"""Rows 13 and 14: nights of a mirror, against `skopeo sync`, and with very many tags."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.request import urlopen

from bench import content, tools
from bench.measure import Bar, Contender, Sample, race, run, say
from bench.report import Line, lines_of, plain_line
from bench.sites import Site, Sites
from bench.tools import OCIMIRROR, Command
from tests.support.images import REF_NAME_ANNOTATION

FRESH, UNCHANGED = 0, 1
TAGS_BARS: Sequence[Bar] = (0.40, 0.33)
MANY = 10_000
MAX_MS_A_TAG = 2.5  # 400 tags a second and core
MAX_PEAK_MIB = 200


def nights(sites: Sites) -> Iterator[Line]:
    """Row 13."""
    image, source = sites.tags, sites.source
    count = (image.layout / "index.json").read_text().count(REF_NAME_ANNOTATION)

    def twice(command: Command, servers: Sequence[Site], where: Path) -> Sequence[Sample]:
        pids = [site.pid for site in servers]
        fresh = run(command, servers=pids, scratch=sites.scratch)
        check = content.check_layout if where.name == "layout" else content.check_registry
        check(where, image.blobs)
        return fresh, run(command, servers=pids, scratch=sites.scratch)

    def into_registry(directory: Path) -> Sequence[Sample]:
        with sites.empty(directory / "registry") as (site, _):
            target = f"{site.host}/{image.repository}"
            command = _sync(directory, f"{source.host}/{image.repository}", target)
            return twice(command, [source, site], site.data)

    def into_layout(directory: Path) -> Sequence[Sample]:
        layout = directory / "layout"
        command = _sync(directory, f"{source.host}/{image.repository}", f"oci:{layout}")
        return twice(command, [source], layout)

    def skopeo(directory: Path) -> Sequence[Sample]:
        with sites.empty(directory / "registry") as (site, _):
            command = tools.Skopeo().copy_tags(source, site, image.repository)
            return twice(command, [source, site], site.data)

    contenders = [
        Contender("ocimirror sync, to a registry", into_registry, TAGS_BARS),
        Contender("ocimirror sync, to a layout", into_layout, TAGS_BARS),
        Contender("skopeo sync, to a registry", skopeo),
    ]
    race(f"row 13, {count} tags", contenders, sites.runs, sites.scratch)
    title = f"a mirror of {count} tags of 5 layers, partly shared"
    yield from lines_of("13", f"{title}, first night", contenders, FRESH)
    yield from lines_of("13", f"{title}, nothing changed", contenders, UNCHANGED)


def many(sites: Sites) -> Iterator[Line]:
    """Row 14."""
    count = sites.part(MANY)
    with _tag_server(count) as server:
        for name, requests in (("a registry", 2 * count), ("a layout", count)):
            with TemporaryDirectory(dir=sites.scratch) as place:
                yield from _unchanged(sites, server, name, requests, Path(place))


class _Server(NamedTuple):
    host: str
    count: int

    def get(self, path: str) -> bytes:
        with urlopen(f"http://{self.host}{path}") as answer:
            return answer.read()

    def counts(self) -> dict[str, int]:
        """Return how many requests of each kind came since the last time."""
        return json.loads(self.get("/counts"))


@contextlib.contextmanager
def _tag_server(count: int) -> Iterator[_Server]:
    command = [sys.executable, "-m", "bench.tagserver", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield _Server(f"127.0.0.1:{process.stdout.readline().strip()}", count)
        finally:
            process.terminate()


def _unchanged(
    sites: Sites, server: _Server, name: str, wanted: int, directory: Path
) -> Iterator[Line]:
    """Mirror once, then measure nights on which nothing changed, and one with a moved tag."""
    say(f"row 14, {server.count} tags into {name}")
    layout = directory / "layout"
    target = f"oci:{layout}" if name == "a layout" else f"{server.host}/mirror/app"
    command = [*_sync(directory, f"{server.host}/app", target), "--no-fsync"]
    run(command, scratch=sites.scratch)
    server.counts()
    samples, counts = [], {}
    for _ in range(sites.runs):
        samples.append(run(command, scratch=sites.scratch))
        counts = server.counts()
    cpu_s = min(sample.cpu_s for sample in samples)
    peak = max(sample.peak_mib for sample in samples)
    work = f"{server.count} tags, nothing changed, into {name}"
    tool = "ocimirror sync"
    shown = f"{server.count / cpu_s:.0f} tags/s a core"
    found = 1000 * cpu_s / server.count
    yield plain_line("14", work, tool, shown, MAX_MS_A_TAG, found, unit=" ms CPU a tag", peak=peak)
    yield plain_line("14", work, tool, f"{peak:.0f} MiB", MAX_PEAK_MIB, peak, unit=" MiB")
    asked = sum(number for kind, number in counts.items() if kind != "tags/list")
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
    yield plain_line("14", work, tool, told, wanted, asked)
    if name == "a layout":
        yield _one_moved(sites, server, command, layout)


def _one_moved(sites: Sites, server: _Server, command: Command, layout: Path) -> Line:
    before = (layout / "index.json").read_bytes()
    server.get("/moved/1")
    run(command, scratch=sites.scratch)
    asked = sum(n for kind, n in server.counts().items() if kind.startswith("GET"))
    # (Each write of index.json leaves the one before it as index.json.prev.)
    once = (layout / "index.json.prev").read_bytes() == before
    told = f"{asked} GET, index.json written {'once' if once else 'more than once'}"
    work = f"{server.count} tags, one moved, into a layout"
    return plain_line("14", work, "ocimirror sync", told, 3, asked if once else 99)


def _sync(directory: Path, source: str, target: str) -> Command:
    """Return a night; what a mirror remembers is in the directory."""
    file = directory / "sync.yaml"
    file.write_text(f"referrers: false\nmirrors:\n  - from: {source}\n    to: {target}\n")
    return [OCIMIRROR, "sync", str(file), "--quiet"]
