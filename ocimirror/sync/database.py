"""The SQLite file below the state: opened, checked, and moved aside where it is damaged.

SQLite's own journal is used, not its write-ahead log: that one needs shared memory, which network
file systems lack, and leaves two more files that belong to the first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from urllib.parse import quote

from ocimirror.errors import LocalStorageError, Locked, NoSpace, UsageError, storage_error

logger = logging.getLogger(__name__)

_APPLICATION_ID = 0x6F63_696D  # "ocim"
VERSION = 2
_BUSY_S = 10.0
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class _Damaged(Exception):
    """The file is no database, or one that SQLite cannot read through."""


def open_to_write(path: str, schema: str, newer: str) -> sqlite3.Connection:
    """Open the database, or make one; a damaged one is moved aside, with a warning.

    The caller holds the lock that keeps other writers away.

    Args:
        path: of the file.
        schema: the statements that make the present version of it.
        newer: the statements that turn version 1 into it.

    Raises:
        UsageError: another program's database, or a newer ocimirror's.
        LocalStorageError: it cannot be opened or written.
    """
    try:
        return _opened_to_write(path, schema, newer)
    except _Damaged as damage:
        _move_aside(path, str(damage))
    try:
        return _opened_to_write(path, schema, newer)
    except _Damaged as damage:
        raise LocalStorageError(f"cannot make {path}: {damage}") from damage


def open_to_read(path: str) -> sqlite3.Connection:
    """Open the database for reading, also while another process writes it.

    Raises:
        UsageError: there is none, or it is another program's, or a newer ocimirror's.
        LocalStorageError: it is damaged, or cannot be read.
    """
    if not os.path.lexists(path):
        raise UsageError(
            f"there is no state {path}",
            advice="sync keeps it beside its CONFIG, as sync.state for sync.yaml; --state FILE says"
            " where.",
        )
    try:
        # ("rw", because what a killed writer left in the journal is undone by the next reader.)
        connection = _connected(path, "rw")
        try:
            with translated(path):
                connection.execute("PRAGMA query_only = ON")
                if _version(connection, path) is None:
                    raise UsageError(f"{path} is empty: no sync has run with it yet")
                _check_kinds(connection)
        except BaseException:
            connection.close()
            raise
    except _Damaged as damage:
        raise LocalStorageError(
            f"{path} is damaged: {damage}", advice="The next sync moves it aside and begins anew."
        ) from damage
    return connection


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn what SQLite raises in here into errors of ours."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise _Damaged("what SQLite says of it is no text") from error
    except sqlite3.Error as error:
        # (The low byte is the error, the rest its details.)
        detailed = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        code = detailed & 0xFF
        what = f"{path}: {error}"
        if detailed == sqlite3.SQLITE_READONLY_DBMOVED:
            what = f"{path} was moved or deleted while it was in use"
        if code in _DAMAGED:
            raise _Damaged(str(error)) from error
        if code in _BUSY:
            raise Locked(f"{what} for {_BUSY_S:.0f} s") from error
        raise (NoSpace if code == sqlite3.SQLITE_FULL else LocalStorageError)(what) from error


@contextlib.contextmanager
def in_use(path: str) -> Iterator[None]:
    """Translate errors of a database that was sound when it was opened."""
    try:
        with translated(path):
            yield
    except _Damaged as damage:
        raise LocalStorageError(
            f"{path} is damaged: {damage}", advice="The next sync moves it aside and begins anew."
        ) from damage


def _opened_to_write(path: str, schema: str, newer: str) -> sqlite3.Connection:
    connection = _connected(path, "rwc")
    try:
        with translated(path):
            found = _version(connection, path)
            faults = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
            if faults != ["ok"]:
                raise _Damaged(str(faults[0]))
            _check_kinds(connection)
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = FULL")
            # (Readers wait only for the moment of a commit.)
            connection.execute("PRAGMA cache_spill = OFF")
            connection.execute("BEGIN IMMEDIATE")
            if found != VERSION:
                for statement in (schema if found is None else newer).split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _connected(path: str, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode={mode}"
    with translated(path):
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
    # (A flipped bit in a text makes it one that is not known, and not an error in each run.)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def _version(connection: sqlite3.Connection, path: str) -> int | None:
    """Return the version of our schema, None for an empty file.

    Raises:
        UsageError: a sound database that is not ours to change.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not (version or application or objects):
        return None
    if application != _APPLICATION_ID:
        raise UsageError(f"{path} is a database of another program")
    if not 1 <= version <= VERSION:
        raise UsageError(
            f"{path} has version {version} of the state, and this ocimirror knows {VERSION}",
            advice="Use the ocimirror that wrote it, or another --state: a new one costs one"
            " request an image.",
        )
    return int(version)


def _check_kinds(connection: sqlite3.Connection) -> None:
    """Look for values of another kind than their column's: to SQLite they are sound.

    Raises:
        _Damaged: there is one.
    """
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        wrong = []
        for _, name, kind, required, *_ in connection.execute(f'PRAGMA table_info("{table}")'):
            kinds = f"'{kind.lower()}'" if required else f"'{kind.lower()}', 'null'"
            wrong.append(f'typeof("{name}") NOT IN ({kinds})')
        statement = f'SELECT 1 FROM "{table}" WHERE {" OR ".join(wrong)} LIMIT 1'  # noqa: S608
        if connection.execute(statement).fetchone():
            raise _Damaged(f"{table} holds a value of another kind")


def _move_aside(path: str, damage: str) -> None:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = f"{path}.damaged-{stamp}"
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = f"{path}.damaged-{stamp}-{number}"
    try:
        os.rename(path, aside)
        # (A journal would be applied to the new database, which it does not belong to.)
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}-journal", f"{aside}-journal")
    except OSError as error:
        raise storage_error(error, f"cannot move the damaged {path} aside") from error
    logger.warning(
        "%s is damaged (%s): moved to %s, and begun anew; this run asks more", path, damage, aside
    )
