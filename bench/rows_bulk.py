"""Rows 1 to 3 and 6 to 8: large images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import content, tools
from bench.measure import Bar, Contender, Sample, race, run
from bench.report import Line, lines_of
from bench.sites import MIB, ROUND_TRIP_MS, Image, Site, Sites
from bench.tools import Ocimirror, Tool

Curl = Callable[[Site, str, Sequence[str], Path], list[str]]


def pull_platforms(sites: Sites) -> Iterator[Line]:
    """Row 1."""
    image = sites.platforms
    work = f"pull {image.size_bytes // MIB} MiB, 3 platforms, 15 layers"
    yield from _pull("1", work, sites, sites.source, image, durable=0.50, kill_safe=0.40)


def pull_layers(sites: Sites) -> Iterator[Line]:
    """Row 2."""
    image = sites.layers
    work = f"pull 4 × {image.size_bytes // MIB // 4} MiB layers"
    beside = [tools.curl, tools.curl_and_sync]
    yield from _pull("2", work, sites, sites.source, image, beside, durable=0.55, kill_safe=0.45)


def pull_one(sites: Sites) -> Iterator[Line]:
    """Row 3."""
    image = sites.one
    work = f"pull one {image.size_bytes // MIB} MiB layer"
    beside = [tools.curl_and_sync]
    yield from _pull("3", work, sites, sites.source, image, beside, durable=0.33)


def pull_elsewhere(sites: Sites) -> Iterator[Line]:
    """Row 8."""
    far = f"with {ROUND_TRIP_MS} ms added round trip"
    for where, site in (("over TLS", sites.over_tls), (far, sites.far_away)):
        for image, what in ((sites.platforms, "3 platforms"), (sites.layers, "4 layers")):
            work = f"pull {image.size_bytes // MIB} MiB, {what}, {where}"
            yield from _pull("8", work, sites, site, image, durable="best", kill_safe="best")


def push(sites: Sites) -> Iterator[Line]:
    """Row 6."""
    image = sites.platforms

    def by(tool: Tool, bar: Bar = None) -> Contender:
        def work(directory: Path) -> Sequence[Sample]:
            with sites.empty(directory / "registry") as (site, _):
                command = tool.push(image.layout, site, f"{image.repository}:1")
                sample = run(command, servers=[site.pid], scratch=sites.scratch)
                content.check_registry(site.data, image.blobs)
            return (sample,)

        return Contender(f"{tool.name} push", work, (bar,))

    title = f"push {image.size_bytes // MIB} MiB, 3 platforms"
    yield from _race("6", title, sites, [by(Ocimirror(), 0.70), *map(by, tools.peers())])


def copy(sites: Sites) -> Iterator[Line]:
    """Row 7."""
    image, source = sites.platforms, sites.source

    def by(tool: Tool, bar: Bar = None) -> Contender:
        def work(directory: Path) -> Sequence[Sample]:
            with sites.empty(directory / "registry") as (site, _):
                command = tool.copy(source, site, f"{image.repository}:1")
                servers = [source.pid, site.pid]
                sample = run(command, servers=servers, scratch=sites.scratch)
                content.check_registry(site.data, image.blobs)
            return (sample,)

        return Contender(f"{tool.name} copy", work, (bar,))

    title = f"copy {image.size_bytes // MIB} MiB, 3 platforms, registry → registry"
    yield from _race("7", title, sites, [by(Ocimirror(), 0.75), *map(by, tools.peers())])


def _pull(
    row: str,
    title: str,
    sites: Sites,
    site: Site,
    image: Image,
    beside: Sequence[Curl] = (),
    *,
    durable: Bar,
    kill_safe: Bar = None,
) -> Iterator[Line]:
    env = {"SSL_CERT_FILE": str(site.ca_file)} if site.ca_file else {}

    def by(tool: Tool, bar: Bar = None) -> Contender:
        def work(directory: Path) -> Sequence[Sample]:
            layout = directory / "layout"
            command = tool.pull(site, f"{image.repository}:1", layout)
            sample = run(command, servers=[site.pid], scratch=sites.scratch, env=env)
            content.check_layout(layout, image.blobs)
            return (sample,)

        return Contender(f"{tool.name} pull", work, (bar,))

    def by_curl(command: Curl) -> Contender:
        def work(directory: Path) -> Sequence[Sample]:
            what = command(site, image.repository, image.layers, directory)
            return (run(what, servers=[site.pid], scratch=sites.scratch),)

        return Contender("curl -Z" + (" and sync" * (command is not tools.curl)), work)

    contenders = [by(Ocimirror(), durable), by(Ocimirror("--no-fsync"), kill_safe)]
    contenders += [*map(by, tools.peers()), *map(by_curl, beside)]
    yield from _race(row, title, sites, contenders)


def _race(row: str, title: str, sites: Sites, contenders: Sequence[Contender]) -> Iterator[Line]:
    race(f"row {row}, {title}", contenders, sites.runs, sites.scratch)
    yield from lines_of(row, title, contenders)
