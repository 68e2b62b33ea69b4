"""The values that the state of a mirror keeps."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ocimirror.errors import InvalidReference
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Location

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Complete:
    """An image that was copied to a target whole.

    Attributes:
        source, target: where from and where to.
        digest: what the target was named for.
        platforms: what was asked for; empty for everything.
        referrers: with its attachments.
        time: since when.
    """

    source: str
    target: str
    digest: Digest
    platforms: tuple[str, ...]
    referrers: bool
    time: datetime


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which a source was seen to stand for one digest."""

    source: str
    digest: Digest
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Created:
    """A target that this mirror made, and that was not there before.

    Attributes:
        digest: what it was named for when this mirror last moved it.
        time: when it was made.
        gone_since: when a complete listing first found its source gone or filtered out; None
            while it is wanted.
    """

    target: str
    source: str
    digest: Digest
    time: datetime
    gone_since: datetime | None = None


def well_made(made: Iterable[Created]) -> list[Created]:
    """Return what names an image at a source, and a place, as we write them.

    A row of a state that does not would spoil the lock file, which is read strictly.
    """
    return [one for one in made if _is_well_made(one)]


def _is_well_made(made: Created) -> bool:
    try:
        source = Location.parse(made.source).reference
        target = str(Location.parse(made.target))
        named = source and str(Location("docker", reference=source.readable()))
        if (named, target) == (made.source, made.target):
            return True
    except InvalidReference:
        pass
    logger.warning("the state has an entry that is no location; it is left out")
    return False
