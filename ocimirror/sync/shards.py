"""What a lock file says besides its records: which shard wrote it, and what prune may delete."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ocimirror.errors import InvalidReference, ShardsMissing, UsageError
from ocimirror.model.digest import Digest
from ocimirror.model.reference import Location, Reference

MAX_SHARDS = 9999
_RUN = re.compile(r"[A-Za-z0-9._:/@+-]{0,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of which configuration a lock file describes.

    Attributes:
        number: from 1.
        count: of how many; 1 of 1 is the whole.
        run: what tells the runs of all shards from those of another night; if it is empty, nothing
            does.
        configuration: the configuration's name; empty in files of earlier versions.
    """

    number: int = 1
    count: int = 1
    run: str = ""
    configuration: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.number <= self.count <= MAX_SHARDS:
            raise InvalidReference(f"not a shard: {self.number} of {self.count}")
        if not _RUN.fullmatch(self.run):
            raise InvalidReference(f"not the name of a run: {self.run[:300]!r}")

    def belongs_to(self, name: str, what: str) -> None:
        """Make sure that a lock file is the one of a configuration; an old one may be anybody's.

        Raises:
            UsageError: it is another configuration's.
        """
        if self.configuration not in ("", name):
            raise UsageError(
                f"{what} is the lock file of the configuration {self.configuration!r}, not of"
                f" {name!r}",
                advice="Give each configuration a --lock of its own; if it was only renamed, write"
                f" `name: {self.configuration}` into it.",
            )

    def __str__(self) -> str:
        return f"{self.number} of {self.count}" + (f" of run {self.run}" if self.run else "")


@dataclass(frozen=True, slots=True)
class Owned:
    """A target that this mirror made itself, so that prune may delete it some night.

    It is in the lock file because a repository may be another shard's in the next run.
    """

    target: Location
    source: Reference
    digest: Digest
    gone_since: datetime | None = None


def check_complete(shards: Sequence[tuple[str, Shard]], count: int | None) -> None:
    """Make sure that these are the lock files of all shards of one run.

    Args:
        shards: each lock file's name, and which shard it tells of.
        count: how many shards there are; None for what the files say.

    Raises:
        ShardsMissing: one is missing or there twice, they are of different runs or
            configurations, or one does not say of which run it is.
    """
    many = count if count is not None else max((shard.count for _, shard in shards), default=1)
    unknown = [name for name, shard in shards if not shard.run]
    if many > 1 and unknown:
        shown = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise ShardsMissing(
            f"which run wrote {shown} is not known: it may be that of another night",
            advice="Give all shards of one run the same --run ID, and each run another ID.",
        )
    for what, said in (
        ("configurations", {shard.configuration for _, shard in shards if shard.configuration}),
        ("runs", {shard.run for _, shard in shards}),
    ):
        if len(said) > 1:
            told = ", ".join(map(repr, sorted(said)[:5]))
            raise ShardsMissing(f"these are lock files of different {what}: {told}")
    counts = {shard.count for _, shard in shards} | ({count} if count else set())
    if count is None and counts == {1}:
        return  # (whole ones, as files of earlier versions are)
    if len(counts) > 1:
        told = ", ".join(f"{name} is {shard}" for name, shard in shards[:10])
        wanted = f" of {count}" if count else ""
        raise ShardsMissing(f"these are not the shards{wanted} of one run: {told}")
    total = counts.pop()
    numbers = [shard.number for _, shard in shards]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    missing = sorted(set(range(1, total + 1)) - set(numbers))
    for what, found in (("missing", missing), ("there twice", twice)):
        if found:
            shown = ", ".join(map(str, found[:10])) + (", …" if len(found) > 10 else "")
            raise ShardsMissing(
                f"of {total} shards {shown} {'is' if not found[1:] else 'are'} {what}"
            )
