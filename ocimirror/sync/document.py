"""A report as a JSON document, and back: shards write theirs, `sync merge` joins them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TypeVar, cast

from ocimirror.errors import InvalidReference, MalformedManifest, UsageError
from ocimirror.model import strictjson
from ocimirror.model.digest import Digest
from ocimirror.stores.disk.files import read_input
from ocimirror.sync.record import parse_time, time_text
from ocimirror.sync.report import (
    PRUNE_ACTIONS,
    STATUSES,
    Dropped,
    Entry,
    Failure,
    Gone,
    ImageResult,
    Pruning,
    Report,
    Totals,
    status_of,
)

SCHEMA = "ocimirror.sync/v1"
MAX_SIZE_BYTES = 256 * 1024 * 1024
T = TypeVar("T")
_MAX_NUMBER = 2**63 - 1
_MAX_EXIT_CODE = 255
_COUNTED = ("copied", "unchanged", "planned", "deferred", "pruned", "failed")


def document(report: Report) -> dict[str, object]:
    """Return the whole report; sizes are bytes, durations seconds, digests full."""
    totals = report.totals_by_entry()
    return {
        "schema": SCHEMA,
        "exit_code": report.exit_code,
        "config": report.config,
        "dry_run": report.dry_run,
        "started": time_text(report.started),
        "ended": _time(report.ended),
        "entries": [_entry(entry, totals[entry.name]) for entry in report.entries],
        "images": [_image(image) for image in report.images],
        "moves": [
            {
                "source": image.source,
                "destination": image.target,
                "old": str(image.previous),
                "new": str(image.digest),
            }
            for image in report.moves
        ],
        "gone": [
            {"entry": gone.entry, "source": gone.source, "digest": str(gone.digest)}
            for gone in report.gone
        ],
        "pruning": [
            {
                "entry": item.entry,
                "source": item.source,
                "destination": item.target,
                "digest": str(item.digest),
                "gone_since": time_text(item.gone_since),
                "due": time_text(item.due),
                "action": item.action,
                "reason": item.reason,
            }
            for item in report.pruning
        ],
        "clashes": [clash.document() for clash in report.clashes],
        "attrition": [
            {
                "entry": dropped.entry,
                "source": dropped.source,
                "filter": dropped.filter,
                "reason": dropped.reason,
            }
            for dropped in report.attrition
        ],
        "totals": {
            **_counts(report.totals()),
            "seconds": round(report.seconds, 3),
        },
    }


def parse(raw: bytes, what: str) -> Report:
    """Parse what `document` returned, as JSON.

    Args:
        raw: the whole document; whoever read it kept to MAX_SIZE_BYTES.
        what: names it in errors.

    Raises:
        UsageError: it is no report of a sync.
    """
    try:
        return _parsed(strictjson.loads(raw, "it"))
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
        tuple(dict.fromkeys(one.targets + other.targets)),
        one.error or other.error,
        min(known) if len(known) == len(times) else None,
    )


# --- writing ------------------------------------------------------------------------------------


def _time(time: datetime | None) -> str | None:
    return None if time is None else time_text(time)


def _entry(entry: Entry, totals: Totals) -> dict[str, object]:
    return {
        "name": entry.name,
        "source": entry.source,
        "destinations": list(entry.targets),
        "status": status_of(entry, totals),
        **_counts(totals),
        "seconds": round(totals.seconds, 3),
        "last_success": _time(entry.last_success),
        "error": _failure(entry.error),
    }


def _counts(totals: Totals) -> dict[str, object]:
    return {
        "images": totals.images,
        **{status: totals.statuses[status] for status in _COUNTED},
        "dropped": totals.dropped,
        "moves": totals.moves,
        "bytes_copied": totals.bytes_copied,
    }


def _image(image: ImageResult) -> dict[str, object]:
    return {
        "entry": image.entry,
        "source": image.source,
        "destination": image.target,
        "status": image.status,
        "digest": _text(image.digest),
        "previous": _text(image.previous),
        "media_type": image.media_type,
        "manifests": dict(image.manifests),
        "blobs": dict(image.blobs),
        "bytes": {"total": image.bytes_total, "copied": image.bytes_copied},
        "referrers": image.referrers,
        "left_out": [
            {"digest": str(digest), "subject": str(subject), "reason": reason}
            for digest, subject, reason in image.left_out
        ],
        "sparse": image.sparse,
        "notes": list(image.notes),
        "seconds": round(image.seconds, 3),
        "error": _failure(image.error),
    }


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def _failure(failure: Failure | None) -> dict[str, object] | None:
    if failure is None:
        return None
    return {name: getattr(failure, name) for name in failure.__dataclass_fields__}


# --- reading ------------------------------------------------------------------------------------


class _Fields:
    """The members of an object, each of the type that is asked for."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise InvalidReference(f"{what} is no object")
        self._value = cast("dict[str, object]", value)
        self._what = what

    def of(self, key: str, *kinds: type[T]) -> T:
        value = self._value.get(key)
        # (bool is an int to Python, and not to JSON.)
        if type(value) not in kinds:
            raise InvalidReference(f"{self._what}: {key} is absent or of the wrong type")
        if isinstance(value, (int, float)) and not 0 <= value <= _MAX_NUMBER:
            raise InvalidReference(f"{self._what}: {key} is out of range")
        return cast("T", value)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.of(key, list)
        if not all(isinstance(value, str) for value in values):
            raise InvalidReference(f"{self._what}: {key} holds something else than text")
        return tuple(values)

    def items(self, key: str) -> list[_Fields]:
        return [_Fields(item, f"{key}[{i}]") for i, item in enumerate(self.of(key, list))]

    def items_if_any(self, key: str) -> list[_Fields]:
        return self.items(key) if key in self._value else []  # (older reports lack it)

    def object(self, key: str) -> _Fields:
        return _Fields(self.of(key, dict), f"{self._what}.{key}")

    def optional(self, key: str, made_of: Callable[[str], T]) -> T | None:
        return None if self._value.get(key) is None else made_of(self.of(key, str))

    def counts(self, key: str) -> Mapping[str, int]:
        fields = self.object(key)
        return {name: fields.of(name, int) for name in fields._value}

    def failure(self) -> Failure | None:
        if self._value.get("error") is None:
            return None
        error = self.object("error")
        exit_code = error.of("exit_code", int)
        if not 0 < exit_code <= _MAX_EXIT_CODE:
            raise InvalidReference(f"{self._what}: exit_code is out of range")
        return Failure(
            error.of("code", str),
            error.of("message", str),
            exit_code,
            error.of("retryable", bool),
            error.optional("side", str),
            error.of("diagnostics", str),
        )

    def seconds(self) -> float:
        return float(self.of("seconds", float, int))


