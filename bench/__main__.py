"""`python -m bench`: run the rows, print the table."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import (
    report,
    rows_bulk,
    rows_engines,
    rows_serve,
    rows_small,
    rows_sync,
    rows_tags,
    tools,
)
from bench.measure import Failed, say
from bench.report import Line
from bench.sites import Sites

ROWS: dict[str, Callable[[Sites], Iterator[Line]]] = {
    "1": rows_bulk.pull_platforms,
    "2": rows_bulk.pull_layers,
    "3": rows_bulk.pull_one,
    "4": rows_tags.tags,
    "5": rows_tags.tags,
    "6": rows_bulk.push,
    "7": rows_bulk.copy,
    "8": rows_bulk.pull_elsewhere,
    "9": rows_small.memory,
    "10": rows_small.start,
    "11": rows_serve.serve,
    "12": rows_engines.load,
    "13": rows_sync.nights,
    "14": rows_sync.many,
}
RUNS, QUICK_RUNS = 5, 2
NEEDED_GIB, QUICK_NEEDED_GIB = 20, 3


def main() -> int:
    """Run the benchmark; return 0 even where a bar is not reached, 1 where it cannot run."""
    options = _options()
    runs = options.runs or (QUICK_RUNS if options.quick else RUNS)
    absent = [name for name in ("docker-registry", "skopeo", "curl") if not shutil.which(name)]
    if absent:
        say(f"needs these on PATH: {', '.join(absent)}")
        return 1
    began = time.monotonic()
    lines: list[Line] = []
    with contextlib.ExitStack() as stack:
        directory = tempfile.TemporaryDirectory(prefix="ocimirror-bench-", dir=options.scratch)
        scratch = Path(stack.enter_context(directory))
        needed = QUICK_NEEDED_GIB if options.quick else NEEDED_GIB
        if shutil.disk_usage(scratch).free < needed << 30:
            say(f"needs {needed} GiB free in {scratch.parent}; --scratch DIR names another place")
            return 1
        told = report.machine(tools.versions(), runs, options.quick, scratch)
        say(told)
        sites = Sites(scratch, runs, options.quick, stack)
        for row in dict.fromkeys(ROWS[number] for number in options.only or ROWS):
            found = _lines(row, sites)
            print(report.terminal(found), flush=True)
            lines += found
    say(f"took {(time.monotonic() - began) / 60:.1f} minutes")
    if options.markdown:
        report.write_markdown(options.markdown, report.markdown(lines, told))
    return 0


def _lines(row: Callable[[Sites], Iterator[Line]], sites: Sites) -> list[Line]:
    """Return the lines of a row; what it found before it failed is kept."""
    found: list[Line] = []
    try:
        found.extend(row(sites))
    except Failed as error:
        found.append(report.failed_line("?", row.__name__, "", str(error)))
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an eighth of the sizes, 2 runs")
    parser.add_argument("--only", metavar="ROW", action="append", choices=list(ROWS))
    parser.add_argument("--runs", type=int, metavar="N", help=f"of each tool; default {RUNS}")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into it")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where content is, meanwhile")
    return parser.parse_args()


if __name__ == "__main__":
    # However it ends, the registries end too and the directory is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = main()
    except Failed as error:
        say(str(error))
        code = 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)
