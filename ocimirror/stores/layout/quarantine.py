"""Blobs on their way out of a layout: put aside first, deleted by a later run, or put back.

    blobs/<algorithm>/<encoded>  ⇄  .ocimirror/quarantine/<algorithm>/<encoded>  →  gone

The time of modification says since when a file is where it is. It is set before the rename: a run
that is killed in between makes a blob look newer than it is, never one in quarantine older.

Nothing here knows what is needed; whoever calls does, and holds the layout's lock exclusively.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ocimirror.errors import DamagedLayout, InvalidReference, storage_error
from ocimirror.model.digest import Digest
from ocimirror.stores.disk.files import open_regular
from ocimirror.stores.disk.oslayer import OsLayer


@dataclass(frozen=True, slots=True)
class BlobFile:
    """A regular file that has the name of a digest; `since` in seconds of the system's clock."""

    digest: Digest
    size: int
    since: float


class Quarantine:
    """The blobs of one layout, and those that were put aside.

    Args:
        blobs: the layout's directory of that name.
        directory: where files are put aside, on the same file system; made when one is.
        os_layer: the operations that change the disk.
        durable: sync directories, each once a call.
    """

    def __init__(self, blobs: str, directory: str, os_layer: OsLayer, *, durable: bool) -> None:
        self._blobs = blobs
        self._directory = directory
        self._os = os_layer
        self._durable = durable

    def stored(self) -> tuple[list[BlobFile], list[str]]:
        """Return the files under blobs/, and the paths there that are none, below the layout."""
        files, others = self._listed(self._blobs)
        return files, [f"blobs/{path}" for path in others]

    def waiting(self) -> list[BlobFile]:
        """Return the files in quarantine."""
        return self._listed(self._directory)[0]

    def open(self, digest: Digest) -> int:
        """Open a file in quarantine; return its descriptor.

        Raises:
            OSError: it is not there, or no regular file.
        """
        path = os.path.join(self._directory, digest.algorithm, digest.encoded)
        return open_regular(*self._os.at(path))

    def take(self, files: Collection[BlobFile]) -> None:
        """Move blobs into quarantine, stamped with the time.

        The newest goes first: what names other content was written after it, so that a run that
        is killed here leaves no manifest whose content has gone.
        """
        self._move(files, self._blobs, self._directory, stamp=True)

    def put_back(self, files: Collection[BlobFile]) -> None:
        """Move files out of quarantine to where they were; the one put aside last goes first."""
        self._move(files, self._directory, self._blobs, stamp=False)

    def delete(self, files: Collection[BlobFile]) -> None:
        """Delete files in quarantine."""
        self._hold(self._directory, files)
        with _translated("cannot delete from", self._directory):
            for file in files:
                self._os.unlink(_path(self._directory, file))
        self._sync(self._directory, files)

    def _move(self, files: Collection[BlobFile], source: str, target: str, *, stamp: bool) -> None:
        if files:
            self._make_directories(target, {file.digest.algorithm for file in files})
            self._hold(source, files)
        with _translated("cannot move files to", target):
            for file in sorted(files, key=lambda file: file.since, reverse=True):
                old = _path(source, file)
                if stamp:
                    self._os.touch(old)
                self._os.rename(old, _path(target, file))
        # (A file is on the disk under its new name before it is off it under the old one.)
        self._sync(target, files)
        self._sync(source, files)

    def _hold(self, parent: str, files: Collection[BlobFile]) -> None:
        with _translated("cannot open", parent):
            for name in {file.digest.algorithm for file in files}:
                self._os.hold(os.path.join(parent, name))

    def _make_directories(self, parent: str, names: Collection[str]) -> None:
        """Make what is absent; a link in its place would lead out of the layout."""
        for directory in (parent, *(os.path.join(parent, name) for name in names)):
            with _translated("cannot make", directory):
                self._os.make_directory(directory)
                name, above = self._os.at(directory)
                found = os.stat(name, dir_fd=above, follow_symlinks=False)
                if self._durable:
                    self._os.sync_directory(os.path.dirname(directory))
            if not stat.S_ISDIR(found.st_mode):
                raise DamagedLayout(f"{directory} is a link or not a directory")
            with _translated("cannot open", directory):
                self._os.hold(directory)

    def _sync(self, parent: str, files: Collection[BlobFile]) -> None:
        for name in sorted({file.digest.algorithm for file in files}) if self._durable else ():
            directory = os.path.join(parent, name)
            with _translated("cannot sync", directory):
                self._os.sync_directory(directory)

    def _listed(self, directory: str) -> tuple[list[BlobFile], list[str]]:
        """Return the blob files of a directory, and the paths below it of everything else."""
        files: list[BlobFile] = []
        others: list[str] = []
        with _translated("cannot read", directory):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._os.hold(directory)
            for algorithm in self._entries(directory):
                if not algorithm.is_dir(follow_symlinks=False):
                    others.append(algorithm.name)
                    continue
                for entry in self._entries(os.path.join(directory, algorithm.name)):
                    status = entry.stat(follow_symlinks=False)
                    digest = _digest(algorithm.name, entry.name)
                    if digest is not None and stat.S_ISREG(status.st_mode):
                        files.append(BlobFile(digest, status.st_size, status.st_mtime))
                    else:
                        others.append(f"{algorithm.name}/{entry.name}")
        return files, others

    def _entries(self, directory: str) -> Iterator[os.DirEntry[str]]:
        """Yield what is in a directory, sorted by name."""
        try:
            fd = self._os.open_directory(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise DamagedLayout(f"{directory} is a link or not a directory") from error
        try:
            with os.scandir(fd) as entries:
                yield from sorted(entries, key=lambda entry: entry.name)
        finally:
            os.close(fd)


def _path(parent: str, file: BlobFile) -> str:
    return os.path.join(parent, file.digest.algorithm, file.digest.encoded)


def _digest(algorithm: str, encoded: str) -> Digest | None:
    try:
        return Digest.parse(f"{algorithm}:{encoded}")
    except InvalidReference:
        return None


@contextlib.contextmanager
def _translated(what: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, f"{what} {path}") from error
