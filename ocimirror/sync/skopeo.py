"""The YAML source of `skopeo sync` (skopeo-sync(1)), into a draft."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ocimirror.errors import UsageError
from ocimirror.model.reference import is_tag
from ocimirror.sync.drafts import Draft, Values, literal, pairs, text_of, texts, whole
from ocimirror.sync.patterns import Target
from ocimirror.sync.re2 import python_regex
from ocimirror.sync.yamlfile import Node, Scalar, Sequence

# (What is a version to us, and not to skopeo: V1.2, 1.2.3_4, and pre-releases as 01, or as a..b.)
_PART = r"(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = rf"v?[0-9]+(\.[0-9]+){{0,2}}(-{_PART}(\.{_PART})*)?"
# What a comparator of skopeo's and one of ours read alike: not =1-rc1, x.2, or >x.
_PRE = rf"(-{_PART}(\.{_PART})*)?"
_ALIKE = re.compile(
    rf"(>=|<=|>|<|=|\^|~)?v?[0-9]+(\.[0-9]+(\.[0-9]+{_PRE})?)?|(>=|<|\^)v?[0-9]+(\.[0-9]+)?{_PRE}"
    r"|=?v?[0-9]+(\.[0-9]+)?\.[xX*]|[xX*]",
    re.ASCII,
)
_HYPHEN = re.compile(r"\s*(v?[0-9]\S*)\s+-\s+(v?[0-9]\S*)\s*", re.ASCII)
_KINDS = ("images", "images-by-tag-regex", "images-by-semver")
_INSECURE = (
    "tls-verify: false is not carried over, certificates are always verified: give ca_file the"
    " certificate to trust, or write plain_http where there is no TLS at all"
)


def is_registry(node: Node) -> bool:
    """Whether a value of the file's top level is what skopeo has for a registry."""
    return any(kind in pairs(node) for kind in _KINDS)


def translate(top: Mapping[str, Node], draft: Draft, to: str) -> None:
    """Fill a draft from a file's top level."""
    if not to:
        raise UsageError(
            "where images go is on skopeo's command line, not in its file",
            advice="Give it with --to HOST[/PREFIX].",
        )
    draft.head += [
        "Translated from a file of skopeo sync.",
        "skopeo copies one platform without --all, and no attachments; here all come along,",
        "and `platforms` and `referrers` say otherwise. Tags of attachments (sha256-...) are",
        "chosen only if they are named one by one: attachments come along with their image.",
    ]
    if "{" in to or to.startswith("oci:"):
        draft.defaults["to"] = str(Target.parse(to))
    for host, node in top.items():
        _registry(host, node, draft, "" if "to" in draft.defaults else to)
    if "to" not in draft.defaults:
        _collisions(top, draft, to)


def _collisions(top: Mapping[str, Node], draft: Draft, to: str) -> None:
    """Name repositories whose images overwrite each other's, as they do with skopeo."""
    seen: dict[str, str] = {}
    for host, node in top.items():
        for key in _KINDS:
            for repository, value in pairs(pairs(node).get(key)).items():
                source, destination = f"{host}/{repository}", _destination(to, repository)
                other = seen.setdefault(destination, source)
                if other != source:
                    draft.note(value, f"{source} and {other} both go to {destination}")


def _registry(host: str, node: Node, draft: Draft, to: str) -> None:
    settings = pairs(node)
    for repository, refs in pairs(settings.get("images")).items():
        if ":" in repository or "@" in repository:
            text = f"{host}/{repository} is left out, as skopeo does: not a repository"
            draft.note(refs, text)
            continue
        _images(f"{host}/{repository}", refs, draft, _destination(to, repository))
    for theirs, made in (("images-by-tag-regex", _by_regex), ("images-by-semver", _by_semver)):
        for repository, value in pairs(settings.get(theirs)).items():
            source = f"{host}/{repository}"
            if not isinstance(value, Scalar):
                draft.note(value, f"{source} is left out: {theirs} has one expression for it")
                continue
            try:
                tags = made(text_of(value))
            except UsageError as error:
                draft.note(value, f"{source} is left out: {error.message}")
                continue
            draft.entry(value, _entry(source, _destination(to, repository), tags))
    credentials = pairs(settings.get("credentials"))
    if credentials:
        username, password = (text_of(credentials.get(name)) for name in ("username", "password"))
        auth = {"username": literal(username), "password": literal(password)}
        draft.registry(settings["credentials"], host, {"auth": auth})
    if text_of(settings.get("tls-verify")).lower() == "false":
        draft.note(settings["tls-verify"], _INSECURE)
    if "cert-dir" in settings:
        text = "cert-dir is not carried over: ca_file names one file, --client-cert another"
        draft.note(settings["cert-dir"], text)
    for key in settings:
        if key not in (*_KINDS, "credentials", "tls-verify", "cert-dir"):
            draft.note(settings[key], f"{key} is not known")


def _by_regex(regex: str) -> Values:
    """Return the rule for tags in which an expression is found."""
    return {"regex": literal(whole(python_regex(regex)))}


def _by_semver(constraint: str) -> Values:
    """Return the rules for tags that are versions to skopeo, and in a range.

    Raises:
        UsageError: the range may mean something else to skopeo than here.
    """
    hyphen = _HYPHEN.fullmatch(constraint)
    alternatives = [" ".join(hyphen.groups())] if hyphen else constraint.split("||")
    for alternative in alternatives:
        parts = re.sub(r"(?<=[<>=^~])\s+", "", alternative).replace(",", " ").split()
        mixed = len({"-" in part for part in parts}) > 1
        for part in parts:
            if mixed or part.startswith("~0.0.0") or not _ALIKE.fullmatch(part):
                raise UsageError(f"{part[:100]!r} in its range means something else to skopeo")
    return {"regex": _VERSION, "semver": literal(constraint)}


def _images(source: str, node: Node, draft: Draft, to: str) -> None:
    if not isinstance(node, Sequence) and (text_of(node) or not isinstance(node, Scalar)):
        draft.note(node, f"{source} is left out: images has a list of tags and digests for it")
        return
    refs = list(dict.fromkeys(texts(node)))
    tags = [ref for ref in refs if is_tag(ref)]
    if tags or not refs:
        draft.entry(node, _entry(source, to, [literal(tag) for tag in tags]))
    for ref in refs:
        if ":" in ref:
            draft.entry(node, _entry(f"{source}@{ref}", to, []))
        elif not is_tag(ref):
            draft.note(node, f"{ref[:300]!r} of {source} is left out: not a tag")


def _entry(source: str, to: str, tags: object) -> Values:
    entry: Values = {"from": literal(source)}
    if to:
        entry["to"] = to
    if tags:
        entry["tags"] = tags
    return entry


def _destination(to: str, repository: str) -> str:
    """Return where skopeo puts a repository without --scoped: its last component counts."""
    return f"{to.rstrip('/')}/{repository.rpartition('/')[2]}" if to else ""
