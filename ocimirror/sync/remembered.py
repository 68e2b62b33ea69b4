"""The values that the state of a mirror keeps, and what is left of them in a damaged row."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from ocimirror.errors import InvalidReference
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Location, Reference, written_location, written_source

T = TypeVar("T")
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

    source: Reference
    target: Location
    digest: Digest
    platforms: tuple[str, ...]
    referrers: bool
    time: datetime


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which a source was seen to stand for one digest."""

    source: Reference
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

    target: Location
    source: Reference
    digest: Digest
    time: datetime
    gone_since: datetime | None = None


def kept_digest(text: str) -> Digest | None:
    """Return a digest; None for what is none any more, which costs a request."""
    return _parsed(Digest.parse, text, "digest")


def kept_source(text: str) -> Reference | None:
    """Return a source; of one that is not spelled as we write it, nothing.

    (It would spoil the lock file, which is read strictly.)
    """
    return _parsed(written_source, text, "location")


def kept_target(text: str) -> Location | None:
    """Return a target; of one that is not spelled as we write it, nothing."""
    return _parsed(written_location, text, "location")


def _parsed(parse: Callable[[str], T], text: str, kind: str) -> T | None:
    try:
        return parse(text)
    except InvalidReference:
        logger.warning("the state has an entry that is no %s; it is left out", kind)
        return None
