"""Takes from the destinations what the sources have no more: opt-in, late, few at a time.

Nothing goes but what this mirror made itself and nobody moved since; nothing after a listing that
failed or was empty; nothing before its time of grace is over; and where more would go than is
allowed, none does.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from ocimirror.copy.tasks import patiently
from ocimirror.errors import (
    Interrupted,
    NotFound,
    OciMirrorError,
    PruneRefused,
    UsageError,
)
from ocimirror.model.reference import Location, Reference
from ocimirror.stores.registry.deletion import Needed, delete_tag, needed
from ocimirror.sync.config import Mirror, Target
from ocimirror.sync.report import Failure, ImageResult, Status
from ocimirror.sync.state import Created, State
from ocimirror.workflows.names import remove
from ocimirror.workflows.places import Places
from ocimirror.workflows.sync.plan import Listing


@dataclass(frozen=True, slots=True)
class Pruning:
    """What pruning has to know of one repository of an entry.

    Attributes:
        entry: its name in the report.
        mirror: the entry, which wants to be pruned.
        repository: registry and repository at the source.
        wanted: the sources of the images that are wanted there tonight, never empty.
    """

    entry: str
    mirror: Mirror
    repository: str
    wanted: Collection[str]


def after(
    listings: Sequence[Listing], mirrors: Sequence[Mirror], names: Sequence[str], locked: set[str]
) -> Iterator[Pruning]:
    """Yield what may be pruned after these listings: no listing failed, something is wanted.

    Args:
        listings: all of the run; several entries may have listed one repository.
        mirrors: the entries, by number.
        names: of the entries.
        locked: sources that stay whatever was listed.
    """
    wanted: dict[str, set[str]] = {}
    failed = {listing.repository for listing in listings if listing.error is not None}
    for listing in listings:
        tags = listing.selection.kept if listing.selection else ()
        sources = (f"docker://{listing.repository}:{tag}" for tag in tags)
        wanted.setdefault(listing.repository, set()).update(sources)
    for listing in listings:
        entry, kept = listing.entry, wanted[listing.repository]
        if listing.repository not in failed and kept:
            yield Pruning(names[entry], mirrors[entry], listing.repository, kept | locked)


def prune(
    work: Sequence[Pruning],
    filled: Collection[str],
    places: Places,
    state: State,
    now: datetime,
    *,
    dry_run: bool,
    stop: threading.Event,
) -> Iterator[ImageResult | tuple[str, OciMirrorError]]:
    """Prune, and yield what came of each image; (entry, error) where an entry is left alone.

    Args:
        work: repositories whose listing was complete and not empty.
        filled: the targets that any entry fills tonight; they stay.
        places: opens the destinations.
        state: knows what this mirror made, and when its source was last there.
        now: the time of the run.
        dry_run: say what would go.
        stop: once set, nothing more is deleted.

    Raises:
        Interrupted: `stop` was set.
    """
    made_of: dict[str, list[Created]] = {}
    for made in state.own() if work else ():
        name = Reference.parse(made.source.removeprefix("docker://")).name
        made_of.setdefault(name, []).append(made)
    going: dict[str, list[Created]] = {}
    limits: dict[str, int] = {}
    for item in work:
        rules = item.mirror.prune
        if rules is None:
            continue
        limits[item.entry] = rules.max_delete
        found = going.setdefault(item.entry, [])
        for made in _made_for(item, made_of.get(item.repository, ())):
            if (
                made.source not in item.wanted
                and made.target not in filled
                and now - (made.last_seen or made.time) >= rules.grace
            ):
                found.append(made)
    tags: dict[str, Needed] = {}
    for entry, found in going.items():
        if len(found) > limits[entry]:
            yield (
                entry,
                PruneRefused(
                    f"{len(found)} images are gone at the source, and at most {limits[entry]} may"
                    " be deleted in a run: none was",
                ),
            )
            continue
        for made in found:
            yield _pruned(entry, made, places, tags, state, dry_run=dry_run, stop=stop)


def _made_for(item: Pruning, made_there: Sequence[Created]) -> Iterator[Created]:
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
    entry: str,
    made: Created,
    places: Places,
    tags: dict[str, Needed],
    state: State,
    *,
    dry_run: bool,
    stop: threading.Event,
) -> ImageResult:
    failure: Failure | None = None
    status: Status = "planned" if dry_run else "pruned"
    notes: tuple[str, ...] = ()
    if not dry_run:
        try:
            keep = patiently(partial(_delete, made, places, tags), stop)
            if keep:
                status, shown = "unchanged", ", ".join(keep[:5])
                notes = (f"kept: the registry deletes by digest only, and {shown} needs it",)
            else:
                state.forget(made.target)
        except Interrupted:
            raise
        except OciMirrorError as error:
            if isinstance(error, PruneRefused):  # (it is somebody else's now, and stays so)
                state.forget(made.target)
            error.at("destination")
            status, failure = "failed", Failure.of(error)
    return ImageResult(
        entry,
        made.source,
        made.target,
        status,
        previous=made.digest,
        error=failure,
        notes=notes,
    )


def _delete(made: Created, places: Places, tags: dict[str, Needed]) -> list[str]:
    """Delete what was made, where it is still there; return the names that keep it.

    `tags` are what is known of repositories, each looked at once a run.
    """
    target = Location.parse(made.target)
    if target.reference is not None:
        repository = places.repository(target.reference)
        if repository.location not in tags:
            tags[repository.location] = needed(repository)
        known = tags[repository.location]
        return delete_tag(repository, target.reference.tag, made.digest, known)
    index = places.present_layout(target.path).index()
    try:
        held = index.find(target.name).descriptor.digest
    except NotFound:
        return []
    if held != made.digest:
        raise PruneRefused(f"{target} is {held} now, and was {made.digest}: not deleted")
    remove(target.path, target.name, places)
    return []
