"""load: images of a layout into a container engine, with a receipt of what it kept.

Each image is proved first, sent then, and asked for in the end: an engine's exit code says nothing
about what it has.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ocimirror.copy.unread import unread, warn_of_unnamed
from ocimirror.engines.engine import Auditor, Engine
from ocimirror.engines.receipt import Part, Receipt
from ocimirror.engines.wanted import Wanted, examine, full_reference, prove, runs_something
from ocimirror.errors import (
    DigestNotPreserved,
    EngineUnavailable,
    Interrupted,
    LocalStorageError,
    NotFound,
    OciMirrorError,
    UsageError,
)
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location, some_of
from ocimirror.stores.entry import Entry
from ocimirror.stores.layout.source import LayoutSource
from ocimirror.stores.store import Source
from ocimirror.stores.stream import Watch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """How an image comes into an engine.

    Attributes:
        name: archive, registry or alias.
        keeps: the parts of the identity that it can bring there.
        send: brings one image, which was proved; returns what the reader should know.
    """

    name: str
    keeps: frozenset[Part]
    send: Callable[[Wanted], Sequence[str]]


def by_archive(engine: Engine, source: Source, options: LoadOptions) -> Route:
    """Return the route that every engine has; it touches no file outside layout and engine."""

    def send(wanted: Wanted) -> Sequence[str]:
        engine.load(source, wanted, watching(options))
        return ()

    return Route("archive", engine.keeps, send)


def watching(options: LoadOptions) -> Watch:
    """Return what is told of content as it is read: it ends the reading once a run is to stop."""

    def watch(count: int) -> None:
        if options.stop.is_set():
            raise Interrupted("stopped before everything was loaded")
        options.moved(count)

    return watch


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How images are loaded.

    Attributes:
        platforms: those wanted; empty for all that the engine keeps.
        replace: move a name that the engine has for another image.
        dry_run: ask only.
        jobs: threads that hash.
        stop: set from outside to end the run.
        moved: told of bytes as they are hashed, and again as they are sent; from any thread.
    """

    platforms: tuple[Platform, ...]
    replace: bool
    dry_run: bool
    jobs: int
    stop: threading.Event
    moved: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of one image: a receipt, an error, or in a dry run the route that is planned."""

    name: str
    receipt: Receipt | None = None
    error: OciMirrorError | None = None
    planned: str = ""


NO_ENGINE_TAKES = ": engines take images from a layout or an archive"
"""What is said of a registry."""


def chosen_entries(source: LayoutSource, location: Location, names: Sequence[str]) -> list[Entry]:
    """Return the entries of a layout or archive that names stand for.

    Without names that is every container image with a name; attachments and artifacts beside
    them are left out.

    Raises:
        NotFound: a name that it does not have.
        DamagedLayout: no entry can be read.
    """
    if location.read_name:
        names = [location.read_name, *names]
    if names:
        return list(dict.fromkeys(source.index().find(name) for name in names))
    entries = []
    for entry in source.images():
        if runs_something(source, entry.descriptor):
            entries.append(entry)
        else:
            logger.warning("%s is left out: engines run images, not artifacts", entry.name)
    if entries:
        warn_of_unnamed(source)
        return entries
    for _, error in unread(source, location):
        raise error
    unnamed = [f"@{entry.descriptor.digest}" for entry in source.unnamed()]
    raise NotFound(
        f"{location}: no named container image; engines run no artifacts",
        advice=f"Give a name to {some_of(unnamed)}: ocimirror tag LAYOUT @DIGEST NAME"
        if unnamed
        else "",
    )
    return entries


def left_out(source: Source, location: Location, names: Sequence[str]) -> Iterator[Loaded]:
    """Yield a failure for each entry that cannot be read, if all of a place was asked for."""
    if not names and not location.read_name:
        for label, error in unread(source, location):
            yield Loaded(label, error=error)


def _refuse_several(engine: Auditor, platforms: Sequence[Platform]) -> None:
    if len(platforms) > 1 and not engine.keeps_index:
        several = ", ".join(map(str, platforms))
        raise UsageError(
            f"{engine.name} keeps one platform of an image, not {several}",
            advice="Choose one with --platform.",
        )


def load(
    source: Source,
    entries: Sequence[Entry],
    engine: Engine,
    route: Route,
    options: LoadOptions,
) -> Iterator[Loaded]:
    """Load images one after the other, and yield what came of each.

    A failed one does not keep the others back.

    Args:
        source: the layout or archive.
        entries: which images of it.
        engine: where to.
        route: how they come there.
        options: which platforms, and what of names that are taken.

    Raises:
        Interrupted: `stop` was set.
        EngineUnavailable, LocalStorageError: nothing more can be loaded.
    """
    _refuse_several(engine, options.platforms)
    for entry in entries:
        try:
            yield _load_one(source, entry, engine, route, options)
        except (Interrupted, EngineUnavailable, LocalStorageError):
            raise
        except OciMirrorError as error:
            yield Loaded(entry.name, error=error)


def _load_one(
    source: Source, entry: Entry, engine: Engine, route: Route, options: LoadOptions
) -> Loaded:
    wanted = wanted_of(source, entry, engine, options.platforms)
    before = engine.audit(wanted)
    if not before.failing(route.keeps):
        return Loaded(entry.name, _advised(replace(before, unchanged=True), wanted))
    if before.tag == "moved" and not options.replace:
        raise DigestNotPreserved(
            f"{engine.name} has another image named {wanted.name} ({before.evidence[0]})",
            advice="--replace moves the name to this image.",
        )
    if options.dry_run:
        return Loaded(entry.name, planned=route.name)
    prove(source, wanted, options.jobs, watching(options))
    notes = route.send(wanted)
    after = engine.audit(wanted)
    after = replace(after, route=route.name, notes=(*after.notes, *notes))
    return Loaded(entry.name, _advised(after, wanted))


def wanted_of(
    source: Source, entry: Entry, engine: Auditor, platforms: Sequence[Platform]
) -> Wanted:
    """Return what an engine should have of an image.

    Without a choice of platforms that is all of them where the engine keeps several, else the one
    that it runs.
    """
    reference = full_reference(entry)
    wanted = examine(source, reference, entry.descriptor, platforms)
    return wanted if engine.keeps_index else wanted.only(engine.chosen(wanted))


def _advised(receipt: Receipt, wanted: Wanted) -> Receipt:
    """Say what would keep more."""
    if receipt.store != "graphdriver" or receipt.whole:
        return receipt
    digest = wanted.root.digest
    return replace(
        receipt,
        notes=(
            *receipt.notes,
            f"this store of docker knows no digest of what is loaded: {wanted.by_digest(digest)}"
            " will not be found (moby#22011); --route alias on this machine, or `ocimirror"
            " docker-refs restore`, keeps it",
        ),
    )


def audit(
    source: Source,
    entries: Sequence[Entry],
    engine: Auditor,
    platforms: Sequence[Platform],
    *,
    deep: bool = False,
) -> Iterator[Loaded]:
    """Yield what an engine has of each image; nothing is changed.

    Args:
        source: the layout or archive.
        entries: which images of it.
        engine: which is asked.
        platforms: those that should be there.
        deep: hash what the engine gives back.
    """
    _refuse_several(engine, platforms)
    for entry in entries:
        try:
            wanted = wanted_of(source, entry, engine, platforms)
            receipt = engine.audit(wanted)
            if deep:
                receipt = replace(receipt, hashed=engine.reread(wanted))
            yield Loaded(entry.name, receipt)
        except (Interrupted, EngineUnavailable, LocalStorageError):
            raise
        except OciMirrorError as error:
            yield Loaded(entry.name, error=error)
