"""What came of one run: an image at a time it is told, and all else is computed.

The run calls `begin_entry`, `add`, `drop`, `fail_entry` and `finish`, from one thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from ocimirror.copy.outcome import ImageResult, Status
from ocimirror.errors import OciMirrorError, exit_code_of
from ocimirror.model.digest import Digest
from ocimirror.model.failure import Failure
from ocimirror.model.later import LATER
from ocimirror.sync.clashes import TargetClash, target_clashes

STATUSES: tuple[Status, ...] = get_args(Status)
EntryStatus = Literal["failed", "deferred", "planned", "changed", "unchanged"]
_DEFERRED_EXIT_CODE = 3


@dataclass(frozen=True, slots=True)
class Dropped:
    """A tag that is not mirrored: which filter dropped it, and for people why."""

    entry: str
    source: str
    filter: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Gone:
    """A tag of the lock file that its source has no more; the digest is the lock file's."""

    entry: str
    source: str
    digest: Digest


PruneAction = Literal["waits", "delete", "keep", "refused", "deleted", "failed"]


@dataclass(frozen=True, slots=True)
class Pruning:
    """A destination of this mirror that is no longer wanted, and what prune does about it.

    Attributes:
        entry: the name of the configuration's entry.
        source, destination: full locations.
        digest: what this mirror named the destination for.
        gone_since: when a complete run first found its source gone or filtered out.
        due: from when it may be deleted.
        action: `waits` for `due`; `delete`, in a dry run: the real run would; `deleted`; `keep`,
            `refused`, `failed`: not deleted, and `reason` says why.
    """

    entry: str
    source: str
    destination: str
    digest: Digest
    gone_since: datetime
    due: datetime
    action: PruneAction
    reason: str = ""


@dataclass(slots=True)
class Entry:
    """One entry of the configuration.

    Attributes:
        name: unique in the run.
        source: what it mirrors.
        destinations: where to.
        error: why none of its images could be looked at: its tags could not be listed, say.
        last_success: when all of it was last done; `finish` sets it where that is this run.
    """

    name: str
    source: str
    destinations: tuple[str, ...]
    error: Failure | None = None
    last_success: datetime | None = None


@dataclass(slots=True)
class Totals:
    """Counts of some images."""

    statuses: Counter[str] = field(default_factory=Counter)
    bytes_copied: int = 0
    seconds: float = 0.0
    dropped: int = 0
    moves: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        """How many there are."""
        return self.statuses.total()

    def add(self, image: ImageResult) -> None:
        """Count an image."""
        self.statuses[image.status] += 1
        self.bytes_copied += image.bytes.copied
        self.seconds += image.seconds
        self.moves += image.moved
        if image.error is not None:
            self.failures[image.error.code] += 1


@dataclass(slots=True)
class Report:
    """One run.

    Attributes:
        started, ended: when; `ended` is None while it runs.
        config: what the configuration is called.
        dry_run: nothing was changed.
    """

    started: datetime
    config: str = ""
    dry_run: bool = False
    ended: datetime | None = None
    entries: list[Entry] = field(default_factory=list)
    images: list[ImageResult] = field(default_factory=list)
    attrition: list[Dropped] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    pruning: list[Pruning] = field(default_factory=list, metadata=LATER)

    def begin_entry(
        self,
        name: str,
        source: str,
        destinations: Sequence[str],
        last_success: datetime | None = None,
    ) -> Entry:
        """Add an entry of the configuration; `last_success` is what the state knows."""
        entry = Entry(name, source, tuple(destinations), last_success=last_success)
        self.entries.append(entry)
        return entry

    def fail_entry(self, name: str, error: OciMirrorError) -> None:
        """Say that an entry failed as a whole; of several errors of one the worst counts."""
        for entry in self.entries:
            if entry.name == name:
                known = entry.error.exit_code if entry.error is not None else 0
                if known != exit_code_of({known, error.exit_code}):
                    entry.error = Failure.of(error)

    def add(self, image: ImageResult) -> None:
        """Say what came of an image."""
        self.images.append(image)

    def drop(self, entry: str, source: str, filter: str, reason: str = "") -> None:
        """Say which filter dropped a tag."""
        self.attrition.append(Dropped(entry, source, filter, reason))

    def finish(self, time: datetime) -> None:
        """End the run; entries of which all was done have their last success now."""
        self.ended = time
        if self.dry_run:
            return
        totals = self.totals_by_entry()
        for entry in self.entries:
            if status_of(entry, totals[entry.name]) in ("changed", "unchanged"):
                entry.last_success = time

    @property
    def seconds(self) -> float:
        """How long the run took; 0 while it runs."""
        return (self.ended - self.started).total_seconds() if self.ended else 0.0

    @property
    def moves(self) -> Iterator[ImageResult]:
        """The images whose destination stood for something else before."""
        return (image for image in self.images if image.moved)

    @property
    def clashes(self) -> list[TargetClash]:
        """Repositories of one path in several registries, which go to one target."""
        return target_clashes(
            ((i.entry, i.source, i.destination) for i in self.images if not i.goes),
            {entry.name: entry.destinations for entry in self.entries},
        )

    @property
    def exit_code(self) -> int:
        """The first of 5, 6, 8, 9, 3, 4 that occurred; 3 where something was only deferred."""
        codes = {failure.exit_code for failure in self._failures()}
        if any(image.status == "deferred" for image in self.images):
            codes.add(_DEFERRED_EXIT_CODE)
        return exit_code_of(codes)

    def totals(self) -> Totals:
        """Return the totals of the run."""
        totals = Totals(dropped=len(self.attrition))
        for image in self.images:
            totals.add(image)
        totals.failures.update(e.error.code for e in self.entries if e.error is not None)
        return totals

    def totals_by_entry(self) -> dict[str, Totals]:
        """Return the totals of each entry by its name, in the order of the entries."""
        found = {entry.name: Totals() for entry in self.entries}
        for image in self.images:
            found.setdefault(image.entry, Totals()).add(image)
        for dropped in self.attrition:
            found.setdefault(dropped.entry, Totals()).dropped += 1
        for entry in self.entries:
            if entry.error is not None:
                found[entry.name].failures[entry.error.code] += 1
        return found

    def _failures(self) -> Iterator[Failure]:
        yield from (entry.error for entry in self.entries if entry.error is not None)
        yield from (image.error for image in self.images if image.error is not None)


def status_of(entry: Entry, totals: Totals) -> EntryStatus:
    """Return what came of an entry in one word, the worst that is true."""
    counted = totals.statuses
    if entry.error is not None or counted["failed"]:
        return "failed"
    if counted["deferred"]:
        return "deferred"
    if counted["planned"]:
        return "planned"
    return "changed" if counted["copied"] or counted["pruned"] else "unchanged"
