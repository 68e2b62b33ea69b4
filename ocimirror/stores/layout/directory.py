"""LayoutDirectory: a layout directory to a reader, as it is at each moment."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from ocimirror.errors import (
    DamagedLayout,
    LocalStorageError,
    MissingContent,
    NotFound,
    SizeMismatch,
    storage_error,
    storage_errors,
)
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.stores.disk.files import Identity, identity_of, is_there, open_regular, read_whole
from ocimirror.stores.disk.oslayer import OsLayer
from ocimirror.stores.layout import index as layout_index
from ocimirror.stores.layout.index import LayoutIndex
from ocimirror.stores.layout.layoutfile import (
    LAYOUT_FILE,
    MAX_LAYOUT_FILE_BYTES,
    check_layout_file,
)
from ocimirror.stores.layout.openblob import OpenBlob
from ocimirror.stores.layout.source import LayoutSource
from ocimirror.stores.stream import Reader

T = TypeVar("T")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LayoutDirectory(LayoutSource):
    """A layout directory as it is at each moment; what `Layout` is to a reader. Thread-safe.

    It holds no lock and no file, so that others may write, mend, replace or remove the layout
    meanwhile, and that there may be as many of these as there are layouts. Only the path of the
    layout itself may lead through links.

    Args:
        path: the directory; nothing is read before it is asked for.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.location = f"oci:{self.path}"
        self._root = os.path.abspath(self.path)
        self._os = OsLayer()
        self._parsed: tuple[Identity, bytes, LayoutIndex] | None = None
        self._parsing = threading.Lock()

    def check(self) -> None:
        """Refuse what is no layout; the file oci-layout may be absent where the rest is there.

        Raises:
            NotFound: there is no such directory.
            DamagedLayout: it is not a layout, or one of a version that we do not know.
        """
        if not (is_there(self._root) and os.path.isdir(self._root)):
            raise NotFound(f"there is no directory {self.path}")
        raw = self._read_small(LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES)
        rest = all(os.path.lexists(self._path(name)) for name in ("index.json", "blobs"))
        if raw is not None or not rest:
            check_layout_file(raw, self.path)

    # --- index.json ----------------------------------------------------------------------------

    def version(self) -> Identity:
        """Return which index.json is there now; another one has another identity.

        Raises:
            DamagedLayout: there is none.
        """
        try:
            name, directory = self._os.at(self._path("index.json"))
            return identity_of(os.stat(name, dir_fd=directory, follow_symlinks=False))
        except FileNotFoundError as error:
            raise DamagedLayout(f"{self.path}: no index.json") from error
        except OSError as error:
            raise self._read_error(error, "index.json") from error

    def index(self) -> LayoutIndex:
        """Return index.json as it is now, parsed once for each version of the file."""
        version = self.version()  # (before it is read: what changes now is seen later)
        with self._parsing:  # (one thread parses, the others wait for that)
            if self._parsed is None or self._parsed[0] != version:
                raw = self._read_index()
                self._parsed = version, raw, LayoutIndex.parse(raw, self.path)
            return self._parsed[2]

    def read_index(self) -> LayoutIndex:
        """Return index.json as it is now, read for this call and not kept."""
        return LayoutIndex.parse(self._read_index(), self.path)

    def _read_index(self) -> bytes:
        return self._read_small("index.json", layout_index.MAX_SIZE_BYTES) or b""

    # --- blobs ---------------------------------------------------------------------------------

    def open_blob(self, digest: Digest) -> OpenBlob | None:
        """Open the file of a blob, to be closed by the caller; None where there is none.

        Raises:
            DamagedLayout: it is there, and a link or no regular file.
            LocalStorageError: it cannot be read.
        """
        try:
            fd = self._in_blobs(digest, open_regular)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._read_error(error, str(digest)) from error
        return OpenBlob(fd, digest, self.path)

    def size_of(self, digest: Digest) -> int | None:
        """Return the size of a blob file; links and special files are refused."""
        try:
            status = self._in_blobs(digest, _status)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._read_error(error, str(digest)) from error
        if not stat.S_ISREG(status.st_mode):
            raise DamagedLayout(f"{self.path}: {digest} is not a regular file")
        return status.st_size

    def blob_files(self) -> Iterator[tuple[str, str]]:
        """Yield (path below the layout, digest text) of each file under blobs/, sorted."""
        for name in self._listed("blobs"):
            if self._is_directory(name):
                for encoded in self._listed("blobs", name):
                    yield f"blobs/{name}/{encoded}", f"{name}:{encoded}"
            else:
                yield f"blobs/{name}", name

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        digest = descriptor.digest
        file = self.open_blob(digest)
        if file is None:
            raise MissingContent(f"{self.path}: {descriptor} is missing")
        if file.size != descriptor.size:
            file.close()
            raise SizeMismatch(
                f"{self.path}: {digest} has {file.size} bytes, wanted {descriptor.size}"
            )
        return file.reader(position, closes=True)

    # --- below both ----------------------------------------------------------------------------

    def _is_directory(self, algorithm: str) -> bool:
        name, blobs = self._os.at(self._path("blobs", algorithm))
        with storage_errors(f"cannot read blobs/{algorithm} in {self.path}"):
            return stat.S_ISDIR(os.stat(name, dir_fd=blobs, follow_symlinks=False).st_mode)

    def _listed(self, *parts: str) -> list[str]:
        try:
            return sorted(os.listdir(self._os.held(self._path(*parts))))
        except FileNotFoundError as error:
            raise DamagedLayout(f"{self.path} has no directory {'/'.join(parts)}") from error
        except OSError as error:
            raise self._read_error(error, "/".join(parts)) from error

    def _read_small(self, name: str, limit: int) -> bytes | None:
        """Read a whole document at the root; None where it is absent."""
        try:
            name_there, directory = self._os.at(self._path(name))
            return read_whole(name_there, limit, directory)
        except OSError as error:
            raise self._read_error(error, name) from error

    def _read_error(self, error: OSError, what: str) -> DamagedLayout | LocalStorageError:
        if error.errno in (errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR, errno.ENOTDIR):
            return DamagedLayout(f"{self.path}: {what} is a link or not a regular file")
        if error.errno == errno.EFBIG:
            return DamagedLayout(f"{self.path}: {what} is {error.strerror}")
        return storage_error(error, f"cannot read {what} in {self.path}")

    def _path(self, *parts: str) -> str:
        return os.path.join(self._root, *parts)

    def _in_blobs(self, digest: Digest, act: Callable[[str, int], T]) -> T:
        """Act on the name of a blob and a descriptor of its directory, which may not be a link."""
        directory = self._open_blobs(digest.algorithm)
        try:
            return act(digest.encoded, directory)
        finally:
            os.close(directory)

    def _open_blobs(self, algorithm: str) -> int:
        """Open blobs/<algorithm>; neither of both may be a link."""
        name, root = self._os.at(self._path("blobs"))
        blobs = os.open(name, _DIRECTORY, dir_fd=root)
        try:
            return os.open(algorithm, _DIRECTORY, dir_fd=blobs)
        finally:
            os.close(blobs)


def _status(name: str, directory: int) -> os.stat_result:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)
