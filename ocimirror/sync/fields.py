"""Mappings whose keys are known, and what was read for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar, cast

from ocimirror.errors import UsageError
from ocimirror.sync.shapes import Reading, Refused, Schema, Shape, did_you_mean
from ocimirror.sync.yamlfile import Mapping as MappingNode
from ocimirror.sync.yamlfile import Mark, Node, Scalar

T = TypeVar("T")


class Key(Generic[T]):
    """A key, the shape of its value, and what holds where it is not there.

    Args:
        name: in the file.
        shape: of the value.
        default: where the key is absent.
        says: what it is for, for editors and the reference.
    """

    def __init__(self, name: str, shape: Shape[T], default: T, says: str) -> None:
        self.name = name
        self.shape = shape
        self.default = default
        self.says = says


class Fields:
    """What a mapping says.

    Attributes:
        where: the mapping.
        complete: everything in it was taken; what was not has a finding.
    """

    def __init__(self, where: Mark) -> None:
        self.where = where
        self.complete = True
        self._values: dict[str, object] = {}
        self._marks: dict[str, Mark] = {}

    def __getitem__(self, key: Key[T]) -> T:
        """Return the value, or the key's default."""
        return cast("T", self._values.get(key.name, key.default))

    def says(self, key: Key[T]) -> bool:
        """Whether the key is there, taken or not."""
        return key.name in self._marks

    def says_any(self, names: tuple[str, ...]) -> bool:
        """Whether one of these keys is there, taken or not."""
        return any(name in self._marks for name in names)

    def place(self, key: Key[T]) -> Mark:
        """Return where the key's value is, or the mapping."""
        return self._marks.get(key.name, self.where)

    def note(self, key: Key[T], where: Mark) -> None:
        """Remember that the key is there."""
        self._marks[key.name] = where

    def put(self, key: Key[T], value: T) -> None:
        """Remember its value."""
        self._values[key.name] = value

    def over(self, defaults: Fields) -> Fields:
        """Return what holds where this one's keys replace those of the defaults, each as a whole.

        Keys that were not taken count as said, in both.
        """
        both = Fields(self.where)
        both.complete = self.complete
        both._marks = {**defaults._marks, **self._marks}
        kept = {name: v for name, v in defaults._values.items() if name not in self._marks}
        both._values = {**kept, **self._values}
        return both


class Record(Shape[T]):
    """A mapping with these keys and no others.

    Args:
        wanted: what it is, for messages.
        keys: in the order in which people are told of them.
        make: makes the value of what was read; what does not fit raises UsageError.
        lenient: `make` wants the fields that were taken, though others were not.
        required: a key that must be there.
        elsewhere: hints for keys of other tools, by name.
        secret: findings do not show what stands in its place.
    """

    def __init__(
        self,
        wanted: str,
        keys: tuple[Key[object], ...],
        make: Callable[[Fields], T],
        *,
        lenient: bool = False,
        required: str = "",
        elsewhere: Mapping[str, str] | None = None,
        secret: bool = False,
    ) -> None:
        self.wanted = wanted
        self.keys = {key.name: key for key in keys}
        self._make = make
        self._lenient = lenient
        self._required = required
        self._elsewhere = elsewhere or {}
        self.secret = secret

    def read(self, node: Node, reading: Reading) -> T:
        """Return what is made of the mapping."""
        if not isinstance(node, MappingNode):
            raise self.wrong(node, reading)
        fields = self._fields(node, reading)
        if not fields.complete and not self._lenient:
            raise Refused
        try:
            return self._make(fields)
        except UsageError as error:
            raise reading.refuse(node.where, error.message, error.advice) from error

    def _fields(self, node: MappingNode, reading: Reading) -> Fields:
        fields = Fields(node.where)
        for name, value in node.pairs:
            key = self.keys.get(name.text)
            if key is None:
                self._unknown(name, reading)
                fields.complete = False
                continue
            fields.note(key, value.where)
            try:
                fields.put(key, key.shape.read(value, reading))
            except Refused:
                fields.complete = False
        if self._required and not fields.says(self.keys[self._required]):
            reading.refuse(node.where, f"{self.wanted} has no {self._required!r}")
            fields.complete = False
        return fields

    def _unknown(self, name: Scalar, reading: Reading) -> None:
        hint = self._elsewhere.get(name.text) or did_you_mean(name.text, list(self.keys))
        reading.refuse(name.where, f"{name.text[:100]!r} is no key of {self.wanted}", hint)

    def schema(self) -> Schema:
        """An object without other properties."""
        properties = {
            name: {**key.shape.schema(), "description": key.says} for name, key in self.keys.items()
        }
        schema: Schema = {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
        }
        return {**schema, "required": [self._required]} if self._required else schema

    def takes(self, node: Node) -> bool:
        """Whether it is a mapping."""
        return isinstance(node, MappingNode)


class MappingOf(Shape[dict[str, T]]):
    """A mapping from names to values of one shape.

    Args:
        name: returns the canonical name; two keys with the same one are an error.
        value: what each stands for.
        wanted: what it is, for messages.
    """

    def __init__(self, name: Callable[[str], str], value: Shape[T], wanted: str) -> None:
        self._name = name
        self._value = value
        self.wanted = wanted

    def read(self, node: Node, reading: Reading) -> dict[str, T]:
        """Return the values by canonical name."""
        if not isinstance(node, MappingNode):
            raise self.wrong(node, reading)
        values: dict[str, T] = {}
        refused = False
        for key, value in node.pairs:
            try:
                name = self._read_name(key, reading)
                if name in values:
                    raise reading.refuse(key.where, f"{name} is here twice, under several names")
                values[name] = self._value.read(value, reading)
            except Refused:
                refused = True
        if refused:
            raise Refused
        return values

    def _read_name(self, key: Scalar, reading: Reading) -> str:
        try:
            return self._name(key.text)
        except UsageError as error:
            raise reading.refuse(key.where, error.message, error.advice) from error

    def schema(self) -> Schema:
        """An object whose properties are alike."""
        return {"type": "object", "additionalProperties": self._value.schema()}

    def takes(self, node: Node) -> bool:
        """Whether it is a mapping."""
        return isinstance(node, MappingNode)
