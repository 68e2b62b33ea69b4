"""What a run that was asked for all of a layout or archive says of entries that it passes over."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ocimirror.copy.outcome import Outcome, Reporter, Request, Silent
from ocimirror.errors import DamagedLayout
from ocimirror.model.reference import Location
from ocimirror.stores.layout.source import LayoutSource
from ocimirror.stores.memory import MemoryStore
from ocimirror.stores.store import Source

logger = logging.getLogger(__name__)


def unread(source: Source, location: Location) -> Iterator[tuple[str, DamagedLayout]]:
    """Yield what each entry of index.json that cannot be read is called, and the error."""
    for row in source.unreadable():
        advice = f"`ocimirror repair {location.path}` mends it if the blobs prove what it was."
        if location.is_archive:
            advice = "Make the archive anew."
        yield row.label, DamagedLayout(row.message, advice=advice)


def warn_of_unnamed(source: LayoutSource) -> None:
    """Say which images are left out, as they have no name."""
    for entry in source.unnamed():
        logger.warning(
            "%s: the image %s has no name and is left out; `ocimirror tag` gives it one",
            source.location,
            entry.descriptor.digest,
        )


def failures(
    source: Source, location: Location, destination: str, reporter: Reporter | None
) -> list[Outcome]:
    """Return a failed outcome for each entry that cannot be read, and report it."""
    outcomes = []
    for label, error in unread(source, location):
        nowhere = MemoryStore(destination)
        shown = str(Location(location.scheme, location.path, label))
        request = Request(source, label, nowhere, "", shown, destination)
        outcomes.append(Outcome(request, error=error))
        (reporter or Silent()).finished(outcomes[-1])
    return outcomes
