"""A report as a JSON document, and back: shards write theirs, `sync merge` joins them."""

from __future__ import annotations

from collections.abc import Iterable

from ocimirror.errors import InvalidReference, MalformedManifest, UsageError
from ocimirror.model import strictjson
from ocimirror.model.codec import from_document, to_document, to_json
from ocimirror.stores.disk.files import read_input
from ocimirror.sync.report import Entry, Report, Totals, status_of

SCHEMA = "ocimirror.sync/v1"
MAX_SIZE_BYTES = 256 * 1024 * 1024
_COUNTED = ("copied", "unchanged", "planned", "deferred", "pruned", "failed")
_NOT_OF_A_SYNC = ("carried", "synthesised")  # (copying commands alone tell these)


def document(report: Report) -> dict[str, object]:
    """Return the whole report; sizes are bytes, durations seconds, digests full."""
    totals = report.totals_by_entry()
    return {
        "schema": SCHEMA,
        "exit_code": report.exit_code,
        "config": report.config,
        "dry_run": report.dry_run,
        "started": to_json(report.started),
        "ended": to_json(report.ended),
        "entries": [_entry(entry, totals[entry.name]) for entry in report.entries],
        "images": [to_document(image, without=_NOT_OF_A_SYNC) for image in report.images],
        "moves": [
            {
                "source": image.source,
                "destination": image.destination,
                "old": to_json(image.previous),
                "new": to_json(image.digest),
            }
            for image in report.moves
        ],
        "gone": to_json(report.gone),
        "pruning": to_json(report.pruning),
        "clashes": [clash.document() for clash in report.clashes],
        "attrition": to_json(report.attrition),
        "totals": {**_counts(report.totals()), "seconds": to_json(report.seconds)},
    }


def parse(raw: bytes, what: str) -> Report:
    """Parse what `document` returned, as JSON; what it computed is computed anew.

    Args:
        raw: the whole document; whoever read it kept to MAX_SIZE_BYTES.
        what: names it in errors.

    Raises:
        UsageError: it is no report of a sync.
    """
    try:
        found = strictjson.loads(raw, "it")
        if found.get("schema") != SCHEMA:
            raise InvalidReference(f"its schema is not {SCHEMA}")
        return from_document(Report, found)
    except (MalformedManifest, InvalidReference) as error:
        raise UsageError(f"{what} is no report of a sync: {error.message}") from error


def read(path: str) -> Report:
    """Read a file that holds such a document.

    Raises:
        UsageError: there is none, or it is no report of a sync.
        LocalStorageError: it cannot be read.
    """
    return parse(read_input(path, "report", MAX_SIZE_BYTES, pipes=False), path)


def merge(reports: Iterable[Report]) -> Report:
    """Join the reports of a sync's shards into what one process would have told.

    An entry that several shards share was last done when the last of them had done it; it never
    was where one of them never did.

    Raises:
        UsageError: there is none.
    """
    shards = list(reports)
    if not shards:
        raise UsageError("there is no report to merge")
    merged = Report(
        min(shard.started for shard in shards),
        shards[0].config,
        dry_run=any(shard.dry_run for shard in shards),
        ended=max((s.ended for s in shards if s.ended), default=None),
    )
    entries: dict[str, Entry] = {}
    for entry in (entry for shard in shards for entry in shard.entries):
        known = entries.get(entry.name)
        entries[entry.name] = entry if known is None else _joined(known, entry)
    merged.entries = list(entries.values())
    order = {name: number for number, name in enumerate(entries)}
    merged.images = sorted(
        (image for shard in shards for image in shard.images), key=lambda i: order.get(i.entry, 0)
    )
    merged.attrition = sorted(
        (dropped for shard in shards for dropped in shard.attrition),
        key=lambda dropped: order.get(dropped.entry, 0),
    )
    merged.pruning = sorted(
        (item for shard in shards for item in shard.pruning), key=lambda p: order.get(p.entry, 0)
    )
    merged.gone = sorted(
        (gone for shard in shards for gone in shard.gone), key=lambda g: order.get(g.entry, 0)
    )
    return merged


def _joined(one: Entry, other: Entry) -> Entry:
    times = [entry.last_success for entry in (one, other)]
    known = [time for time in times if time is not None]
    return Entry(
        one.name,
        one.source,
        tuple(dict.fromkeys(one.destinations + other.destinations)),
        one.error or other.error,
        min(known) if len(known) == len(times) else None,
    )


def _entry(entry: Entry, totals: Totals) -> dict[str, object]:
    return {
        "name": entry.name,
        "source": entry.source,
        "destinations": to_json(entry.destinations),
        "status": status_of(entry, totals),
        **_counts(totals),
        "seconds": to_json(totals.seconds),
        "last_success": to_json(entry.last_success),
        "error": to_json(entry.error),
    }


def _counts(totals: Totals) -> dict[str, object]:
    return {
        "images": totals.images,
        **{status: totals.statuses[status] for status in _COUNTED},
        "dropped": totals.dropped,
        "moves": totals.moves,
        "bytes_copied": totals.bytes_copied,
    }
