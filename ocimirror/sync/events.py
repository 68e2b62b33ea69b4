"""What happens in a run, as entries of its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from ocimirror.copy.outcome import ImageResult, Outcome
from ocimirror.errors import Interrupted, NotReached, OciMirrorError
from ocimirror.model.digest import Digest
from ocimirror.model.failure import Failure
from ocimirror.model.reference import Location, Reference
from ocimirror.sync.carry import Work
from ocimirror.sync.config import Config, Mirror, Target
from ocimirror.sync.plan import Chosen, Planned, SyncPlan
from ocimirror.sync.records import Records
from ocimirror.sync.report import Gone, Report


class Events:
    """Turns what happens in a run into entries of its report.

    Attributes:
        names: of the entries, by number.
        listed: registry and repository of what was listed without an error.
    """

    def __init__(self, config: Config, chosen: Chosen, report: Report) -> None:
        self._mirrors = config.mirrors
        self._chosen = chosen
        self._report = report
        self._told: set[str] = set()
        self.names = _names(config.mirrors)
        self.listed: set[str] = set()

    def begin(self, successes: Mapping[str, datetime]) -> None:
        """Tell of the entries that may be of this run, and when each was last done."""
        for mirror, name in zip(self._mirrors, self.names, strict=True):
            source = mirror.source
            if source.wildcard or self._chosen.takes(Reference(source.registry, source.repository)):
                targets = [str(target) for target in mirror.targets]
                self._report.begin_entry(name, str(source), targets, successes.get(name))

    def listings(self, found: SyncPlan) -> None:
        """Tell which failed, what the filters dropped, and what has no place to go."""
        for unlisted in found.unlisted:
            self._told.add(self.names[unlisted.entry])
            self._report.fail_entry(self.names[unlisted.entry], unlisted.error)
        for listing in found.listings:
            name = self.names[listing.entry]
            mirror = self._mirrors[listing.entry]
            if listing.error is None:
                self.listed.add(listing.repository.name)
            elif not mirror.source.wildcard:
                self._report.fail_entry(name, listing.error)
            else:  # (one repository of many)
                for target in mirror.targets:
                    self.failed(listing.entry, listing.repository, target, listing.error)
            self._told.add(name)
            for dropped in listing.selection.dropped if listing.selection else ():
                source = replace(listing.repository, tag=dropped.tag)
                self._report.drop(name, str(source.location), dropped.filter, dropped.reason)
        if self._chosen != Chosen():
            # (What is another shard's was not done here, and is not reported as done.)
            mine = [entry for entry in self._report.entries if entry.name in self._told]
            self._report.entries[:] = mine
        for refused in found.refused:
            self.failed(refused.entry, refused.source, refused.target, refused.error)

    def gone(self, found: SyncPlan, records: Records) -> None:
        """Tell of tags that the lock file has, and whose source has them no more."""
        tags: dict[str, set[str]] = {}
        entries: dict[str, str] = {}
        for listing in found.listings:
            explicit = self._mirrors[listing.entry].tags.explicit
            if listing.selection is not None and not explicit:
                name = listing.repository.name
                entries.setdefault(name, self.names[listing.entry])
                tags.setdefault(name, set()).update(
                    listing.selection.kept, (dropped.tag for dropped in listing.selection.dropped)
                )
        for record in records.gone(tags):
            source = str(record.source.location)
            self._report.gone.append(Gone(entries[record.source.name], source, record.digest))

    def failed(
        self, entry: int, source: Reference, target: Location | Target, error: OciMirrorError
    ) -> None:
        """Tell that an image failed before it was copied."""
        ends = str(source.location), str(target)
        failure = Failure.of(error)
        self._report.add(ImageResult(self.names[entry], *ends, "failed", error=failure))

    def entry_failed(self, image: Planned, error: OciMirrorError) -> None:
        """Tell that something of an image's entry failed, as a whole."""
        self._report.fail_entry(self.names[image.entry], error)

    def deferred(self, images: Iterable[Planned]) -> None:
        """Tell what a run that was ended did not come to."""
        for name in self.names:
            if name not in self._told:
                self._report.fail_entry(name, NotReached("the run ended before it was listed"))
        told = {(image.source, image.destination) for image in self._report.images}
        for image in images:
            for target in image.targets:
                ends = str(image.known_as.location), str(target)
                if ends not in told:
                    self._report.add(ImageResult(self.names[image.entry], *ends, "deferred"))

    def done(self, work: Work, outcome: Outcome, known: Digest | None) -> None:
        """Tell what came of an image at a target, and what the target stood for before.

        Args:
            work: the image, and the target.
            outcome: what came of it, and what the target stood for.
            known: what this mirror had put there.
        """
        result = outcome.result(self.names[work.image.entry])
        if isinstance(outcome.error, Interrupted):
            result = replace(result, status="deferred", error=None)
        foreign = result.previous not in (None, known, result.digest)
        if foreign and result.digest and result.status in ("copied", "planned"):
            word = "would replace" if result.status == "planned" else "replaced"
            what = f"; this mirror had put {known} there" if known else ""
            note = f"{word} {result.previous}, which was not put there by this mirror{what}"
            result = replace(result, notes=(*result.notes, note))
        self._report.add(result)


def _names(mirrors: Sequence[Mirror]) -> list[str]:
    """Return a name for each entry, unique in the run: its source, numbered if need be."""
    names: list[str] = []
    for mirror in mirrors:
        name, number = str(mirror.source), 1
        while name in names:
            number += 1
            name = f"{mirror.source}#{number}"
        names.append(name)
    return names
