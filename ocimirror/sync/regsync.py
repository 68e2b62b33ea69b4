"""The file of regsync (regclient), into a draft."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ocimirror.errors import UsageError
from ocimirror.model.reference import Reference
from ocimirror.sync.drafts import (
    Draft,
    Note,
    Values,
    items,
    literal,
    pairs,
    text_of,
    texts,
    whole,
)
from ocimirror.sync.re2 import python_regex
from ocimirror.sync.yamlfile import Node

_ENV = re.compile(r'\{\{-?\s*env\s+"([A-Za-z_][A-Za-z0-9_]*)"\s*-?\}\}', re.ASCII)
# What is no longer needed, or lives elsewhere here.
_ELSEWHERE = {
    "schedule": "when it runs is the timer's or cron's to say",
    "interval": "when it runs is the timer's or cron's to say",
    "parallel": "it is the option --jobs",
    "ratelimit": "a registry's limit is waited for without it",
    "fastCheck": "what is unchanged is always found out with one request",
    "forceRecursive": "it is the option --deep",
    "includeExternal": "it is the option --allow-foreign",
    "skipDockerConfig": "credentials are those of the registry's auth, or of the files",
    "backup": "nothing is kept of what a tag stood for before",
    "hooks": "nothing is run",
    "mediaTypes": "all media types are mirrored",
    "referrerFilters": "all attachments are mirrored",
    "referrerSource": "attachments are taken from where the image is",
    "referrerTarget": "attachments go where the image goes",
    "referrerSlow": "attachments are always found",
}
_SAID = ("digestTags", "referrers")
_TAG_KEYS = ("allow", "deny", "semverRange")
_COMPARATOR = re.compile(r"((?:>=|<=|>|<|=|\^|~)?v?)([0-9]+(?:\.[0-9]+){0,2})(-0)?", re.ASCII)
# (What is a version to us, and not to regsync: V1.2, and 1.2.3_4.)
_VERSION = r"v?[0-9]+(\.[0-9]+){0,2}(-[0-9A-Za-z._-]+)?"
_PRE_RELEASES = "Pre-releases count as with regsync; but <2 has no 2.0.0-rc1, and 1.2.3.4 is none."
# (Expressions for repositories that can be said here: one by name, or all below a prefix.)
_REPOSITORIES = re.compile(r"((?:[a-z0-9_-]+/)*)(\.\*)|([a-z0-9_-]+(?:/[a-z0-9_-]+)*)", re.ASCII)


def translate(top: Mapping[str, Node], draft: Draft) -> None:
    """Fill a draft from a file's top level."""
    draft.head += [
        "Translated from a file of regsync.",
        "Attachments come along where the file does not say `referrers: false`.",
    ]
    for key, node in top.items():
        if key not in ("version", "creds", "defaults", "sync") and not key.startswith("x-"):
            draft.note(node, f"{key} is not known")
    creds = [pairs(node) for node in items(top.get("creds"))]
    mirrors = {name for fields in creds for name in texts(fields.get("mirrors"))}
    prefixes = {
        text_of(fields.get("registry")): text_of(fields.get("pathPrefix"))
        for fields in creds
        if text_of(fields.get("registry")) in mirrors
    }
    for node in items(top.get("creds")):
        _registry(node, draft, prefixes)
    defaults = pairs(top.get("defaults"))
    _remark(defaults, draft, _SAID)
    for node in items(top.get("sync")):
        _step(
            node, {**{key: defaults[key] for key in _SAID if key in defaults}, **pairs(node)}, draft
        )


def _remark(fields: Mapping[str, Node], draft: Draft, known: tuple[str, ...]) -> None:
    for key, node in fields.items():
        if key not in known:
            draft.note(node, f"{key}: {_ELSEWHERE.get(key, 'there is nothing like it')}")


def _filled(text: str) -> str:
    """Return a template as our own; what only Go's templates can say stays and is refused."""
    return "".join(
        f"${{{part}}}" if number % 2 else literal(part)
        for number, part in enumerate(_ENV.split(text))
    )


