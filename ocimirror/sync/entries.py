"""The values that a configuration of a sync consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from ocimirror.errors import UsageError
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference
from ocimirror.sync.patterns import SourcePattern, Target

Order = Literal["semver", "created"]
Clock = Literal["created", "first_seen"]
Sparse = Literal["fail", "full", "child"]


@dataclass(frozen=True, slots=True)
class Newest:
    """Keep so many, the newest by version or by creation time."""

    count: int
    by: Order = "semver"


@dataclass(frozen=True, slots=True)
class Age:
    """An age, counted from an image's creation, or from when we first saw its digest."""

    age: timedelta
    by: Clock = "created"


class NamedTag(NamedTuple):
    """A tag that is asked for by name; with a digest, that is what is read, whatever it stands for.

    The tag is empty only where the source of the entry is a digest without a tag.
    """

    tag: str
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class TagRules:
    """Which tags of a repository are mirrored; `filters.select` applies it, in a fixed order.

    Attributes:
        explicit: exactly these, and then there are no other rules; the repository's tags need not
            be listed.
        include: globs, one of which must match; none is all.
        exclude: globs, none of which may match.
        regex: must match the whole tag; empty is all.
        semver: range of versions, as `>=1.2 <2 || ^3`; empty is all.
        min_age: younger images are left for later: a quarantine.
        max_age: older images are left out.
        newest: of what is left then.

    Raises:
        UsageError: a tag is named twice, or no image can be of such an age.
    """

    explicit: tuple[NamedTag, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    regex: str = ""
    semver: str = ""
    min_age: Age | None = None
    max_age: Age | None = None
    newest: Newest | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        seen: set[str] = set()
        for named in self.explicit:
            if named.tag in seen:
                raise UsageError(f"{named.tag} is in the list twice")
            seen.add(named.tag)
        least, most = self.min_age, self.max_age
        if least and most and least.by == most.by and least.age > most.age:
            raise UsageError("no image is older than min_age and younger than max_age")


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete at the destination what the source has no more and this mirror made.

    Attributes:
        max_delete: so many images a run at most; where more would go, none does.
        grace: how long an image must have been gone from the source.
    """

    max_delete: int = 10
    grace: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """How one registry is reached.

    Attributes:
        plain_http: without TLS.
        ca_file: PEM certificates that are trusted for it too.
        mirrors: what is asked first when it is read, in this order; each has all its
            repositories below a prefix.
        max_concurrency: requests under way at the same time, at most.
        requests_per_second: at most; None is no limit.
        auth_file: credentials for it, as `docker login` or `podman login` writes them.
        username: with the password, believed before any file.
    """

    plain_http: bool = False
    ca_file: Path | None = None
    mirrors: tuple[SourcePattern, ...] = ()
    max_concurrency: int | None = None
    requests_per_second: float | None = None
    auth_file: Path | None = None
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """One entry: what is read, what of it, and where it goes.

    Attributes:
        source: one repository, or all below a prefix.
        targets: at least one; each gets every image.
        platforms: only these; none is all.
        sparse: what to do where a registry refuses an index without its other platforms.
        referrers: signatures, SBOMs and attestations come along.
        priority: entries with a higher one are copied first.
        prune: None: nothing is ever deleted.
        where: `FILE:LINE` of the entry, for people.
    """

    source: SourcePattern
    targets: tuple[Target, ...]
    tags: TagRules
    platforms: tuple[Platform, ...]
    sparse: Sparse
    referrers: bool
    priority: int
    prune: Prune | None
    where: str


@dataclass(frozen=True, slots=True)
class Config:
    """What a sync is told.

    Attributes:
        mirrors: the entries in the order of the files, those of an included file first.
        registries: settings by canonical host, `docker.io` or `host:port`.
        files: paths of all files that were read, the first one first.
        name: what its state and lock file belong to.
    """

    mirrors: tuple[Mirror, ...]
    registries: Mapping[str, RegistrySettings]
    files: tuple[str, ...]
    name: str = ""

    def mirrors_from(self, source: Reference) -> bool:
        """Whether an entry may read a source."""
        return any(mirror.source.matches(source) for mirror in self.mirrors)
