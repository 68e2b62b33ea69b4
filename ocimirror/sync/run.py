"""One night: plan, copy, remember, report."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from ocimirror.copy.outcome import ImageResult, Options, Outcome, Reporter
from ocimirror.copy.places import Places
from ocimirror.errors import (
    Interrupted,
    LocalStorageError,
    NotFound,
    NotReached,
    OciMirrorError,
    RegistryUnavailable,
)
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Reference
from ocimirror.stores.store import Source
from ocimirror.sync.carry import Destinations, Work, carry
from ocimirror.sync.config import Config
from ocimirror.sync.events import Events
from ocimirror.sync.lock import ImageRecord, LockFile
from ocimirror.sync.ownership import Ownership, adopt, owned
from ocimirror.sync.plan import Chosen, Planned, SyncPlan, plan, source_in
from ocimirror.sync.prune import Wanted, after, prune
from ocimirror.sync.records import Records
from ocimirror.sync.report import Pruning, Report
from ocimirror.sync.shards import Owned
from ocimirror.sync.state import Complete, State


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How one run goes.

    Attributes:
        copy: how images are copied; its `stop` ends the run, its `dry_run` changes nothing.
        chosen: which part of the configuration is wanted.
        deadline_s: the run is ended cleanly after so long; 0 for never.
        locked: mirror what this lock says, and nothing else; None for what tags stand for now.
        merged: the lock of all shards of an earlier run; None without one. What it has of
            repositories that were another shard's comes from there.
    """

    copy: Options
    chosen: Chosen = field(default_factory=Chosen)
    deadline_s: float = 0.0
    locked: LockFile | None = None
    merged: LockFile | None = None


@dataclass(frozen=True, slots=True)
class Night:
    """What came of a run: the report, and a record of every image that is there now.

    Where the state could not be written the run ended there, with an `error`.
    """

    report: Report
    records: tuple[ImageRecord, ...]
    own: tuple[Owned, ...] = ()
    error: LocalStorageError | None = None


def sync(
    config: Config,
    places: Places,
    state: State,
    previous: LockFile,
    options: SyncOptions,
    reporter: Reporter,
    name: str = "",
) -> Night:
    """Mirror what a configuration asks for; an entry that fails fails alone.

    Args:
        config: what is wanted.
        places: opens the stores.
        state: remembers; written in batches, and at the end.
        previous: the lock file as it is; what did not change keeps its record.
        options: how.
        reporter: told of progress.
        name: of the configuration, for the report.
    """
    return _Run(config, places, state, previous, options, reporter, name).run()


