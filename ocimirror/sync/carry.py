"""Copies what a plan names, to all its targets, each byte downloaded once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ocimirror.copy.outcome import Options, Outcome, Reporter, Request, Sparse
from ocimirror.copy.pipeline import copy
from ocimirror.copy.places import Places
from ocimirror.errors import RemoteError
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Location, Reference
from ocimirror.stores.store import Source, Store
from ocimirror.sync.lock import LockFile
from ocimirror.sync.plan import Planned

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """One image on its way to one target.

    Attributes:
        image: what the plan says.
        target: one of its targets.
        rank: which; the first is filled from the source, the others from the first.
    """

    image: Planned
    target: Location
    rank: int


Done = Callable[[Work, Outcome], None]
Whole = Callable[[Work], Digest | None]
Arrived = tuple[Source, Digest]


class Destinations:
    """The stores that a run writes to, each opened once."""

    def __init__(self, places: Places, *, dry_run: bool) -> None:
        self._places = places
        self._dry_run = dry_run
        self._layouts: dict[str, Store] = {}

    def store(self, target: Location) -> Store:
        """Return the store that a target is in."""
        if target.reference is not None:
            return self._places.repository(target.reference)
        if target.path not in self._layouts:
            self._layouts[target.path] = self._places.layout_to_write(
                target.path, dry_run=self._dry_run
            )
        return self._layouts[target.path]


def carry(
    images: Sequence[Planned],
    source_of: Callable[[Reference], Source],
    destinations: Destinations,
    options: Options,
    reporter: Reporter,
    done: Done,
    whole: Whole,
    locked: LockFile | None = None,
) -> None:
    """Copy images to all their targets; what several targets want is downloaded once.

    First every image goes to its first target, as one plan for all that have the same options;
    the other targets are filled from there, and from the source where the first one failed.

    Args:
        images: highest priority first.
        source_of: opens the repository of a source.
        destinations: opens the targets.
        options: of the run; referrers and sparse are each entry's own.
        reporter: told of progress.
        done: told of each image at each target, as soon as it is done; from this thread.
        whole: returns what an earlier run brought to a target whole, if that is known.
        locked: what the sources have to stand for; a source that is not in it is not among them.
    """
    arrived: dict[int, Arrived] = {}
    ranks = max((len(image.targets) for image in images), default=0)
    for rank in range(ranks):
        works = [Work(i, i.targets[rank], rank) for i in images if len(i.targets) > rank]
        for (referrers, sparse), group in groupby(works, key=_options_of):
            own = replace(options, referrers=referrers, sparse=sparse)
            left = list(group)
            for from_first in (True, False):  # (what it does not give, the source does)
                requests: dict[tuple[str, str], Work] = {}
                asked: list[Request] = []
                again: list[Work] = []
                for work in left:
                    source = source_of(work.image.source)
                    first = None if options.dry_run else arrived.get(id(work.image))
                    if first is not None and not from_first:
                        first = source, first[1]
                    request = _request(work, source, first, destinations.store(work.target))
                    request = replace(request, whole=whole(work))
                    if locked is not None and (record := locked.find(work.image.known_as)):
                        request = replace(request, expected=record.digest)
                    requests[_key(request)] = work
                    asked.append(request)

                def finished(
                    outcome: Outcome,
                    works: dict[tuple[str, str], Work] = requests,
                    from_first: bool = from_first,
                    again: list[Work] = again,
                ) -> bool:
                    work = works[_key(outcome.request)]
                    error = outcome.error
                    lacking = isinstance(error, RemoteError) and error.side == "source"
                    if lacking and from_first and work.rank and id(work.image) in arrived:
                        logger.info("%s is filled from the source: %s", work.target, error)
                        again.append(work)
                        return False
                    root = outcome.root if error is None else None
                    if root is not None and work.rank == 0:
                        arrived[id(work.image)] = outcome.request.destination, root.digest
                    done(work, outcome)
                    return True

                copy(asked, own, _Relay(reporter, finished))
                left = again
                if not left:
                    break


def _key(request: Request) -> tuple[str, str]:
    """Tell requests of a run apart; one that is begun again in another way is still the same."""
    return request.shown_source, request.shown_destination


def _options_of(work: Work) -> tuple[bool, Sparse]:
    return work.image.mirror.referrers, work.image.mirror.sparse


def _request(work: Work, source: Source, first: Arrived | None, destination: Store) -> Request:
    image, target = work.image, work.target
    name = image.source.read_name
    if first is not None:
        source, name = first[0], str(first[1])
    return Request(
        source,
        name,
        destination,
        name_at(target),
        str(image.known_as.location),
        str(target),
        image.mirror.platforms,
    )


def name_at(target: Location) -> str:
    """Return what an image is called at a target: a tag, or a full reference."""
    return target.reference.tag if target.reference is not None else target.name


class _Relay:
    """Passes progress on, and the end of each image to whoever remembers it."""

    def __init__(self, reporter: Reporter, finished: Callable[[Outcome], bool]) -> None:
        self.planned = reporter.planned
        self.moved = reporter.moved
        self._reporter = reporter
        self._finished = finished

    def finished(self, outcome: Outcome) -> None:
        """Tell both, unless the image is begun again."""
        if self._finished(outcome):
            self._reporter.finished(outcome)
