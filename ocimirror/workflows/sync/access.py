"""How a sync reaches registries that have settings of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from ocimirror.errors import NotFound, RemoteError
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.reference import Reference, check_registry
from ocimirror.stores.registry.credentials import Credential
from ocimirror.stores.registry.options import AuthFile, NetworkOptions
from ocimirror.stores.store import Referrer, Source
from ocimirror.stores.stream import Reader
from ocimirror.sync.config import RegistrySettings
from ocimirror.workflows.places import OwnWay, Places

T = TypeVar("T")


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
    return Mirrored([*mirrors, origin])


def _at(mirror: str, reference: Reference) -> Reference:
    host, _, prefix = mirror.partition("/")
    repository = f"{prefix.rstrip('/')}/{reference.repository}" if prefix else reference.repository
    return Reference(check_registry(host), repository)


class Mirrored(Source):
    """A repository that is read from several places: the first one that has something gives it.

    What comes is checked as always; of a tag, a mirror is believed.

    Args:
        places: in the order in which they are asked, the registry itself last.
    """

    def __init__(self, places: Sequence[Source]) -> None:
        self._places = places
        self.location = places[-1].location

    def _first(self, ask: Callable[[Source], T]) -> T:
        for place in self._places[:-1]:
            try:
                return ask(place)
            except (RemoteError, NotFound):
                continue
        return ask(self._places[-1])

    def _resolve(self, name: str) -> Descriptor:
        return self._first(lambda place: place.resolve(name))

    def _open(self, descriptor: Descriptor) -> Reader:
        return self._first(lambda place: place._open(descriptor))

    def _open_at(self, descriptor: Descriptor, position: int) -> Reader:
        return self._first(lambda place: place._open_at(descriptor, position))

    def _exists(self, descriptor: Descriptor) -> bool:
        return self._first(lambda place: place.exists(descriptor))

    def _names(self) -> list[str]:
        return self._first(lambda place: place.names())

    def _referrers(self, descriptor: Descriptor) -> Iterable[Referrer]:
        return self._first(lambda place: place.referrers(descriptor))
