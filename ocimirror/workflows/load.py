"""load: images of a layout into a container engine, with a receipt of what it kept.

Each image is proved first, sent then, and asked for in the end: an engine's exit code says nothing
about what it has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ocimirror.engines.engine import Auditor, Engine
from ocimirror.engines.receipt import Receipt
from ocimirror.engines.wanted import Wanted, examine, full_reference, prove
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
from ocimirror.model.reference import Location, is_attachment_tag
from ocimirror.stores.index import Entry, LayoutSource
from ocimirror.stores.store import Source

Route = Literal["auto", "archive", "registry", "alias"]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How images are loaded.

    Attributes:
        platforms: those wanted; empty for all that the engine keeps.
        route: how; auto never touches a file outside the layout and the engine.
        replace: move a name that the engine has for another image.
        dry_run: ask only.
        jobs: threads that hash.
        stop: set from outside to end the run.
    """

    platforms: tuple[Platform, ...]
    route: Route
    replace: bool
    dry_run: bool
    jobs: int
    stop: threading.Event


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of one image: a receipt, an error, or in a dry run the route that is planned."""

    name: str
    receipt: Receipt | None = None
    error: OciMirrorError | None = None
    planned: str = ""


def chosen_entries(source: Source, location: Location, names: Sequence[str]) -> list[Entry]:
    """Return the entries of a layout or archive that names stand for; none: all that have one.

    Raises:
        UsageError: a place that is no layout, or one without named images.
        NotFound: a name that it does not have.
    """
    if not isinstance(source, LayoutSource):
        raise UsageError(f"{location}: engines take images from a layout or an archive")
    if location.read_name:
        names = [location.read_name, *names]
    if names:
        return list(dict.fromkeys(source.index().find(name) for name in names))
    entries = [e for e in source.entries() if e.name and not is_attachment_tag(e.tag)]
    if not entries:
        raise NotFound(f"{location}: no named image")
    return entries


def load(
    source: Source,
    entries: Sequence[Entry],
    engine: Engine,
    options: LoadOptions,
    done: Callable[[Loaded], None],
) -> list[Loaded]:
    """Load images one after the other; a failed one does not keep the others back.

    Args:
        source: the layout or archive.
        entries: which images of it.
        engine: where to.
        options: how.
        done: told of each image when it is known what became of it.

    Raises:
        Interrupted: `stop` was set.
        EngineUnavailable, LocalStorageError: nothing more can be loaded.
    """
    results = []
    for entry in entries:
        try:
            result = _load_one(source, entry, engine, options)
        except (Interrupted, EngineUnavailable, LocalStorageError):
            raise
        except OciMirrorError as error:
            result = Loaded(entry.name, error=error)
        results.append(result)
        done(result)
    return results


def _load_one(source: Source, entry: Entry, engine: Engine, options: LoadOptions) -> Loaded:
    wanted = wanted_of(source, entry, engine, options.platforms)

    def watch(_: int) -> None:
        if options.stop.is_set():
            raise Interrupted("stopped before everything was loaded")

    before = engine.audit(wanted)
    if not before.failing(engine.keeps):
        return Loaded(entry.name, _advised(replace(before, unchanged=True), wanted))
    if before.tag == "moved" and not options.replace:
        raise DigestNotPreserved(
            f"{engine.name} has another image named {wanted.name} ({before.evidence[0]})",
            advice="--replace moves the name to this image.",
        )
    if options.dry_run:
        return Loaded(entry.name, planned="archive")
    prove(source, wanted, options.jobs, watch)
    engine.load(source, wanted, watch)
    after = replace(engine.audit(wanted), route="archive")
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
            " will not be found (moby#22011)",
        ),
    )


def audit(
    source: Source, entries: Sequence[Entry], engine: Auditor, platforms: Sequence[Platform]
) -> Iterator[Loaded]:
    """Yield what an engine has of each image; nothing is changed."""
    for entry in entries:
        try:
            yield Loaded(entry.name, engine.audit(wanted_of(source, entry, engine, platforms)))
        except (Interrupted, EngineUnavailable, LocalStorageError):
            raise
        except OciMirrorError as error:
            yield Loaded(entry.name, error=error)
