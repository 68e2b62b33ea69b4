"""A report on one screen: what failed first, then an entry a line, then what moved."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ocimirror.model.codec import time_text
from ocimirror.model.digest import Digest
from ocimirror.model.failure import Failure
from ocimirror.model.readable import duration, size
from ocimirror.shown import printable
from ocimirror.sync.report import STATUSES, Pruning, Report, status_of

MAX_LINES = 40
_FAILURE_LINES, _REASON_LINES, _MOVES = 20, 2, 4
_TAG_WIDTH = 64
_FILTERS = (
    *("tags", "include", "exclude", "attachment"),
    *("regex", "semver", "min_age", "max_age", "newest"),
)
_ORDER = ("failed", "deferred", "planned", "changed", "unchanged")
_SHORT = len("sha256:") + 12
_INDENT = " " * len("FAILED  ")


def lines(report: Report, width: int = 120) -> list[str]:
    """Return at most forty lines, none wider than `width`; nothing in them moves a terminal.

    Failures of one entry with one cause are told once: how many, the first image, why, and what
    may help.
    """
    failures = _first(_failures(report, width))
    rest = [
        *_some(_moves(report), _MOVES, "tags moved"),
        *_some(_gone(report), _MOVES, "tags gone"),
        *_some(_clashes(report), _MOVES, "clashes"),
        *([] if report.dry_run else _some(pruned_lines(report), _MOVES, "tags pruned")),
        *_attrition(report),
        _totals(report),
    ]
    entries = _entries(report, MAX_LINES - len(failures) - len(rest))
    return [_cut(line, width) for line in (*failures, *entries, *rest)]


def _clashes(report: Report) -> list[str]:
    return [printable(f"CLASH   {clash.text()}") for clash in report.clashes]


def attrition_lines(report: Report) -> list[str]:
    """Return a line for every tag that is not mirrored, filter by filter: the tag, and why."""
    dropped = sorted(report.attrition, key=lambda one: _place(one.filter))
    rows = [(d.filter, d.source.removeprefix("docker://"), d.reason) for d in dropped]
    return _aligned(rows, "<<<", _TAG_WIDTH) if rows else []


def pruned_lines(report: Report) -> list[str]:
    """Return a line for everything that was pruned, or in a dry run would be."""
    if report.dry_run:
        return [_planned_pruning(item) for item in report.pruning]
    return [
        printable(f"PRUNED  {image.destination}  {_short(image.digest or image.previous)}")
        for image in report.images
        if image.goes
    ]


def _planned_pruning(item: Pruning) -> str:
    """Return what a real run would do now, or from when on."""
    words = {"waits": f"TO BE PRUNED FROM {time_text(item.due)}", "delete": "TO BE PRUNED NOW"}
    told = f"gone since {time_text(item.gone_since)}"
    reason = f"; {item.reason}" if item.reason else ""
    word = words.get(item.action, "NOT PRUNED")
    return printable(f"{word}  {item.destination}  {_short(item.digest)}  {told}{reason}")


def _place(name: str) -> int:
    """Return where a filter stands in the order in which they apply."""
    return _FILTERS.index(name) if name in _FILTERS else len(_FILTERS)


def _failures(report: Report, width: int) -> list[list[str]]:
    """Return the lines of each kind of failure."""
    groups: dict[tuple[str, str], list[tuple[str, Failure]]] = {}
    for entry in report.entries:
        if entry.error is not None:
            groups.setdefault((entry.name, entry.error.code), []).append(("", entry.error))
    for image in report.images:
        if image.error is not None:
            known = groups.setdefault((image.entry, image.error.code), [])
            known.append(
                (f"{printable(image.source)}\n-> {printable(image.destination)}", image.error)
            )
    found, room = [], width - len(_INDENT)
    for (name, code), failures in groups.items():
        where, first = failures[0]
        again = "try again" if first.retryable else f"exit {first.exit_code}"
        count = f"{len(failures)} x " if len(failures) > 1 else ""
        advice = first.diagnostics.partition("\n")[2]
        reason = textwrap.wrap(
            printable(first.message), room, max_lines=_REASON_LINES, placeholder="…"
        )
        way = where.replace("\n", " ")
        ways = [way] if len(way) <= room else where.split("\n")
        below = [*ways, *reason, advice]
        head = f"FAILED  {name}  {count}{code} ({again})"
        found.append([head, *(_INDENT + line for line in below if line)])
    return found


def _first(failures: list[list[str]]) -> list[str]:
    """Return the lines of as many failures as there is room for."""
    shown: list[str] = []
    for number, failure in enumerate(failures):
        if len(shown) + len(failure) >= _FAILURE_LINES:
            return [*shown, f"and {len(failures) - number} kinds of failures more"]
        shown += failure
    return shown


def _entries(report: Report, limit: int) -> list[str]:
    """Return the table of the entries, in so many lines."""
    totals = report.totals_by_entry()
    states = {entry.name: status_of(entry, totals[entry.name]) for entry in report.entries}
    shown = sorted(report.entries, key=lambda entry: _ORDER.index(states[entry.name]))
    columns = [s for s in STATUSES if any(t.statuses[s] for t in totals.values())]
    rows: list[Sequence[str]] = [("ENTRY", "STATUS", "IMAGES", *map(str.upper, columns), "BYTES")]
    room = limit - 1 if len(shown) < limit else limit - 2
    for entry in shown[:room]:
        counted = totals[entry.name]
        counts = [str(counted.statuses[status]) for status in columns]
        rows.append(
            (
                *(_cut(entry.name, 48), states[entry.name], str(counted.images)),
                *(*counts, size(counted.bytes_copied)),
            )
        )
    found = _aligned(rows, "<<" + ">" * (len(columns) + 2))
    if len(shown) > room:
        rest = [states[entry.name] for entry in shown[room:]]
        parts = [f"{rest.count(state)} {state}" for state in _ORDER if state in rest]
        found.append(f"and {len(rest)} entries more: {', '.join(parts)}")
    return found


def _moves(report: Report) -> list[str]:
    return [
        f"MOVED  {image.destination}  {_short(image.previous)} -> {_short(image.digest)}"
        for image in report.moves
    ]


def _gone(report: Report) -> list[str]:
    return [
        f"GONE  {gone.source}  {_short(gone.digest)}: its source has it no more"
        for gone in report.gone
    ]


def _attrition(report: Report) -> list[str]:
    counts: dict[str, int] = {}
    for dropped in report.attrition:
        counts[dropped.filter] = counts.get(dropped.filter, 0) + 1
    parts = [f"{counts[name]} by {name}" for name in sorted(counts, key=_place)]
    return [f"tags not mirrored: {', '.join(parts)}"] if parts else []


def _totals(report: Report) -> str:
    totals = report.totals()
    parts = [f"{totals.statuses[s]} {s}" for s in STATUSES if totals.statuses[s]]
    counted = _count(totals.images, "image", "images") + (f": {', '.join(parts)}" if parts else "")
    failed = sum(entry.error is not None for entry in report.entries)
    begin = f"{_count(failed, 'entry', 'entries')} failed; " if failed else ""
    return f"{begin}{counted}, {size(totals.bytes_copied)} in {duration(report.seconds)}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _short(digest: Digest | None) -> str:
    return str(digest)[:_SHORT]


def _some(found: list[str], limit: int, what: str) -> list[str]:
    more = [f"and {len(found) - limit} {what} more"] if len(found) > limit else []
    return found[:limit] + more


def _cut(text: str, width: int) -> str:
    shown = printable(text)
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def _aligned(rows: Sequence[Sequence[str]], sides: str, widest: int = 1000) -> list[str]:
    """Return rows in columns; a cell that is wider than `widest` moves only its own row."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [min(widest, max(map(len, column))) for column in zip(*shown, strict=True)]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in shown
    ]
