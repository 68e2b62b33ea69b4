"""Which files were hashed, so that the kernel may send them: the one exception to the one door.

A file is hashed once for each (inode, size, times). The hash itself goes through that door.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from ocimirror.errors import DamagedLayout, IntegrityError, Interrupted
from ocimirror.model.digest import Digest
from ocimirror.stores.disk.files import Identity
from ocimirror.stores.layout.openblob import OpenBlob

_MOST_PROOFS = 100_000


class Proofs:
    """Which files were hashed, and with what result. Thread-safe.

    Args:
        stopped: ends what is being hashed.
    """

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._found: OrderedDict[tuple[Identity, Digest], str] = OrderedDict()
        self._guard = threading.Lock()

    def known(self, file: OpenBlob) -> bool:
        """Whether the file was found right before and has not changed since.

        Raises:
            IntegrityError: it was found damaged.
        """
        found = self._found.get((file.identity, file.digest))
        if found:
            raise DamagedLayout(found)
        return found is not None

    def read(self, file: OpenBlob, limit: int) -> bytes:
        """Return the whole content of a small file, verified; the file is closed.

        Raises:
            IntegrityError: it is not what its name says, or larger than the limit.
        """
        try:
            with file, file.stream() as stream:
                return stream.read_all(limit)
        except IntegrityError as error:
            raise DamagedLayout(f"{file.layout}: {error.message}") from error

    def prove(self, file: OpenBlob) -> None:
        """Hash a file, which is closed then; takes as long as reading it.

        Raises:
            IntegrityError: it is not what its name says.
        """
        message = ""
        with file:
            settled = file.settled
            try:
                with file.stream() as stream:
                    while stream.read():
                        if self._stopped.is_set():
                            raise Interrupted(f"{file.digest} was not hashed to its end")
            except IntegrityError as error:
                message = f"{file.layout}: {error.message}"
            changed = not file.unchanged
        if changed:
            message = f"{file.layout}: {file.digest} changed while it was read"
        elif settled:
            with self._guard:
                self._found[file.identity, file.digest] = message
                while len(self._found) > _MOST_PROOFS:
                    self._found.popitem(last=False)
        if message:
            raise DamagedLayout(message)
