"""What a mirror keeps in files, written as the product writes it and without it.

The lock file and the state outlive a version of ocimirror: what is spelled here is what files of
earlier versions look like.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
NIGHT = "2026-01-31T02:00:00Z"
NIGHT_S = 1_769_824_800


def digest(text: str) -> str:
    """Return a digest that differs from text to text."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


# --- the lock file ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """An image of a lock file, its fields in the order of the file."""

    source: str = "docker://docker.io/library/alpine:3.19"
    digest: str = digest("a")
    size: int = 10_485_760
    media_type: str = OCI_INDEX
    time: str = NIGHT
    platforms: Sequence[str] = ()
    attachments: Sequence[str] = ()


def lock_document(*records: Record, **more: Any) -> dict[str, Any]:
    """Return a lock file as a document; `more` are members beside the images."""
    whole = {"schema": "ocimirror.lock/v2", "shard": 1, "of": 1, "run": "", "own": []}
    return {**whole, "images": [asdict(record) for record in records], **more}


def write_lock(path: Path, *records: Record, **more: Any) -> Path:
    """Write a lock file, in one line and in the order given."""
    path.write_text(json.dumps(lock_document(*records, **more)))
    return path


def lock_text(records: Iterable[Record]) -> str:
    """Return the very text of a lock file of one run: sorted, four lines an image."""
    images = []
    for record in sorted(records, key=lambda record: record.source):
        platforms, attachments = (
            json.dumps(sorted(set(values))) for values in (record.platforms, record.attachments)
        )
        images.append(
            f'\n  {{"source": "{record.source}",\n'
            f'   "digest": "{record.digest}", "size": {record.size},\n'
            f'   "media_type": "{record.media_type}", "time": "{record.time}",\n'
            f'   "platforms": {platforms}, "attachments": {attachments}}}'
        )
    head = '{"schema": "ocimirror.lock/v2", "shard": 1, "of": 1, "run": "",\n "own": [],\n'
    return f'{head} "images": [{",".join(images)}\n ]}}\n'


# --- the state ----------------------------------------------------------------------------------

_STATE = """
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
);
PRAGMA application_id = 0x6F63696D;
PRAGMA user_version = 2;
"""


@dataclass(frozen=True)
class Span:
    """A row of the history; times in seconds."""

    source: str
    digest: str
    since: int = NIGHT_S
    until: int = NIGHT_S


def write_state(
    path: Path, history: Iterable[Span] = (), complete: Iterable[tuple[str, str, str]] = ()
) -> Path:
    """Write a state: what was seen, and (source, target, digest) of what is complete."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(_STATE)
        connection.executemany(
            "INSERT INTO history (source, digest, since, until) VALUES (?, ?, ?, ?)",
            [(span.source, span.digest, span.since, span.until) for span in history],
        )
        connection.executemany(
            "INSERT INTO complete VALUES (?, ?, ?, '', 1, ?)",
            [(target, source, value, NIGHT_S) for source, target, value in complete],
        )
    return path
