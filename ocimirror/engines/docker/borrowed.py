"""Files of this machine that are changed for a moment and put back, also after a crash.

What is going to change is written to a journal before anything does: whoever finds the journal
without a living owner can put everything back. Files keep their inode, owner and mode, since
/etc/hosts may be a mount.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ocimirror.errors import (
    EngineFailed,
    EngineUnavailable,
    InvalidReference,
    LocalStorageError,
    Locked,
    storage_errors,
)
from ocimirror.model.codec import from_document, to_document
from ocimirror.model.later import LATER
from ocimirror.stores.disk.atomic import FileLock
from ocimirror.stores.disk.files import open_regular

MAX_SIZE_BYTES = 4 * 1024 * 1024
_MAX_JOURNAL_BYTES = 32 * 1024 * 1024
_VERSION = 1
_NEW = ".ocimirror-new"


@dataclass(frozen=True, slots=True)
class Change:
    """One file, as it was and as it is for the moment.

    Attributes:
        path: absolute.
        before: None where there was none.
        after: what is written.
        added: a line of `after` that is found again where others changed the file meanwhile.
        between: what has to be reloaded before the file is as it was, so that what was in force
            for the moment no longer is; empty where nobody keeps the file in mind.
    """

    path: str
    before: bytes | None
    after: bytes
    added: bytes = b""
    between: bytes = b""

    def is_ours(self, content: bytes | None) -> bool:
        """Whether this is what we wrote, or what a write of ours left that did not end."""
        before = self.before or b""
        written = [before, self.after, *([self.between] if self.between else []), before]
        return any(_torn(content or b"", old, new) for old, new in pairwise(written))


@dataclass(frozen=True, slots=True)
class _Journal:
    version: int
    changes: tuple[Change, ...]
    directories: tuple[str, ...]
    reader: Mapping[str, object] = field(default_factory=dict, metadata=LATER)


def _torn(content: bytes, old: bytes, new: bytes) -> bool:
    """Whether a file is somewhere on the way from an old content to a new one, or has that."""
    pairs = enumerate(zip(content, new, strict=False))
    done = next(
        (place for place, (is_, will_be) in pairs if is_ != will_be), min(len(content), len(new))
    )
    return content[done:] == old[done:] or content == new


class Borrowed:
    """The journal, and the changes in it; only one process has it at a time.

    Args:
        journal: its path; its directory is made where it is absent, and goes with it.

    Attributes:
        changes: what is changed now.
        reader: who was made to read a changed file, as `apply` was told; empty if nobody was.

    Raises:
        Locked: a living process has it.
        LocalStorageError: no permission.
    """

    def __init__(self, journal: str) -> None:
        self.path = journal
        self._made = [] if os.path.isdir(os.path.dirname(journal)) else [os.path.dirname(journal)]
        for directory in self._made:
            _make_directory(directory)
        self._lock = _locked(journal)
        try:
            self.reader: Mapping[str, object] = {}
            self.changes, self.directories = self._read()
        except BaseException:
            self._lock.release()
            raise

    def _read(self) -> tuple[list[Change], list[str]]:
        raw = read_file(self.path, _MAX_JOURNAL_BYTES) or b""
        if not raw:
            return [], []
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            # (It is synced before the first change, so a torn one has changed nothing.)
            return [], []
        try:
            version = document.get("version") if isinstance(document, dict) else None
            if version != _VERSION:
                raise InvalidReference(f"version {version}")
            journal = from_document(_Journal, document)
        except InvalidReference as error:
            raise EngineFailed(
                f"{self.path} is no journal of this version of ocimirror: {error}",
                advice="Undo it with the version that wrote it.",
            ) from error
        self.reader = journal.reader
        return list(journal.changes), list(journal.directories)

    def apply(self, changes: Sequence[Change], reader: Mapping[str, object] | None = None) -> None:
        """Write the journal, then the files; directories that are not there are made.

        Args:
            changes: the files.
            reader: who will be made to read them, for whoever has to undo this.
        """
        self.reader = reader or {}
        missing: list[str] = []
        for change in changes:
            directory = os.path.dirname(change.path)
            while not os.path.isdir(directory) and directory not in missing:
                missing.append(directory)
                directory = os.path.dirname(directory)
        self.changes = [*self.changes, *changes]
        self.directories = [*self._made, *self.directories, *sorted(missing)]
        self._write_journal()
        for directory in sorted(missing):
            _make_directory(directory)
        for change in changes:
            _write(change, change.after)

    def _write_journal(self) -> None:
        changes, directories = tuple(self.changes), tuple(self.directories)
        journal = _Journal(_VERSION, changes, directories, self.reader)
        write_in_place(self.path, json.dumps(to_document(journal)).encode())
        with storage_errors(f"cannot sync the directory of {self.path}"):
            fd = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def undo(self, reload: Callable[[str], None]) -> list[str]:
        """Put everything back; return what could not be, and why.

        Idempotent. The journal is emptied last; `close` removes it.

        Args:
            reload: makes whoever keeps a file in mind read it again, and waits until it has.
        """
        left: list[str] = []
        if not self.changes:
            return left
        for change in reversed(self.changes):
            left += _put_back(change, reload)
        self._made = [d for d in reversed(self.directories) if not _removed(d)]
        self.changes, self.directories = [], []
        write_in_place(self.path, b"")
        return left

    def close(self) -> None:
        """Give the journal up; one that holds nothing goes."""
        if not self.changes and not self.directories:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            for directory in self._made:
                _removed(directory)
        self._lock.release()


def _put_back(change: Change, reload: Callable[[str], None]) -> list[str]:
    """Give a file back what it had, as far as it is ours to say; return what cannot be."""
    left: list[str] = []
    if change.before is None:
        restore(change.path + _NEW, None)
    now = read_file(change.path, MAX_SIZE_BYTES)
    if now == change.before or (now is None and not change.between):
        return left
    if change.is_ours(now):
        if change.between:
            _write(change, change.between)
            try:
                reload(change.path)
            except EngineUnavailable:
                pass  # (it has ended, and reads the file when it starts)
            except EngineFailed as error:
                left.append(f"what was in force: {error.message}")
        restore(change.path, change.before)
    elif now is not None and change.added and change.added in now:
        write_in_place(change.path, now.replace(change.added, b"", 1))
    elif not change.added:  # (else our line is gone already)
        left.append(f"{change.path} was changed by somebody else meanwhile")
    return left


def _make_directory(path: str) -> None:
    with storage_errors(f"cannot make {path}"), contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)


def _removed(directory: str) -> bool:
    """Remove a directory, unless others use it by now; return whether it is gone."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)
    return not os.path.isdir(directory)


