"""Writes a tar in one pass, to a file or a pipe; the same members give the same bytes."""

from __future__ import annotations

import tarfile
from collections.abc import Callable

from ocimirror.stores.stream import VerifiedStream

Write = Callable[[bytes], object]


class TarWriter:
    """A tar on its way out. Content passes its check while it is written.

    Members are regular files, 0644, and directories, 0755, owned by nobody, without a time.

    Args:
        write: takes all bytes that it is given.

    Attributes:
        written: how many bytes that were so far.
    """

    def __init__(self, write: Write) -> None:
        self._into = write
        self.written = 0

    def _write(self, content: bytes) -> None:
        self._into(content)
        self.written += len(content)

    def directory(self, name: str) -> None:
        """Write a directory; its name has no slash at its end."""
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        self._write(member.tobuf(tarfile.PAX_FORMAT))

    def member(self, name: str, content: bytes) -> None:
        """Write a member that is in memory."""
        self._write(_header(name, len(content)))
        self._write(content + _padding(len(content)))

    def stream(self, name: str, stream: VerifiedStream) -> None:
        """Write a member from verified content.

        Raises:
            IntegrityError: the content is not what its descriptor says; the tar has no end then,
                and no reader takes it.
        """
        size = len(stream)
        self._write(_header(name, size))
        while chunk := stream.read():
            self._write(chunk)
        self._write(_padding(size))

    def end(self) -> None:
        """Write the end of the tar: two empty blocks."""
        self._write(b"\0" * tarfile.BLOCKSIZE * 2)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfile.BLOCKSIZE)
