"""The words of a configuration file: every key, what it may hold, and what holds without it."""

from __future__ import annotations

import os.path
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

from ocimirror.errors import UsageError
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.model.readable import SPAN_ADVICE, SPAN_PATTERN, seconds_of
from ocimirror.model.reference import check_registry, check_repository, is_tag
from ocimirror.sync.entries import (
    Age,
    Clock,
    NamedTag,
    Newest,
    Order,
    Prune,
    RegistrySettings,
    Sparse,
    TagRules,
)
from ocimirror.sync.fields import Fields, Key, MappingOf, Record
from ocimirror.sync.filters import MAX_REGEX, parse_regex
from ocimirror.sync.patterns import SourcePattern, Target
from ocimirror.sync.shapes import Choice, Either, Flag, ListOf, Made, Number, Shape, Text
from ocimirror.sync.versions import Range

_MAX_SPAN = timedelta(days=100 * 365)


def span(text: str, _: str = "") -> timedelta:
    """Parse a time span: 90s, 1h30m, 7d, 2w; a century at the most."""
    try:
        return min(timedelta(seconds=seconds_of(text)), _MAX_SPAN)
    except ValueError as error:
        raise UsageError(str(error), advice=SPAN_ADVICE) from error


def _named_tag(text: str, _: str) -> NamedTag:
    tag, has_digest, digest = text.partition("@")
    if not is_tag(tag):
        raise UsageError(f"not a tag: {text[:300]!r}", advice="Write TAG or TAG@DIGEST.")
    return NamedTag(tag, Digest.parse(digest) if has_digest else None)


def _mirror(text: str, _: str) -> str:
    host, slash, prefix = text.partition("/")
    return check_registry(host) + (f"/{check_repository(prefix)}" if slash else "")


def _path(text: str, directory: str) -> Path | None:
    return Path(os.path.join(directory, _file(text, directory)))


def _file(text: str, _: str) -> str:
    if "\0" in text:
        raise UsageError("a path has no zero byte")
    return text


