"""A layout that takes blobs from other layouts of the same file system as hard links.

    other/blobs/<algorithm>/<encoded>  ─link→  .ocimirror/tmp/…  ─hash, sync, rename→  blobs/…

The link is made first and then read, so that what gets the name is the file that was hashed,
whoever writes or removes in the other layout meanwhile: no lock is taken there. Whatever goes wrong
on the way is no error; the blob is then fetched.

Linked twins are one file. ocimirror never writes into a file that has its name, so that what it
repairs or replaces in one layout stays as it is in the other; a tool that writes in place does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
from collections.abc import Sequence

from ocimirror.errors import IntegrityError, LocalStorageError, UsageError
from ocimirror.model.descriptor import Descriptor
from ocimirror.stores.disk.files import FileReader, open_regular
from ocimirror.stores.layout.layout import Layout
from ocimirror.stores.store import Stored
from ocimirror.stores.stream import VerifiedStream

logger = logging.getLogger(__name__)


class LinkingLayout(Layout):
    """An image layout open for writing; blobs that others have become links to their files.

    Args:
        path, durable, wait: as those of Layout.
        link_from: the directories of other layouts, asked in this order.

    Raises:
        UsageError: one of the others is no layout.
    """

    def __init__(
        self,
        path: str,
        link_from: Sequence[str],
        *,
        durable: bool = True,
        wait: bool = False,
    ) -> None:
        self._others = [os.path.abspath(other) for other in link_from]
        for other in self._others:
            if not os.path.isdir(os.path.join(other, "blobs")):
                raise UsageError(f"{other} is not an OCI image layout, so nothing can be linked")
        super().__init__(path, write=True, durable=durable, wait=wait)

    def _ingest(self, descriptor: Descriptor, stream: VerifiedStream, replace: bool) -> Stored:
        wanted = descriptor.kind == "blob" and (replace or not self._exists(descriptor))
        if wanted and any(self._linked(descriptor, other) for other in self._others):
            return Stored.LINKED
        return super()._ingest(descriptor, stream, replace)

    def _linked(self, descriptor: Descriptor, other: str) -> bool:
        """Whether the other layout has the blob, whole and undamaged, and it is linked now."""
        digest = descriptor.digest
        parts = "blobs", digest.algorithm, digest.encoded
        theirs, final = os.path.join(other, *parts), self._path(*parts)
        temporary = f"{digest.encoded[:64]}.{secrets.token_hex(8)}"
        temporary = os.path.join(self._temporary_directory, temporary)
        try:
            self._make_directory(os.path.dirname(final))
            self._os.link(theirs, temporary)
        except (OSError, LocalStorageError) as error:
            logger.debug("not linked: %s", error)
            return False
        try:
            self._check(descriptor, temporary)
            if self._durable:
                self._os.sync_file(temporary)  # (the other may have been written without)
            self._os.rename(temporary, final)
        except (OSError, IntegrityError, LocalStorageError) as error:
            logger.warning("not linked from %s: %s", other, error)
            return False
        finally:
            # (Renaming over a link to the same file leaves both.)
            with contextlib.suppress(OSError):
                self._os.unlink(temporary)
        return True

    def _check(self, descriptor: Descriptor, path: str) -> None:
        """Hash a file; it may have been damaged since it was written."""
        fd = open_regular(*self._os.at(path))
        reader = FileReader(fd, path, 0, descriptor.size + 1, closes=True)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)  # says that a living process uses it
            with VerifiedStream(descriptor, lambda _: reader) as stream:
                while stream.read():
                    pass
        finally:
            reader.close()