def _locked(journal: str) -> FileLock:
    while True:
        lock = FileLock(journal)
        try:
            lock.acquire("exclusive", wait=False)
        except Locked as error:
            lock.release()
            raise Locked(f"another run holds {journal}; it puts everything back itself") from error
        if lock.in_place():
            return lock
        lock.release()  # (whoever had it has removed it meanwhile)


def read_file(path: str, limit: int) -> bytes | None:
    """Return a regular file whole, None where there is none.

    Raises:
        LocalStorageError: it cannot be read, or is larger than the limit.
    """
    with storage_errors(f"cannot read {path}"):
        try:
            fd = open_regular(path)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            content = file.read(limit + 1)
    if len(content) > limit:
        raise LocalStorageError(f"{path} is larger than {limit} bytes; it was left as it is")
    return content


def write_in_place(path: str, content: bytes) -> None:
    """Write a file whole, keeping its inode where it is there; it is on the disk afterwards."""
    with storage_errors(f"cannot write {path}"):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.ftruncate(fd, len(content))
            os.fsync(fd)
        finally:
            os.close(fd)


def _write(change: Change, content: bytes) -> None:
    """Write a file; a new one is always whole: dockerd does not start with an empty one."""
    if change.before is not None:
        write_in_place(change.path, content)
        return
    write_in_place(change.path + _NEW, content)
    with storage_errors(f"cannot write {change.path}"):
        os.rename(change.path + _NEW, change.path)


def restore(path: str, before: bytes | None) -> None:
    """Give a file the content that it had; one that was not there goes."""
    if before is not None:
        write_in_place(path, before)
        return
    with storage_errors(f"cannot remove {path}"), contextlib.suppress(FileNotFoundError):
        os.unlink(path)
