"""Which repositories an entry reads, and where their images go."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass, field
from typing import Literal

from ocimirror.errors import InvalidReference
from ocimirror.model.digest import Digest
from ocimirror.model.reference import (
    Location,
    Reference,
    check_registry,
    check_repository,
    is_host,
    is_repository,
    is_tag,
)

_FIELD = re.compile(r"\{([^{}]*)\}")
FIELDS = ("registry", "repository", "tag")
# What a layout has in its directory, and a repository can be called.
_OF_A_LAYOUT = frozenset(("blobs", "index.json", "index.json.prev", "oci-layout"))
_SCHEME = re.compile(r"[a-z-]+:(?![0-9]+(/|\Z))(?=.)")


def _split_host(text: str) -> tuple[str, str]:
    """Split `HOST/REST`; the host is empty where the first component is none, as Docker sees it."""
    first, slash, rest = text.partition("/")
    return (first, rest) if slash and is_host(first) else ("", text)


@dataclass(frozen=True, slots=True)
class SourcePattern:
    """One repository, or with `wildcard` every repository of the registry below a prefix.

    Attributes:
        registry: canonical host.
        repository: the repository, or the prefix without `/*`; a prefix may be empty.
        tag, digest: of a source that is one image.
    """

    registry: str
    repository: str
    wildcard: bool = False
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> SourcePattern:
        """Parse `[HOST/]REPOSITORY[:TAG][@DIGEST]`, `HOST/PREFIX/*` or `HOST/*`.

        Raises:
            InvalidReference: anything else.
        """
        text = text.removeprefix("docker://")
        if "*" not in text:
            reference = Reference.parse(text)
            return cls(
                reference.registry,
                reference.repository,
                tag=reference.tag,
                digest=reference.digest,
            )
        host, rest = _split_host(text)
        if not host or not (rest == "*" or rest.endswith("/*")) or "*" in rest[:-1]:
            raise InvalidReference(
                f"not a source: {text[:300]!r}",
                advice="A * stands only at the end, after a host: HOST/* or HOST/PREFIX/*;"
                " what of it is wanted is said with several entries.",
            )
        prefix = rest[:-1].rstrip("/")
        return cls(check_registry(host), check_repository(prefix) if prefix else "", wildcard=True)

    @property
    def prefix(self) -> str:
        """`HOST[/PREFIX]`, which the names of a wildcard's repositories begin with."""
        return f"{self.registry}/{self.repository}" if self.repository else self.registry

    def matches(self, reference: Reference) -> bool:
        """Whether the repository of a reference belongs to the pattern."""
        if reference.registry != self.registry:
            return False
        if not self.wildcard:
            return reference.repository == self.repository
        return not self.repository or reference.repository.startswith(f"{self.repository}/")

    def __str__(self) -> str:
        if self.wildcard:
            return f"{self.prefix}/*"
        return str(Reference(self.registry, self.repository, self.tag, self.digest))


