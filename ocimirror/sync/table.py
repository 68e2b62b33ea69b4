"""A report on one screen: what failed first, then an entry a line, then what moved."""

from __future__ import annotations

from collections.abc import Sequence

from ocimirror.errors import printable
from ocimirror.model.digest import Digest
from ocimirror.model.readable import duration, size
from ocimirror.sync.report import STATUSES, Failure, Report, status_of

MAX_LINES = 40
_FAILURES, _ENTRIES, _MOVES = 6, 16, 6
_ORDER = ("failed", "deferred", "planned", "changed", "unchanged")
_SHORT = len("sha256:") + 12


def lines(report: Report, width: int = 120) -> list[str]:
    """Return at most forty lines, none wider than `width`; nothing in them moves a terminal.

    Failures of one entry with one cause are told once, with the first image and its reason.
    """
    failures = _some(_failures(report), _FAILURES, "kinds of failures")
    text = [
        *(line for failure in failures for line in failure.split("\n")),
        *_entries(report),
        *_some(_moves(report), _MOVES, "tags moved"),
        *_attrition(report),
        _totals(report),
    ]
    return [_cut(line, width) for line in text]


def attrition_lines(report: Report) -> list[str]:
    """Return a line for every tag that is not mirrored: the filter, the tag, and why."""
    rows = [(d.filter, d.source, d.reason) for d in report.attrition]
    return _aligned(rows, "<<<") if rows else []


def _failures(report: Report) -> list[str]:
    groups: dict[tuple[str, str], list[tuple[str, Failure]]] = {}
    for entry in report.entries:
        if entry.error is not None:
            groups.setdefault((entry.name, entry.error.code), []).append(("", entry.error))
    for image in report.images:
        if image.error is not None:
            known = groups.setdefault((image.entry, image.error.code), [])
            known.append((f"  {image.source} -> {image.target}", image.error))
    found = []
    for (name, code), failures in groups.items():
        where, first = failures[0]
        again = "try again" if first.retryable else f"exit {first.exit_code}"
        count = f"{len(failures)} x " if len(failures) > 1 else ""
        head = printable(f"FAILED  {name}  {count}{code} ({again}){where}")
        found.append(f"{head}\n        {printable(first.message)}")
    return found


def _entries(report: Report) -> list[str]:
    totals = report.totals_by_entry()
    states = {entry.name: status_of(entry, totals[entry.name]) for entry in report.entries}
    shown = sorted(report.entries, key=lambda entry: _ORDER.index(states[entry.name]))
    columns = [s for s in STATUSES if any(t.statuses[s] for t in totals.values())]
    rows: list[Sequence[str]] = [("ENTRY", "STATUS", "IMAGES", *map(str.upper, columns), "BYTES")]
    for entry in shown[:_ENTRIES]:
        counted = totals[entry.name]
        moved = counted.bytes_total if report.dry_run else counted.bytes_copied
        counts = [str(counted.statuses[status]) for status in columns]
        rows.append(
            (_cut(entry.name, 48), states[entry.name], str(counted.images), *counts, size(moved))
        )
    found = _aligned(rows, "<<" + ">" * (len(columns) + 2))
    if len(shown) > _ENTRIES:
        rest = [states[entry.name] for entry in shown[_ENTRIES:]]
        parts = [f"{rest.count(state)} {state}" for state in _ORDER if state in rest]
        found.append(f"and {len(rest)} entries more: {', '.join(parts)}")
    return found


def _moves(report: Report) -> list[str]:
    return [
        f"MOVED  {image.target}  {_short(image.previous)} -> {_short(image.digest)}"
        for image in report.moves
    ]


def _attrition(report: Report) -> list[str]:
    counts: dict[str, int] = {}
    for dropped in report.attrition:
        counts[dropped.filter] = counts.get(dropped.filter, 0) + 1
    parts = [f"{count} by {name}" for name, count in counts.items()]
    return [f"tags not mirrored: {', '.join(parts)}"] if parts else []


def _totals(report: Report) -> str:
    totals = report.totals()
    parts = [f"{totals.statuses[s]} {s}" for s in STATUSES if totals.statuses[s]]
    moved = totals.bytes_total if report.dry_run else totals.bytes_copied
    counted = f"{totals.images} images" + (f": {', '.join(parts)}" if parts else "")
    return f"{counted}, {size(moved)} in {duration(report.seconds)}"


def _short(digest: Digest | None) -> str:
    return str(digest)[:_SHORT]


def _some(found: list[str], limit: int, what: str) -> list[str]:
    more = [f"and {len(found) - limit} {what} more"] if len(found) > limit else []
    return found[:limit] + more


def _cut(text: str, width: int) -> str:
    shown = printable(text)
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def _aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in shown
    ]
