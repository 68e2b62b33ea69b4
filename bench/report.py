"""The table, for a terminal and for docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.measure import Contender, Failed, Ratio, Sample, ratio

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
BASELINE = "skopeo"
MAX_WIDTH = 40
HEADER = (
    "row",
    "work",
    "tool",
    "wall ÷ skopeo",
    "to reach",
    "reached",
    "CPU ÷",
    "servers' CPU ÷",
    "peak MiB",
)


class Line(NamedTuple):
    """One line of the table."""

    row: str
    work: str
    tool: str
    wall: str
    bar: str = ""
    reached: str = ""
    cpu: str = ""
    servers: str = ""
    peak: str = ""


def lines_of(
    row: str, work: str, contenders: Sequence[Contender], phase: int = 0
) -> Iterator[Line]:
    """Yield a line for each contender of a race, compared with skopeo run by run."""
    base = next((c for c in contenders if c.name.startswith(BASELINE)), None)
    walls = {c.name: _compared(c, base, phase, "wall_s") for c in contenders}
    best = min(
        (found.median for c in contenders if _is_peer(c) and (found := walls[c.name])),
        default=None,
    )
    for contender in contenders:
        if contender.failure:
            yield failed_line(row, work, contender.name, contender.failure)
            continue
        found = walls[contender.name]
        bar = contender.bars[phase] if contender.bars else None
        limit = best if bar == "best" else bar
        samples = contender.of(phase)
        yield Line(
            row,
            work,
            contender.name,
            _wall(contender, base, found, samples),
            f"≤ {limit:.2f}" + (" (best peer)" * (bar == "best")) if limit is not None else "",
            _reached(found and found.median, limit),
            _median(_compared(contender, base, phase, "cpu_s")),
            _median(_compared(contender, base, phase, "server_s")),
            f"{max(sample.peak_mib for sample in samples):.0f}",
        )


def plain_line(
    row: str,
    work: str,
    tool: str,
    shown: str,
    bar: float | None,
    found: float,
    *,
    unit: str = "",
    peak: float | None = None,
) -> Line:
    """Return a line whose bar is not a ratio to skopeo."""
    limit = "" if bar is None else f"≤ {bar:g}{unit}"
    memory = "" if peak is None else f"{peak:.0f}"
    return Line(row, work, tool, shown, limit, _reached(found, bar), peak=memory)


def failed_line(row: str, work: str, tool: str, failure: str) -> Line:
    """Return the line of a tool that could not do it."""
    told = " ".join(failure.split()).replace("|", "/")
    return Line(row, work, tool, f"failed: {told[:160]}", reached="no")


def show_ratio(found: Ratio) -> str:
    """Return the median and, in brackets, the smallest and the largest."""
    return f"{found.median:.2f} ({found.low:.2f}–{found.high:.2f})"


def _is_peer(contender: Contender) -> bool:
    return not contender.ours and not contender.name.startswith("curl")


def _compared(contender: Contender, base: Contender | None, phase: int, what: str) -> Ratio | None:
    if base is None or base.failure or contender.failure:
        return None
    sides = ([getattr(sample, what) for sample in side.of(phase)] for side in (contender, base))
    return ratio(*sides)


def _wall(
    contender: Contender, base: Contender | None, found: Ratio | None, samples: Sequence[Sample]
) -> str:
    seconds = f"{statistics.median(sample.wall_s for sample in samples):.2f} s"
    if contender is base:
        return f"1 = {seconds}"
    return show_ratio(found) if found else seconds


def _median(found: Ratio | None) -> str:
    return f"{found.median:.2f}" if found else ""


def _reached(found: float | None, limit: float | None) -> str:
    if limit is None:
        return ""
    return "?" if found is None else "yes" if found <= limit else "no"


def machine(versions: Mapping[str, str], runs: int, quick: bool, scratch: Path) -> str:
    """Return one paragraph: what was measured with what."""
    present = ", ".join(f"{name} {v}" for name, v in versions.items() if v != "absent")
    absent = [name for name, version in versions.items() if version == "absent"]
    file_system = subprocess.run(
        ["stat", "-f", "-c", "%T", scratch], capture_output=True, text=True, check=False
    ).stdout.strip()
    told = (
        f"{os.cpu_count()} cores ({_processor()}), Linux {platform.release()}, {file_system}, "
        f"Python {platform.python_version()}; {present}; {runs} runs of each."
    )
    if absent:
        told += f" Not on PATH, so not measured: {', '.join(absent)}."
    if quick:
        told += " **Quick: an eighth of the sizes; whether a bar is reached is only a hint.**"
    return told


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def terminal(lines: Sequence[Line]) -> str:
    """Return the table in columns, a heading for each piece of work."""
    widths = [
        max(len(line[n]) for line in (HEADER, *lines) if len(line[n]) <= MAX_WIDTH)
        for n in range(2, len(HEADER))
    ]
    text: list[str] = []
    work = ""
    for line in (Line(*HEADER), *lines):
        if line.work != work and line.row != "row":
            work = line.work
            text.append(f"{line.row}  {work}")
        cells = (cell.ljust(width) for cell, width in zip(line[2:], widths, strict=True))
        text.append(("    " + "  ".join(cells)).rstrip())
    return "\n".join(text)


def markdown(lines: Sequence[Line], told: str) -> str:
    """Return the paragraph and the table."""
    rows = [HEADER, tuple("---" for _ in HEADER), *lines]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{told}\n\n{table}\n"


def write_markdown(path: Path, text: str) -> None:
    """Put the text between the two markers of a page; one that is absent is made."""
    page = path.read_text() if path.exists() else f"{BEGIN}\n{END}\n"
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Failed(f"{path} has no lines {BEGIN} and {END}")
    path.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")