def _parsed(value: dict[str, object]) -> Report:
    fields = _Fields(value, "it")
    if fields.of("schema", str) != SCHEMA:
        raise InvalidReference(f"its schema is not {SCHEMA}")
    report = Report(
        parse_time(fields.of("started", str)),
        fields.of("config", str),
        fields.of("dry_run", bool),
        fields.optional("ended", parse_time),
    )
    report.entries = [_parsed_entry(entry) for entry in fields.items("entries")]
    report.images = [_parsed_image(image) for image in fields.items("images")]
    report.attrition = [
        Dropped(*(dropped.of(key, str) for key in ("entry", "source", "filter", "reason")))
        for dropped in fields.items("attrition")
    ]
    report.gone = [
        Gone(gone.of("entry", str), gone.of("source", str), Digest.parse(gone.of("digest", str)))
        for gone in fields.items("gone")
    ]
    report.pruning = [_parsed_pruning(item) for item in fields.items_if_any("pruning")]
    return report


def _parsed_pruning(fields: _Fields) -> Pruning:
    action = fields.of("action", str)
    if action not in PRUNE_ACTIONS:
        raise InvalidReference(f"action is {action[:100]!r}")
    return Pruning(
        fields.of("entry", str),
        fields.of("source", str),
        fields.of("destination", str),
        Digest.parse(fields.of("digest", str)),
        parse_time(fields.of("gone_since", str)),
        parse_time(fields.of("due", str)),
        action,
        fields.of("reason", str),
    )


def _parsed_entry(fields: _Fields) -> Entry:
    return Entry(
        fields.of("name", str),
        fields.of("source", str),
        fields.texts("destinations"),
        fields.failure(),
        fields.optional("last_success", parse_time),
    )


def _parsed_image(fields: _Fields) -> ImageResult:
    status = fields.of("status", str)
    if status not in STATUSES:
        raise InvalidReference(f"status is {status[:100]!r}")
    moved = fields.object("bytes")
    return ImageResult(
        fields.of("entry", str),
        fields.of("source", str),
        fields.of("destination", str),
        status,
        digest=fields.optional("digest", Digest.parse),
        previous=fields.optional("previous", Digest.parse),
        bytes_copied=moved.of("copied", int),
        seconds=fields.seconds(),
        error=fields.failure(),
        referrers=fields.of("referrers", int),
        bytes_total=moved.of("total", int),
        media_type=fields.optional("media_type", str),
        manifests=fields.counts("manifests"),
        blobs=fields.counts("blobs"),
        sparse=fields.of("sparse", bool),
        notes=fields.texts("notes"),
        left_out=tuple(
            (
                Digest.parse(each.of("digest", str)),
                Digest.parse(each.of("subject", str)),
                each.of("reason", str),
            )
            for each in fields.items_if_any("left_out")
        ),
    )
