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
from ocimirror.sync.carry import shown_source
from ocimirror.sync.config import Mirror, Target
from ocimirror.sync.plan import Chosen, SyncPlan
from ocimirror.sync.remembered import well_made
from ocimirror.sync.report import PruneAction, Pruning
from ocimirror.sync.state import Created, State


@dataclass(frozen=True, slots=True)
class Prunable:
    """One repository of an entry whose gone images may be pruned.

    Attributes:
        entry: its name in the report.
        mirror: the entry, which wants to be pruned.
        repository: registry and repository at the source.
    """

    entry: str
    mirror: Mirror
    repository: str


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
        arrived: sources that are at a target, or in a dry run would be.
    """
    there = {image.source.name for image in found.images if shown_source(image) in arrived}
    unsure = {
        listing.repository
        for listing in found.listings
        if listing.selection is None or listing.unread or not listing.selection.kept
    }
    sure = there - unsure
    return [
        Prunable(names[listing.entry], mirrors[listing.entry], listing.repository)
        for listing in found.listings
        if listing.repository in sure and mirrors[listing.entry].prune is not None
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
        self, found: SyncPlan, mirrors: Sequence[Mirror], chosen: Chosen, locked: set[str]
    ) -> None:
        self._mirrors = mirrors
        self._chosen = chosen
        self.filled = {str(target) for image in found.images for target in image.targets}
        self._failed = {item.repository for item in found.listings if item.selection is None}
        self._sources = set(locked)
        for item in found.listings:
            tags = item.selection.kept if item.selection else ()
            self._sources.update(f"docker://{item.repository}:{tag}" for tag in tags)

    def wants(self, made: Created) -> bool:
        """Whether an own target is wanted: its source was chosen, or another entry fills it."""
        return made.source in self._sources or made.target in self.filled

    def doubt(self, made: Created) -> str:
        """Return the source of an entry that may fill a target and was not listed, or nothing."""
        place = Location.parse(made.target).reference
        if place is None:
            return ""  # (An image in a layout has its source's name: no other can be meant.)
        for mirror in self._mirrors:
            source = mirror.source
            for target in mirror.targets:
                repository = target.origin(place, source) if target.scheme == "docker" else None
                if repository is None:
                    continue
                name = f"{source.registry}/{repository}"
                unlisted = not self._chosen.takes(source.registry, repository)
                if unlisted or name in self._failed or str(source) in self._failed:
                    return name
        return ""


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
    for made in well_made(state.own()) if work else ():
        name = Reference.parse(made.source.removeprefix("docker://")).name
        made_of.setdefault(name, []).append(made)
    due: dict[str, list[Pruning]] = {}
    due_targets: set[str] = set()
    limits: dict[str, int] = {}
    for item in work:
        rules = item.mirror.prune
        if rules is None:
            continue
        limits[item.entry] = rules.max_delete
        found = due.setdefault(item.entry, [])
        for made in _made_for(item, made_of.get(item.repository, ())):
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
            going = Pruning(
                item.entry,
                made.source,
                made.target,
                made.digest,
                since,
                since + rules.grace,
                "waits",
            )
            doubt = wanted.doubt(made)
            if doubt:
                reason = f"{doubt} may fill it too, and was not listed in this run"
                yield _with(going, "keep", reason)
            elif now < going.due:
                yield going
            elif going.destination not in due_targets:
                due_targets.add(going.destination)
                found.append(going)
    known = _Known({*wanted.filled, *state.own_targets()})
    leaving: dict[str, dict[str, Digest]] = {}
    for entry, found in due.items():
        for going in found if len(found) <= limits[entry] else ():
            place = Location.parse(going.destination).reference
            if place is not None:
                leaving.setdefault(place.name, {})[place.tag] = going.digest
    for entry, found in due.items():
        if len(found) > limits[entry]:
            told = (
                f"{len(found)} images are gone at the source, and at most {limits[entry]} may"
                " be deleted in a run: none was"
            )
            yield from (_with(going, "refused", told) for going in found)
            yield entry, PruneRefused(told)
            continue
        for going in found:
            delete = partial(_delete, going, places, known, leaving, dry_run=dry_run)
            yield from _pruned(going, delete, state, dry_run=dry_run, stop=stop)


def _with(going: Pruning, action: PruneAction, reason: str = "") -> Pruning:
    return replace(going, action=action, reason=reason)


def _made_for(item: Prunable, made_there: Sequence[Created]) -> Iterator[Created]:
    """Yield what this mirror made of a repository at the targets of its entry."""
    for made in made_there:
        reference = Reference.parse(made.source.removeprefix("docker://"))
        if not reference.tag:
            continue
        if any(_goes(reference, target, made.target) for target in item.mirror.targets):
            yield made


def _goes(reference: Reference, target: Target, place: str) -> bool:
    try:
        found = target.resolve(reference.registry, reference.repository, reference.tag)
    except UsageError:
        return False
    return str(found) == place


def _pruned(
    going: Pruning,
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
            state.forget(going.destination)
    except Interrupted:
        raise
    except OciMirrorError as error:
        if isinstance(error, PruneRefused) and not dry_run:
            state.forget(going.destination)  # (it is somebody else's now, and stays so)
        error.at("destination")
        action = "refused" if isinstance(error, PruneRefused) else "failed"
        status, failure, reason = "failed", Failure.of(error), error.message
    yield ImageResult(
        going.entry,
        going.source,
        going.destination,
        status,
        previous=going.digest,
        error=failure,
        notes=(reason,) if reason and failure is None else (),
    )
    yield _with(going, action, reason)


class _Known:
    """What is known of the tags of repositories, each looked at once a run.

    A list of tags may not have what was pushed just now: what this mirror made or fills is looked
    at whatever the list says.
    """

    def __init__(self, targets: set[str]) -> None:
        self._targets = targets
        self._tags: dict[str, Needed] = {}

    def tags(self, repository: RegistryRepository, name: Reference) -> Needed:
        """Return which tags need what in a repository."""
        if name.name not in self._tags:
            begin = f"docker://{name.name}:"
            more = [place.removeprefix(begin) for place in self._targets if place.startswith(begin)]
            self._tags[name.name] = needed(repository, sorted(more))
        return self._tags[name.name]


def _delete(
    going: Pruning,
    places: Places,
    known: _Known,
    leaving: Mapping[str, Mapping[str, Digest]],
    *,
    dry_run: bool,
) -> list[str]:
    """Delete what was made, where it is still there; return the names that keep it.

    `leaving` are the tags of each repository that this run deletes.
    """
    target = Location.parse(going.destination)
    if target.reference is not None:
        repository = places.repository(target.reference)
        tags, tag = known.tags(repository, target.reference), target.reference.tag
        also = leaving.get(target.reference.name, {})
        if not dry_run:
            return delete_tag(repository, tag, going.digest, tags, also)
        if own_tag(repository, tag, going.digest) is None:
            return []
        others = other_tags(tag, going.digest, tags, also)
        if not others:
            for names in tags.values():
                names.discard(tag)
        return others
    index = places.present_layout(target.path).index()
    try:
        held = index.find(target.name).descriptor.digest
    except NotFound:
        return []
    if held != going.digest:
        raise PruneRefused(f"{target} is {held} now, and was {going.digest}: not deleted")
    if not dry_run:
        remove(target.path, target.name, places)
    return []
