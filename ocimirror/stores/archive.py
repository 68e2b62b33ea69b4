"""An OCI image layout in a tar: read at random, written whole and deterministically.

Reading lists the headers once and extracts nothing; a member is an exact name, an offset and a
size, or the archive is refused. Writing stages a layout and packs it: the same index.json over
the same content gives the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tarfile
import tempfile
import time
from functools import partial
from typing import BinaryIO

from ocimirror.errors import (
    DamagedLayout,
    MissingContent,
    NotFound,
    OciMirrorError,
    SizeMismatch,
    UsageError,
    storage_error,
)
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.mediatype import OCTET_STREAM
from ocimirror.stores import index as layout_index
from ocimirror.stores.atomic import ABANDONED_S, FileLock, NewFile, OsLayer
from ocimirror.stores.files import FileReader
from ocimirror.stores.index import LayoutIndex, LayoutSource
from ocimirror.stores.layout import Layout
from ocimirror.stores.layoutfile import LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES, check_layout_file
from ocimirror.stores.stream import CHUNK_BYTES, Reader
from ocimirror.stores.tar import TarWriter, Write

MAX_MEMBERS = 1_000_000
MAX_HEADER_BYTES = 1024 * 1024
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"BZ": "bzip2", b"\xfd7": "xz"}


class Archive(LayoutSource):
    """A tar that holds an image layout, for reading.

    Args:
        path: the file; `-` is standard input, kept in a temporary file first.

    Raises:
        NotFound: there is no such file.
        DamagedLayout: not a tar, not a layout, or members that no layout has: links, devices,
            `..`, duplicates, sizes that do not fit the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.location = f"oci-archive:{path}"
        try:
            self._file = _spooled(sys.stdin.buffer) if path == "-" else open(path, "rb")  # noqa: SIM115
            self._size = os.fstat(self._file.fileno()).st_size
        except FileNotFoundError as error:
            raise NotFound(f"there is no file {path}") from error
        except OSError as error:
            raise storage_error(error, f"cannot read {path}") from error
        self._members: dict[str, tuple[int, int]] = {}
        try:
            self._list_members()
            check_layout_file(self._small(LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES), path)
            raw = self._small("index.json", layout_index.MAX_SIZE_BYTES)
            self._index = LayoutIndex.parse(raw, path)
        except BaseException:
            self.close()
            raise

    def _list_members(self) -> None:
        magic = os.pread(self._file.fileno(), 2, 0)
        if magic in _COMPRESSED:
            raise DamagedLayout(
                f"{self.path} is compressed with {_COMPRESSED[magic]}",
                advice="Decompress it first: content is read at random.",
            )
        try:
            with tarfile.open(fileobj=_Guarded(self._file, self._size), mode="r:") as tar:  # type: ignore[call-overload]
                for number, member in enumerate(tar):
                    if number >= MAX_MEMBERS:
                        raise DamagedLayout(f"{self.path}: more than {MAX_MEMBERS} members")
                    self._take(member)
                    tar.members = []  # (tarfile keeps every header it saw)
        except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
            raise DamagedLayout(f"{self.path} is not a readable tar: {error}") from error
        except OSError as error:
            raise storage_error(error, f"cannot read {self.path}") from error

    def _take(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./").rstrip("/")
        if name.startswith("/") or ".." in name.split("/"):
            raise DamagedLayout(f"{self.path}: member {member.name!r} leaves the archive")
        if member.isdir():
            return
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
            raise DamagedLayout(
                f"{self.path}: member {member.name!r} is a link, device or sparse file"
            )
        if name in self._members:
            raise DamagedLayout(f"{self.path}: two members are named {member.name!r}")
        if member.size < 0 or member.offset_data + member.size > self._size:
            raise DamagedLayout(f"{self.path}: member {member.name!r} goes past the end")
        self._members[name] = member.offset_data, member.size

    def _small(self, name: str, limit: int) -> bytes:
        if name not in self._members:
            raise DamagedLayout(f"{self.path} is not an OCI archive: it has no {name}")
        offset, size = self._members[name]
        if size > limit:
            raise DamagedLayout(f"{self.path}: {name} is larger than {limit} bytes")
        return os.pread(self._file.fileno(), size, offset)

    def index(self) -> LayoutIndex:
        """Return index.json as it was when the archive was opened."""
        return self._index

    def size_of(self, digest: Digest) -> int | None:
        """Return the size of the member of that name, None where there is none."""
        member = self._members.get(_member_name(digest))
        return None if member is None else member[1]

    def blob_files(self) -> list[tuple[str, str]]:
        """Return (member name, digest text) of each member under blobs/, sorted."""
        names = sorted(name for name in self._members if name.startswith("blobs/"))
        return [(name, ":".join(name.split("/")[1:])) for name in names]

    def _open(self, descriptor: Descriptor) -> Reader:
        return self._open_at(descriptor, 0)

    def _open_at(self, descriptor: Descriptor, position: int) -> Reader:
        member = self._members.get(_member_name(descriptor.digest))
        if member is None:
            raise MissingContent(f"{self.path}: {descriptor} is missing")
        offset, size = member
        if size != descriptor.size:
            raise SizeMismatch(
                f"{self.path}: {descriptor.digest} has {size} bytes, wanted {descriptor.size}"
            )
        fd = self._file.fileno()
        return FileReader(fd, self.path, offset + position, offset + size, closes=False)

    def close(self) -> None:
        """Close the file; streams that are still open fail."""
        self._file.close()


def _member_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


class _Guarded:
    """What tarfile may do with a hostile file: small reads, and no step back.

    Its own checks have been bypassed repeatedly (CVE-2025-8194, an endless loop by a negative
    offset; headers of any size are read into memory).
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._front = 0

    def read(self, amount: int = -1, /) -> bytes:
        if not 0 <= amount <= MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header larger than 1 MiB")
        return self._file.read(amount)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        # tarfile steps back one block at most, to read a header again.
        if whence != 0 or offset < self._front - tarfile.BLOCKSIZE or offset > self._size:
            raise tarfile.ReadError("an offset outside the archive")
        self._front = max(self._front, offset)
        return self._file.seek(offset)

    def close(self) -> None:
        pass


def _spooled(stream: BinaryIO) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the archive closes it
    while chunk := stream.read(CHUNK_BYTES):
        file.write(chunk)
    file.seek(0)
    return file


_STAGING = ".ocimirror-archive-"


def _remove_abandoned_staging(directory: str) -> None:
    """Remove what a killed writer staged; its lock died with it."""
    for entry in os.scandir(directory):
        lock = os.path.join(entry.path, ".ocimirror", "lock")
        if not entry.name.startswith(_STAGING) or not os.path.isfile(lock):
            continue
        with contextlib.suppress(OciMirrorError, OSError):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime < ABANDONED_S:
                continue  # (perhaps made, and not locked yet)
            held = FileLock(lock, create=False)
            try:
                held.acquire("exclusive", wait=False)
                shutil.rmtree(entry.path)
            finally:
                held.release()


class ArchiveWriter(Layout):
    """A layout in a temporary directory beside the file it will become.

    Nothing is visible under the file's name before `commit`, which replaces what was there.
    Leaving the context removes the staged layout.

    Args:
        path: the file; `-` is standard output.
        durable: sync the archive before it gets its name.
    """

    def __init__(self, path: str, *, durable: bool = True) -> None:
        beside = tempfile.gettempdir() if path == "-" else os.path.dirname(os.path.abspath(path))
        if path != "-" and os.path.lexists(path) and not os.path.isfile(path):
            raise UsageError(f"{path} is there, and no regular file")
        try:
            _remove_abandoned_staging(beside)
            self._staging = tempfile.TemporaryDirectory(prefix=_STAGING, dir=beside)
        except OSError as error:
            raise storage_error(error, f"cannot write {path}") from error
        super().__init__(self._staging.name, "write", durable=False)
        self.path = path
        self.location = f"oci-archive:{path}"
        self._sync_archive = durable

    def commit(self) -> None:
        """Write the archive: oci-layout, index.json, then blobs in the order of their digests.

        Each blob passes its check once more on the way into the archive.
        """
        if self.path == "-":
            try:
                # (Not its buffer: what a full disk leaves there fails once more at exit.)
                sys.stdout.flush()
                self._pack(partial(OsLayer().write, sys.stdout.fileno()))
            except OSError as error:
                raise storage_error(error, "cannot write standard output") from error
            return
        final = os.path.abspath(self.path)
        packed = os.path.join(self._staging.name, "archive.tar")
        with NewFile(OsLayer(), packed, final, durable=self._sync_archive) as file:
            self._pack(file.write)
            file.commit()
        if self._sync_archive:
            try:
                OsLayer().sync_directory(os.path.dirname(final))
            except OSError as error:
                raise storage_error(error, f"cannot sync the directory of {final}") from error

    def _pack(self, write: Write) -> None:
        tar = TarWriter(write)
        tar.member(LAYOUT_FILE, self._read_small(LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES) or b"")
        tar.member("index.json", self._read_small("index.json", layout_index.MAX_SIZE_BYTES) or b"")
        for name, text in self.blob_files():
            digest = Digest.parse(text)
            descriptor = Descriptor(OCTET_STREAM, digest, self.size_of(digest) or 0)
            with self.fetch(descriptor) as stream:
                tar.stream(name, stream)
        tar.end()

    def close(self) -> None:
        """Remove the staged layout."""
        super().close()
        self._staging.cleanup()
