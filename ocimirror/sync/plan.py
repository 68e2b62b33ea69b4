"""What a sync has to do: every repository listed, every tag filtered, and who goes where.

Nothing is copied here. What a listing costs is one request a page; an image's own manifest and
config are read only where a filter asks when it was built.
"""

from __future__ import annotations

import fnmatch
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from ocimirror.copy.places import Places
from ocimirror.copy.tasks import patiently, together
from ocimirror.errors import (
    IntegrityError,
    Interrupted,
    MalformedManifest,
    NoPlace,
    NotFound,
    OciMirrorError,
    Unsupported,
    UsageError,
)
from ocimirror.model.config import MAX_SIZE_BYTES as MAX_CONFIG_BYTES
from ocimirror.model.config import ImageConfig
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import MAX_DEPTH
from ocimirror.model.manifest import Manifest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location, Reference
from ocimirror.stores.profiles import is_container_image
from ocimirror.stores.store import Source
from ocimirror.sync.access import source_of
from ocimirror.sync.config import Config, Mirror, SourcePattern, Target
from ocimirror.sync.filters import Selection, select

FirstSeen = Callable[[Reference, Digest], datetime | None]
_Taken = dict[Location, tuple[Reference, Digest | None, tuple[Platform, ...]]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What of a configuration is wanted in this run.

    Attributes:
        only: glob on the source's name; empty for all.
        shard: (number from 1, of how many): repositories are spread by rendezvous hashing.
    """

    only: str = ""
    shard: tuple[int, int] = (1, 1)

    def takes(self, source: Reference) -> bool:
        """Whether a repository is this run's."""
        named = not self.only or fnmatch.fnmatchcase(source.name, self.only)
        return named and self.belongs(source)

    def belongs(self, source: Reference) -> bool:
        """Whether a repository is this shard's, be it of this run or not."""
        number, count = self.shard
        return count == 1 or shard_of(source.name, count) == number


def shard_of(name: str, count: int) -> int:
    """Return the shard, from 1, that a repository belongs to.

    By highest random weight: with one shard more, a repository moves there or stays.
    """

    def weight(number: int) -> bytes:
        return hashlib.sha256(f"{number}/{name}".encode()).digest()

    return max(range(1, count + 1), key=weight)


@dataclass(frozen=True, slots=True)
class Planned:
    """One image that is wanted.

    Attributes:
        entry: number of the mirror in the configuration.
        source: repository with the tag, and the digest where it is pinned, or was judged.
        targets: where it goes.
    """

    entry: int
    mirror: Mirror
    source: Reference
    targets: tuple[Location, ...]

    @property
    def known_as(self) -> Reference:
        """The source as reports, state and lock file name it: by its tag, be it pinned or not."""
        return self.source.unpinned()


@dataclass(frozen=True, slots=True)
class Listing:
    """What one repository gave.

    Attributes:
        entry: number of the mirror in the configuration.
        repository: without tag and digest.
        selection: what became of each tag; None where the listing failed.
        judged: what the tags stood for whose age was looked at.
        unread: why the age of a tag cannot be told, if a filter asked for it.
        error: why it failed.
    """

    entry: int
    repository: Reference
    selection: Selection | None = None
    judged: Mapping[str, Digest] = field(default_factory=dict)
    unread: Mapping[str, OciMirrorError] = field(default_factory=dict)
    error: OciMirrorError | None = None


@dataclass(frozen=True, slots=True)
class Unlisted:
    """An entry that is a pattern, and why the registry's catalogue does not tell what that is."""

    entry: int
    pattern: SourcePattern
    error: OciMirrorError


@dataclass(frozen=True, slots=True)
class Refused:
    """An image that cannot go to a target.

    It has no name there, or one that is taken; or whether a filter chooses it cannot be told. What
    has no name there goes to the target as the configuration has it.
    """

    entry: int
    source: Reference
    target: Location | Target
    error: OciMirrorError


@dataclass(slots=True)
class SyncPlan:
    """The images, highest priority first, what every listing gave, and what cannot go anywhere."""

    images: list[Planned] = field(default_factory=list)
    unlisted: list[Unlisted] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


def plan(
    config: Config,
    places: Places,
    chosen: Chosen,
    *,
    now: datetime,
    first_seen: FirstSeen,
    jobs: int,
    stop: threading.Event,
) -> SyncPlan:
    """List and filter everything that a configuration names.

    A listing that fails is in the plan, with its error; the others are not kept back.

    Raises:
        Interrupted: the run was stopped.
    """
    found = SyncPlan()
    work = [
        (number, mirror, repository)
        for number, mirror in enumerate(config.mirrors)
        for repository in _repositories(number, mirror, places, found, stop)
        if chosen.takes(repository)
    ]
    # (The stores are opened here: opening them is for one thread.)
    sources = [source_in(config, places, repository) for _, _, repository in work]

    def look(number: int, mirror: Mirror, repository: Reference, source: Source) -> Listing:
        clocks = _Clocks(repository, source, first_seen)
        try:
            selection = _selected(mirror, source, now, clocks, stop)
        except Interrupted:
            raise
        except OciMirrorError as error:
            error.at("source")
            return Listing(number, repository, error=error)
        selection = _without_excuses(selection, clocks.unread)
        return Listing(number, repository, selection, clocks.judged, clocks.unread)

    looks = [partial(look, *item, source) for item, source in zip(work, sources, strict=True)]
    listings = together(looks, jobs, stop)
    found.listings += listings
    taken: _Taken = {}
    for (_, mirror, _), listing in zip(work, listings, strict=True):
        if listing.selection is not None:
            _add(found, mirror, listing, listing.selection, taken)
    found.images.sort(key=lambda image: -image.mirror.priority)
    return found


def source_in(config: Config, places: Places, reference: Reference) -> Source:
    """Return where a repository of a configuration is read."""
    return source_of(reference, config.registries.get(reference.registry), places)


def _repositories(
    number: int, mirror: Mirror, places: Places, found: SyncPlan, stop: threading.Event
) -> Sequence[Reference]:
    """Return the repositories of an entry; those of a wildcard are what the catalogue names."""
    source = mirror.source
    if not source.wildcard:
        return [Reference(source.registry, source.repository)]
    try:
        names = patiently(partial(places.repositories, source.registry), stop)
        offered = (Reference(source.registry, name) for name in names)
        matching = [repository for repository in offered if source.matches(repository)]
        if not matching:
            raise NotFound(f"the catalogue of {source.registry} names nothing that is {source}")
    except Interrupted:
        raise
    except OciMirrorError as error:
        error.at("source")
        found.unlisted.append(Unlisted(number, source, error))
        return []
    return matching


def _selected(
    mirror: Mirror, source: Source, now: datetime, clocks: _Clocks, stop: threading.Event
) -> Selection:
    if mirror.tags.explicit:  # (what is named one by one is not looked up in a list)
        return Selection(tuple(named.tag for named in mirror.tags.explicit), ())
    tags = source.names()
    if not tags and not mirror.source.wildcard:
        raise NotFound(f"{source.location} has no tags")
    return select(
        tags,
        mirror.tags,
        now=now,
        created=clocks.created,
        first_seen=clocks.first_seen,
        stop=stop,
    )


def _add(
    found: SyncPlan,
    mirror: Mirror,
    listing: Listing,
    selection: Selection,
    taken: _Taken,
) -> None:
    """Add the images of a repository, each with the targets that it can have."""
    pinned: dict[str, Digest | None] = dict(mirror.tags.explicit)
    number = listing.entry
    for tag, error in listing.unread.items():
        image = replace(listing.repository, tag=tag)
        for target in mirror.targets if tag not in selection.kept else ():
            found.refused.append(Refused(number, image, _place_if_any(target, image), error))
    for tag in selection.kept:
        # (A tag that moves after its age was judged must not carry a younger image past it.)
        digest = pinned.get(tag) or listing.judged.get(tag)
        image = replace(listing.repository, tag=tag, digest=digest)
        targets = []
        for target in mirror.targets:
            try:
                if place := _place(image, pinned.get(tag), mirror.platforms, target, taken):
                    targets.append(place)
            except UsageError as error:
                # (Not its exit code: a run that copies is no mistake found before it.)
                refusal = NoPlace(error.message, advice=error.advice)
                found.refused.append(Refused(number, image.unpinned(), target, refusal))
        if targets:
            found.images.append(Planned(number, mirror, image, tuple(targets)))


def _place(
    source: Reference,
    pinned: Digest | None,
    platforms: tuple[Platform, ...],
    target: Target,
    taken: _Taken,
) -> Location | None:
    """Return where an image goes, and take the place; None where an entry before brings it there.

    Two images cannot have one place, nor one image with different platforms.
    """
    place = target.resolve(source)
    own = source.unpinned(), pinned, platforms
    other = taken.setdefault(place, own)
    if other is own:
        return place
    if other != own:
        raise UsageError(f"{place} is where {other[0]} goes")
    return None


def _place_if_any(target: Target, image: Reference) -> Location | Target:
    """Return where an image would go, as far as that can be told."""
    try:
        return target.resolve(image)
    except UsageError:
        return target


def _without_excuses(selection: Selection, unread: Mapping[str, OciMirrorError]) -> Selection:
    """Return a selection that says of what could not be read that it could not."""
    dropped = (
        one._replace(reason=f"cannot be read: {unread[one.tag].message}")
        if one.tag in unread
        else one
        for one in selection.dropped
    )
    return replace(selection, dropped=tuple(dropped))


class _Clocks:
    """Tells the age of a repository's images, and remembers which image it was that it told of.

    An image that cannot be read fails alone: it has no age, and `unread` says why.
    """

    def __init__(self, name: Reference, source: Source, first_seen: FirstSeen) -> None:
        self._name = name
        self._source = source
        self._first_seen = first_seen
        self._roots: dict[str, Descriptor] = {}
        self.unread: dict[str, OciMirrorError] = {}

    @property
    def judged(self) -> dict[str, Digest]:
        """What the tags stood for that were asked about."""
        return {tag: root.digest for tag, root in self._roots.items()}

    def _root(self, tag: str) -> Descriptor:
        if tag not in self._roots:
            self._roots[tag] = self._source.resolve(tag)
        return self._roots[tag]

    def first_seen(self, tag: str) -> datetime | None:
        """Return when what a tag stands for was first seen under it."""
        with self._read(tag):
            return self._first_seen(replace(self._name, tag=tag), self._root(tag).digest)
        return None

    def created(self, tag: str) -> datetime | None:
        """Return when the first image that a tag leads to was built, as its config says."""
        with self._read(tag):
            return self._created(self._root(tag))
        return None

    @contextmanager
    def _read(self, tag: str) -> Iterator[None]:
        try:
            yield
        except (NotFound, IntegrityError) as error:
            error.at("source")
            self.unread[tag] = error

    def _created(self, root: Descriptor) -> datetime | None:
        """Return what the config of the first image says; of what is no image, nothing."""
        with suppress(Unsupported):
            manifest = self._source.read_manifest(root)
            for _ in range(MAX_DEPTH):
                if is_container_image(manifest):
                    config = manifest.blobs[0]
                    with self._source.fetch(config) as stream:
                        raw = stream.read_all(MAX_CONFIG_BYTES)
                    with suppress(MalformedManifest):  # (a config that says nothing)
                        return ImageConfig.parse(raw, f"config {config.digest}").created
                    return None
                if not manifest.manifests:
                    return None
                manifest = self._first(manifest.manifests)
        return None

    def _first(self, children: Sequence[Descriptor]) -> Manifest:
        """Return the first child that is there; of a sparse image, some are not."""
        for child in children[:-1]:
            with suppress(NotFound):
                return self._source.read_manifest(child)
        return self._source.read_manifest(children[-1])
