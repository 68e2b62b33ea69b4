"""What the lock file will say: tonight's images, and of the others what was said before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

from ocimirror.copy.outcome import Outcome
from ocimirror.copy.tasks import patiently
from ocimirror.copy.walk import walk
from ocimirror.errors import IntegrityError, NotFound, RegistryRefused, Unsupported
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Reference
from ocimirror.sync.config import Config
from ocimirror.sync.filters import Selection
from ocimirror.sync.lock import ImageRecord, LockFile
from ocimirror.sync.plan import Chosen, Listing, SyncPlan


class Records:
    """The records of a run.

    Args:
        previous: the lock file as it was.
        now: the time of the run.
        stop: ends waiting for a registry that is asked about what is there already.
    """

    def __init__(self, previous: LockFile, now: datetime, stop: threading.Event) -> None:
        self._stop = stop
        self._previous = previous
        self._now = now
        self._records: dict[Reference, ImageRecord] = {}
        self._expected: set[Reference] = set()

    def expect(self, sources: Iterable[Reference]) -> None:
        """Take in what is wanted tonight; what does not arrive is still what it was."""
        self._expected.update(sources)

    def arrived(
        self, source: Reference, root: Descriptor, outcome: Outcome, platforms: tuple[str, ...]
    ) -> None:
        """Record an image that is at its first target; what did not change keeps its record.

        Raises:
            RegistryUnavailable: the target could not be asked what nobody remembers; there is no
                record then.
        """
        self._expected.discard(source)
        known = self._previous.find(source)
        size, attachments = outcome.bytes_total, outcome.attachments
        if outcome.status == "unchanged":
            if known is not None and known.digest == root.digest:
                self._records[source] = replace(known, platforms=platforms)
                return
            size, attachments = patiently(partial(_look, outcome, root), self._stop)
        self._records[source] = ImageRecord(
            source, root.digest, root.media_type, size, platforms, attachments, self._now
        )

    def before(self, source: Reference) -> Digest | None:
        """Return what a source stood for when the lock file was written."""
        known = self._previous.find(source)
        return None if known is None else known.digest

    def gone(self, listed: Mapping[str, Collection[str]]) -> list[ImageRecord]:
        """Return the records of what its source has no more.

        Args:
            listed: all tags of each registry and repository that was listed.
        """
        found = []
        for record in self._previous:
            tag, tags = record.source.tag, listed.get(record.source.name)
            if tags is not None and tag and tag not in tags:
                found.append(record)
        return found

    def vanished(self, config: Config, found: SyncPlan, chosen: Chosen) -> list[Listing]:
        """Return an empty listing of each repository that a pattern's catalogue names no more.

        Args:
            config: of the run.
            found: what was listed.
            chosen: the part of the configuration that was listed.
        """
        listed = {listing.repository.name for listing in found.listings}
        unlisted = {failed.pattern for failed in found.unlisted}
        more: dict[str, Listing] = {}
        for record in self._previous:
            source = record.source
            if source.name in listed or not chosen.takes(source):
                continue
            for number, mirror in enumerate(config.mirrors):
                pattern = mirror.source
                if pattern.wildcard and pattern.matches(source) and pattern not in unlisted:
                    repository = replace(source, tag="", digest=None)
                    more.setdefault(source.name, Listing(number, repository, Selection((), ())))
        return list(more.values())

    def all(
        self, config: Config, listed: Collection[str], belongs: Callable[[Reference], bool]
    ) -> tuple[ImageRecord, ...]:
        """Return the records of the run, and the earlier ones of what it did not look at.

        What was listed and is not wanted any more is gone, and so is what the configuration
        names no more, or what is another shard's now.

        Args:
            config: of the run.
            listed: registry and repository of what was listed without an error.
            belongs: whether a source's repository is this shard's.
        """
        records = dict(self._records)
        for record in self._previous:
            source = record.source
            looked_at = source.name in listed and source not in self._expected
            if not looked_at and belongs(source) and config.mirrors_from(source):
                records.setdefault(source, record)
        return tuple(records.values())


def _look(outcome: Outcome, root: Descriptor) -> tuple[int, tuple[Digest, ...]]:
    """Read at the destination what nobody remembers of an image that is there."""
    destination = outcome.request.destination
    try:
        size = walk(destination, root, outcome.request.platforms).size_bytes
        found = destination.referrers(root)
    except (NotFound, IntegrityError, RegistryRefused, Unsupported):
        return 0, ()
    return size, tuple(referrer.descriptor.digest for referrer in found)