@dataclass(frozen=True, slots=True)
class Target:
    """Where images go: a repository of a registry, or a layout directory; with `{fields}`.

    Attributes:
        scheme: `docker` or `oci`.
        registry: canonical host; empty for a layout.
        template: the repository, or the path.
        tag_template: the tag in a registry.
        text: as it was written.
        directory: what a relative path is relative to.
    """

    scheme: Literal["docker", "oci"]
    registry: str
    template: str
    tag_template: str
    text: str = field(compare=False)
    directory: str = ""

    @classmethod
    def parse(cls, text: str, directory: str = "") -> Target:
        """Parse `HOST/REPOSITORY[:TAG]` or `oci:PATH`, each with `{registry} {repository} {tag}`.

        Args:
            text: as it is written in a file.
            directory: of that file.

        Raises:
            InvalidReference: anything else, and what would be no name whatever the fields hold.
        """
        _check_fields(text)
        if text.startswith("oci:"):
            path = text.removeprefix("oci:")
            _check_path(os.path.join(directory, path) if path else "", text)
            return cls("oci", "", path, "", text, directory)
        rest = text.removeprefix("docker://")
        if _SCHEME.match(rest):
            raise InvalidReference(
                f"not a destination of a sync: {text[:300]!r}",
                advice="Write HOST/REPOSITORY or oci:DIRECTORY.",
            )
        host, name = _split_host(rest)
        if not host or not name or "{" in host:
            raise InvalidReference(
                f"no registry in {text[:300]!r}",
                advice="A destination is HOST/REPOSITORY, with its host (docker.io too), or"
                " oci:DIRECTORY.",
            )
        repository, _, tag = name.partition(":")
        if "@" in name or (":" in name and not tag):
            raise InvalidReference(f"a destination has a tag, and no digest: {text[:300]!r}")
        target = cls("docker", check_registry(host), repository, tag or "{tag}", text)
        target.resolve(Reference("registry.example", "repository", "tag"))
        return target

    @property
    def fields(self) -> frozenset[str]:
        """The fields in it; without `repository` images of all repositories go to one place."""
        return frozenset(_FIELD.findall(self.template + self.tag_template))

    def origin(self, place: Reference, source: SourcePattern) -> Reference | None:
        """Return the repository of a source whose image would go to a place in a registry.

        Returns:
            The repository, None if no image of the source goes there.
        """
        if self.scheme != "docker" or self.registry != place.registry:
            return None
        known = {"registry": re.escape(source.registry.replace(":", "_"))}
        if not source.wildcard:
            known["repository"] = re.escape(source.repository)
        pattern = ""
        for number, part in enumerate(_FIELD.split(f"{self.template}:{self.tag_template}")):
            if number % 2 == 0:
                pattern += re.escape(part)
            elif part in known:
                pattern += known[part]
            else:
                pattern += f"(?P<{part}>.+)"
                known[part] = f"(?P={part})"
        match = re.fullmatch(pattern, f"{place.repository}:{place.tag}")
        if match is None:
            return None
        repository = source.repository
        if source.wildcard:
            repository = match.groupdict().get("repository", "")
        origin = Reference(source.registry, repository)
        return origin if is_repository(repository) and source.matches(origin) else None

    def resolve(self, source: Reference) -> Location:
        """Return where an image goes.

        A layout keeps it under its full name at the source. What would lie among the files of
        another layout, as `app/blobs` does where `app` is one, is refused. Nothing leads out of
        the path: the parts of a reference are names, each with a letter or a digit.

        Args:
            source: the image; without a tag it goes to a registry by its digest alone.

        Raises:
            InvalidReference: what becomes of it is no name.
        """
        tag = source.tag
        values = {
            "registry": source.registry.replace(":", "_"),
            "repository": source.repository,
            "tag": tag,
        }
        if not tag and "{tag}" in self.template:
            raise InvalidReference(f"{self.text}: the image has no tag: {source.name}")
        filled = _FIELD.sub(lambda match: values[match[1]], self.template)
        if self.scheme == "oci":
            inside = source.repository.split("/")[1:] if "{repository}" in self.template else []
            inside += [tag] if "{tag}" in self.template else []
            if not _OF_A_LAYOUT.isdisjoint(inside):
                raise InvalidReference(
                    f"{self.text} may lead into another image's layout: {filled[:300]!r}",
                    advice="Give it an entry of its own, with another directory.",
                )
            path = os.path.join(self.directory, filled)
            return Location("oci", path, str(source.unpinned()))
        by_digest = not tag and "{tag}" in self.tag_template
        named = "" if by_digest else _FIELD.sub(lambda m: values[m[1]], self.tag_template)
        if named and not is_tag(named):
            raise InvalidReference(f"{self.text}: not a tag: {named[:300]!r}")
        return Reference(self.registry, check_repository(filled), named).location

    def __str__(self) -> str:
        return self.text


def _check_fields(text: str) -> None:
    unknown = sorted(set(_FIELD.findall(text)) - set(FIELDS))
    if unknown or re.search(r"[{}]", _FIELD.sub("", text)):
        shown = ", ".join(f"{{{name}}}" for name in unknown) or "a stray brace"
        raise InvalidReference(
            f"{shown} in {text[:300]!r}", advice="There are {registry}, {repository} and {tag}."
        )


def _check_path(path: str, text: str) -> None:
    if not path or "\0" in path:
        raise InvalidReference(f"no path in {text[:300]!r}")
    if ":" in path:
        raise InvalidReference(
            f"a path with a colon cannot be written: {path[:300]!r}",
            advice="A layout keeps an image under its full name: give the directory alone.",
        )
