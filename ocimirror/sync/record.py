"""One image as its source offered it: what lock files, state and reports agree on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from ocimirror.errors import InvalidReference
from ocimirror.model.digest import Digest

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One source reference and what it stood for.

    Platforms and attachments are kept sorted and unique, and the time in whole seconds of UTC, so
    that equal records are written as equal bytes.

    Attributes:
        source: `docker://HOST/REPOSITORY:TAG`, or `…@DIGEST`.
        digest: what it stood for.
        media_type: of the manifest with that digest.
        size: bytes of the whole image, as far as it was asked for.
        platforms: what was asked for; empty for everything.
        attachments: digests of the manifests that refer to it, and of cosign's tags.
        time: when the source was found to stand for this digest.
    """

    source: str
    digest: Digest
    media_type: str
    size: int
    platforms: tuple[str, ...]
    attachments: tuple[Digest, ...]
    time: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "platforms", tuple(sorted(set(self.platforms))))
        object.__setattr__(self, "attachments", tuple(sorted(set(self.attachments))))
        object.__setattr__(self, "time", whole_seconds(self.time))


def whole_seconds(time: datetime) -> datetime:
    """Return a time as it is kept: UTC, without fractions.

    Raises:
        ValueError: it has no time zone: a programming error.
    """
    if time.tzinfo is None:
        raise ValueError("a time without a time zone")
    return time.astimezone(UTC).replace(microsecond=0)


def time_text(time: datetime) -> str:
    """Return a time as documents carry it: RFC 3339, UTC, whole seconds."""
    return whole_seconds(time).isoformat().replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Parse what `time_text` returns.

    Raises:
        InvalidReference: anything else, be it another spelling of RFC 3339.
    """
    try:
        if not _TIME.fullmatch(text):
            raise ValueError("another shape")
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidReference(f"not a time as 2026-01-31T02:00:00Z: {text[:100]!r}") from error
