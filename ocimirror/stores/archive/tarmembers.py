"""The members of a tar that may have been made by anybody: listed once, read where they lie.

Nothing is extracted. A member is an exact name, an offset and a size, or the tar is refused.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from ocimirror.errors import DamagedLayout, storage_error
from ocimirror.stores.archive.membertable import MemberTable
from ocimirror.stores.archive.spool import open_archive
from ocimirror.stores.disk.files import FileReader
from ocimirror.stores.stream import CHUNK_BYTES, Watch

MAX_MEMBERS = 1_000_000
MAX_HEADER_BYTES = 1024 * 1024
MAX_LINKS = 16
DOCUMENTS = ("oci-layout", "index.json", "manifest.json", "repositories")
"""What an archive has at its top, or in the one directory that somebody packed it with."""


class TarMembers:
    """The regular members of a tar, by name. Thread-safe.

    Names are without a directory that all members share. They are kept in a temporary database:
    a million of them take no memory to speak of.

    Args:
        path: the file; `-` is standard input. What cannot be read at random is spooled, see
            `open_archive`.
        links: take symbolic and hard links that stay inside the tar, as names of other members;
            else they are refused.
        watch: called often while the tar is read; raises to stop.

    Raises:
        NotFound: the file does not exist.
        DamagedLayout: not a tar, or members that no image has: devices, `..`, two of one name and
            other bytes, links that lead outside, sizes that do not fit the file.
    """

    def __init__(self, path: str, *, links: bool = False, watch: Watch | None = None) -> None:
        self.path = path
        self._takes_links = links
        self._watch = watch
        self._directory: str | None = None
        self._shared = ""
        self._file: BinaryIO | None = None
        self._table = MemberTable()
        try:
            self._file = open_archive(path, watch)
            self._size = os.fstat(self._file.fileno()).st_size
            self._list(self._file)
        except BaseException:
            self.close()
            raise

    def _list(self, file: BinaryIO) -> None:
        try:
            with tarfile.open(fileobj=_Guarded(file, self._size), mode="r:") as tar:  # type: ignore[call-overload]
                next_header = 0
                for number, member in enumerate(tar):
                    if number >= MAX_MEMBERS:
                        raise DamagedLayout(f"{self.path}: more than {MAX_MEMBERS} members")
                    self._take(member)
                    tar.members = []  # (tarfile keeps every header it saw)
                    next_header = tar.offset
                    if self._watch is not None:
                        self._watch(0)
            self._refuse_an_early_end(os.pread(file.fileno(), tarfile.BLOCKSIZE, next_header))
        except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
            raise DamagedLayout(f"{self.path} is not a readable tar: {error}") from error
        except OSError as error:
            raise storage_error(error, f"cannot read {self.path}") from error
        shared = f"{self._directory}/" if self._directory else ""
        if any(self._table.find(shared + name) for name in DOCUMENTS):
            self._shared = shared

    def _refuse_an_early_end(self, block: bytes) -> None:
        """Raise if tarfile stopped at something other than the end of the archive.

        It takes a header that it cannot read, or that is cut short, for the end; which headers
        those are depends on the version of Python. The end is a block of zeros, or of the file.
        """
        if block.strip(b"\0") or 0 < len(block) < tarfile.BLOCKSIZE:
            raise DamagedLayout(f"{self.path}: the header after its last member cannot be read")

    def _take(self, member: tarfile.TarInfo) -> None:
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise DamagedLayout(f"{self.path}: member {member.name!r} leaves the archive")
        if member.isdir():
            return
        name = _plain(member.name)
        link = self._takes_links and member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE)
        regular = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None
        if not link and not regular:
            raise DamagedLayout(
                f"{self.path}: member {member.name!r} is a link, device or sparse file"
            )
        if link:
            new = self._table.add_link(name, self._target(name, member))
        elif member.size < 0 or member.offset_data + member.size > self._size:
            raise DamagedLayout(f"{self.path}: member {member.name!r} goes past the end")
        else:
            new = self._table.add(name, member.offset_data, member.size)
        if not new and (link or not self._is_again(name, member)):
            raise DamagedLayout(f"{self.path}: two members are named {member.name!r}")
        directory = posixpath.dirname(name)
        if self._directory is None:
            self._directory = directory
        elif self._directory not in ("", directory):
            self._directory = posixpath.commonpath((self._directory, directory))

    def _is_again(self, name: str, member: tarfile.TarInfo) -> bool:
        """Whether a member is there once more with the same bytes, as builders write layers."""
        known = self._table.find(name)
        if known is None or known[1] != member.size:
            return False
        first, second, left = known[0], member.offset_data, member.size
        while left:
            length = min(CHUNK_BYTES, left)
            if os.pread(self._fd(), length, first) != os.pread(self._fd(), length, second):
                return False
            first, second, left = first + length, second + length, left - length
            if self._watch is not None:
                self._watch(0)
        return True

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
        found = self._full(name)
        for _ in range(MAX_LINKS):
            if self._table.find(found) is not None:
                return found.removeprefix(self._shared)
            target = self._table.target(found)
            if target is None:
                break
            found = target
        if self._table.target(self._full(name)) is not None:
            raise DamagedLayout(f"{self.path}: link {name!r} leads to no member")
        return None

    def __contains__(self, name: str) -> bool:
        return self._table.find(self._full(name)) is not None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of regular members, sorted by their bytes."""
        return (name.removeprefix(self._shared) for name in self._table.names())

    def size_of(self, name: str) -> int | None:
        """Return the size of a regular member, None if there is none of that name."""
        member = self._table.find(self._full(name))
        return None if member is None else member[1]

    def _full(self, name: str) -> str:
        return self._shared + _plain(name)

    def small(self, name: str, limit: int) -> bytes | None:
        """Return the whole of a member, None if there is none of that name.

        Raises:
            DamagedLayout: it is larger than `limit` bytes.
        """
        member = self._table.find(self._full(name))
        if member is None:
            return None
        offset, size = member
        if size > limit:
            raise DamagedLayout(f"{self.path}: {name} is larger than {limit} bytes")
        try:
            return os.pread(self._fd(), size, offset)
        except OSError as error:
            raise storage_error(error, f"cannot read {self.path}") from error

    def reader(self, name: str, position: int = 0) -> FileReader:
        """Return a reader of a member that is there, from a position on."""
        member = self._table.find(self._full(name))
        if member is None:
            raise ValueError(f"{self.path} has no member {name!r}")
        offset, size = member
        return FileReader(self._fd(), self.path, offset + position, offset + size, closes=False)

    def _fd(self) -> int:
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        return self._file.fileno()

    def close(self) -> None:
        """Close the file; readers that are still in use fail."""
        if self._file is not None:
            self._file.close()
        self._table.close()


def _plain(name: str) -> str:
    return posixpath.normpath(name)


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
