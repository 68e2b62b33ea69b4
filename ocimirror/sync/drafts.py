"""A configuration that is being made from another tool's file, and what did not fit into it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ocimirror.errors import InvalidConfiguration
from ocimirror.model.reference import check_registry
from ocimirror.sync import yamlfile
from ocimirror.sync.config import parse
from ocimirror.sync.filters import MAX_REGEX
from ocimirror.sync.shapes import kind
from ocimirror.sync.yamlfile import Mapping as MappingNode
from ocimirror.sync.yamlfile import Node, Scalar, Sequence

Values = dict[str, object]
_NAME = "translation"


class Note(NamedTuple):
    """What was not carried over, and the line of the other tool's file that says it."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


class _AnyName(dict[str, str]):
    """An environment in which everything is set, to something that may be a host or a tag."""

    def __missing__(self, name: str) -> str:
        return "name.example"

    def get(self, name: str, _: object = None) -> str:
        """Return it for every name."""
        return self[name]


_ANY_NAME = _AnyName()


@dataclass
class Draft:
    """Entries and settings that the loader takes, and notes on everything else.

    Attributes:
        head: comments on what is different in general.
        defaults: keys at the top level.
    """

    head: list[str] = field(default_factory=list)
    defaults: Values = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    _registries: dict[str, Values] = field(default_factory=dict)
    _entries: list[tuple[Values, list[Note]]] = field(default_factory=list)

    def note(self, node: Node, text: str) -> Note:
        """Remember what is not carried over."""
        found = Note(node.where.line, text)
        self.notes.append(found)
        return found

    def entry(self, node: Node, values: Values, *notes: Note) -> None:
        """Add an entry; one that the loader refuses is left out, with a note that says why."""
        problem = _refused({**self.defaults, "mirrors": [values]})
        if problem:
            self.note(node, f"{values.get('from')} is left out: {problem}")
        else:
            self._entries.append((values, list(notes)))

    def registry(self, node: Node, host: str, settings: Values) -> None:
        """Add a registry's settings, each key by itself, so far as the loader takes it."""
        taken: Values = {}
        for key, value in settings.items():
            problem = _refused({"registries": {host: {key: value}}})
            if problem:
                self.note(node, f"{key} of {host} is left out: {problem}")
            else:
                taken[key] = value
        if taken:
            known = self._registries.setdefault(check_registry(host), {})
            for key in sorted(known.keys() & taken.keys()):
                self.note(node, f"{key} of {host} is there twice, and this one is taken")
            known.update(taken)

    def render(self) -> str:
        """Return the configuration, with the notes as comments."""
        parts = [_comment(line) for line in self.head]
        if self.notes:
            told = (_comment(f"- {note}") for note in sorted(self.notes))
            parts += ["#\n# Not carried over:\n", *told]
        if parts:
            parts.append("\n")
        if self.defaults:
            parts += [yamlfile.write(self.defaults), "\n"]
        if self._registries:
            parts += [yamlfile.write({"registries": self._registries}), "\n"]
        if self._entries:
            parts.append("mirrors:\n")
        for values, notes in self._entries:
            parts += ["  " + _comment(note.text) for note in notes]
            parts.append(textwrap.indent(yamlfile.write([values]), "  "))
        return "".join(parts)

    @property
    def empty(self) -> bool:
        """Whether there is no entry."""
        return not self._entries


def _comment(text: str) -> str:
    safe = "".join(character if character.isprintable() else " " for character in text)
    return f"# {safe}\n"


def _refused(document: Values) -> str:
    """Return why the loader does not take a document, or nothing."""
    try:
        parse(yamlfile.write(document), _NAME, _ANY_NAME)
    except InvalidConfiguration as error:
        return "; ".join(finding.problem for finding in error.findings)
    return ""


def literal(text: str) -> str:
    """Return text whose dollars mean nothing."""
    return re.sub(r"\$(?=[${])", "$$", text)


def pairs(node: Node | None) -> Mapping[str, Node]:
    """Return a mapping's values by key; of anything else, nothing."""
    if not isinstance(node, MappingNode):
        return {}
    return {key.text: value for key, value in node.pairs}


def items(node: Node | None) -> tuple[Node, ...]:
    """Return a list's items; of anything else, nothing."""
    return node.items if isinstance(node, Sequence) else ()


def text_of(node: Node | None) -> str:
    """Return a scalar's text as it is written; of anything else, nothing."""
    return node.text if isinstance(node, Scalar) and kind(node) != "nothing" else ""


def texts(node: Node | None) -> list[str]:
    """Return the texts of a list, or of the one item that stands for it."""
    if isinstance(node, Scalar):
        return [] if kind(node) == "nothing" else [node.text]
    return [text_of(item) for item in items(node)]


_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_GROUP = re.compile(r"\([^()]*\)")


def whole(regex: str) -> str:
    """Return a regular expression that matches a whole tag where this one is found in it."""
    if len(regex) > 2 * MAX_REGEX:
        return regex  # (The loader refuses it.)
    bare, inner = "", _ATOM.sub("_", regex)
    while bare != inner:
        bare, inner = inner, _GROUP.sub("_", inner)
    # (Beside a | outside parentheses, an anchor holds for one side only.)
    if bare[:1] == regex[:1] == "^" and bare[-1:] == regex[-1:] == "$" and "|" not in bare:
        return regex[1:-1]
    return f".*(?:{regex}).*"
