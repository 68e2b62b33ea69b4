"""Content for whoever answers: looked for in all layouts, read and hashed beside the event loop."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TypeVar

from ocimirror.errors import DamagedLayout, LocalStorageError, OciMirrorError
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import MAX_SIZE_BYTES, Manifest, sniff_media_type
from ocimirror.serve.answers import Refused
from ocimirror.serve.proofs import Proofs
from ocimirror.serve.relations import Relations
from ocimirror.serve.shelf import Repository, ServedLayout, Snapshot
from ocimirror.stores.disk.files import Identity
from ocimirror.stores.layout.openblob import OpenBlob

logger = logging.getLogger(__name__)
T = TypeVar("T")
_CACHE_BYTES = 64 * 1024 * 1024
_MOST_COMPLAINTS = 10_000
_MOST_CHILDREN = 1000


class Content:
    """What the layouts hold, verified. Used from one event loop.

    Args:
        reading: where small files are read.
        hashing: where large ones are hashed, which may take a while.
    """

    def __init__(self, reading: Executor, hashing: Executor) -> None:
        self._reading = reading
        self._hashing = hashing
        self._stopped = threading.Event()
        self._proofs = Proofs(self._stopped)
        self._manifests = _ManifestCache()
        self._being_hashed: dict[tuple[Identity, Digest], asyncio.Future[None]] = {}
        self._complaints: set[str] = set()
        self._relations = Relations()

    def stop(self) -> None:
        """Let what is being hashed end now, unproved."""
        self._stopped.set()

    async def manifest(
        self, snapshot: Snapshot, repository: Repository, digest: Digest
    ) -> tuple[str, bytes] | None:
        """Return media type and bytes of a manifest; None where no layout holds it as one.

        Raises:
            Refused: it is damaged.
        """
        raw = await self.document(snapshot, repository, digest)
        if raw is None:
            return None
        media_type = await self._media_type(snapshot, repository, digest, raw)
        return (media_type, raw) if media_type else None

    async def document(
        self, snapshot: Snapshot, repository: Repository, digest: Digest
    ) -> bytes | None:
        """Return the bytes of a manifest or config; None where it is absent or too large for one.

        Raises:
            Refused: it is damaged.
        """
        file = await self.open(snapshot, repository, digest)
        if file is None:
            return None
        with file:
            raw = self._manifests.find(file)
            if raw is None:
                if file.size > MAX_SIZE_BYTES:
                    return None
                copy = file.duplicate()
                raw = await self._run(lambda: self._proofs.read(copy, MAX_SIZE_BYTES))
                self._manifests.keep(file, raw)
            return raw

    async def open(
        self, snapshot: Snapshot, repository: Repository, digest: Digest
    ) -> OpenBlob | None:
        """Open a file, not verified yet: of the repository's layouts, then of all others.

        Raises:
            Refused: it is there and cannot be read, which is not the same as absent.
        """
        held = repository.layouts
        try:
            file = self._first(held, digest)
        except LocalStorageError as error:
            raise self._damaged(error) from error
        if file is not None or len(held) == len(snapshot.layouts):
            return file
        others = [layout for layout in snapshot.layouts if layout not in held]
        return await self._run(lambda: self._first(others, digest))

    def _first(self, layouts: Iterable[ServedLayout], digest: Digest) -> OpenBlob | None:
        for layout in layouts:
            try:
                file = layout.source.open_blob(digest)
            except DamagedLayout as error:
                self._complain(error)
                continue
            if file is not None:
                return file
        return None

    async def prove(self, file: OpenBlob) -> None:
        """Hash a file where that was not done yet, once for all who wait for it.

        Raises:
            Refused: it is damaged.
        """
        key = file.identity, file.digest
        try:
            if self._proofs.known(file):
                return
        except OciMirrorError as error:
            raise self._damaged(error) from error
        running = self._being_hashed.get(key)
        if running is None:
            copy = file.duplicate()
            work = self._run(lambda: self._proofs.prove(copy), self._hashing)
            running = self._being_hashed[key] = asyncio.ensure_future(work)
            running.add_done_callback(lambda _: self._being_hashed.pop(key, None))
        await asyncio.shield(running)

    async def referrers(self, repository: Repository, subject: Digest) -> list[dict[str, object]]:
        """Return the descriptors, as documents, of what refers to a manifest; sorted by digest."""
        return await self._run(lambda: self._relations.referrers(repository.layouts, subject))

    async def absent(
        self, snapshot: Snapshot, repository: Repository, index: Manifest
    ) -> list[Descriptor]:
        """Return the children of an index, of the first thousand, that no layout has."""
        others = [layout for layout in snapshot.layouts if layout not in repository.layouts]

        def look() -> list[Descriptor]:
            absent = []
            for child in index.manifests[:_MOST_CHILDREN]:
                file = self._first(itertools.chain(repository.layouts, others), child.digest)
                if file is None:
                    absent.append(child)
                else:
                    file.close()
            return absent

        return await self._run(look)

    async def with_members(self, repository: Repository, manifest: Manifest) -> Manifest:
        """Return content of unknown type with what it names, as far as that is here."""
        return await self._run(lambda: self._relations.with_members(repository.layouts, manifest))

    async def _media_type(
        self, snapshot: Snapshot, repository: Repository, digest: Digest, raw: bytes
    ) -> str:
        """What index.json says, else the document of itself, else the index that names it."""
        if digest in snapshot.media_types:
            return snapshot.media_types[digest]
        try:
            stated = sniff_media_type(raw, str(digest))
        except OciMirrorError:
            stated = ""
        if stated:
            return stated
        return await self._run(lambda: self._relations.media_type(repository.layouts, digest))

    async def _run(self, work: Callable[[], T], executor: Executor | None = None) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(executor or self._reading, work)
        except OciMirrorError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: OciMirrorError) -> Refused:
        self._complain(error)
        told = "what is stored under this digest is damaged or cannot be read"
        return Refused(500, "UNKNOWN", f"{told}; the server's log says more")

    def _complain(self, error: OciMirrorError) -> None:
        """Log what is wrong once, however often it is asked for."""
        if error.message not in self._complaints and len(self._complaints) < _MOST_COMPLAINTS:
            self._complaints.add(error.message)
            logger.warning("not served: %s", error.message)


class _ManifestCache:
    """Verified manifests by the identity of their files; bounded."""

    def __init__(self) -> None:
        self._raw: OrderedDict[tuple[Identity, Digest], bytes] = OrderedDict()
        self._bytes = 0

    def find(self, file: OpenBlob) -> bytes | None:
        return self._raw.get((file.identity, file.digest))

    def keep(self, file: OpenBlob, raw: bytes) -> None:
        if not file.settled or (file.identity, file.digest) in self._raw:
            return
        self._raw[file.identity, file.digest] = raw
        self._bytes += len(raw)
        while self._bytes > _CACHE_BYTES:
            self._bytes -= len(self._raw.popitem(last=False)[1])
