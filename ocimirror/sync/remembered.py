"""The values that the state of a mirror keeps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ocimirror.model.digest import Digest


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
    """A time in which a source was seen to stand for one digest: first and last seen."""

    source: str
    digest: Digest
    since: datetime
    until: datetime


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


@dataclass(frozen=True, slots=True)
class Run:
    """One run; `ended` and `exit_code` are None where it was killed, or is at work."""

    number: int
    started: datetime
    ended: datetime | None
    exit_code: int | None
    copied: int
    unchanged: int
    failed: int
    bytes_copied: int