class _Run:
    def __init__(
        self,
        config: Config,
        places: Places,
        state: State,
        previous: LockFile,
        options: SyncOptions,
        reporter: Reporter,
        name: str,
    ) -> None:
        self._config = config
        self._places = places
        self._state = state
        self._options = options
        self._reporter = reporter
        self._now = datetime.now(UTC)
        self._dry_run = options.copy.dry_run
        self._stop = options.copy.stop
        self._destinations = Destinations(places, dry_run=self._dry_run)
        if not self._dry_run:
            merged = options.merged.own if options.merged is not None else ()
            adopt(state, merged, options.chosen, self._now)
        self._ownership = Ownership(state, self._destinations, self._now, self._stop)
        self._report = Report(self._now, name, self._dry_run)
        self._events = Events(config, options.chosen, self._report)
        self._records = Records(previous, self._now, self._stop)
        self._sources: dict[str, Source] = {}
        self._error: LocalStorageError | None = None
        self._images: list[Planned] = []
        self._forgot = False

    def run(self) -> Night:
        # (A new state, or one that was lost, knows of no moves; the lock file may.)
        self._forgot = not self._state.has_run()
        number = 0 if self._dry_run else self._state.begin_run(self._now)
        self._events.begin(self._state.last_successes())
        with self._until_the_deadline():
            try:
                self._work()
            except Interrupted:
                self._events.deferred(self._images)
            except LocalStorageError as error:
                self._error = error
                self._events.deferred(self._images)
        self._report.finish(datetime.now(UTC))
        if not self._dry_run:
            try:
                self._end(number)
            except LocalStorageError as error:
                self._error = self._error or error
        chosen = self._options.chosen
        records = self._records.all(self._config, self._events.listed, chosen.belongs)
        return Night(self._report, records, owned(self._state, chosen), self._error)

    @contextmanager
    def _until_the_deadline(self) -> Iterator[None]:
        timer = threading.Timer(self._options.deadline_s or 1e6, self._stop.set)
        timer.daemon = True
        if self._options.deadline_s:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _work(self) -> None:
        found = plan(
            self._config,
            self._places,
            self._options.chosen,
            now=self._now,
            first_seen=self._first_seen,
            jobs=self._options.copy.jobs,
            stop=self._stop,
        )
        found.listings += self._records.vanished(self._config, found, self._options.chosen)
        self._events.listings(found)
        self._events.gone(found, self._records)
        self._miss_what_is_locked(found)
        self._records.expect(image.known_as for image in found.images)
        self._records.expect(refused.source for refused in found.refused)
        locked = [image for image in found.images if self._in_the_lock(image)]
        self._images = list(self._with_places(locked))
        if not self._dry_run:
            self._ownership.look(self._images, self._events.entry_failed)
        carry(
            self._images,
            self._source,
            self._destinations,
            replace(self._options.copy, previous=True),
            self._reporter,
            self._done,
            self._whole,
            self._options.locked,
        )
        self._prune(found)

    # --- pruning -------------------------------------------------------------------------------

    def _prune(self, found: SyncPlan) -> None:
        locked = {record.source for record in self._options.locked or ()}
        arrived = {image.source for image in self._report.images if image.error is None}
        work = after(found, self._config.mirrors, self._events.names, arrived)
        pruning = prune(
            work,
            Wanted(found, self._config.mirrors, self._options.chosen, locked),
            self._places,
            self._state,
            self._now,
            dry_run=self._dry_run,
            stop=self._stop,
        )
        try:
            for result in pruning:
                if isinstance(result, ImageResult):
                    self._report.add(result)
                elif isinstance(result, Pruning):
                    self._report.pruning.append(result)
                else:
                    self._report.fail_entry(*result)
        except Interrupted:
            for entry in dict.fromkeys(item.entry for item in work):
                error = NotReached("the run ended before what is gone at its source was pruned")
                self._report.fail_entry(entry, error)
            raise

    # --- the source ----------------------------------------------------------------------------

    def _source(self, reference: Reference) -> Source:
        key = reference.name
        if key not in self._sources:
            self._sources[key] = source_in(self._config, self._places, reference)
        return self._sources[key]

    def _first_seen(self, source: Reference, digest: Digest) -> datetime:
        known = self._state.first_seen(source, digest)
        if known is None and not self._dry_run:
            self._state.saw(source, digest, self._now)
        return known or self._now

    def _with_places(self, images: Iterable[Planned]) -> Iterator[Planned]:
        """Yield the images with the targets that can be opened; the others are reported."""
        broken: dict[str, OciMirrorError] = {}
        for image in images:
            targets = []
            for target in image.targets:
                where = target.reference.registry if target.reference else target.path
                try:
                    if where not in broken:
                        self._destinations.store(target)
                except OciMirrorError as error:
                    error.at("destination")
                    broken[where] = error
                if where in broken:
                    self._events.failed(image.entry, image.known_as, target, broken[where])
                else:
                    targets.append(target)
            if targets:
                yield replace(image, targets=tuple(targets))

    def _miss_what_is_locked(self, found: SyncPlan) -> None:
        """Report what the lock file has of a repository that offers it no more."""
        listings = {listing.repository.name: listing for listing in found.listings}
        offered = {image.known_as for image in found.images}
        offered.update(refused.source for refused in found.refused)
        for record in self._options.locked or ():
            source = record.source
            if source.name in self._events.listed and source not in offered:
                error = NotFound(
                    f"{source.location} is in the lock file, and not in what is chosen at the"
                    " source",
                    advice="Run once without --locked.",
                )
                error.at("source")
                entry = listings[source.name].entry
                for target in self._config.mirrors[entry].targets:
                    self._events.failed(entry, source, target, error)

    def _in_the_lock(self, image: Planned) -> bool:
        """Whether the lock file knows an image, where there is one; else it is reported."""
        lock, source = self._options.locked, image.known_as
        if lock is None or lock.find(source) is not None:
            return True
        message = f"{source.location} is not in the lock file"
        error = NotFound(message, advice="Run once without --locked.")
        error.at("source")
        for target in image.targets:
            self._events.failed(image.entry, source, target, error)
        return False

    # --- the end of an image -------------------------------------------------------------------

    def _done(self, work: Work, outcome: Outcome) -> None:
        source, target = work.image.known_as, work.target
        before = self._state.find_complete(source, target)
        known = before.digest if before is not None else None
        if known is None and self._forgot:
            known = self._records.before(source)
        self._events.done(work, outcome, known)
        digest = outcome.root.digest if outcome.root is not None else None
        if self._dry_run:
            return
        if digest is not None and work.rank == 0:
            self._state.saw(source, digest, self._now)
        if outcome.error is not None or outcome.root is None or digest is None:
            return
        mirror = work.image.mirror
        platforms = tuple(map(str, mirror.platforms))
        complete = Complete(source, target, digest, platforms, mirror.referrers, self._now)
        if before is None or replace(before, time=self._now) != complete:
            self._state.mark_complete(complete)
        self._ownership.arrived(work, digest, outcome.previous)
        if work.rank == 0:
            try:
                self._records.arrived(source, outcome.root, outcome, platforms)
            except RegistryUnavailable as error:
                error.at("destination")
                self._report.fail_entry(self._events.names[work.image.entry], error)

    def _whole(self, work: Work) -> Digest | None:
        """Return what this mirror brought to a target with all the platforms of now."""
        known = self._state.find_complete(work.image.known_as, work.target)
        wanted = {str(platform) for platform in work.image.mirror.platforms}
        if known is None or (known.platforms and (not wanted or wanted - {*known.platforms})):
            return None
        return known.digest

    def _end(self, number: int) -> None:
        report = self._report
        mirrors = dict(zip(self._events.names, self._config.mirrors, strict=True))
        for entry in report.entries:
            if self._options.chosen.only and mirrors[entry.name].source.wildcard:
                continue  # (a part of it, perhaps)
            if entry.last_success == report.ended and report.ended is not None:
                self._state.succeeded(entry.name, report.ended)
        totals = report.totals()
        self._state.end_run(
            number,
            report.ended or self._now,
            report.exit_code,
            copied=totals.statuses["copied"],
            unchanged=totals.statuses["unchanged"],
            failed=totals.statuses["failed"],
            bytes_copied=totals.bytes_copied,
        )
