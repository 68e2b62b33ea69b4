"""The configuration of a sync: `load` reads it, `schema` describes it to editors."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ocimirror.errors import InvalidReference, UsageError
from ocimirror.model.reference import Reference
from ocimirror.sync import vocabulary, yamlfile
from ocimirror.sync.entries import (
    Age,
    Config,
    Mirror,
    NamedTag,
    Newest,
    Prune,
    RegistrySettings,
    TagRules,
)
from ocimirror.sync.fields import Fields
from ocimirror.sync.patterns import SourcePattern, Target
from ocimirror.sync.yamlfile import Findings, Mark, Refused

__all__ = [
    "Age",
    "Config",
    "Mirror",
    "NamedTag",
    "Newest",
    "Prune",
    "RegistrySettings",
    "SourcePattern",
    "TagRules",
    "Target",
    "load",
    "parse",
    "schema",
]

MAX_DEPTH = 8
MAX_FILES = 500


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """Read a configuration with everything that it includes.

    Args:
        path: the file; what it includes, and paths in it, are relative to it.
        environment: what `${NAME}` in values stands for.

    Raises:
        InvalidConfiguration: with every fault in all the files.
        UsageError: the file cannot be read at all.
    """
    return parse(yamlfile.read(path), str(path), environment)


def parse(text: str, name: str, environment: Mapping[str, str]) -> Config:
    """Read a configuration that is at hand already, as `load` does.

    Args:
        text: the file.
        name: its path; what it includes, and paths in it, are relative to it.
        environment: what `${NAME}` in values stands for.

    Raises:
        InvalidConfiguration: with every fault in all the files.
    """
    reader = _Reader(environment)
    reader.read(name, text, Fields(Mark(name)))
    reader.findings.complete(name)
    # (A file name need not be text; the name is written into the state and the lock file.)
    own_name = reader.name or os.fsencode(Path(name).stem).decode("utf-8", "backslashreplace")
    return Config(tuple(reader.mirrors), reader.registries, tuple(reader.files), own_name)


def schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a configuration file.

    It knows keys and kinds of values. What only reading tells is the loader's to say: whether a
    reference is one, that each entry has a destination, duplicate keys, variables that are unset.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of ocimirror sync",
        **vocabulary.FILE.schema(),
    }


@dataclass
class _Reader:
    environment: Mapping[str, str]
    findings: Findings = field(default_factory=Findings)
    files: list[str] = field(default_factory=list)
    mirrors: list[Mirror] = field(default_factory=list)
    registries: dict[str, RegistrySettings] = field(default_factory=dict)
    real: set[str] = field(default_factory=set)
    name: str = ""

    def read(self, name: str, text: str, defaults: Fields, depth: int = 0) -> None:
        """Read one file: first what it includes, then its entries."""
        self.files.append(name)
        self.real.add(os.path.realpath(name))
        node = yamlfile.parse(text, name, self.findings, self.environment)
        if node is None:
            return
        try:
            said = vocabulary.FILE.read(node, self.findings)
        except Refused:
            return
        if depth == 0:  # (what is included may be a configuration of its own)
            self.name = said.get("name", "")
        own = said.over(defaults)
        included: tuple[str, ...] = said.get("include", ())
        for file in included:
            self._include(file, said.marks["include"], os.path.dirname(name), own, depth)
        self._registries(said)
        entries: tuple[Fields, ...] = said.get("mirrors", ())
        for entry in entries:
            self._entry(entry, entry.over(own))
        if said.complete and said.marks.keys().isdisjoint(("include", "mirrors", "registries")):
            hint = "Defaults hold for this file and for what it includes."
            self.findings.add(said.where, f"{name} mirrors nothing", hint)

    def _include(
        self, included: str, where: Mark, directory: str, defaults: Fields, depth: int
    ) -> None:
        name = os.path.join(directory, included)
        if os.path.realpath(name) in self.real:
            self.findings.add(where, f"{included} is included twice, or includes itself")
        elif depth >= MAX_DEPTH or len(self.files) >= MAX_FILES:
            self.findings.add(where, f"more than {MAX_DEPTH} levels or {MAX_FILES} files")
        else:
            try:
                text = yamlfile.read(Path(name))
            except UsageError as error:
                self.findings.add(where, error.message)
                return
            self.read(name, text, defaults, depth + 1)

    def _registries(self, said: Fields) -> None:
        registries: dict[str, RegistrySettings] = said.get("registries", {})
        for host, settings in registries.items():
            if host in self.registries:
                where = said.marks["registries"]
                self.findings.add(where, f"{host} has settings in another file already")
            self.registries[host] = settings

    def _entry(self, entry: Fields, fields: Fields) -> None:
        """Make one mirror of what an entry and the defaults say."""
        source: SourcePattern | None = fields.get("from", None)
        if source is None or not entry.complete:
            return
        if "to" not in fields.marks:
            hint = "Give it a `to`, or write one at the top level."
            self.findings.add(entry.where, f"{source} goes nowhere: there is no 'to'", hint)
        tags = fields.get("tags", TagRules())
        if source.tag or source.digest:
            if "tags" in entry.marks:
                where = entry.marks["tags"]
                self.findings.add(where, f"{source} is one image, and has no tags to choose from")
            tags = TagRules((NamedTag(source.tag, source.digest),))
        targets: tuple[Target, ...] = fields.get("to", ())
        for problem in _misdirected(source, tags, targets):
            self.findings.add(fields.marks["to"], problem)
        self.mirrors.append(
            Mirror(
                source=source,
                targets=targets,
                tags=tags,
                platforms=fields.get("platforms", ()),
                sparse=fields.get("sparse", "fail"),
                referrers=fields.get("referrers", True),
                priority=fields.get("priority", 0),
                prune=fields.get("prune", None),
                where=f"{entry.where.file}:{entry.where.line}",
            )
        )


def _misdirected(source: SourcePattern, tags: TagRules, targets: tuple[Target, ...]) -> list[str]:
    """Return why these images cannot go there."""
    problems = []
    seen: set[Target] = set()
    for target in targets:
        if source.wildcard and target.scheme == "docker" and "repository" not in target.fields:
            problems.append(f"all repositories of {source} would go to {target}")
        if "tag" not in target.fields and target.scheme == "docker" and len(tags.explicit) != 1:
            problems.append(f"all tags of {source} would become one in {target}")
        if _goes_back(source, tags, target):
            again = f"what goes to {target} is read again as {source}"
            problems.append(again if source.wildcard else f"{source} is its own destination")
        if target in seen:
            problems.append(f"{target} is there twice")
        seen.add(target)
    return problems


def _goes_back(source: SourcePattern, tags: TagRules, target: Target) -> bool:
    """Whether images would go where they are read; one image may get another tag there."""
    repository = f"{source.repository}/any".lstrip("/") if source.wildcard else source.repository
    tag = tags.explicit[0].tag if len(tags.explicit) == 1 else ""
    try:
        place = target.resolve(Reference(source.registry, repository, tag or "any")).reference
    except InvalidReference:
        return False  # (The run says so, of each image that has no place there.)
    return place is not None and source.matches(place) and (not tag or place.tag == tag)
