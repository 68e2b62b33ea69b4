"""Which tags of a repository are mirrored, and of each other one, which rule left it out.

The order is fixed, and each rule sees only what the ones before it left:

1. `include`, then `exclude`: globs.
2. Attachment tags (`sha256-…`, cosign's `.sig`, `.att`, `.sbom`) are no images: they come along
   with theirs.
3. `regex`, matched against the whole tag.
4. `semver`: what is no version is left out.
5. `min_age`, then `max_age`: the creation time is read only of tags that got here, and only here.
6. `newest`: of what is left.

Tags that are named one by one (`TagRules.explicit`) are not listed, and do not come here.

A regular expression has at most 256 characters, a tag at most 128, and matching them an end: see
`matching`.
"""

from __future__ import annotations

import fnmatch
import re
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from ocimirror.errors import UsageError
from ocimirror.model.readable import span
from ocimirror.model.reference import is_attachment_tag
from ocimirror.sync.entries import Age, Newest, TagRules
from ocimirror.sync.matching import NEVER, end_if, matching
from ocimirror.sync.versions import Range, Version, version_of

MAX_REGEX = 256
Times = Callable[[str], datetime | None]


class Dropped(NamedTuple):
    """A tag that is not mirrored: the key of the rule that left it out, and why."""

    tag: str
    filter: str
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What became of every tag; both sorted by tag, each tag in one of them."""

    kept: tuple[str, ...]
    dropped: tuple[Dropped, ...]


def parse_regex(text: str) -> re.Pattern[str]:
    """Compile a `regex` rule. Not for several threads at once.

    Raises:
        UsageError: too long, none, or one that Python warns of: it will mean something else.
    """
    if len(text) > MAX_REGEX:
        raise UsageError(f"a regular expression has at most {MAX_REGEX} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(text, re.ASCII)
    except (re.error, Warning, OverflowError, RecursionError) as error:
        raise UsageError(f"not a regular expression: {error}: {text!r}") from error


def select(
    tags: Iterable[str],
    rules: TagRules,
    *,
    now: datetime,
    created: Times,
    first_seen: Times,
    stop: threading.Event = NEVER,
) -> Selection:
    """Sort tags into those that are mirrored and those that are not.

    The order of the tags does not matter, nor does a tag that is there twice.

    Args:
        tags: as a store lists them, so that each is a tag.
        rules: as they were parsed, so that regular expression and range are valid, without a list.
        now: aware; ages are counted to it.
        created: when the image was created, aware; asked at most once a tag, for what the rules
            before left, and only where a rule needs it. None: its config does not say. What it
            raises ends the selection.
        first_seen: when we first saw what the tag stands for, which may be now; None: what it
            stands for cannot be read.
        stop: once set, the selection ends, between two tags.

    Raises:
        Unsupported: the regular expression does not come to an end.
        Interrupted: `stop` was set.
    """
    chosen = _Chosen(tags, created, first_seen, stop)
    if rules.include:
        included = _globs(rules.include)
        chosen.keep("include", lambda tag: "" if included(tag) else "matches none of the globs")
    if rules.exclude:
        excluded = _globs(rules.exclude)
        chosen.keep("exclude", lambda tag: f"matches {excluded(tag)}" if excluded(tag) else "")
    chosen.keep("attachment", lambda tag: "goes with its image" if is_attachment_tag(tag) else "")
    if rules.regex:
        matched = matching(rules.regex, chosen.left, stop=stop)
        chosen.keep("regex", lambda tag: "" if tag in matched else "does not match")
    if rules.semver:
        versions = Range.parse(rules.semver)
        chosen.keep("semver", lambda tag: _outside(versions, tag))
    if rules.min_age:
        least = rules.min_age
        chosen.keep("min_age", lambda tag: chosen.younger(tag, least, now))
    if rules.max_age:
        most = rules.max_age
        chosen.keep("max_age", lambda tag: chosen.older(tag, most, now))
    if rules.newest:
        chosen.keep_newest(rules.newest)
    return chosen.selection()


class _Chosen:
    """The tags that are left, and those that are not; times are asked for once."""

    def __init__(
        self, tags: Iterable[str], created: Times, first_seen: Times, stop: threading.Event
    ) -> None:
        self.left = sorted(set(tags))
        self._stop = stop
        self._dropped: list[Dropped] = []
        self._clocks = {"created": created, "first_seen": first_seen}
        self._times: dict[tuple[str, str], datetime | None] = {}

    def selection(self) -> Selection:
        return Selection(tuple(self.left), tuple(sorted(self._dropped)))

    def keep(self, name: str, reason: Callable[[str], str]) -> None:
        """Drop the tags for which there is a reason."""
        left = []
        for tag in self.left:
            end_if(self._stop)
            why = reason(tag)
            if why:
                self._dropped.append(Dropped(tag, name, why))
            else:
                left.append(tag)
        self.left = left

    def time(self, tag: str, clock: str) -> datetime | None:
        if (clock, tag) not in self._times:
            self._times[clock, tag] = self._clocks[clock](tag)
        return self._times[clock, tag]

    def younger(self, tag: str, least: Age, now: datetime) -> str:
        """Return why a tag is too young; a quarantine lets nothing pass whose age is unknown."""
        time = self.time(tag, least.by)
        if time is None:
            return _NO_TIME
        if now - time >= least.age:
            return ""
        return f"{_since(least.by)} {_shown(time)}, less than {_length(least)} ago"

    def older(self, tag: str, most: Age, now: datetime) -> str:
        time = self.time(tag, most.by)
        if time is None:
            return "" if most.by == "first_seen" else _NO_TIME
        if now - time <= most.age:
            return ""
        return f"{_since(most.by)} {_shown(time)}, more than {_length(most)} ago"

    def keep_newest(self, newest: Newest) -> None:
        """Keep so many; of equal ones the longer tag, as it says more, then by the alphabet."""
        order: dict[str, Version | datetime] = {}
        for tag in self.left:
            place = version_of(tag) if newest.by == "semver" else self.time(tag, "created")
            if place is not None:
                order[tag] = place
        why = "not a version" if newest.by == "semver" else _NO_TIME
        self.keep("newest", lambda tag: "" if tag in order else why)
        ranked = sorted(order, key=lambda tag: (order[tag], len(tag), tag), reverse=True)
        best = set(ranked[: newest.count])
        self.keep(
            "newest", lambda tag: "" if tag in best else f"not among the newest {newest.count}"
        )


_NO_TIME = "its config does not say when it was created"


def _length(age: Age) -> str:
    return span(age.age.total_seconds())


def _since(clock: str) -> str:
    return "created" if clock == "created" else "first seen"


def _shown(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")


def _globs(globs: tuple[str, ...]) -> Callable[[str], str]:
    """Return what finds the first glob that a tag matches, or nothing."""
    patterns = [(glob, re.compile(fnmatch.translate(glob))) for glob in globs]
    return lambda tag: next((glob for glob, p in patterns if p.match(tag)), "")


def _outside(versions: Range, tag: str) -> str:
    version = version_of(tag)
    if version is None:
        return "not a version"
    if versions.takes(version):
        return ""
    pre = "" if version.release else " (what follows the hyphen makes it a pre-release)"
    return f"not in {versions.text}{pre}"
