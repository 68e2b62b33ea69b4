"""Strict YAML: a tree in which every node knows its line; no tags, no guessing.

Anchors, aliases and `<<` are read only if they are asked for: other tools' files have them.

The tree is made of the parser's events, so nothing is ever constructed from a file. Scalars stay
text: whoever reads one says what it must be, see `shapes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Environment
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import yaml

from ocimirror.errors import Finding, InvalidConfiguration, UsageError
from ocimirror.stores.disk.files import read_input

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 16
MAX_NODES = 500_000
MAX_VALUE = 64 * 1024
MAX_KEY = 1024
_MAX_FINDINGS = 500
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:-)([^{}]*))?\}|(\{))", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file; lines and columns begin at 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value in text.

    Attributes:
        plain: written without quotes, so that other readers of YAML may take it for a number.
        filled: something in it came from the environment.
        broken: there is a finding about it already.
    """

    where: Mark
    text: str
    plain: bool = False
    filled: bool = False
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    where: Mark
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys in the order of the file, each once."""

    where: Mark
    pairs: tuple[tuple[Scalar, Node], ...]


Node = Scalar | Sequence | Mapping


class Refused(Exception):
    """A value, or a whole file, that is not taken; the finding is there already."""


class Findings:
    """Collects what is wrong in all files, so that all of it is said at once."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def add(self, where: Mark, problem: str, hint: str = "") -> None:
        """Note one fault; beyond several hundred none is kept."""
        if len(self.found) < _MAX_FINDINGS:
            self.found.append(Finding(where.file, where.line, where.column, problem, hint))

    def refuse(self, where: Mark, problem: str, hint: str = "") -> Refused:
        """Note a fault; the caller raises the result."""
        self.add(where, problem, hint)
        return Refused()

    def complete(self, path: object) -> None:
        """Raise InvalidConfiguration where anything was found."""
        if self.found:
            raise InvalidConfiguration(path, self.found)


def read(path: Path) -> str:
    """Return a configuration file's text.

    Raises:
        UsageError: it cannot be read, is too large, or is not UTF-8.
    """
    raw = read_input(str(path), "configuration file", MAX_FILE_BYTES)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 at byte {error.start}") from error


def parse(
    text: str,
    file: str,
    findings: Findings,
    environment: Environment[str, str] | None = None,
    *,
    aliases: bool = False,
) -> Node | None:
    """Return the file's one document, or None where it cannot be read; then there is a finding.

    Args:
        text: the file.
        file: what it is called in findings.
        findings: gets what is wrong; duplicate keys, tags, anchors and aliases among it.
        environment: what `${NAME}` and `${NAME:-default}` in values stand for, `$$` is a dollar;
            None leaves them as they are.
        aliases: read them, and merge what `<<` names; what they stand for counts each time, so
            that a small file cannot become a large tree.
    """
    builder = _Builder(file, findings, environment, aliases=aliases)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.YAMLError as error:
        findings.add(*_syntax(error, file, text))
        return None
    except Refused:
        return None
    if builder.root is None:
        findings.add(Mark(file), "the file is empty")
    return builder.root


def write(document: object) -> str:
    """Return plain lists, mappings, text, numbers and booleans as YAML that `parse` reads back.

    Text that another reader of YAML could take for something else is in quotes.
    """
    return yaml.dump(
        document, Dumper=_Writer, sort_keys=False, allow_unicode=False, width=1 << 16, indent=2
    )


class _Writer(yaml.SafeDumper):
    """Writes lists inside mappings with an indent, as people do."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Indent a list below its key."""
        super().increase_indent(flow, False)


