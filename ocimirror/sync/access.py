"""How a sync reaches registries that have settings of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from ocimirror.copy.places import OwnWay, Places
from ocimirror.errors import RemoteError
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.reference import Reference
from ocimirror.registry.credentials import Credential
from ocimirror.registry.options import AuthFile, NetworkOptions
from ocimirror.stores.store import Referrer, Source, opened
from ocimirror.stores.stream import Reader
from ocimirror.sync.config import RegistrySettings, SourcePattern

T = TypeVar("T")
logger = logging.getLogger(__name__)


def own_ways(registries: Mapping[str, RegistrySettings]) -> dict[str, OwnWay]:
    """Return how each registry with settings is reached; what these leave out is the run's."""
    return {
        registry: OwnWay(
            partial(_options, registry, settings),
            Credential(settings.username, settings.password) if settings.username else None,
        )
        for registry, settings in registries.items()
    }


def _options(registry: str, settings: RegistrySettings, run: NetworkOptions) -> NetworkOptions:
    plain = frozenset((registry,)) if settings.plain_http else frozenset()
    files = (AuthFile(settings.auth_file, "containers"),) if settings.auth_file else ()
    rate = settings.requests_per_second
    return replace(
        run,
        plain_http=run.plain_http | plain,
        ca_file=settings.ca_file or run.ca_file,
        jobs=min(run.jobs, settings.max_concurrency or run.jobs),
        requests_per_second={**run.requests_per_second, **({registry: rate} if rate else {})},
        auth_files=(*files, *run.auth_files),
    )


def source_of(reference: Reference, settings: RegistrySettings | None, places: Places) -> Source:
    """Return where a repository is read: its registry, with the mirrors that are asked first."""
    origin = places.repository(reference)
    if settings is None or not settings.mirrors:
        return origin
    mirrors = [places.repository(_at(mirror, reference)) for mirror in settings.mirrors]
    return Mirrored(mirrors, origin)


def _at(mirror: SourcePattern, reference: Reference) -> Reference:
    parts = mirror.repository, reference.repository
    return Reference(mirror.registry, "/".join(part for part in parts if part))


class Mirrored(Source):
    """A repository that is read from mirrors first, and from its registry where they fail.

    What comes is checked as always; of a tag, a mirror is believed. But what there is (tags, and
    what refers to an image) only the registry says: a mirror that fills itself on demand lists a
    part of it, and pruning goes by lists.

    Args:
        mirrors: in the order in which they are asked.
        registry: the repository itself.
    """

    def __init__(self, mirrors: Sequence[Source], registry: Source) -> None:
        self._mirrors = mirrors
        self._registry = registry
        self.location = registry.location

    def _first(self, ask: Callable[[Source], T]) -> T:
        for mirror in self._mirrors:
            try:
                return ask(mirror)
            except RemoteError as error:
                logger.info("a mirror of %s failed: %s", self.location, error)
        return ask(self._registry)

    def _resolve(self, name: str) -> Descriptor:
        return self._first(lambda place: place.resolve(name))

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        return self._first(lambda place: opened(place, descriptor, position))

    def _exists(self, descriptor: Descriptor) -> bool:
        return any(place.exists(descriptor) for place in (*self._mirrors, self._registry))

    def _names(self) -> list[str]:
        return self._registry.names()

    def _referrers(self, descriptor: Descriptor) -> Iterable[Referrer]:
        return self._registry.referrers(descriptor)
