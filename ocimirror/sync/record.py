"""One image as its source offered it: what lock files, state and reports agree on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ocimirror.model.codec import whole_seconds
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Reference


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One source reference and what it stood for.

    Platforms and attachments are kept sorted and unique, and the time in whole seconds of UTC, so
    that equal records are written as equal bytes.

    Attributes:
        source: with a tag, or a digest.
        digest: what it stood for.
        media_type: of the manifest with that digest.
        size: bytes of the whole image, as far as it was asked for.
        platforms: what was asked for; empty for everything.
        attachments: digests of the manifests that refer to it, and of cosign's tags.
        time: when the source was found to stand for this digest.
    """

    source: Reference
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