def _written(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _SURELY_TEXT.fullmatch(text) else "'" if text.isprintable() else '"'
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_SURELY_TEXT = re.compile(r"[A-Za-z]{1,63}[./:_-][A-Za-z0-9./:_@{}-]*|[a-z]{2,}", re.ASCII)
_Writer.add_representer(str, _written)


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    where: Mark
    mapping: bool
    anchor: str = ""
    nodes: list[Node] = field(default_factory=list)
    size: int = 1
    height: int = 1


class _Anchored(NamedTuple):
    """What an alias stands for: how many values, and how deep."""

    node: Node
    size: int
    height: int


class _Builder:
    def __init__(
        self,
        file: str,
        findings: Findings,
        environment: Environment[str, str] | None,
        *,
        aliases: bool = False,
    ) -> None:
        self._aliases = aliases
        self._anchored: dict[str, _Anchored] = {}
        self.root: Node | None = None
        self._file = file
        self._findings = findings
        self._environment = environment
        self._open: list[_Open] = []
        self._nodes = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        where = Mark(self._file, mark.line + 1, mark.column + 1) if mark else Mark(self._file)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._findings.refuse(
                    where, "a second document", "One file is one document: no `---`."
                )
        elif isinstance(event, yaml.NodeEvent):
            self._node(event, where)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            done = self._open.pop()
            node: Node
            if done.mapping:
                node = Mapping(done.where, self._pairs(done.nodes))
            else:
                node = Sequence(done.where, tuple(done.nodes))
            self._place(node, done.anchor, done.size, done.height)

    def _node(self, event: yaml.NodeEvent, where: Mark) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._findings.refuse(where, f"more than {MAX_NODES} values")
        if isinstance(event, yaml.AliasEvent) and self._aliases:
            self._alias(event, where)
            return
        if isinstance(event, yaml.AliasEvent):
            # (What it is called is not shown: it may be a password without quotes.)
            hint = "A text that begins with * is written in quotes."
            self._findings.add(where, "this is an alias, and none are read", hint)
            self._place(Scalar(where, "", broken=True))
            return
        anchor = event.anchor or ""
        if anchor and not self._aliases:
            hint = (
                "What entries share can stand once at the top level; a text that begins with & is"
                " written in quotes."
            )
            self._findings.add(where, "this is an anchor, and none are read", hint)
        if getattr(event, "tag", None):
            self._findings.add(where, f"the tag {event.tag} is not read", "Leave it out.")  # type: ignore[attr-defined]
        if isinstance(event, yaml.ScalarEvent):
            plain = bool(event.implicit[0])
            scalar = self._scalar(Scalar(where, event.value, plain))
            self._place(scalar, anchor, 1 + len(scalar.text) // 64)
            return
        if len(self._open) >= MAX_DEPTH:
            raise self._findings.refuse(where, f"nested deeper than {MAX_DEPTH}")
        self._open.append(_Open(where, isinstance(event, yaml.MappingStartEvent), anchor))

    def _alias(self, event: yaml.AliasEvent, where: Mark) -> None:
        known = self._anchored.get(event.anchor or "")
        if known is None:
            raise self._findings.refuse(where, "this is an alias of nothing that stands before it")
        self._nodes += known.size
        if self._nodes > MAX_NODES:
            raise self._findings.refuse(
                where, f"more than {MAX_NODES} values, counting those of aliases"
            )
        if len(self._open) + known.height > MAX_DEPTH:
            raise self._findings.refuse(where, f"nested deeper than {MAX_DEPTH}")
        self._place(known.node, "", known.size, known.height)

    def _scalar(self, scalar: Scalar) -> Scalar:
        parent = self._open[-1] if self._open else None
        is_key = parent is not None and parent.mapping and len(parent.nodes) % 2 == 0
        if is_key or self._environment is None:
            return scalar
        return fill(scalar, self._environment, self._findings)

    def _place(self, node: Node, anchor: str = "", size: int = 1, height: int = 0) -> None:
        if anchor:
            self._anchored[anchor] = _Anchored(node, size, height)
        if self._open:
            parent = self._open[-1]
            parent.nodes.append(node)
            parent.size += size
            parent.height = max(parent.height, height + 1)
        else:
            self.root = node

    def _pairs(self, nodes: list[Node]) -> tuple[tuple[Scalar, Node], ...]:
        pairs: dict[str, tuple[Scalar, Node]] = {}
        merged: Node | None = None
        for key, value in zip(nodes[::2], nodes[1::2], strict=True):
            if not isinstance(key, Scalar):
                hint = "A text that begins with { or [ is written in quotes."
                self._findings.add(key.where, "a key must be one word", hint)
            elif self._aliases and key.plain and key.text == "<<":
                if merged is not None:
                    self._findings.add(key.where, "'<<' is here twice")
                merged = value
            elif key.text in pairs:
                first = pairs[key.text][0].where.line
                self._findings.add(key.where, f"{key.text!r} is here twice, first in line {first}")
            elif len(key.text) > MAX_KEY:
                self._findings.add(key.where, f"a key of more than {MAX_KEY} characters")
            elif not key.broken:
                pairs[key.text] = key, value
        if merged is not None:
            self._merge(merged, pairs)
        return tuple(pairs.values())

    def _merge(self, merged: Node, pairs: dict[str, tuple[Scalar, Node]]) -> None:
        """Add the keys of the mapping, or mappings, that `<<` names; keys that are there stay."""
        several = merged.items if isinstance(merged, Sequence) else (merged,)
        for one in several:
            if not isinstance(one, Mapping):
                self._findings.add(one.where, "'<<' takes a mapping, or a list of mappings")
                continue
            for key, value in one.pairs:
                pairs.setdefault(key.text, (key, value))


def fill(scalar: Scalar, environment: Environment[str, str], findings: Findings) -> Scalar:
    """Return a value with its `${NAME}` replaced; what it is replaced by is not looked at again."""
    if "$" not in scalar.text:
        return scalar
    problems: list[tuple[str, str]] = []

    def value(match: re.Match[str]) -> str:
        dollar, name, has_default, default, stray = match.groups()
        if dollar:
            return "$"
        if stray:
            problems.append(("${ without NAME} or NAME:-default}", "A dollar is written $$."))
            return ""
        found = environment.get(name)
        if has_default and not found:
            return str(default)
        if found is None:
            problems.append((f"${{{name}}} is not set", f"Set it, or write ${{{name}:-default}}."))
        return found or ""

    text = _VARIABLE.sub(value, scalar.text)
    filled = any(match[2] for match in _VARIABLE.finditer(scalar.text))
    if len(text) > MAX_VALUE:
        problems.append((f"longer than {MAX_VALUE} characters", ""))
    for problem, hint in problems:
        findings.add(scalar.where, problem, hint)
    return Scalar(scalar.where, text, scalar.plain, filled, broken=bool(problems))


def _character(text: str, where: Mark) -> str:
    line = "".join(text.splitlines()[where.line - 1 : where.line])
    return line[where.column - 1 : where.column]


def _syntax(error: yaml.YAMLError, file: str, text: str) -> tuple[Mark, str, str]:
    """Return where and why a text is no YAML."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = Mark(file, mark.line + 1, mark.column + 1) if mark else Mark(file)
        said = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "A text that begins with *, &, !, {, [, %, @ or ` is written in quotes."
        if "\\" in said or "escape" in said:
            hint = "In double quotes a backslash is written twice; in single quotes once."
        elif "'\\t'" in said or "tab" in said or _character(text, where) == "\t":
            hint = "Indent with spaces."
        elif re.search(r"\S\{", "".join(text.splitlines()[where.line - 1 : where.line])):
            hint = "Between [ ] or { }, a text with braces is written in quotes."
        return where, f"not YAML: {said}", hint
    return Mark(file), f"not YAML: {str(error).partition(chr(10))[0]}", ""
