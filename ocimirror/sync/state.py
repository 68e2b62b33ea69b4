"""What the mirror remembers between runs: a cache, and the history of what it saw.

Deleting the file costs requests and never correctness: nothing is believed complete then, a
quarantine by age begins anew, and prune removes nothing, because nothing is known to be this
mirror's own. The history is lost.

Sources and targets are full locations, as `str(Location)` writes them. Times are kept in whole
seconds.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from ocimirror.errors import UsageError
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Location, Reference
from ocimirror.stores.disk.atomic import FileLock
from ocimirror.sync.database import in_use, open_to_read, open_to_write
from ocimirror.sync.remembered import (
    Complete,
    Created,
    Span,
    kept_digest,
    kept_source,
    kept_target,
)

__all__ = ["Complete", "Created", "Span", "State"]

_BATCH = 2000
_BATCH_S = 5.0
_LAST_S = 253_402_300_799  # (the year 9999)

_SCHEMA = """
CREATE TABLE complete (
    target TEXT NOT NULL, source TEXT NOT NULL, digest TEXT NOT NULL, platforms TEXT NOT NULL,
    referrers INTEGER NOT NULL, time INTEGER NOT NULL, PRIMARY KEY (target, source)
) WITHOUT ROWID;
CREATE TABLE history (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, digest TEXT NOT NULL,
    since INTEGER NOT NULL, until INTEGER NOT NULL
);
CREATE INDEX history_of ON history (source);
CREATE TABLE created (
    target TEXT PRIMARY KEY, source TEXT NOT NULL, digest TEXT NOT NULL, time INTEGER NOT NULL,
    gone_since INTEGER
) WITHOUT ROWID;
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE success (entry TEXT PRIMARY KEY, time INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE run (
    number INTEGER PRIMARY KEY, started INTEGER NOT NULL, ended INTEGER, exit_code INTEGER,
    copied INTEGER, unchanged INTEGER, failed INTEGER, bytes INTEGER
)
"""
_NEWER = """
ALTER TABLE created ADD COLUMN gone_since INTEGER;
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
"""


class State:
    """The state of a mirror. One process writes it, others may read meanwhile.

    Every method may be called from any thread; calls wait for one another. What is written is
    seen by the methods of this object at once, by others and after a crash once it is committed:
    by `commit`, by `close`, and by a write that comes after 2000 others or 5 seconds. A killed run
    loses what was not.

    Args:
        path: of the file; a lock beside it is called `<path>.lock`.
        read_only: take no lock and change nothing.

    Raises:
        Locked: another run has it.
        UsageError: the file is another program's database or a newer ocimirror's; there is none
            where it is only to be read.
        LocalStorageError: full, read-only, not permitted.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = path
        self._guard = threading.RLock()
        self._lock: FileLock | None = None
        self._uncommitted = 0
        self._committed_at = monotonic()
        self._closed = False
        if read_only:
            self._connection = open_to_read(path)
            ((version,),) = self._rows("PRAGMA user_version", ())
            self._new = version > 1  # (a dry run, and history, read old ones as they are)
            return
        self._new = True
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire("exclusive", wait=False)
            self._connection = open_to_write(path, _SCHEMA, _NEWER)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit, and give the lock back; idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            self.commit()
        finally:
            self._connection.close()
            if self._lock is not None:
                self._lock.release()

    def commit(self) -> None:
        """Make what was written durable."""
        with self._guard:
            self._commit()

    # --- what is complete ------------------------------------------------------------------------

    def find_complete(self, source: Reference, target: Location) -> Complete | None:
        """Return what is known of an image at a target."""
        for row in self._rows(
            "SELECT digest, platforms, referrers, time FROM complete"
            " WHERE target = ? AND source = ?",
            (str(target), str(source.location)),
        ):
            digest = kept_digest(row[0])
            platforms = tuple(filter(None, row[1].split(",")))
            if digest is not None:
                return Complete(source, target, digest, platforms, bool(row[2]), _time(row[3]))
        return None

    def mark_complete(self, image: Complete) -> None:
        """Remember an image; what was known of this source at this target is replaced."""
        self._write(
            "INSERT OR REPLACE INTO complete VALUES (?, ?, ?, ?, ?, ?)",
            str(image.target),
            str(image.source.location),
            str(image.digest),
            ",".join(image.platforms),
            int(image.referrers),
            _seconds(image.time),
        )

    def forget(self, target: Location) -> None:
        """Forget that a target is complete, and that this mirror made it: it is pruned."""
        self._write("DELETE FROM complete WHERE target = ?", str(target))
        self._write("DELETE FROM created WHERE target = ?", str(target))

    def sources_of(self, target: Location) -> list[Reference]:
        """Return the sources that were copied to a target, sorted."""
        rows = self._rows("SELECT source FROM complete WHERE target = ? ORDER BY 1", (str(target),))
        sources = (kept_source(row[0]) for row in rows)
        return [source for source in sources if source is not None]

    # --- what was seen ---------------------------------------------------------------------------

    def saw(self, source: Reference, digest: Digest, time: datetime) -> None:
        """Remember that a source stands for a digest."""
        now, name, text = _seconds(time), str(source.location), str(digest)
        with self._guard:
            known = self._write(
                "UPDATE history SET until = max(until, ?) WHERE digest = ?"
                " AND id = (SELECT max(id) FROM history WHERE source = ?)",
                *(now, text, name),
            )
            if not known:
                self._write(
                    "INSERT INTO history (source, digest, since, until) VALUES (?, ?, ?, ?)",
                    *(name, text, now, now),
                )

    def first_seen(self, source: Reference, digest: Digest) -> datetime | None:
        """Return when a source was first seen to stand for a digest, None for never."""
        ((first,),) = self._rows(
            "SELECT min(since) FROM history WHERE source = ? AND digest = ?",
            (str(source.location), str(digest)),
        )
        return None if first is None else _time(first)

    def last_seen(self, source: Reference) -> datetime | None:
        """Return when a source was last seen to stand for anything, None for never."""
        ((last,),) = self._rows(
            "SELECT max(until) FROM history WHERE source = ?", (str(source.location),)
        )
        return None if last is None else _time(last)

    def history(self, source: Reference) -> list[Span]:
        """Return what a source stood for, the oldest first."""
        rows = self._rows(
            "SELECT digest, since, until FROM history WHERE source = ? ORDER BY id",
            (str(source.location),),
        )
        return [
            Span(source, digest, _time(since), _time(until))
            for text, since, until in rows
            if (digest := kept_digest(text)) is not None
        ]

    # --- what is this mirror's own ---------------------------------------------------------------

    def mark_created(
        self, target: Location, source: Reference, digest: Digest, time: datetime
    ) -> None:
        """Remember that a target was not there before this mirror named it, or that it moved it.

        To be called for a target that was absent, and again for each move of a target that
        `own_targets` knows; not for what somebody else made.
        """
        self._write(
            "INSERT INTO created (target, source, digest, time) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (target) DO UPDATE SET source = excluded.source,"
            " digest = excluded.digest, gone_since = NULL",
            str(target),
            str(source.location),
            str(digest),
            _seconds(time),
        )

    def own_targets(self) -> set[Location]:
        """Return the targets that this mirror made."""
        rows = self._rows("SELECT target FROM created", ())
        targets = (kept_target(row[0]) for row in rows)
        return {target for target in targets if target is not None}

    def own(self) -> list[Created]:
        """Return the targets that this mirror made, sorted."""
        rows = self._rows(
            f"SELECT target, source, digest, time, {'gone_since' if self._new else 'NULL'}"  # noqa: S608
            " FROM created ORDER BY target",
            (),
        )
        return [
            Created(target, source, digest, _time(time), None if gone is None else _time(gone))
            for *texts, time, gone in rows
            if (target := kept_target(texts[0])) is not None
            and (source := kept_source(texts[1])) is not None
            and (digest := kept_digest(texts[2])) is not None
        ]

    def mark_gone(self, target: Location, since: datetime | None) -> None:
        """Remember since when the source of an own target is gone; None: it is wanted again."""
        seconds = None if since is None else _seconds(since)
        self._write("UPDATE created SET gone_since = ? WHERE target = ?", seconds, str(target))

    # --- whose it is -----------------------------------------------------------------------------

    def configuration(self) -> str | None:
        """Return the name of the configuration that this state belongs to; None before it has."""
        if not self._new:
            return None
        rows = self._rows("SELECT value FROM about WHERE key = 'configuration'", ())
        return rows[0][0] if rows else None

    def belongs_to(self, name: str) -> None:
        """Make sure that this is the state of one configuration; a state of none becomes its own.

        Raises:
            UsageError: it is another configuration's.
        """
        known = self.configuration()
        if known is not None and known != name:
            raise UsageError(
                f"{self.path} is the state of the configuration {known!r}, not of {name!r}",
                advice="Give each configuration a --state of its own; if it was only renamed, write"
                f" `name: {known}` into it.",
            )
        if known is None and self._lock is not None:
            self._write("INSERT INTO about VALUES ('configuration', ?)", name)

    def shard(self) -> tuple[int, int] | None:
        """Return which shard of how many the last run was; None if it is not known."""
        rows = self._rows("SELECT value FROM about WHERE key = 'shard'", ()) if self._new else []
        said = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", rows[0][0] if rows else "", re.ASCII)
        shard = (int(said[1]), int(said[2])) if said else (0, 0)
        return shard if 0 < shard[0] <= shard[1] else None

    def is_shard(self, shard: tuple[int, int]) -> None:
        """Remember which shard of how many has this state now."""
        if shard != self.shard():
            text = f"{shard[0]}/{shard[1]}"
            self._write("INSERT OR REPLACE INTO about VALUES ('shard', ?)", text)

    def take_over(self, old: State, wanted: Callable[[Reference], bool]) -> None:
        """Copy what another state knows of the sources that are wanted; the runs stay there.

        Args:
            old: the other state, for reading.
            wanted: whether a source is one of this configuration's.
        """
        columns = {
            "complete": "target, source, digest, platforms, referrers, time",
            "history": "id, source, digest, since, until",
            "created": "target, source, digest, time",
        }
        for table, names in columns.items():
            marks = ", ".join("?" * (names.count(",") + 1))
            for row in old._rows(f"SELECT {names} FROM {table}", ()):  # noqa: S608
                source = kept_source(row[names.split(", ").index("source")])
                if source is not None and wanted(source):
                    self._write(f"INSERT INTO {table} ({names}) VALUES ({marks})", *row)  # noqa: S608

    # --- runs ------------------------------------------------------------------------------------

    def begin_run(self, time: datetime) -> int:
        """Remember that a run began, durably; return its number."""
        with self._guard:
            self._write("INSERT INTO run (started) VALUES (?)", _seconds(time))
            ((number,),) = self._rows("SELECT max(number) FROM run", ())
            self._commit()
        return int(number)

    def end_run(
        self,
        number: int,
        time: datetime,
        exit_code: int,
        *,
        copied: int = 0,
        unchanged: int = 0,
        failed: int = 0,
        bytes_copied: int = 0,
    ) -> None:
        """Remember how a run ended, durably."""
        self._write(
            "UPDATE run SET ended = ?, exit_code = ?, copied = ?, unchanged = ?, failed = ?,"
            " bytes = ? WHERE number = ?",
            _seconds(time),
            exit_code,
            copied,
            unchanged,
            failed,
            bytes_copied,
            number,
        )
        self.commit()

    def has_run(self) -> bool:
        """Whether a run has begun with this state, before this one."""
        return bool(self._rows("SELECT 1 FROM run LIMIT 1", ()))

    def succeeded(self, entry: str, time: datetime) -> None:
        """Remember that all of an entry was done."""
        self._write("INSERT OR REPLACE INTO success VALUES (?, ?)", entry, _seconds(time))

    def last_successes(self) -> dict[str, datetime]:
        """Return when each entry was last done."""
        return {entry: _time(time) for entry, time in self._rows("SELECT * FROM success", ())}

    # --- SQLite ----------------------------------------------------------------------------------

    def _rows(self, statement: str, values: Sequence[object]) -> list[Any]:
        with self._guard, in_use(self.path):
            return self._connection.execute(statement, values).fetchall()

    def _write(self, statement: str, *values: object) -> int:
        """Run a statement, and return how many rows it changed."""
        with self._guard, in_use(self.path):
            if not self._connection.in_transaction:
                self._connection.execute("BEGIN IMMEDIATE")
            changed = self._connection.execute(statement, values).rowcount
            self._uncommitted += 1
            if self._uncommitted >= _BATCH or monotonic() - self._committed_at >= _BATCH_S:
                self._commit()
        return changed

    def _commit(self) -> None:
        with in_use(self.path):
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
            self._uncommitted = 0
            self._committed_at = monotonic()


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


def _time(seconds: int) -> datetime:
    """Return a time; of one that there cannot be, the nearest that there can."""
    return datetime.fromtimestamp(min(max(seconds, 0), _LAST_S), UTC)
