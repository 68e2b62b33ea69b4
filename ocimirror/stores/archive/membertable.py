"""The names of a tar's members, in a temporary database: a million of them need little memory."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ocimirror.errors import LocalStorageError

_PAGE = 1000
_CREATE = "CREATE TABLE member (name BLOB PRIMARY KEY, begin, size, target BLOB) WITHOUT ROWID"


class MemberTable:
    """Regular members and links by name. Thread-safe.

    Raises:
        LocalStorageError: there is no room for temporary files; from every method.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        with self._translated():
            # ("" is a file without a name, and in memory as long as it is small.)
            self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute("PRAGMA cache_size = -16000")
            self._database.execute(_CREATE)
            self._database.execute("BEGIN")  # (never committed: nobody else reads this)

    def add(self, name: str, begin: int, size: int) -> bool:
        """Add a regular member, its position and size in bytes; False if the name is taken."""
        return self._add(name, begin, size, None)

    def add_link(self, name: str, target: str) -> bool:
        """Add a link to another name; False if the name is taken."""
        return self._add(name, 0, 0, _key(target))

    def _add(self, name: str, begin: int, size: int, target: bytes | None) -> bool:
        row = _key(name), begin, size, target
        with self._translated(), self._lock:
            done = self._database.execute("INSERT OR IGNORE INTO member VALUES (?, ?, ?, ?)", row)
            return done.rowcount == 1

    def find(self, name: str) -> tuple[int, int] | None:
        """Return (position, size) of a regular member, None if there is none of that name."""
        row = self._row(name)
        return None if row is None or row[2] is not None else (row[0], row[1])

    def target(self, name: str) -> str | None:
        """Return the name that a link leads to, None if no link has that name."""
        row = self._row(name)
        return None if row is None or row[2] is None else _text(row[2])

    def _row(self, name: str) -> tuple[int, int, bytes | None] | None:
        query = "SELECT begin, size, target FROM member WHERE name = ?"
        with self._translated(), self._lock:
            row: tuple[int, int, bytes | None] | None
            row = self._database.execute(query, (_key(name),)).fetchone()
            return row

    def names(self) -> Iterator[str]:
        """Iterate over the names of regular members, sorted by their bytes."""
        query = "SELECT name FROM member WHERE name > ? AND target IS NULL ORDER BY name LIMIT ?"
        last = b""
        while True:
            with self._translated(), self._lock:
                page = [name for (name,) in self._database.execute(query, (last, _PAGE))]
            yield from map(_text, page)
            if len(page) < _PAGE:
                return
            last = page[-1]

    def close(self) -> None:
        """Remove the table; idempotent."""
        self._database.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LocalStorageError(
                f"cannot keep the list of an archive's members: {error}",
                advice="It needs room for temporary files; TMPDIR names another directory.",
            ) from error


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")
