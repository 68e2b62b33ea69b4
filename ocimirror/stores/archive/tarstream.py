"""A tar that comes through a pipe: each member is hashed as it passes, and nothing is kept.

So a tar of any size takes neither disk nor memory. It may have been made by anybody: members and
headers are bounded, and links are only followed by name.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field

from ocimirror.errors import DamagedLayout, InvalidReference
from ocimirror.model.digest import Digest
from ocimirror.stores.archive.tarmembers import MAX_HEADER_BYTES, MAX_LINKS
from ocimirror.stores.dockerarchive.document import MANIFEST_FILE, MAX_SIZE_BYTES
from ocimirror.stores.stream import CHUNK_BYTES, Reader

MAX_MEMBERS = 100_000


@dataclass(slots=True)
class Members:
    """The members of one tar.

    Attributes:
        digests: of each regular member's content; `blobs/ALGORITHM/…` by that algorithm.
        links: what each link stands for.
        document: manifest.json, if it has one.
    """

    digests: dict[str, Digest] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    document: bytes | None = None

    def digest_of(self, name: str) -> Digest | None:
        """Return the digest of a member, links followed; None if there is none."""
        name = posixpath.normpath(name)
        for _ in range(MAX_LINKS):
            if name in self.digests:
                return self.digests[name]
            name = self.links.get(name, name)
        return None


def hash_members(reader: Reader, what: str) -> Members:
    """Hash each member of a tar as it passes.

    Args:
        reader: of the tar; what comes after its end is not read.
        what: names it in errors.

    Raises:
        DamagedLayout: it is no tar, it is cut off, or it has too many members.
    """
    members = Members()
    stream = _Forward(reader)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
            for number, member in enumerate(tar):
                if number >= MAX_MEMBERS:
                    raise DamagedLayout(f"{what}: more than {MAX_MEMBERS} members")
                tar.members = []  # (tarfile keeps every header it saw)
                _take(member, stream, members)
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        while reader.read(CHUNK_BYTES):
            pass  # (whoever fails while he writes says why at the end)
        raise DamagedLayout(f"{what} is no whole tar: {error}") from error
    return members


def _take(member: tarfile.TarInfo, stream: _Forward, members: Members) -> None:
    name = posixpath.normpath(member.name)
    if member.issym() or member.islnk():
        base = posixpath.dirname(name) if member.issym() else ""
        members.links[name] = posixpath.normpath(posixpath.join(base, member.linkname))
    if not member.isreg():
        return
    kept = bytearray()
    hasher, algorithm = _hasher_for(name)

    def take(chunk: bytes) -> None:
        hasher(chunk)
        if name == MANIFEST_FILE and len(kept) <= MAX_SIZE_BYTES:
            kept.extend(chunk)

    stream.content(member.size, take)
    members.digests[name] = algorithm()
    if name == MANIFEST_FILE:
        members.document = bytes(kept)


def _hasher_for(name: str) -> tuple[Callable[[bytes], None], Callable[[], Digest]]:
    algorithm = "sha256"
    parts = name.split("/")
    if len(parts) == 3 and parts[0] == "blobs":
        try:
            stated = Digest.parse(f"{parts[1]}:{parts[2]}")
            algorithm = stated.algorithm if stated.verifiable else algorithm
        except InvalidReference:
            pass
    hasher = Digest.of(b"", algorithm).hasher()
    return hasher.update, lambda: Digest.parse(f"{algorithm}:{hasher.hexdigest()}")


class _Forward:
    """A tar that comes through a pipe: headers of a bounded size, and no way back."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._at = 0

    def read(self, amount: int = -1, /) -> bytes:
        if not 0 <= amount <= MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header larger than 1 MiB")
        pieces = []
        while amount and (chunk := self._reader.read(amount)):
            pieces.append(chunk)
            amount -= len(chunk)
            self._at += len(chunk)
        return b"".join(pieces)

    def content(self, size: int, take: Callable[[bytes], None]) -> None:
        """Read a member's content."""
        if size < 0:
            raise tarfile.ReadError("a negative size")
        while size:
            chunk = self._reader.read(min(size, CHUNK_BYTES))
            if not chunk:
                raise tarfile.ReadError("it ends in the middle of a member")
            take(chunk)
            size -= len(chunk)
            self._at += len(chunk)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence != 0 or offset < self._at:
            raise tarfile.ReadError("a step back")
        self.content(offset - self._at, lambda _: None)
        return self._at

    def close(self) -> None:
        pass
