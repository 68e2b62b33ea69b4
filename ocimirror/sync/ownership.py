"""Which targets a mirror created itself, so that prune deletes no others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from ocimirror.copy.tasks import patiently
from ocimirror.errors import Interrupted, NotFound, OciMirrorError
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Location
from ocimirror.stores.store import Store
from ocimirror.sync.carry import Destinations, Work, name_at
from ocimirror.sync.plan import Chosen, Planned
from ocimirror.sync.shards import Owned
from ocimirror.sync.state import State

_UNKNOWN = frozenset(("NAME_UNKNOWN", "NOT_FOUND"))
"""What registries answer of a repository that does not exist; the second is Harbor's."""


class Ownership:
    """Knows what was absent before a run, and remembers what the run then made there.

    Args:
        state: where that is remembered.
        destinations: the stores that the run writes to.
        now: the time of the run.
        stop: ends waiting for a registry.
    """

    def __init__(
        self, state: State, destinations: Destinations, now: datetime, stop: threading.Event
    ) -> None:
        self._state = state
        self._destinations = destinations
        self._now = now
        self._stop = stop
        self._absent: set[Location] = set()
        self._known = state.own_targets()

    def look(
        self, images: Sequence[Planned], failed: Callable[[Planned, OciMirrorError], None]
    ) -> None:
        """Look at destinations that are to be pruned some night: one listing each.

        Where that fails nothing is known to be absent: it is filled, and not pruned.

        Args:
            images: all of the run, before it.
            failed: told of a listing that failed, and of the first image that goes there.

        Raises:
            Interrupted: the run was stopped.
        """
        names: dict[int, set[str] | None] = {}
        for image in images:
            for target in image.targets if image.mirror.prune is not None else ():
                store = self._destinations.store(target)
                if id(store) not in names:
                    try:
                        names[id(store)] = self._names(store)
                    except Interrupted:
                        raise
                    except OciMirrorError as error:
                        error.at("destination")
                        failed(image, error)
                        names[id(store)] = None
                present = names[id(store)]
                if present is not None and name_at(target) not in present:
                    self._absent.add(target)

    def _names(self, store: Store) -> set[str]:
        try:
            return set(patiently(store.names, self._stop))
        except NotFound as error:
            # (A 404 that names no repository may be that of a registry without a list of tags.)
            if _UNKNOWN.isdisjoint(error.codes):
                raise
            return set()

    def arrived(self, work: Work, digest: Digest, previous: Digest | None) -> None:
        """Remember a target that was not there before; it stays this mirror's own when it moves.

        (Also when an entry that is not pruned fills it now: it is no longer another entry's.)

        Args:
            work: the image, and the target.
            digest: what the target stands for now.
            previous: what it stood for before; a list of tags may have left it out.
        """
        target = work.target
        if (target in self._absent and previous is None) or target in self._known:
            self._state.mark_created(target, work.image.known_as, digest, self._now)


def owned(state: State, chosen: Chosen) -> tuple[Owned, ...]:
    """Return what this mirror made itself, of the repositories that are this shard's."""
    return tuple(
        Owned(made.target, made.source, made.digest, made.gone_since)
        for made in state.own()
        if chosen.belongs(made.source)
    )


def adopt(state: State, merged: Iterable[Owned], chosen: Chosen, now: datetime) -> None:
    """Take over what another shard made of repositories that are this shard's now.

    What the state knows of repositories that were this shard's in its last run, too, stays as it
    is. Of others it may be old: since when a source is gone begins anew, unless the merged lock
    file says it. Prune deletes what is adopted only if it still stands for the digest that was put
    there.
    """
    before = Chosen(shard=state.shard() or chosen.shard)
    known = set()
    for made in state.own():
        if not chosen.belongs(made.source) or before.belongs(made.source):
            known.add(made.target)
        elif made.gone_since is not None:
            state.mark_gone(made.target, None)
    for other in merged:
        if other.target not in known and chosen.belongs(other.source):
            state.mark_created(other.target, other.source, other.digest, now)
            state.mark_gone(other.target, other.gone_since)
    state.is_shard(chosen.shard)
