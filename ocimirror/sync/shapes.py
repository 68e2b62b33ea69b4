"""What a value may be: read from a file with its line, and told to editors as JSON Schema.

Loader and schema are two methods of one object, so that they do not part ways.
"""

from __future__ import annotations

import difflib
import os.path
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as Several
from typing import Any, ClassVar, Generic, TypeVar, cast

from ocimirror.errors import UsageError
from ocimirror.sync.yamlfile import Findings, Mapping, Node, Refused, Scalar, Sequence

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
_FILLED = {"type": "string", "pattern": VARIABLE}


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

    of: ClassVar[type[Node]] = Scalar
    wanted: str = "a value"
    secret: bool = False

    @abstractmethod
    def read(self, node: Node, findings: Findings) -> T:
        """Return the value; Refused where it is not taken, with all its findings noted."""

    @abstractmethod
    def schema(self) -> Schema:
        """Return the same as JSON Schema (draft 2020-12)."""

    def takes(self, node: Node) -> bool:
        """Whether a node is of this kind, whatever it holds."""
        return isinstance(node, self.of)

    def attempt(self, node: Node, findings: Findings) -> list[T]:
        """Return the one value, or none where it is not taken."""
        try:
            return [self.read(node, findings)]
        except Refused:
            return []

    def made(self, make: Callable[[T], S]) -> Shape[S]:
        """Return a shape whose value is what is made of this one's; UsageError is a fault of it."""
        return _Made(self, make)

    def wrong(self, node: Node, findings: Findings) -> Refused:
        """Note that a node is of another kind."""
        if isinstance(node, Scalar) and node.broken:
            return Refused()
        found = kind(node)
        told = isinstance(node, Scalar) and node.text and not self.secret
        shown = f" ({shorten(node)})" if isinstance(node, Scalar) and told else ""
        hint = "Leave the key out, or give it a value." if found == "nothing" else ""
        return findings.refuse(node.where, f"{self.wanted} is wanted, not {found}{shown}", hint)


class _Made(Shape[S], Generic[T, S]):
    def __init__(self, shape: Shape[T], make: Callable[[T], S]) -> None:
        self._shape = shape
        self._make = make
        self.wanted = shape.wanted

    def read(self, node: Node, findings: Findings) -> S:
        value = self._shape.read(node, findings)
        try:
            return self._make(value)
        except UsageError as error:
            raise findings.refuse(node.where, error.message, error.advice) from error

    def schema(self) -> Schema:
        return self._shape.schema()

    def takes(self, node: Node) -> bool:
        return self._shape.takes(node)