# --- registries ---------------------------------------------------------------------------------


def _registry(node: Node, draft: Draft, prefixes: Mapping[str, str]) -> None:
    fields = pairs(node)
    host = text_of(fields.get("registry"))
    known = ["registry", "user", "pass", "tls", "mirrors", "reqPerSec", "reqConcurrent"]
    settings: Values = {}
    if "user" in fields or "pass" in fields:
        user, password = (_filled(text_of(fields.get(name))) for name in ("user", "pass"))
        if "{{" in user + password:
            draft.note(node, f"credentials of {host}: only env is known of Go's templates")
        else:
            settings["auth"] = {"username": user, "password": password}
    tls = text_of(fields.get("tls")).lower()
    if tls == "disabled":
        settings["plain_http"] = True
    elif tls == "insecure":
        text = "tls: insecure: certificates are always verified; give ca_file the one to trust"
        draft.note(fields["tls"], text)
    if "mirrors" in fields:
        names = texts(fields["mirrors"])
        settings["mirrors"] = [
            f"{name}/{prefixes[name]}" if prefixes.get(name) else name for name in names
        ]
    for theirs, ours in (
        ("reqPerSec", "requests_per_second"),
        ("reqConcurrent", "max_concurrency"),
    ):
        number = text_of(fields.get(theirs))
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", number) and float(number):
            settings[ours] = float(number) if "." in number else int(number)
    if host in prefixes:
        known.append("pathPrefix")
    if "regcert" in fields:
        draft.note(
            fields["regcert"], "regcert: write the certificate to a file, and name it in ca_file"
        )
        known.append("regcert")
    if "credHelper" in fields:
        draft.note(
            fields["credHelper"], "credHelper: name it in Docker's config.json (credHelpers)"
        )
        known.append("credHelper")
    _remark(fields, draft, tuple(known))
    draft.registry(node, host, settings)


# --- steps --------------------------------------------------------------------------------------


def _step(node: Node, fields: Mapping[str, Node], draft: Draft) -> None:
    source, target = (_filled(text_of(fields.get(name))) for name in ("source", "target"))
    known = ("source", "target", "type", "tags", "tagSets", "repos", "platform", "platforms")
    _remark({k: v for k, v in fields.items() if k not in _SAID}, draft, known)
    if "{{" in source + target:
        draft.note(node, f"{source} is left out: only env is known of Go's templates")
        return
    if source.startswith("ocidir://"):
        draft.note(node, f"{source} is left out: a sync reads registries")
        return
    shared, notes = _shared(fields, draft)
    kind = text_of(fields.get("type"))
    try:
        if kind == "image":
            draft.entry(node, {**_image(source, target), **shared}, *notes)
        elif kind == "repository":
            to = _layout(target) or _with_host(target)
            for tags in _tag_sets(fields, draft):
                entry = {"from": source, "to": to, **({"tags": tags} if tags else {})}
                draft.entry(node, {**entry, **shared}, *notes)
        elif kind == "registry":
            _whole_registry(node, fields, draft, (source, target), shared)
        else:
            draft.note(node, f"{source} is left out: its type is {kind or 'missing'}")
    except UsageError as error:
        draft.note(node, f"{source} is left out: {error.message}")


def _shared(fields: Mapping[str, Node], draft: Draft) -> tuple[Values, list[Note]]:
    shared: Values = {}
    notes = []
    said = [text_of(fields[key]) for key in _SAID if key in fields]
    if said and "true" not in said:
        shared["referrers"] = False
    if "platform" in fields:
        shared["platforms"] = [text_of(fields["platform"])]
        text = "platform: the index is kept, with its digest, and not replaced by one manifest"
        notes.append(draft.note(fields["platform"], text))
    if "platforms" in fields:
        shared["platforms"] = texts(fields["platforms"])
    return shared, notes


def _layout(target: str) -> str:
    """Return a layout directory as our destination, or nothing."""
    if not target.startswith("ocidir://"):
        return ""
    return "oci:" + target.removeprefix("ocidir://").partition(":")[0]