def _name(text: str, _: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise UsageError("a name is printable text without spaces around it")
    return text


def _as_is(text: str, _: str) -> str:
    return text


def _regex(text: str, _: str) -> str:
    return parse_regex(text).pattern


def _versions(text: str, _: str) -> str:
    return Range.parse(text).text


def _keys(*keys: Key[Any]) -> tuple[Key[object], ...]:
    return cast("tuple[Key[object], ...]", keys)


# --- tags ---------------------------------------------------------------------------------------

_GLOBS = ListOf(Text("a glob", _as_is, longest=128))
_SPAN_TEXT = Text("a time span, as 7d", span, pattern=SPAN_PATTERN)

INCLUDE = Key("include", _GLOBS, (), "Globs, one of which must match the tag; without: all tags.")
EXCLUDE = Key("exclude", _GLOBS, (), "Globs, none of which may match the tag.")
REGEX = Key(
    "regex",
    Text("a regular expression", _regex, longest=MAX_REGEX),
    "",
    "Regular expression (Python's) that must match the whole tag.",
)
SEMVER = Key(
    "semver",
    Text("a range of versions", _versions, longest=256),
    "",
    "Range of versions, as >=1.2 <2 || ^3.",
)

_COUNT = Key("count", Number(int, 1, 100_000), 0, "How many.")
_BY_ORDER = Key("by", Choice("semver", "created"), "semver", "Newest by version, or by creation.")
_NEWEST: Shape[Newest | None] = Either(
    Record(
        "newest",
        _keys(_COUNT, _BY_ORDER),
        lambda fields: Newest(fields[_COUNT], cast("Order", fields[_BY_ORDER])),
        required="count",
    ),
    Made(Number(int, 1, 100_000), Newest),
)
NEWEST = Key("newest", _NEWEST, None, "Keep only so many, the newest.")

_SPAN_KEY = Key("age", _SPAN_TEXT, timedelta(0), "How old.")
_BY_CLOCK = Key(
    "by",
    Choice("created", "first_seen"),
    "created",
    "Counted from the image's creation, or from when ocimirror first saw its digest.",
)


def _age(wanted: str) -> Shape[Age | None]:
    return Either(
        Record(
            wanted,
            _keys(_SPAN_KEY, _BY_CLOCK),
            lambda fields: Age(fields[_SPAN_KEY], cast("Clock", fields[_BY_CLOCK])),
            required="age",
        ),
        Made(_SPAN_TEXT, Age),
    )


MIN_AGE = Key("min_age", _age("min_age"), None, "Leave younger images for a later run.")
MAX_AGE = Key("max_age", _age("max_age"), None, "Leave out older images.")


def _rules(fields: Fields) -> TagRules:
    least, most = fields[MIN_AGE], fields[MAX_AGE]
    if least and most and least.by == most.by and least.span > most.span:
        raise UsageError("no image is older than min_age and younger than max_age")
    return TagRules(
        include=fields[INCLUDE],
        exclude=fields[EXCLUDE],
        regex=fields[REGEX],
        semver=fields[SEMVER],
        min_age=least,
        max_age=most,
        newest=fields[NEWEST],
    )


def _explicit(tags: tuple[NamedTag, ...]) -> TagRules:
    seen: set[str] = set()
    for named in tags:
        if named.tag in seen:
            raise UsageError(f"{named.tag} is in the list twice")
        seen.add(named.tag)
    return TagRules(explicit=tags)


_TAGS: Shape[TagRules] = Either(
    Made(ListOf(Text("a tag", _named_tag, longest=300)), _explicit),
    Record(
        "tags",
        _keys(INCLUDE, EXCLUDE, REGEX, SEMVER, MIN_AGE, MAX_AGE, NEWEST),
        _rules,
        elsewhere={"allow": "It is called include.", "deny": "It is called exclude."},
    ),
    wanted="a list of tags, or a mapping of rules",
)

# --- entries ------------------------------------------------------------------------------------

_TARGET = Text("a destination", Target.parse)
_ONE_TARGET: Shape[tuple[Target, ...]] = Made(_TARGET, lambda target: (target,))
_PLATFORM = Text("a platform", lambda text, _: Platform.parse(text), pattern=r"^[^/]+/[^/]+")
_ALL_PLATFORMS: Shape[tuple[Platform, ...]] = Made(
    Choice("all", wanted="a list of platforms, or all,", hint="Write it as [linux/amd64]."),
    lambda _: (),
)

_MAX_DELETE = Key(
    "max_delete", Number(int, 1, 1_000_000), 10, "Where more would be deleted, nothing is."
)
_GRACE = Key(
    "grace", _SPAN_TEXT, timedelta(days=7), "How long an image must be gone from the source."
)
_PRUNE: Shape[Prune | None] = Either(
    Made(Flag(), lambda wanted: Prune() if wanted else None),
    Record(
        "prune",
        _keys(_MAX_DELETE, _GRACE),
        lambda fields: Prune(fields[_MAX_DELETE], fields[_GRACE]),
    ),
    wanted="true, false, or a mapping",
)

FROM: Key[SourcePattern | None] = Key(
    "from",
    Text("a repository", lambda text, _: SourcePattern.parse(text)),
    None,
    "Repository, one image of it, or HOST/PREFIX/*.",
)
TO: Key[tuple[Target, ...]] = Key(
    "to",
    Either(ListOf(_TARGET), _ONE_TARGET, wanted="a destination, or a list of them"),
    (),
    "Where it goes: HOST/REPOSITORY or oci:DIRECTORY, with {registry} {repository} {tag}.",
)
TAGS: Key[TagRules] = Key("tags", _TAGS, TagRules(), "Which tags: a list, or rules.")
PLATFORMS: Key[tuple[Platform, ...]] = Key(
    "platforms",
    Either(ListOf(_PLATFORM), _ALL_PLATFORMS, wanted="all, or a list of platforms"),
    (),
    "Only these, as linux/arm64; the index keeps its bytes.",
)
SPARSE = Key(
    "sparse",
    Choice("fail", "full", "child"),
    "fail",
    "Where a registry refuses an index without its other platforms.",
)
REFERRERS = Key("referrers", Flag(), True, "Carry signatures, SBOMs and attestations.")
PRIORITY = Key("priority", Number(int, -1000, 1000), 0, "Entries with a higher one go first.")
PRUNE: Key[Prune | None] = Key(
    "prune", _PRUNE, None, "Delete at the destination what is gone from the source."
)
_ENTRY_KEYS = (TO, TAGS, PLATFORMS, SPARSE, REFERRERS, PRIORITY, PRUNE)

ENTRY = Record(
    "an entry of mirrors",
    _keys(FROM, *_ENTRY_KEYS),
    lambda fields: fields,
    lenient=True,
    required="from",
    elsewhere={
        "source": "It is called from.",
        "target": "It is called to.",
        "destination": "It is called to.",
        "<<": "What entries share can stand once at the top level.",
        "type": "A source with a tag is one image, without one a repository.",
    },
)


def sparse(fields: Fields) -> Sparse:
    """Return the word for it; Choice took no other."""
    return cast("Sparse", fields[SPARSE])


# --- registries ---------------------------------------------------------------------------------


class _Auth(NamedTuple):
    file: Path | None = None
    username: str = ""
    password: str = ""


_PATH: Shape[Path | None] = Text("a path", _path, longest=4096)
_AUTH_FILE: Key[Path | None] = Key("file", _PATH, None, "As docker or podman login writes it.")
_USERNAME = Key("username", Text("a user name", _as_is), "", "Who we are.")
_PASSWORD = Key(
    "password",
    Text("a password", _as_is, longest=64 * 1024, secret=True),
    "",
    "From the environment, as ${PASSWORD}.",
)


def _auth(fields: Fields) -> _Auth:
    named = bool(fields[_USERNAME]), bool(fields[_PASSWORD])
    if any(named) == bool(fields[_AUTH_FILE]) or named[0] != named[1]:
        raise UsageError("auth is a file, or username and password")
    return _Auth(fields[_AUTH_FILE], fields[_USERNAME], fields[_PASSWORD])


PLAIN_HTTP = Key("plain_http", Flag(), False, "Reach it without TLS.")
CA_FILE: Key[Path | None] = Key("ca_file", _PATH, None, "Trust these PEM certificates for it too.")
MIRRORS_OF = Key(
    "mirrors",
    ListOf(Text("HOST[:PORT][/PREFIX]", _mirror)),
    (),
    "Ask these first where it is read.",
)
MAX_CONCURRENCY: Key[int | None] = Key(
    "max_concurrency", Number(int, 1, 64), None, "Requests under way at the same time, at most."
)
REQUESTS_PER_SECOND: Key[float | None] = Key(
    "requests_per_second", Number(float, 0.001, 100_000), None, "Requests a second, at most."
)
AUTH = Key(
    "auth",
    Record("auth", _keys(_AUTH_FILE, _USERNAME, _PASSWORD), _auth, secret=True),
    _Auth(),
    "Credentials: a file, or username and password.",
)


def _registry(fields: Fields) -> RegistrySettings:
    auth = fields[AUTH]
    return RegistrySettings(
        plain_http=fields[PLAIN_HTTP],
        ca_file=fields[CA_FILE],
        mirrors=fields[MIRRORS_OF],
        max_concurrency=fields[MAX_CONCURRENCY],
        requests_per_second=fields[REQUESTS_PER_SECOND],
        auth_file=auth.file,
        username=auth.username,
        password=auth.password,
    )


_REGISTRY = Record(
    "a registry's settings",
    _keys(PLAIN_HTTP, CA_FILE, MIRRORS_OF, MAX_CONCURRENCY, REQUESTS_PER_SECOND, AUTH),
    _registry,
    elsewhere={
        "insecure": "There is plain_http, or ca_file with the certificate to trust.",
        "auth_file": "Write auth: {file: FILE}.",
    },
)

# --- the file -----------------------------------------------------------------------------------

_INCLUDED = Text("a file", _file, longest=4096)
NAME: Key[str] = Key(
    "name",
    Text("a name", _name, longest=255),
    "",
    "What its state and lock file belong to; without: the file's name without its ending.",
)
FILES: Key[tuple[str, ...]] = Key(
    "include",
    Either(
        ListOf(_INCLUDED),
        Made(_INCLUDED, lambda name: (name,)),
        wanted="a file, or a list of files",
    ),
    (),
    "Files that are read first, relative to this one.",
)
REGISTRIES = Key(
    "registries",
    MappingOf(check_registry, _REGISTRY, "a mapping of hosts"),
    {},
    "How registries are reached, by host.",
)
MIRRORS = Key("mirrors", ListOf(ENTRY), (), "What is mirrored, and where to.")

FILE = Record(
    "a configuration",
    _keys(NAME, FILES, REGISTRIES, MIRRORS, *_ENTRY_KEYS),
    lambda fields: fields,
    lenient=True,
    elsewhere={
        "defaults": "Write the defaults at the top level itself, beside mirrors.",
        "sync": "Is this a regsync file? `ocimirror config import` translates it.",
        "creds": "Is this a regsync file? `ocimirror config import` translates it.",
    },
)
