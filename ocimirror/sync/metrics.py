"""A report for Prometheus' textfile collector, in its text exposition format."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ocimirror.shown import printable
from ocimirror.sync.report import STATUSES, Report

_Sample = tuple[dict[str, str], float]


def metrics(report: Report, now: datetime, exit_code: int) -> str:
    """Return the metrics of a run; all are gauges, as the next run writes the file anew.

    An entry that was never done has no last success: alert on its absence too.

    Args:
        report: of a run that was not a dry run.
        now: stands for the end of a run that has none.
        exit_code: of the process: a signal or a full disk may give another than the report.
    """
    ended = report.ended or now
    totals = report.totals_by_entry()
    successes = {e.name: e.last_success for e in report.entries if e.last_success is not None}
    families = [
        _family("last_run_timestamp_seconds", "When the last run ended.", [({}, _stamp(ended))]),
        _family(
            "last_run_duration_seconds",
            "How long the last run took.",
            [({}, (ended - report.started).total_seconds())],
        ),
        _family("last_run_exit_code", "Its exit code.", [({}, exit_code)]),
        _family(
            "last_success_timestamp_seconds",
            "When all of an entry was last done.",
            [({"entry": name}, _stamp(time)) for name, time in successes.items()],
        ),
        _family(
            "images",
            "Images of the last run by what came of them.",
            [
                ({"entry": name, "status": status}, counted.statuses[status])
                for name, counted in totals.items()
                for status in STATUSES
            ],
        ),
        _family(
            "copied_bytes",
            "Bytes that moved in the last run.",
            [({"entry": name}, counted.bytes_copied) for name, counted in totals.items()],
        ),
        _family(
            "image_seconds",
            "Time spent on images in the last run, summed; they run side by side.",
            [({"entry": name}, counted.seconds) for name, counted in totals.items()],
        ),
        _family(
            "failures",
            "Failures of the last run by class.",
            [
                ({"entry": name, "code": code}, count)
                for name, counted in totals.items()
                for code, count in sorted(counted.failures.items())
            ],
        ),
        _family(
            "moved_tags",
            "Tags that stand for another image since the last run.",
            [({"entry": name}, counted.moves) for name, counted in totals.items()],
        ),
        _family(
            "dropped_tags",
            "Tags that a filter kept from being mirrored.",
            [({"entry": name}, counted.dropped) for name, counted in totals.items()],
        ),
    ]
    return "".join(families)


def _family(name: str, told: str, samples: Iterable[_Sample]) -> str:
    name = f"ocimirror_sync_{name}"
    head = f"# HELP {name} {told}\n# TYPE {name} gauge\n"
    return head + "".join(f"{name}{_labels(labels)} {_number(v)}\n" for labels, v in samples)


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items()) + "}"


def _escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"


def _stamp(time: datetime) -> float:
    return float(int(time.timestamp()))
