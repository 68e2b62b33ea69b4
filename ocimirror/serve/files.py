"""Content out of layouts: opened without following links, hashed before it leaves.

A file is hashed once for each (inode, size, times) and may then be sent by the kernel: the one
exception to the one door. The hash itself goes through that door.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import OrderedDict
from typing import NamedTuple

from ocimirror.errors import DamagedLayout, IntegrityError, Interrupted, storage_error
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.mediatype import OCTET_STREAM
from ocimirror.stores.disk.files import FileReader, open_regular
from ocimirror.stores.stream import VerifiedStream

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_FILE = {errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EISDIR, errno.ENOTDIR}
_MOST_PROOFS = 100_000
_SETTLED_S = 0.05


class Identity(NamedTuple):
    """What changes when a file's content may have changed."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identity_of(status: os.stat_result) -> Identity:
    """Return the identity that a status shows."""
    return Identity(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


class BlobFile:
    """An open regular file under blobs/; a context manager. Its content is not checked yet."""

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

    def duplicate(self) -> BlobFile:
        """Return the same open file, to be closed on its own."""
        return BlobFile(os.dup(self.fd), self.digest, self.layout)

    def close(self) -> None:
        """Close it; idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> BlobFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_blob(layout: str, digest: Digest) -> BlobFile | None:
    """Open the blob of a layout directory; None where it has none of that digest.

    Only the layout's own path may lead through links.

    Raises:
        DamagedLayout: it is there, and a link or no regular file.
        LocalStorageError: it cannot be read.
    """
    opened: list[int] = []
    try:
        opened.append(os.open(os.path.join(layout, "blobs"), _DIRECTORY))
        opened.append(os.open(digest.algorithm, _DIRECTORY, dir_fd=opened[0]))
        return BlobFile(open_regular(digest.encoded, opened[1]), digest, layout)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _NO_FILE:
            raise DamagedLayout(f"{layout}: {digest} is a link or no regular file") from error
        raise storage_error(error, f"cannot read {digest} in {layout}") from error
    finally:
        for fd in opened:
            os.close(fd)


class Proofs:
    """Which files were hashed, and with what result. Thread-safe.

    Args:
        stopped: ends what is being hashed.
    """

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._found: OrderedDict[tuple[Identity, Digest], str] = OrderedDict()
        self._guard = threading.Lock()

    def known(self, file: BlobFile) -> bool:
        """Whether the file was found right before and has not changed since.

        Raises:
            IntegrityError: it was found damaged.
        """
        found = self._found.get((file.identity, file.digest))
        if found:
            raise DamagedLayout(found)
        return found is not None

    def read(self, file: BlobFile, limit: int) -> bytes:
        """Return the whole content of a small file, verified; the file is closed.

        Raises:
            IntegrityError: it is not what its name says, or larger than the limit.
        """
        try:
            with file, _stream_of(file) as stream:
                return stream.read_all(limit)
        except IntegrityError as error:
            raise DamagedLayout(f"{file.layout}: {error.message}") from error

    def prove(self, file: BlobFile) -> None:
        """Hash a file, which is closed then; takes as long as reading it.

        Raises:
            IntegrityError: it is not what its name says.
        """
        message = ""
        with file:
            settled = file.settled
            try:
                with _stream_of(file) as stream:
                    while stream.read():
                        if self._stopped.is_set():
                            raise Interrupted(f"{file.digest} was not hashed to its end")
            except IntegrityError as error:
                message = f"{file.layout}: {error.message}"
            changed = identity_of(os.fstat(file.fd)) != file.identity
        if changed:
            message = f"{file.layout}: {file.digest} changed while it was read"
        elif settled:
            with self._guard:
                self._found[file.identity, file.digest] = message
                while len(self._found) > _MOST_PROOFS:
                    self._found.popitem(last=False)
        if message:
            raise DamagedLayout(message)


def _stream_of(file: BlobFile) -> VerifiedStream:
    descriptor = Descriptor(OCTET_STREAM, file.digest, file.size)
    return VerifiedStream(
        descriptor,
        lambda at: FileReader(file.fd, str(file.digest), at, file.size + 1, closes=False),
    )
