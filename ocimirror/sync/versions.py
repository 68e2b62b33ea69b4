"""What a tag is as a version, and ranges of versions.

Tags are looser than semver.org allows, so what counts as a version is said here:

- `1.2.3`, `v1.2.3`, `1.2` (as 1.2.0) and `3` (as 3.0.0) are; `24.04` too, as 24.4.0.
- What follows a hyphen is a pre-release, as semver has it: `1.2.3-rc1`, and `1.2.3-alpine` too,
  since nothing in a tag tells one from the other. Precedence is semver's.
- What follows an underscore is build metadata (a tag has no `+`) and does not count.
- `latest`, `1.2.3.4`, `1.2rc1`, `1.x` and `alpine-3.19` are no versions.

A range takes pre-releases only where one of its versions names one: `^1.2` does not take
`1.2.3-alpine`, `^1.2-0` does. `<2` never takes `2.0.0-rc1`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ocimirror.errors import UsageError

_PRE = r"[0-9A-Za-z.-]+"
_TAG = re.compile(
    rf"[vV]?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?(?:-({_PRE}))?(?:_[0-9A-Za-z._-]*)?", re.ASCII
)
_WILD = "xX*"
_COMPARATOR = re.compile(
    r"\s*(>=|<=|>|<|=|\^|~)?\s*[vV]?([0-9]{1,30}|[xX*])"
    rf"(?:\.([0-9]{{1,30}}|[xX*]))?(?:\.([0-9]{{1,30}}|[xX*]))?(?:-({_PRE}))?(?=[\s,]|\Z),?",
    re.ASCII,
)
_HYPHEN = re.compile(r"\s*(\S+)\s+-\s+(\S+)\s*")
_MAX_COMPARATORS = 50


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version that sorts by semver's precedence.

    Attributes:
        release: false for a pre-release, which is older than the release of the same numbers.
        identifiers: of the pre-release; numbers sort by value and before words.
    """

    major: int
    minor: int = 0
    patch: int = 0
    release: bool = True
    identifiers: tuple[tuple[bool, int, str], ...] = ()

    @classmethod
    def of(cls, numbers: tuple[int, ...], pre: str = "") -> Version:
        """Return a version of one to three numbers; what is missing is 0."""
        major, minor, patch = (*numbers, 0, 0)[:3]
        return cls(major, minor, patch, not pre, _identifiers(pre) if pre else ())


def _identifiers(pre: str) -> tuple[tuple[bool, int, str], ...]:
    return tuple(
        (False, int(word), "") if word.isdigit() else (True, 0, word) for word in pre.split(".")
    )


def version_of(tag: str) -> Version | None:
    """Return a tag as a version, or None where it is none."""
    match = _TAG.fullmatch(tag)
    if match is None:
        return None
    numbers = tuple(int(number) for number in match.groups()[:3] if number is not None)
    return Version.of(numbers, match[4] or "")


@dataclass(frozen=True, slots=True)
class _Span:
    """From one version up to another; `ends` says which ends belong to it."""

    low: Version | None
    high: Version | None
    ends: tuple[bool, bool] = (True, False)

    def takes(self, version: Version) -> bool:
        if self.low is not None and (
            version < self.low or (version == self.low and not self.ends[0])
        ):
            return False
        return self.high is None or (version < self.high or (version == self.high and self.ends[1]))


@dataclass(frozen=True, slots=True)
class Range:
    """Alternatives, each of comparators that must all hold."""

    text: str
    _alternatives: tuple[tuple[bool, tuple[_Span, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Range:
        """Parse comparators `= > >= < <= ^ ~`, `1.2.x`, `1.2 - 1.4`, with spaces for and, `||`.

        Raises:
            UsageError: anything else.
        """
        return cls(text, tuple(_alternative(part, text) for part in text.split("||")))

    def takes(self, version: Version) -> bool:
        """Whether a version is in the range."""
        return any(
            (pre_releases or version.release) and all(span.takes(version) for span in spans)
            for pre_releases, spans in self._alternatives
        )


def _alternative(part: str, text: str) -> tuple[bool, tuple[_Span, ...]]:
    hyphen = _HYPHEN.fullmatch(part)
    if hyphen:
        part = f">={hyphen[1]} <={hyphen[2]}"
    spans: list[_Span] = []
    pre_releases = False
    position = 0
    part = part.strip()
    while position < len(part):
        match = _COMPARATOR.match(part, position)
        if match is None or len(spans) >= _MAX_COMPARATORS:
            raise _no_range(text, part[position:])
        spans.append(_span(match, text))
        pre_releases = pre_releases or match[5] is not None
        position = match.end()
    if not spans:
        raise _no_range(text, part)
    return pre_releases, tuple(spans)


def _no_range(text: str, rest: str) -> UsageError:
    what = f"{rest[:100]!r} in " if rest.strip() != text.strip() else ""
    return UsageError(
        f"not a range of versions: {what}{text[:300]!r}",
        advice="As: >=1.2 <2 || ^3, ~1.4, 1.2.x, 1.2 - 1.4; ^1.2-0 takes pre-releases too.",
    )


def _span(match: re.Match[str], text: str) -> _Span:
    """Return what one comparator takes, as npm and Cargo read it."""
    operator, pre = match[1] or "=", match[5] or ""
    numbers: list[int] = []
    for word in match.groups()[1:4]:
        if word is None or word in _WILD:
            break
        numbers.append(int(word))
    wild = any(word in _WILD for word in match.groups()[1:4] if word is not None)
    if pre and wild:
        raise _no_range(text, match[0])
    known = 3 if pre else len(numbers)
    low = Version.of(tuple(numbers), pre) if numbers else Version(0)
    if not numbers:
        return _Span(None, low, (True, False)) if operator in "<>" else _Span(None, None)
    after = _below(low, known) if known < 3 else None
    if operator == "^":
        return _Span(low, _below(low, _caret(low, len(numbers))))
    if operator == "~":
        return _Span(low, _below(low, min(len(numbers), 2)))
    if operator == "=":
        return _Span(low, after) if after else _Span(low, low, (True, True))
    if operator == ">":
        return _Span(_released(after), None) if after else _Span(low, None, (False, False))
    if operator == ">=":
        return _Span(low, None)
    if operator == "<":
        return _Span(None, low if pre else Version.of((low.major, low.minor, low.patch), "0"))
    return _Span(None, after) if after else _Span(None, low, (True, True))


def _caret(low: Version, known: int) -> int:
    """Return which number may not change: the first that is not 0, as far as any is known."""
    if low.major or known == 1:
        return 1
    return 2 if low.minor or known == 2 else 3


def _below(low: Version, kept: int) -> Version:
    """Return the least pre-release of the next version when so many numbers are kept."""
    numbers = [low.major, low.minor, low.patch][:kept]
    numbers[-1] += 1
    return Version.of(tuple(numbers), "0")


def _released(version: Version) -> Version:
    return Version(version.major, version.minor, version.patch)