def _with_host(target: str) -> str:
    """Return a repository with its host, `docker.io` too."""
    return target if "${" in target else str(Reference.parse(target))


def _with_tag(image: str) -> str:
    """Return an image with its tag, `latest` where there is none."""
    return image if re.search("[:@]", image.rpartition("/")[2]) else f"{image}:latest"


def _image(source: str, target: str) -> Values:
    """Return an entry of one image; without a tag both are `latest`."""
    layout = _layout(target)
    if layout or "${" in source + target:
        return {"from": _with_tag(source), "to": layout or _with_tag(target)}
    image, to = Reference.parse(source).readable(), Reference.parse(target).readable()
    same = to.tag == image.tag and not to.digest
    return {"from": str(image), "to": to.name if same else f"{to.name}:{to.tag}"}


def _tag_sets(fields: Mapping[str, Node], draft: Draft) -> list[Values]:
    """Return the rules of each set; a tag that is in one of them is mirrored."""
    own, sets = pairs(fields.get("tags")), [pairs(one) for one in items(fields.get("tagSets"))]
    for said in (own, *sets):
        _remark(said, draft, _TAG_KEYS)
    if any(texts(own.get(key)) for key in _TAG_KEYS):
        sets.insert(0, own)
    rules = []
    for said in sets:
        allow, deny = texts(said.get("allow")), texts(said.get("deny"))
        tags: Values = {}
        if allow or deny:
            tags["regex"] = literal(_regex(allow, deny))
        ranges = [_range(text) for text in texts(said.get("semverRange")) if text]
        if ranges:
            tags["regex"] = f"(?={_VERSION}$){tags.get('regex', '.*')}" if tags else _VERSION
            draft.head += [] if _PRE_RELEASES in draft.head else [_PRE_RELEASES]
            tags["semver"] = " || ".join(ranges)
        rules.append(tags)
    return rules if sets else [{}]


def _range(text: str) -> str:
    """Return a range as regsync reads it: 1.2 is 1.2.0 only, and pre-releases count.

    Raises:
        UsageError: regsync refuses it, or orders its pre-releases in another way.
    """
    parts = []
    for part in text.split():
        match = _COMPARATOR.fullmatch(part)
        if match is None:
            raise UsageError(f"{part[:100]!r} in its range is not read as regsync reads it")
        numbers = ".".join([*match[2].split("."), "0", "0"][:3])
        parts.append(f"{match[1]}{numbers}{match[3] or ''}")
    return " ".join([*parts, ">=0.0.0-0"])


def _regex(allow: list[str], deny: list[str]) -> str:
    """Return one expression for tags that match one of these and none of those."""
    allow, deny = (
        [whole(python_regex(f"^{regex}$")) for regex in regexes] for regexes in (allow, deny)
    )
    allowed = "|".join(f"(?:{regex})" for regex in allow) if allow[1:] else "".join(allow)
    if not deny:
        return allowed
    denied = "|".join(deny)
    return f"(?!(?:{denied})$)" + (f"(?:{allowed})" if allow else ".*")


def _whole_registry(
    node: Node,
    fields: Mapping[str, Node],
    draft: Draft,
    ends: tuple[str, str],
    shared: Values,
) -> None:
    source, target = ends
    repos = pairs(fields.get("repos"))
    allow, deny = texts(repos.get("allow")) or [".*"], texts(repos.get("deny"))
    to = _layout(target) or f"{target.rstrip('/')}/{{repository}}"
    if deny:
        draft.note(node, f"{source} is left out: repos cannot be denied here, only named")
        return
    for tags in _tag_sets(fields, draft):
        for regex in allow:
            match = _REPOSITORIES.fullmatch(regex)
            if match is None:
                draft.note(node, f"repos {regex} is left out: write it as HOST/PREFIX/*")
                continue
            entry: Values = {"from": f"{source}/{match[3] or match[1] + '*'}", "to": to}
            draft.entry(node, {**entry, **({"tags": tags} if tags else {}), **shared})
