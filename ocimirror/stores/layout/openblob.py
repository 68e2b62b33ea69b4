"""OpenBlob: the file of a blob, open, for whoever needs the file itself and not its bytes."""

from __future__ import annotations

import os
import time

from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.mediatype import OCTET_STREAM
from ocimirror.stores.disk.files import FileReader, identity_of
from ocimirror.stores.stream import VerifiedStream

_SETTLED_S = 0.05


class OpenBlob:
    """An open regular file under blobs/; a context manager. Its content is not checked yet.

    Attributes:
        fd: the descriptor, which this closes.
        digest: what its name says that it is.
        layout: the path of the layout.
        identity: of the file when it was opened.
    """

    def __init__(self, fd: int, digest: Digest, layout: str) -> None:
        self.fd = fd
        self.digest = digest
        self.layout = layout
        self.identity = identity_of(os.fstat(fd))

    @property
    def size(self) -> int:
        """Its size in bytes, when it was opened."""
        return self.identity.size

    @property
    def settled(self) -> bool:
        """Whether its identity tells the next change of its content.

        A file that changed just now may change once more within one tick of the clock that the
        file system reads (git calls such files racily clean).
        """
        return time.time() - self.identity.ctime_ns / 1e9 > _SETTLED_S

    @property
    def unchanged(self) -> bool:
        """Whether it is still as it was when it was opened."""
        return identity_of(os.fstat(self.fd)) == self.identity

    def duplicate(self) -> OpenBlob:
        """Return the same open file, to be closed on its own."""
        return OpenBlob(os.dup(self.fd), self.digest, self.layout)

    def stream(self) -> VerifiedStream:
        """Return its content, verified; the file stays open."""
        descriptor = Descriptor(OCTET_STREAM, self.digest, self.size)
        return VerifiedStream(descriptor, lambda at: self.reader(at, closes=False))

    def reader(self, position: int, *, closes: bool) -> FileReader:
        """Return its raw bytes from a position on; `closes` gives the descriptor away."""
        what = f"{self.digest} in {self.layout}"
        return FileReader(self.fd, what, position, self.size + 1, closes=closes)

    def close(self) -> None:
        """Close it; idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> OpenBlob:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
