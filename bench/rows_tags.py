"""Rows 4 and 5: many tags of small images, and then the same again with nothing changed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import content, tools
from bench.measure import Bar, Contender, Sample, race, run, say
from bench.report import Line, lines_of, plain_line
from bench.sites import Image, Site, Sites
from bench.tools import OCIMIRROR, Command, Ocimirror, Tool
from tests.support.images import REF_NAME_ANNOTATION

FRESH, UNCHANGED = 0, 1


def tags(sites: Sites) -> Iterator[Line]:
    """Rows 4 and 5, which are measured together."""
    image, source = sites.tags, sites.source
    count = len(_names(image))

    def pulled(tool: Ocimirror, bars: Sequence[Bar]) -> Contender:
        def work(directory: Path) -> Sequence[Sample]:
            command = _pull_all(tool, source, image, directory)
            return _twice(sites, command, [source], directory / "layout", image)

        return Contender(f"{tool.name} pull --images-file", work, bars)

    def copied(tool: Tool, name: str, bars: Sequence[Bar] = ()) -> Contender:
        def work(directory: Path) -> Sequence[Sample]:
            with sites.empty(directory / "registry") as (site, _):
                command = tool.copy_tags(source, site, image.repository) or []
                return _twice(sites, command, [source, site], site.data, image)

        return Contender(name, work, bars)

    contenders = [
        pulled(Ocimirror(), (0.40, 0.33)),
        pulled(Ocimirror("--no-fsync"), (None, None)),
        copied(Ocimirror(), "ocimirror's copy(), by bench.many", (0.40, 0.33)),
        *(
            copied(tool, f"{tool.name}, all tags")
            for tool in tools.peers()
            if tool.copy_tags(source, source, image.repository)
        ),
    ]
    race(f"rows 4 and 5, {count} tags", contenders, sites.runs, sites.scratch)
    title = f"{count} tags of 5 layers, partly shared; the peers registry → registry"
    yield from lines_of("4", title, contenders, FRESH)
    yield from lines_of("5", f"the same {count} again, nothing changed", contenders, UNCHANGED)
    yield from _requests(sites, image)


def _twice(
    sites: Sites, command: Command, servers: Sequence[Site], where: Path, image: Image
) -> Sequence[Sample]:
    pids = [site.pid for site in servers]
    fresh = run(command, servers=pids, scratch=sites.scratch)
    check = content.check_layout if where.name == "layout" else content.check_registry
    check(where, image.blobs)
    return fresh, run(command, servers=pids, scratch=sites.scratch)


def _pull_all(tool: Ocimirror, site: Site, image: Image, directory: Path) -> Command:
    names = directory / "images"
    names.write_text("".join(f"{site.host}/{name}\n" for name in _names(image)))
    return tool.command("pull", site, "--images-file", names, directory / "layout")


def _names(image: Image) -> list[str]:
    return [f"{image.repository}:t{n:03}" for n in range(_count(image))]


def _count(image: Image) -> int:
    return (image.layout / "index.json").read_text().count(REF_NAME_ANNOTATION)


def _requests(sites: Sites, image: Image) -> Iterator[Line]:
    """Count the requests of an unchanged run, in runs of their own: an access log takes time."""
    count = _count(image)
    pull = Ocimirror(*_without_referrers())

    def pulled(source: Site, _: Site, directory: Path) -> Command:
        return _pull_all(pull, source, image, directory)

    def told(tool: Tool, into: str, requests: int, bar: int | None) -> Line:
        work = f"requests a tag, nothing changed, into {into}"
        shown = f"{requests} for {count} tags"
        # (What lists the tags asks once more, for all of them.)
        return plain_line("5", work, tool.name, shown, bar, requests // count)

    yield told(pull, "a layout", _counted(sites, pulled), 1)
    for tool in (Ocimirror(), *tools.peers()):

        def copied(source: Site, site: Site, _: Path, tool: Tool = tool) -> Command | None:
            return tool.copy_tags(source, site, image.repository)

        requests = _counted(sites, copied)
        if requests:
            bar = 2 if isinstance(tool, Ocimirror) else None
            yield told(tool, "a registry", requests, bar)


def _counted(sites: Sites, command: Callable[[Site, Site, Path], Command | None]) -> int:
    """Return the requests of the second of two runs; 0 for a tool that cannot do it."""
    say("row 5, counting requests")
    with (
        TemporaryDirectory(dir=sites.scratch) as name,
        sites.logged(name + "-source") as (source, source_log),
        sites.empty(Path(name) / "registry", access_log=True) as (site, site_log),
    ):
        what = command(source, site, Path(name))
        if what is None:
            return 0
        counts = []
        for _ in range(2):
            run(what, scratch=sites.scratch)
            counts.append(len(source_log.accesses()) + len(site_log.accesses()))
        return counts[1] - counts[0]


def _without_referrers() -> list[str]:
    """Return the option that spares a request a tag, once there is one."""
    said = subprocess.run([OCIMIRROR, "pull", "--help"], capture_output=True, text=True, check=True)
    return ["--no-referrers"] if "--no-referrers" in said.stdout else []
