"""The words of a configuration file: every key, and what it may hold.

What holds where a key is absent is a default of the value that is made, see `entries`.
"""

from __future__ import annotations

import os.path
from datetime import timedelta
from pathlib import Path

from ocimirror.errors import UsageError
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.model.readable import SPAN_ADVICE, SPAN_PATTERN, seconds_of
from ocimirror.model.reference import check_registry, check_repository, is_tag
from ocimirror.sync.entries import Age, NamedTag, Newest, Prune, RegistrySettings, TagRules
from ocimirror.sync.fields import Key, MappingOf, Record
from ocimirror.sync.filters import MAX_REGEX, parse_regex
from ocimirror.sync.patterns import SourcePattern, Target
from ocimirror.sync.shapes import Choice, Either, Flag, ListOf, Number, Relative, Shape, Text
from ocimirror.sync.versions import Range

_MAX_SPAN = timedelta(days=100 * 365)


def span(text: str) -> timedelta:
    """Parse a time span: 90s, 1h30m, 7d, 2w; a century at the most."""
    try:
        return min(timedelta(seconds=seconds_of(text)), _MAX_SPAN)
    except ValueError as error:
        raise UsageError(str(error), advice=SPAN_ADVICE) from error


def _named_tag(text: str) -> NamedTag:
    tag, has_digest, digest = text.partition("@")
    if not is_tag(tag):
        raise UsageError(f"not a tag: {text[:300]!r}", advice="Write TAG or TAG@DIGEST.")
    return NamedTag(tag, Digest.parse(digest) if has_digest else None)


def _mirror(text: str) -> SourcePattern:
    host, slash, prefix = text.partition("/")
    below = check_repository(prefix) if slash else ""
    return SourcePattern(check_registry(host), below, wildcard=True)


def _file(text: str) -> str:
    if "\0" in text:
        raise UsageError("a path has no zero byte")
    return text


def _path(text: str, directory: str) -> Path:
    return Path(os.path.join(directory, _file(text)))