class Text(Shape[T]):
    """Text that `parse` understands; what other readers of YAML take for a number needs quotes.

    Args:
        wanted: what it is, for messages: "a glob".
        parse: raises UsageError or ValueError.
        pattern: for the schema, a regular expression of ECMA 262.
        longest: characters.
        secret: findings do not show it.
    """

    def __init__(
        self,
        wanted: str,
        parse: Callable[[str], T],
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

    def read(self, node: Node, findings: Findings) -> T:
        """Return what the text stands for."""
        found = kind(node)
        if not isinstance(node, Scalar) or node.broken or found == "nothing":
            raise self.wrong(node, findings)
        if found != "text":
            shown = "this" if self.secret else node.text[:100]
            raise findings.refuse(
                node.where,
                f"{shown} without quotes is {found}, and {self.wanted} is wanted",
                "Write it in quotes." if self.secret else self._in_quotes(node),
            )
        if not 0 < len(node.text) <= self._longest:
            raise findings.refuse(node.where, f"{self.wanted} has 1 to {self._longest} characters")
        try:
            return self._meaning(node)
        except UsageError as error:
            raise findings.refuse(node.where, error.message, error.advice) from error
        except ValueError as error:
            raise findings.refuse(node.where, f"not {self.wanted}: {error}") from error

    def _meaning(self, node: Scalar) -> T:
        return self._parse(node.text)

    def _in_quotes(self, node: Scalar) -> str:
        """Return what to write instead: the same in quotes, unless that is wrong too."""
        try:
            self._meaning(node)
        except (UsageError, ValueError) as error:
            return (error.advice or "") if isinstance(error, UsageError) else ""
        return f'Write "{node.text[:100]}".'

    def schema(self) -> Schema:
        """Text; a pattern does not bind where something comes from the environment."""
        schema: Schema = {"type": "string", "minLength": 1}
        if self._pattern:
            schema["pattern"] = f"{VARIABLE}|{self._pattern}"
        return schema


class Relative(Text[T]):
    """Text that is relative to the directory of its file, which `parse` gets after it."""

    def __init__(self, wanted: str, parse: Callable[[str, str], T], *, longest: int = 1024) -> None:
        super().__init__(wanted, lambda text: parse(text, ""), longest=longest)
        self._parse_in = parse

    def _meaning(self, node: Scalar) -> T:
        return self._parse_in(node.text, os.path.dirname(node.where.file))


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

    def read(self, node: Node, findings: Findings) -> str:
        """Return the word."""
        if not isinstance(node, Scalar) or node.broken:
            raise self.wrong(node, findings)
        if node.text not in self._words:
            hint = self._hint or did_you_mean(node.text, self._words)
            raise findings.refuse(node.where, f"{self.wanted} is wanted, not {shorten(node)}", hint)
        return node.text

    def schema(self) -> Schema:
        """One of them, or something from the environment."""
        words = "|".join(re.escape(word) for word in self._words)
        return {"type": "string", "pattern": f"{VARIABLE}|^({words})$"}


class Flag(Shape[bool]):
    """`true` or `false`, and no other word for them."""

    wanted = "true or false"

    def read(self, node: Node, findings: Findings) -> bool:
        """Return it."""
        if isinstance(node, Scalar) and not node.broken and (node.plain or node.filled):
            if node.text in _TRUE + _FALSE:
                return node.text in _TRUE
            meant = _MAYBE.get(node.text.lower())
            if meant is not None:
                raise findings.refuse(
                    node.where,
                    f"{node.text} is true or false to some readers of YAML, and text to others",
                    f"Write {str(meant).lower()}.",
                )
        raise self.wrong(node, findings)

    def schema(self) -> Schema:
        """A boolean, or something from the environment."""
        return {"anyOf": [{"type": "boolean"}, _FILLED]}

    def takes(self, node: Node) -> bool:
        """Whether it looks like one."""
        return kind(node) == "true or false" or (
            isinstance(node, Scalar) and node.filled and node.text in _TRUE + _FALSE
        )


class Number(Shape[T]):
    """A number in bounds, without quotes.

    Args:
        of_text: int or float.
        least, most: bounds, both allowed.
    """

    def __init__(self, of_text: Callable[[str], T], least: float, most: float) -> None:
        self._of_text = of_text
        self._bounds = least, most
        whole = of_text is int
        self._type = "integer" if whole else "number"
        # (Other readers of YAML take 010 for 8.)
        self._pattern = r"-?(0|[1-9][0-9]{0,8})" + ("" if whole else r"(\.[0-9]{1,9})?")
        word = "a whole number" if whole else "a number"
        self.wanted = f"{word} from {least:.12g} to {most:.12g}"

    def read(self, node: Node, findings: Findings) -> T:
        """Return it."""
        if not isinstance(node, Scalar) or node.broken or not (node.plain or node.filled):
            raise self.wrong(node, findings)
        if not re.fullmatch(self._pattern, node.text, re.ASCII):
            raise self.wrong(node, findings)
        least, most = self._bounds
        if not least <= float(node.text) <= most:
            raise findings.refuse(node.where, f"{self.wanted} is wanted, not {node.text}")
        return self._of_text(node.text)

    def schema(self) -> Schema:
        """A number, or something from the environment."""
        least, most = self._bounds
        return {"anyOf": [{"type": self._type, "minimum": least, "maximum": most}, _FILLED]}

    def takes(self, node: Node) -> bool:
        """Whether it looks like one."""
        return isinstance(node, Scalar) and _NUMBER.fullmatch(node.text) is not None


class ListOf(Shape[tuple[T, ...]]):
    """One or more of the same shape.

    Args:
        item: the shape.
        alone: what a list or one item is, for messages, if one may stand for a list of one.
    """

    of = Sequence

    def __init__(self, item: Shape[T], *, alone: str = "") -> None:
        self._item = item
        self._alone = bool(alone)
        self.wanted = alone or f"a list, each {item.wanted}"

    def read(self, node: Node, findings: Findings) -> tuple[T, ...]:
        """Return them in order."""
        if self._alone and self._item.takes(node):
            return (self._item.read(node, findings),)
        if not isinstance(node, Sequence):
            raise self.wrong(node, findings)
        if not 0 < len(node.items) <= _MAX_ITEMS:
            hint = "" if node.items else "Leave the key out instead."
            raise findings.refuse(node.where, f"a list has 1 to {_MAX_ITEMS} items", hint)
        values = [value for item in node.items for value in self._item.attempt(item, findings)]
        if len(values) < len(node.items):
            raise Refused
        return tuple(values)

    def schema(self) -> Schema:
        """An array, or an item."""
        items = self._item.schema()
        array: Schema = {"type": "array", "items": items, "minItems": 1}
        return {"anyOf": [array, items]} if self._alone else array


class Either(Shape[T]):
    """One of several shapes, told apart by their kind; the last one complains."""

    def __init__(self, *shapes: Shape[Any], wanted: str = "") -> None:
        self._shapes = shapes
        self.wanted = wanted or ", or ".join(shape.wanted for shape in shapes)

    def read(self, node: Node, findings: Findings) -> T:
        """Return what the shape of its kind makes of it."""
        for shape in self._shapes:
            if shape.takes(node):
                return cast("T", shape.read(node, findings))
        raise self.wrong(node, findings)

    def schema(self) -> Schema:
        """Any of them."""
        return {"anyOf": [shape.schema() for shape in self._shapes]}


def did_you_mean(word: str, known: Several[str]) -> str:
    """Return a hint at what was probably meant, or which words there are."""
    close = difflib.get_close_matches(word[:50].lower(), known, 1, 0.6)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
