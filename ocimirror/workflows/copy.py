"""copy: one image from any location to any location."""

from __future__ import annotations

from dataclasses import replace

from ocimirror.copy.copy import copy as copy_images
from ocimirror.copy.outcome import Options, Outcome, Reporter, Request, Silent
from ocimirror.errors import OciMirrorError, blamed_on
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location
from ocimirror.stores.archive import ArchiveWriter
from ocimirror.stores.index import LayoutSource
from ocimirror.workflows.places import Places, new_name


def copy(
    source: Location,
    destination: Location,
    places: Places,
    options: Options,
    reporter: Reporter | None = None,
    *,
    platforms: tuple[Platform, ...] = (),
) -> list[Outcome]:
    """Copy an image; a destination without a name keeps the source's.

    Raises:
        UsageError: the image would have no name in a layout.
        NotFound: the source layout has no such image.
    """
    origin = places.source(source)
    name = new_name(destination, origin, source)
    store = places.destination(destination, dry_run=options.dry_run)
    if not platforms and isinstance(origin, LayoutSource) and source.digest is None:
        platforms = origin.index().find(source.name).platforms
    shown = str(source), str(_named(destination, name))
    request = Request(origin, source.read_name, store, name, *shown, platforms)
    if isinstance(store, ArchiveWriter):
        return _copy_into_archive(store, request, options, reporter or Silent())
    return copy_images([request], options, reporter)


def _copy_into_archive(
    archive: ArchiveWriter, request: Request, options: Options, reporter: Reporter
) -> list[Outcome]:
    """Copy, then write the archive; the image is reported only after that."""
    (outcome,) = copy_images([request], options, _Unfinished(reporter))
    if outcome.error is None:
        try:
            with blamed_on("destination"):
                archive.commit()
        except OciMirrorError as error:
            outcome.status, outcome.error = "failed", error
    reporter.finished(outcome)
    return [outcome]


class _Unfinished:
    """Passes everything on but the end."""

    def __init__(self, reporter: Reporter) -> None:
        self.planned = reporter.planned
        self.moved = reporter.moved

    def finished(self, outcome: Outcome) -> None:
        """Say nothing yet."""


def _named(destination: Location, name: str) -> Location:
    if destination.reference is not None:
        return replace(destination, reference=replace(destination.reference, tag=name))
    return replace(destination, name=name)
