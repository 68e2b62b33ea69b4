"""Mappings whose keys are known, and what was read for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

from ocimirror.errors import UsageError
from ocimirror.sync.shapes import Schema, Shape, did_you_mean
from ocimirror.sync.yamlfile import Findings, Mark, Node, Refused, Scalar
from ocimirror.sync.yamlfile import Mapping as MappingNode

T = TypeVar("T")


class Key(NamedTuple):
    """The shape of a key's value, and what it is for, for editors and the reference."""

    shape: Shape[Any]
    says: str


@dataclass(slots=True)
class Fields:
    """What a mapping says.

    Attributes:
        where: the mapping.
        values: what was taken, by key.
        marks: where the value of each key is that is there, taken or not.
        complete: everything in it was taken; what was not has a finding.
    """

    where: Mark
    values: dict[str, object] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    complete: bool = True

    def get(self, key: str, default: T) -> T:
        """Return the value of a key, which its shape made: of the default's type."""
        return cast("T", self.values.get(key, default))

    def over(self, defaults: Fields) -> Fields:
        """Return what holds where this one's keys replace those of the defaults, each as a whole.

        Keys that were not taken count as said, in both.
        """
        kept = {key: value for key, value in defaults.values.items() if key not in self.marks}
        marks = {**defaults.marks, **self.marks}
        return Fields(self.where, {**kept, **self.values}, marks, self.complete)


class Record(Shape[Fields]):
    """A mapping with these keys and no others; a key that is not taken leaves the others.

    Args:
        wanted: what it is, for messages.
        keys: by name, in the order in which people are told of them.
        required: a key that must be there.
        elsewhere: hints for keys of other tools, by name.
        secret: findings do not show what stands in its place.
    """

    of = MappingNode

    def __init__(
        self,
        wanted: str,
        keys: Mapping[str, Key],
        *,
        required: str = "",
        elsewhere: Mapping[str, str] | None = None,
        secret: bool = False,
    ) -> None:
        self.wanted = wanted
        self._keys = keys
        self._required = required
        self._elsewhere = elsewhere or {}
        self.secret = secret

    def whole(self, make: Callable[..., T]) -> Shape[T]:
        """Return a shape of what is made of the values, if all were taken.

        Args:
            make: gets each value under its key's name; what does not fit raises UsageError.
        """

        def made(fields: Fields) -> T:
            if not fields.complete:
                raise Refused
            return make(**fields.values)

        return self.made(made)

    def read(self, node: Node, findings: Findings) -> Fields:
        """Return what was taken."""
        if not isinstance(node, MappingNode):
            raise self.wrong(node, findings)
        fields = Fields(node.where)
        for name, value in node.pairs:
            key = self._keys.get(name.text)
            if key is None:
                self._unknown(name, findings)
                continue
            fields.marks[name.text] = value.where
            for taken in key.shape.attempt(value, findings):
                fields.values[name.text] = taken
        fields.complete = len(fields.values) == len(node.pairs)
        if self._required and self._required not in fields.marks:
            findings.add(node.where, f"{self.wanted} has no {self._required!r}")
            fields.complete = False
        return fields

    def _unknown(self, name: Scalar, findings: Findings) -> None:
        hint = self._elsewhere.get(name.text) or did_you_mean(name.text, list(self._keys))
        findings.add(name.where, f"{name.text[:100]!r} is no key of {self.wanted}", hint)

    def schema(self) -> Schema:
        """An object without other properties."""
        properties = {
            name: {**shape.schema(), "description": says}
            for name, (shape, says) in self._keys.items()
        }
        schema: Schema = {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
        }
        return {**schema, "required": [self._required]} if self._required else schema


class MappingOf(Shape[dict[str, T]]):
    """A mapping from names to values of one shape.

    Args:
        name: returns the canonical name; two keys with the same one are an error.
        value: what each stands for.
        wanted: what it is, for messages.
    """

    of = MappingNode

    def __init__(self, name: Callable[[str], str], value: Shape[T], wanted: str) -> None:
        self._name = name
        self._value = value
        self.wanted = wanted

    def read(self, node: Node, findings: Findings) -> dict[str, T]:
        """Return the values by canonical name."""
        if not isinstance(node, MappingNode):
            raise self.wrong(node, findings)
        values: dict[str, T] = {}
        for key, value in node.pairs:
            try:
                name = self._name(key.text)
            except UsageError as error:
                findings.add(key.where, error.message, error.advice)
                continue
            if name in values:
                findings.add(key.where, f"{name} is here twice, under several names")
                continue
            for taken in self._value.attempt(value, findings):
                values[name] = taken
        if len(values) < len(node.pairs):
            raise Refused
        return values

    def schema(self) -> Schema:
        """An object whose properties are alike."""
        return {"type": "object", "additionalProperties": self._value.schema()}