def _name(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise UsageError("a name is printable text without spaces around it")
    return text


# --- tags ---------------------------------------------------------------------------------------

_GLOBS = ListOf(Text("a glob", str, longest=128))
_SPAN = Text("a time span, as 7d", span, pattern=SPAN_PATTERN)
_REGEX = Text("a regular expression", lambda text: parse_regex(text).pattern, longest=MAX_REGEX)
_VERSIONS = Text("a range of versions", lambda text: Range.parse(text).text, longest=256)
_COUNT = Number(int, 1, 100_000)

_NEWEST: Shape[Newest] = Either(
    Record(
        "newest",
        {
            "count": Key(_COUNT, "How many."),
            "by": Key(Choice("semver", "created"), "Newest by version, or by creation."),
        },
        required="count",
    ).whole(Newest),
    _COUNT.made(Newest),
)


def _age(wanted: str) -> Shape[Age]:
    clock = "Counted from the image's creation, or from when ocimirror first saw its digest."
    return Either(
        Record(
            wanted,
            {
                "age": Key(_SPAN, "How old."),
                "by": Key(Choice("created", "first_seen"), clock),
            },
            required="age",
        ).whole(Age),
        _SPAN.made(Age),
    )


_TAGS: Shape[TagRules] = Either(
    ListOf(Text("a tag", _named_tag, longest=300)).made(TagRules),
    Record(
        "tags",
        {
            "include": Key(_GLOBS, "Globs, one of which must match the tag; without: all tags."),
            "exclude": Key(_GLOBS, "Globs, none of which may match the tag."),
            "regex": Key(_REGEX, "Regular expression (Python's) that must match the whole tag."),
            "semver": Key(_VERSIONS, "Range of versions, as >=1.2 <2 || ^3."),
            "min_age": Key(_age("min_age"), "Leave younger images for a later run."),
            "max_age": Key(_age("max_age"), "Leave out older images."),
            "newest": Key(_NEWEST, "Keep only so many, the newest."),
        },
        elsewhere={"allow": "It is called include.", "deny": "It is called exclude."},
    ).whole(TagRules),
    wanted="a list of tags, or a mapping of rules",
)

# --- entries ------------------------------------------------------------------------------------

_SOURCE = Text("a repository", SourcePattern.parse)
_TARGETS = ListOf(Relative("a destination", Target.parse), alone="a destination, or a list of them")
_PLATFORMS: Shape[tuple[Platform, ...]] = Either(
    ListOf(Text("a platform", Platform.parse, pattern=r"^[^/]+/[^/]+")),
    Choice("all", wanted="a list of platforms, or all,", hint="Write it as [linux/amd64].").made(
        lambda _: ()
    ),
    wanted="all, or a list of platforms",
)
_PRUNE: Shape[Prune | None] = Either(
    Flag().made(lambda wanted: Prune() if wanted else None),
    Record(
        "prune",
        {
            "max_delete": Key(
                Number(int, 1, 1_000_000), "Where more would be deleted, nothing is."
            ),
            "grace": Key(_SPAN, "How long an image must be gone from the source."),
        },
    ).whole(Prune),
    wanted="true, false, or a mapping",
)

_DEFAULTS = {
    "to": Key(
        _TARGETS,
        "Where it goes: HOST/REPOSITORY or oci:DIRECTORY, with {registry} {repository} {tag}.",
    ),
    "tags": Key(_TAGS, "Which tags: a list, or rules."),
    "platforms": Key(_PLATFORMS, "Only these, as linux/arm64; the index keeps its bytes."),
    "sparse": Key(
        Choice("fail", "full", "child"),
        "Where a registry refuses an index without its other platforms.",
    ),
    "referrers": Key(Flag(), "Carry signatures, SBOMs and attestations."),
    "priority": Key(Number(int, -1000, 1000), "Entries with a higher one go first."),
    "prune": Key(_PRUNE, "Delete at the destination what is gone from the source."),
}
_ENTRY = Record(
    "an entry of mirrors",
    {"from": Key(_SOURCE, "Repository, one image of it, or HOST/PREFIX/*."), **_DEFAULTS},
    required="from",
    elsewhere={
        "source": "It is called from.",
        "target": "It is called to.",
        "destination": "It is called to.",
        "<<": "What entries share can stand once at the top level.",
        "type": "A source with a tag is one image, without one a repository.",
    },
)

# --- registries ---------------------------------------------------------------------------------


def _auth(
    *, file: Path | None = None, username: str = "", password: str = ""
) -> dict[str, Path | str | None]:
    """Return it as `RegistrySettings` has it."""
    if bool(username) != bool(password) or bool(username) == bool(file):
        raise UsageError("auth is a file, or username and password")
    return {"auth_file": file, "username": username, "password": password}


_PATH = Relative("a path", _path, longest=4096)
_PASSWORD = Text("a password", str, longest=64 * 1024, secret=True)
_AUTH = Record(
    "auth",
    {
        "file": Key(_PATH, "As docker or podman login writes it."),
        "username": Key(Text("a user name", str), "Who we are."),
        "password": Key(_PASSWORD, "From the environment, as ${PASSWORD}."),
    },
    secret=True,
).whole(_auth)
_REGISTRY = Record(
    "a registry's settings",
    {
        "plain_http": Key(Flag(), "Reach it without TLS."),
        "ca_file": Key(_PATH, "Trust these PEM certificates for it too."),
        "mirrors": Key(
            ListOf(Text("HOST[:PORT][/PREFIX]", _mirror)), "Ask these first where it is read."
        ),
        "max_concurrency": Key(Number(int, 1, 64), "Requests under way at the same time, at most."),
        "requests_per_second": Key(Number(float, 0.001, 100_000), "Requests a second, at most."),
        "auth": Key(_AUTH, "Credentials: a file, or username and password."),
    },
    elsewhere={
        "insecure": "There is plain_http, or ca_file with the certificate to trust.",
        "auth_file": "Write auth: {file: FILE}.",
    },
).whole(lambda auth=None, **settings: RegistrySettings(**settings, **(auth or {})))

# --- the file -----------------------------------------------------------------------------------

FILE = Record(
    "a configuration",
    {
        "name": Key(
            Text("a name", _name, longest=255),
            "What its state and lock file belong to; without: the file's name without its ending.",
        ),
        "include": Key(
            ListOf(Text("a file", _file, longest=4096), alone="a file, or a list of files"),
            "Files that are read first, relative to this one.",
        ),
        "registries": Key(
            MappingOf(check_registry, _REGISTRY, "a mapping of hosts"),
            "How registries are reached, by host.",
        ),
        "mirrors": Key(ListOf(_ENTRY), "What is mirrored, and where to."),
        **_DEFAULTS,
    },
    elsewhere={
        "defaults": "Write the defaults at the top level itself, beside mirrors.",
        "sync": "Is this a regsync file? `ocimirror config import` translates it.",
        "creds": "Is this a regsync file? `ocimirror config import` translates it.",
    },
)
