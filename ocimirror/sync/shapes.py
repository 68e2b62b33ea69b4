"""What a value may be: read from a file with its line, and told to editors as JSON Schema.

Loader and schema are two methods of one object, so that they do not part ways.
"""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from ocimirror.errors import UsageError
from ocimirror.sync.yamlfile import Findings, Mapping, Mark, Node, Scalar, Sequence

T = TypeVar("T")
S = TypeVar("S")
Schema = dict[str, object]

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_OTHER_NUMBER = re.compile(r"[-+]?(0[xob][0-9a-fA-F_]+|\.(inf|nan))", re.IGNORECASE | re.ASCII)
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
_MAYBE = {"yes": True, "on": True, "y": True, "no": False, "off": False, "n": False}
_NOTHING = ("", "~", "null", "Null", "NULL")
_MAX_ITEMS = 100_000
VARIABLE = r"\$\{"


class Refused(Exception):
    """A value that is not taken; the finding is there already."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What goes along while a file is read: where findings go, what paths are relative to."""

    findings: Findings
    directory: str = ""

    def refuse(self, where: Mark, problem: str, hint: str = "") -> Refused:
        """Note a fault; the caller raises the result."""
        self.findings.add(where, problem, hint)
        return Refused()


def kind(node: Node) -> str:
    """Return what a reader of YAML takes a node for."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    text = node.text
    if not node.plain or node.filled:
        return "text"
    if text in _NOTHING:
        return "nothing"
    if text in _TRUE + _FALSE or text.lower() in _MAYBE:
        return "true or false"
    if _NUMBER.fullmatch(text) or _OTHER_NUMBER.fullmatch(text):
        return "a number"
    return "text"


def shorten(node: Scalar) -> str:
    """Return a value as findings show it; what comes from the environment may be a secret."""
    return "what is in the environment" if node.filled else node.text[:100]


class Shape(ABC, Generic[T]):
    """What a value may be."""

    wanted: str = "a value"
    secret: bool = False

    @abstractmethod
    def read(self, node: Node, reading: Reading) -> T:
        """Return the value; Refused where it is not taken, with all its findings noted."""

    @abstractmethod
    def schema(self) -> Schema:
        """Return the same as JSON Schema (draft 2020-12)."""

    def takes(self, node: Node) -> bool:
        """Whether a node is of this kind, whatever it holds."""
        return isinstance(node, Scalar)

    def wrong(self, node: Node, reading: Reading) -> Refused:
        """Note that a node is of another kind."""
        if isinstance(node, Scalar) and node.broken:
            return Refused()
        found = kind(node)
        told = isinstance(node, Scalar) and node.text and not self.secret
        shown = f" ({shorten(node)})" if isinstance(node, Scalar) and told else ""
        hint = "Leave the key out, or give it a value." if found == "nothing" else ""
        return reading.refuse(node.where, f"{self.wanted} is wanted, not {found}{shown}", hint)


class Text(Shape[T]):
    """Text that `parse` understands; what other readers of YAML take for a number needs quotes.

    Args:
        wanted: what it is, for messages: "a glob".
        parse: gets the text and the directory; raises UsageError or ValueError.
        pattern: for the schema, a regular expression of ECMA 262.
        longest: characters.
        secret: findings do not show it.
    """

    def __init__(
        self,
        wanted: str,
        parse: Callable[[str, str], T],
        *,
        pattern: str = "",
        longest: int = 1024,
        secret: bool = False,
    ) -> None:
        self.wanted = wanted
        self._parse = parse
        self._pattern = pattern
        self._longest = longest
        self.secret = secret

    def read(self, node: Node, reading: Reading) -> T:
        """Return what the text stands for."""
        if not isinstance(node, Scalar) or node.broken:
            raise self.wrong(node, reading)
        found = kind(node)
        if found == "nothing":
            raise self.wrong(node, reading)
        if found != "text":
            shown = "this" if self.secret else node.text[:100]
            raise reading.refuse(
                node.where,
                f"{shown} without quotes is {found}, and {self.wanted} is wanted",
                "Write it in quotes." if self.secret else self._in_quotes(node, reading),
            )
        if not 0 < len(node.text) <= self._longest:
            raise reading.refuse(node.where, f"{self.wanted} has 1 to {self._longest} characters")
        try:
            return self._parse(node.text, reading.directory)
        except UsageError as error:
            raise reading.refuse(node.where, error.message, error.advice) from error
        except ValueError as error:
            raise reading.refuse(node.where, f"not {self.wanted}: {error}") from error

    def _in_quotes(self, node: Scalar, reading: Reading) -> str:
        """Return what to write instead: the same in quotes, unless that is wrong too."""
        try:
            self._parse(node.text, reading.directory)
        except (UsageError, ValueError) as error:
            return (error.advice or "") if isinstance(error, UsageError) else ""
        return f'Write "{node.text[:100]}".'

    def schema(self) -> Schema:
        """Text; a pattern does not bind where something comes from the environment."""
        schema: Schema = {"type": "string", "minLength": 1}
        if self._pattern:
            schema["pattern"] = f"{VARIABLE}|{self._pattern}"
        return schema


class Choice(Shape[str]):
    """One of several words.

    Args:
        wanted, hint: for messages, where something that is no word is taken too.
    """

    def __init__(self, *words: str, wanted: str = "", hint: str = "") -> None:
        self._words = words
        told = " or ".join([", ".join(words[:-1]), words[-1]]) if words[1:] else words[0]
        self.wanted = wanted or told
        self._hint = hint

    def read(self, node: Node, reading: Reading) -> str:
        """Return the word."""
        if not isinstance(node, Scalar) or node.broken:
            raise self.wrong(node, reading)
        if node.text not in self._words:
            hint = self._hint or did_you_mean(node.text, self._words)
            raise reading.refuse(node.where, f"{self.wanted} is wanted, not {shorten(node)}", hint)
        return node.text

    def schema(self) -> Schema:
        """One of them, or something from the environment."""
        words = "|".join(re.escape(word) for word in self._words)
        return {"type": "string", "pattern": f"{VARIABLE}|^({words})$"}


class Flag(Shape[bool]):
    """`true` or `false`, and no other word for them."""

    wanted = "true or false"

    def read(self, node: Node, reading: Reading) -> bool:
        """Return it."""
        if isinstance(node, Scalar) and not node.broken and (node.plain or node.filled):
            if node.text in _TRUE + _FALSE:
                return node.text in _TRUE
            meant = _MAYBE.get(node.text.lower())
            if meant is not None:
                raise reading.refuse(
                    node.where,
                    f"{node.text} is true or false to some readers of YAML, and text to others",
                    f"Write {str(meant).lower()}.",
                )
        raise self.wrong(node, reading)

    def schema(self) -> Schema:
        """A boolean, or something from the environment."""
        return {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": VARIABLE}]}

    def takes(self, node: Node) -> bool:
        """Whether it looks like one."""
        return kind(node) == "true or false" or (
            isinstance(node, Scalar) and node.filled and node.text in _TRUE + _FALSE
        )


class Number(Shape[T]):
    """A number in bounds, without quotes.

    Args:
        of: int or float.
        least, most: bounds, both allowed.
    """

    def __init__(self, of: Callable[[str], T], least: float, most: float) -> None:
        self._of = of
        self._whole = of is int
        self._bounds = least, most
        word = "a whole number" if self._whole else "a number"
        self.wanted = f"{word} from {least:.12g} to {most:.12g}"

    def read(self, node: Node, reading: Reading) -> T:
        """Return it."""
        if not isinstance(node, Scalar) or node.broken or not (node.plain or node.filled):
            raise self.wrong(node, reading)
        # (Other readers of YAML take 010 for 8.)
        pattern = r"-?(0|[1-9][0-9]{0,8})" + ("" if self._whole else r"(\.[0-9]{1,9})?")
        if not re.fullmatch(pattern, node.text, re.ASCII):
            raise self.wrong(node, reading)
        least, most = self._bounds
        if not least <= float(node.text) <= most:
            raise reading.refuse(node.where, f"{self.wanted} is wanted, not {node.text}")
        return self._of(node.text)

    def schema(self) -> Schema:
        """A number, or something from the environment."""
        least, most = self._bounds
        number = {
            "type": "integer" if self._whole else "number",
            "minimum": least,
            "maximum": most,
        }
        return {"anyOf": [number, {"type": "string", "pattern": VARIABLE}]}

    def takes(self, node: Node) -> bool:
        """Whether it looks like one."""
        return isinstance(node, Scalar) and _NUMBER.fullmatch(node.text) is not None


class ListOf(Shape[tuple[T, ...]]):
    """One or more of the same shape."""

    def __init__(self, item: Shape[T]) -> None:
        self._item = item
        self.wanted = f"a list, each {item.wanted}"

    def read(self, node: Node, reading: Reading) -> tuple[T, ...]:
        """Return them in order."""
        if not isinstance(node, Sequence):
            raise self.wrong(node, reading)
        if not 0 < len(node.items) <= _MAX_ITEMS:
            hint = "" if node.items else "Leave the key out instead."
            raise reading.refuse(node.where, f"a list has 1 to {_MAX_ITEMS} items", hint)
        values = []
        for item in node.items:
            try:
                values.append(self._item.read(item, reading))
            except Refused:
                continue
        if len(values) < len(node.items):
            raise Refused
        return tuple(values)

    def schema(self) -> Schema:
        """An array."""
        return {"type": "array", "items": self._item.schema(), "minItems": 1}

    def takes(self, node: Node) -> bool:
        """Whether it is a list."""
        return isinstance(node, Sequence)


class Either(Shape[T]):
    """One of several shapes, told apart by their kind; the last one complains."""

    def __init__(self, *shapes: Shape[Any], wanted: str = "") -> None:
        self._shapes = shapes
        self.wanted = wanted or ", or ".join(shape.wanted for shape in shapes)

    def read(self, node: Node, reading: Reading) -> T:
        """Return what the shape of its kind makes of it."""
        for shape in self._shapes:
            if shape.takes(node):
                return cast("T", shape.read(node, reading))
        raise self.wrong(node, reading)

    def schema(self) -> Schema:
        """Any of them."""
        return {"anyOf": [shape.schema() for shape in self._shapes]}

    def takes(self, node: Node) -> bool:
        """Whether one of them takes it."""
        return any(shape.takes(node) for shape in self._shapes)


class Made(Shape[T], Generic[S, T]):
    """A shape whose value becomes something else."""

    def __init__(self, shape: Shape[S], make: Callable[[S], T]) -> None:
        self._shape = shape
        self._make = make
        self.wanted = shape.wanted

    def read(self, node: Node, reading: Reading) -> T:
        """Return what is made of the value; UsageError of who makes it becomes a finding."""
        value = self._shape.read(node, reading)
        try:
            return self._make(value)
        except UsageError as error:
            raise reading.refuse(node.where, error.message, error.advice) from error

    def schema(self) -> Schema:
        """As the shape's."""
        return self._shape.schema()

    def takes(self, node: Node) -> bool:
        """As the shape."""
        return self._shape.takes(node)


def did_you_mean(word: str, known: Several[str]) -> str:
    """Return a hint at what was probably meant, or which words there are."""
    close = difflib.get_close_matches(word[:50].lower(), known, 1, 0.6)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
