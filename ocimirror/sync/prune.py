"""Takes from the destinations what the sources have no more: opt-in, late, few at a time.

Nothing goes but what this mirror made itself and nobody moved since; nothing after a listing that
failed or chose nothing, be it of another mirror that fills the same place; nothing before its time
of grace is over, which begins with the first complete run that found it gone; and where more would
go than is allowed, none does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from ocimirror.care.names import remove
from ocimirror.copy.outcome import ImageResult, Status
from ocimirror.copy.places import Places
from ocimirror.copy.tasks import patiently
from ocimirror.errors import (
    Interrupted,
    NotFound,
    OciMirrorError,
    PruneRefused,
    UsageError,
)
from ocimirror.model.digest import Digest
from ocimirror.model.failure import Failure
from ocimirror.model.reference import Location, Reference
from ocimirror.registry.deletion import Needed, delete_tag, needed, other_tags, own_tag
from ocimirror.registry.repository import RegistryRepository
from ocimirror.sync.config import Mirror, Target
from ocimirror.sync.plan import Chosen, SyncPlan
from ocimirror.sync.report import PruneAction, Pruning
from ocimirror.sync.state import Created, State


@dataclass(frozen=True, slots=True)
class Prunable:
    """One repository of an entry whose gone images may be pruned.

    Attributes:
        entry: its name in the report.
        mirror: the entry, which wants to be pruned.
        repository: at the source, without a tag.
    """

    entry: str
    mirror: Mirror
    repository: Reference


def after(
    found: SyncPlan, mirrors: Sequence[Mirror], names: Sequence[str], arrived: set[str]
) -> list[Prunable]:
    """Return what may be pruned after these listings, and what came of the images.

    Of a repository that several entries list, every listing must have worked, with the age of each
    image that a filter asked about, and must have chosen something, of which something is at a
    target now: a filter that matches nothing, or a list of tags that do not exist, is rather a
    mistake than an order to delete.

    Args:
        found: the plan of the run; several entries may have listed one repository.
        mirrors: the entries, by number.
        names: of the entries.
        arrived: sources that are at a target, or in a dry run would be, as the report has them.
    """
    there = {image.source.name for image in found.images if str(image.known_as.location) in arrived}
    unsure = {
        listing.repository.name
        for listing in found.listings
        if listing.selection is None or listing.unread or not listing.selection.kept
    }
    sure = there - unsure
    return [
        Prunable(names[listing.entry], mirrors[listing.entry], listing.repository)
        for listing in found.listings
        if listing.repository.name in sure and mirrors[listing.entry].prune is not None
    ]


class Wanted:
    """Tells what a run wants, and what it cannot know because it was not listed.

    Args:
        found: the plan of the run.
        mirrors: the entries of the configuration, by number.
        chosen: the part of it that was listed.
        locked: sources that are wanted whatever was listed.

    Attributes:
        filled: the targets that this run fills.
    """

    def __init__(
        self, found: SyncPlan, mirrors: Sequence[Mirror], chosen: Chosen, locked: set[Reference]
    ) -> None:
        self._mirrors = mirrors
        self._chosen = chosen
        self.filled = {target for image in found.images for target in image.targets}
        self._failed = {item.repository for item in found.listings if item.selection is None}
        self._unlisted = {item.pattern for item in found.unlisted}
        self._sources = set(locked)
        for item in found.listings:
            tags = item.selection.kept if item.selection else ()
            self._sources.update(replace(item.repository, tag=tag) for tag in tags)

    def wants(self, made: Created) -> bool:
        """Whether an own target is wanted: its source was chosen, or another entry fills it."""
        return made.source in self._sources or made.target in self.filled

    def doubt(self, made: Created) -> Reference | None:
        """Return the source of an entry that may fill a target and was not listed, if any."""
        place = made.target.reference
        if place is None:
            return None  # (An image in a layout has its source's name: no other can be meant.)
        for mirror in self._mirrors:
            for target in mirror.targets:
                origin = target.origin(place, mirror.source)
                if origin is None:
                    continue
                failed = origin in self._failed or mirror.source in self._unlisted
                if failed or not self._chosen.takes(origin):
                    return origin
        return None


@dataclass(frozen=True, slots=True)
class _Going:
    """An own target that is not wanted any more."""

    entry: str
    made: Created
    since: datetime
    due: datetime

    def told(self, action: PruneAction, reason: str = "") -> Pruning:
        """Return what prune does about it, as a report has it."""
        made = self.made
        ends = str(made.source.location), str(made.target)
        return Pruning(self.entry, *ends, made.digest, self.since, self.due, action, reason)


Pruned = ImageResult | Pruning | tuple[str, OciMirrorError]


def prune(
    work: Sequence[Prunable],
    wanted: Wanted,
    places: Places,
    state: State,
    now: datetime,
    *,
    dry_run: bool,
    stop: threading.Event,
) -> Iterator[Pruned]:
    """Prune, and yield what came of each image, and what each one waits for.

    Args:
        work: repositories whose listing was complete.
        wanted: tells what the run wants.
        places: opens the destinations.
        state: knows what this mirror made, and since when its source is gone.
        now: the time of the run.
        dry_run: say what would go.
        stop: once set, nothing more is deleted.

    Yields:
        An image that was deleted, kept or refused; what prune knows of a target that is not wanted
        any more; (entry, error) where an entry is left alone.

    Raises:
        Interrupted: `stop` was set.
    """
    made_of: dict[str, list[Created]] = {}
    for made in state.own() if work else ():
        made_of.setdefault(made.source.name, []).append(made)
    due: dict[str, list[_Going]] = {}
    due_targets: set[Location] = set()
    limits: dict[str, int] = {}
    for item in work:
        rules = item.mirror.prune
        if rules is None:
            continue
        limits[item.entry] = rules.max_delete
        found = due.setdefault(item.entry, [])
        for made in _made_for(item, made_of.get(item.repository.name, ())):
            if wanted.wants(made):
                if made.gone_since is not None and not dry_run:
                    state.mark_gone(made.target, None)
                continue
            # (A clock that was wrong, and is right again, does not count; nor does one that is
            # behind what was seen with a right one.)
            since = made.gone_since
            if since is None or since > now:
                since = max(now.replace(microsecond=0), state.last_seen(made.source) or now)
                if not dry_run:
                    state.mark_gone(made.target, since)
            going = _Going(item.entry, made, since, since + rules.grace)
            if doubt := wanted.doubt(made):
                reason = f"{doubt} may fill it too, and was not listed in this run"
                yield going.told("keep", reason)
            elif now < going.due:
                yield going.told("waits")
            elif made.target not in due_targets:
                due_targets.add(made.target)
                found.append(going)
    known = _Known({*wanted.filled, *state.own_targets()})
    leaving: dict[str, dict[str, Digest]] = {}
    for entry, found in due.items():
        for going in found if len(found) <= limits[entry] else ():
            place = going.made.target.reference
            if place is not None:
                leaving.setdefault(place.name, {})[place.tag] = going.made.digest
    for entry, found in due.items():
        if len(found) > limits[entry]:
            told = (
                f"{len(found)} images are gone at the source, and at most {limits[entry]} may"
                " be deleted in a run: none was"
            )
            yield from (going.told("refused", told) for going in found)
            yield entry, PruneRefused(told)
            continue
        for going in found:
            delete = partial(_delete, going.made, places, known, leaving, dry_run=dry_run)
            yield from _pruned(going, delete, state, dry_run=dry_run, stop=stop)


def _made_for(item: Prunable, made_there: Sequence[Created]) -> Iterator[Created]:
    """Yield what this mirror made of a repository at the targets of its entry."""
    for made in made_there:
        if made.source.tag and any(_goes(made, target) for target in item.mirror.targets):
            yield made


def _goes(made: Created, target: Target) -> bool:
    try:
        return target.resolve(made.source) == made.target
    except UsageError:
        return False


def _pruned(
    going: _Going,
    delete: Callable[[], list[str]],
    state: State,
    *,
    dry_run: bool,
    stop: threading.Event,
) -> Iterator[ImageResult | Pruning]:
    failure: Failure | None = None
    status: Status = "planned" if dry_run else "pruned"
    action: PruneAction = "delete" if dry_run else "deleted"
    reason = ""
    try:
        keep = patiently(delete, stop)
        if keep:
            shown = ", ".join(keep[:5]) + (f" and {len(keep) - 5} more" if len(keep) > 5 else "")
            need = "needs" if len(keep) == 1 else "need"
            if dry_run:
                reason = f"kept if the registry deletes by digest only: {shown} {need} it"
            else:
                status, action = "unchanged", "keep"
                reason = f"kept: the registry deletes by digest only, and {shown} {need} it"
        elif not dry_run:
            state.forget(going.made.target)
    except Interrupted:
        raise
    except OciMirrorError as error:
        if isinstance(error, PruneRefused) and not dry_run:
            state.forget(going.made.target)  # (it is somebody else's now, and stays so)
        error.at("destination")
        action = "refused" if isinstance(error, PruneRefused) else "failed"
        status, failure, reason = "failed", Failure.of(error), error.message
    yield ImageResult(
        going.entry,
        str(going.made.source.location),
        str(going.made.target),
        status,
        previous=going.made.digest,
        error=failure,
        notes=(reason,) if reason and failure is None else (),
    )
    yield going.told(action, reason)


class _Known:
    """What is known of the tags of repositories, each looked at once a run.

    A list of tags may not have what was pushed just now: what this mirror made or fills is looked
    at whatever the list says.
    """

    def __init__(self, targets: set[Location]) -> None:
        self._targets = targets
        self._tags: dict[str, Needed] = {}

    def tags(self, repository: RegistryRepository, name: Reference) -> Needed:
        """Return which tags need what in a repository."""
        if name.name not in self._tags:
            there = (place.reference for place in self._targets if place.reference is not None)
            more = {place.tag for place in there if place.tag and place.name == name.name}
            self._tags[name.name] = needed(repository, sorted(more))
        return self._tags[name.name]


def _delete(
    made: Created,
    places: Places,
    known: _Known,
    leaving: Mapping[str, Mapping[str, Digest]],
    *,
    dry_run: bool,
) -> list[str]:
    """Delete what was made, where it is still there; return the names that keep it.

    `leaving` are the tags of each repository that this run deletes.
    """
    target = made.target
    if target.reference is not None:
        repository = places.repository(target.reference)
        tags, tag = known.tags(repository, target.reference), target.reference.tag
        also = leaving.get(target.reference.name, {})
        if not dry_run:
            return delete_tag(repository, tag, made.digest, tags, also)
        if own_tag(repository, tag, made.digest) is None:
            return []
        others = other_tags(tag, made.digest, tags, also)
        if not others:
            for names in tags.values():
                names.discard(tag)
        return others
    index = places.present_layout(target.path).index()
    try:
        held = index.find(target.name).descriptor.digest
    except NotFound:
        return []
    if held != made.digest:
        raise PruneRefused(f"{target} is {held} now, and was {made.digest}: not deleted")
    if not dry_run:
        remove(target.path, target.name, places)
    return []
