"""The members of a tar that may have been made by anybody: listed once, read where they lie.

Nothing is extracted. A member is an exact name, an offset and a size, or the tar is refused.
"""

from __future__ import annotations

import os
import posixpath
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from ocimirror.errors import DamagedLayout, NotFound, storage_error
from ocimirror.stores.files import FileReader
from ocimirror.stores.stream import CHUNK_BYTES

MAX_MEMBERS = 1_000_000
MAX_HEADER_BYTES = 1024 * 1024
MAX_LINKS = 16
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"BZ": "bzip2", b"\xfd7": "xz"}


class TarMembers:
    """The regular members of a tar, by name. Thread-safe.

    Args:
        path: the file; `-` is standard input, kept in a temporary file first.
        links: take symbolic and hard links that stay inside the tar, as names of other members;
            else they are refused.

    Raises:
        NotFound: there is no such file.
        DamagedLayout: not a tar, or members that no image has: devices, `..`, duplicates, links
            that lead outside, sizes that do not fit the file.
    """

    def __init__(self, path: str, *, links: bool = False) -> None:
        self.path = path
        self._takes_links = links
        self._members: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            self._file = _spooled(sys.stdin.buffer) if path == "-" else open(path, "rb")  # noqa: SIM115
            self._size = os.fstat(self._file.fileno()).st_size
        except FileNotFoundError as error:
            raise NotFound(f"there is no file {path}") from error
        except OSError as error:
            raise storage_error(error, f"cannot read {path}") from error
        try:
            self._list()
        except BaseException:
            self.close()
            raise

    def _list(self) -> None:
        try:
            magic = os.pread(self._file.fileno(), 2, 0)
            if magic in _COMPRESSED:
                raise DamagedLayout(
                    f"{self.path} is compressed with {_COMPRESSED[magic]}",
                    advice="Decompress it first: content is read at random.",
                )
            with tarfile.open(fileobj=_Guarded(self._file, self._size), mode="r:") as tar:  # type: ignore[call-overload]
                next_header = 0
                for number, member in enumerate(tar):
                    if number >= MAX_MEMBERS:
                        raise DamagedLayout(f"{self.path}: more than {MAX_MEMBERS} members")
                    self._take(member)
                    tar.members = []  # (tarfile keeps every header it saw)
                    next_header = tar.offset
                self._refuse_an_early_end(next_header)
        except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
            raise DamagedLayout(f"{self.path} is not a readable tar: {error}") from error
        except OSError as error:
            raise storage_error(error, f"cannot read {self.path}") from error

    def _refuse_an_early_end(self, end: int) -> None:
        """Raise if tarfile stopped at something other than the end of the archive.

        It takes a header that it cannot read, or that is cut short, for the end; which headers
        those are depends on the version of Python. The end is a block of zeros, or of the file.
        """
        block = os.pread(self._file.fileno(), tarfile.BLOCKSIZE, end)
        if block.strip(b"\0") or 0 < len(block) < tarfile.BLOCKSIZE:
            raise DamagedLayout(f"{self.path}: the header at byte {end} cannot be read")

    def _take(self, member: tarfile.TarInfo) -> None:
        name = _plain(member.name)
        if name.startswith("/") or ".." in name.split("/"):
            raise DamagedLayout(f"{self.path}: member {member.name!r} leaves the archive")
        if member.isdir():
            return
        link = self._takes_links and member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE)
        regular = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None
        if not link and not regular:
            raise DamagedLayout(
                f"{self.path}: member {member.name!r} is a link, device or sparse file"
            )
        if name in self._members or name in self._links:
            raise DamagedLayout(f"{self.path}: two members are named {member.name!r}")
        if link:
            self._links[name] = self._target(name, member)
            return
        if member.size < 0 or member.offset_data + member.size > self._size:
            raise DamagedLayout(f"{self.path}: member {member.name!r} goes past the end")
        self._members[name] = member.offset_data, member.size

    def _target(self, name: str, member: tarfile.TarInfo) -> str:
        """Return the name that a link stands for; a hard link's is relative to the top."""
        base = posixpath.dirname(name) if member.type == tarfile.SYMTYPE else ""
        target = posixpath.normpath(posixpath.join(base, member.linkname))
        if not member.linkname or target.startswith(("/", "../")) or target == "..":
            raise DamagedLayout(
                f"{self.path}: link {member.name!r} leaves the archive, to {member.linkname!r}"
            )
        return target

    def find(self, name: str) -> str | None:
        """Return the regular member that a name stands for, links followed; None for none.

        Raises:
            DamagedLayout: links that lead nowhere or in a circle.
        """
        found = _plain(name)
        for _ in range(MAX_LINKS):
            if found in self._members:
                return found
            if found not in self._links:
                break
            found = self._links[found]
        if _plain(name) in self._links:
            raise DamagedLayout(f"{self.path}: link {name!r} leads to no member")
        return None

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of regular members, in the tar's order."""
        return iter(self._members)

    def size_of(self, name: str) -> int | None:
        """Return the size of a regular member, None where there is none of that name."""
        member = self._members.get(name)
        return None if member is None else member[1]

    def small(self, name: str, limit: int) -> bytes | None:
        """Return the whole of a member, None where there is none.

        Raises:
            DamagedLayout: it is larger than `limit` bytes.
        """
        if name not in self._members:
            return None
        offset, size = self._members[name]
        if size > limit:
            raise DamagedLayout(f"{self.path}: {name} is larger than {limit} bytes")
        try:
            return os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            raise storage_error(error, f"cannot read {self.path}") from error

    def reader(self, name: str, position: int = 0) -> FileReader:
        """Return a reader of a member that is there, from a position on."""
        offset, size = self._members[name]
        fd = self._file.fileno()
        return FileReader(fd, self.path, offset + position, offset + size, closes=False)

    def close(self) -> None:
        """Close the file; readers that are still in use fail."""
        self._file.close()


def _plain(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


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
