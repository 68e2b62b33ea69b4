"""Values of ours as JSON documents, and back: one codec over dataclasses.

A dataclass is an object with a member for each field, in their order; tuples and lists are arrays;
digests and times are text, bytes base64; references and locations are full locations, in one
spelling; an error is the document of its `Failure`. Floats are amounts, kept to the thousandth.

Reading believes nothing: every member has the type of its field, numbers are from 0 to 2**63-1, and
an error names the member, as `images[3].digest`. A member is required, whether the field has a
default or not, unless the field is marked `LATER`. How much of a document is read is capped by
whoever reads it.

It is for formats of ours alone. A document that others write too is edited as it was parsed, since
a member that we do not know must stay.
"""

from __future__ import annotations

import base64
import binascii
import collections.abc
import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ocimirror.errors import InvalidReference, OciMirrorError
from ocimirror.model.digest import Digest
from ocimirror.model.failure import Failure
from ocimirror.model.later import LATER
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location, Reference, written_location, written_source

T = TypeVar("T")

_Reader = Callable[[object, str], Any]
_MAX_NUMBER = 2**63 - 1
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)


# --- times --------------------------------------------------------------------------------------


def whole_seconds(time: datetime) -> datetime:
    """Return a time as documents keep it: UTC, without fractions.

    Raises:
        ValueError: it has no time zone: a programming error.
    """
    if time.tzinfo is None:
        raise ValueError("a time without a time zone")
    return time.astimezone(UTC).replace(microsecond=0)


def time_text(time: datetime) -> str:
    """Return a time as documents carry it: RFC 3339, UTC, whole seconds."""
    return whole_seconds(time).isoformat().replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Parse what `time_text` returns.

    Raises:
        InvalidReference: anything else, be it another spelling of RFC 3339.
    """
    try:
        if not _TIME.fullmatch(text):
            raise ValueError("another shape")
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidReference(f"not a time as 2026-01-31T02:00:00Z: {text[:100]!r}") from error


# --- writing ------------------------------------------------------------------------------------


def to_document(record: object, *, without: Collection[str] = ()) -> dict[str, object]:
    """Return a dataclass, or an error, as the object that stands for it in JSON.

    Args:
        record: what is to be written.
        without: members of the outermost object that this document does not have.
    """
    if isinstance(record, OciMirrorError):
        record = Failure.of(record)
    kind: Any = type(record)
    return {name: to_json(getattr(record, name)) for name in _names(kind) if name not in without}


def to_json(value: object) -> object:
    """Return any value of a field, as `json.dumps` takes it."""
    kind: Any = type(value)
    return _writer(kind)(value)


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@cache
def _writer(kind: Any) -> Callable[[Any], object]:
    """Return what writes a type."""
    return next((writer for known, writer in _WRITERS if issubclass(kind, known)), to_document)


_WRITERS: tuple[tuple[Any, Callable[[Any], object]], ...] = (
    ((str, int, NoneType), lambda value: value),
    (float, lambda value: round(value, 3)),
    ((Digest, Platform, Location), str),
    (Reference, lambda value: str(value.location)),
    (datetime, time_text),
    (bytes, lambda value: base64.b64encode(value).decode()),
    (Mapping, lambda value: {key: to_json(item) for key, item in value.items()}),
    ((tuple, list), lambda value: [to_json(item) for item in value]),
)


# --- reading ------------------------------------------------------------------------------------


def from_document(kind: Callable[..., T], document: object, *, exact: bool = False) -> T:
    """Return the dataclass that a JSON document stands for.

    Args:
        kind: which dataclass.
        document: as `strictjson` returns it.
        exact: every member is there, and no other. Else members that are unknown are passed over,
            and one that may be null may be absent.

    Raises:
        InvalidReference: anything is not as `to_document` writes it; the message says where.
    """
    read: Callable[[object, str], T] = _reader(kind, exact)
    return read(document, "")


@cache
def _reader(kind: Any, exact: bool) -> _Reader:
    """Return what reads a type; it is told where in the document it is."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if dataclasses.is_dataclass(kind):
        return _record_reader(kind, exact)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return partial(_read_choice, inner)
    if origin in (Union, UnionType):
        (one,) = (each for each in inner if each is not NoneType)
        return partial(_read_optional, _reader(one, exact))
    if origin in (tuple, list):
        return partial(_read_array, origin, _reader(inner[0], exact))
    if origin is collections.abc.Mapping:
        return partial(_read_mapping, _reader(inner[1], exact))
    raise TypeError(f"no codec for {kind}")


def _record_reader(kind: Any, exact: bool) -> _Reader:
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    readers = {field.name: _reader(hints[field.name], exact) for field in fields}
    may_lack = {
        field.name
        for field in fields
        if field.metadata == LATER or (not exact and NoneType in get_args(hints[field.name]))
    }
    absent = {name: None for name in may_lack if NoneType in get_args(hints[name])}

    def read(value: object, where: str) -> Any:
        members = _of_type(dict, "an object", value, where)
        if exact and (unknown := next((key for key in members if key not in readers), None)):
            raise InvalidReference(f"{where or 'it'} has an unknown key {unknown[:100]!r}")
        found: dict[str, Any] = dict(absent)
        for name, reader in readers.items():
            at = f"{where}.{name}" if where else name
            if name in members:
                found[name] = reader(members[name], at)
            elif name not in may_lack:
                raise InvalidReference(f"{at} is absent")
        return _made(partial(kind, **found), where)

    return read


def _made(make: Callable[[], T], where: str) -> T:
    """Make a value; what refuses it does not know where it is."""
    try:
        return make()
    except InvalidReference as error:
        raise InvalidReference(f"{where or 'it'}: {error.message}") from error


def _of_type(kind: type[T], called: str, value: object, where: str) -> T:
    # (bool is an int to Python, and not to JSON.)
    if type(value) is not kind:
        raise InvalidReference(f"{where or 'it'} is not {called}")
    return value


def _read_text(value: object, where: str) -> str:
    return _of_type(str, "text", value, where)


def _read_parsed(parse: Callable[[str], Any], value: object, where: str) -> Any:
    return _made(partial(parse, _read_text(value, where)), where)


def _read_flag(value: object, where: str) -> bool:
    return _of_type(bool, "true or false", value, where)


def _read_count(value: object, where: str) -> int:
    number = _of_type(int, "a whole number", value, where)
    if not 0 <= number <= _MAX_NUMBER:
        raise InvalidReference(f"{where} is out of range")
    return number


def _read_amount(value: object, where: str) -> float:
    if type(value) is int:
        return float(_read_count(value, where))
    number = _of_type(float, "a number", value, where)
    if not 0 <= number <= _MAX_NUMBER:
        raise InvalidReference(f"{where} is out of range")
    return number


def _read_choice(choices: tuple[object, ...], value: object, where: str) -> object:
    if type(value) in (str, int) and value in choices:
        return value
    wanted = ", ".join(map(str, choices))
    raise InvalidReference(f"{where} is {str(value)[:100]!r}, not one of {wanted}")


def _read_optional(reader: _Reader, value: object, where: str) -> object:
    return None if value is None else reader(value, where)


def _read_array(made: Callable[[Any], Any], reader: _Reader, value: object, where: str) -> Any:
    items: list[object] = _of_type(list, "a list", value, where)
    return made(reader(item, f"{where}[{place}]") for place, item in enumerate(items))


def _read_mapping(reader: _Reader, value: object, where: str) -> Mapping[str, Any]:
    members: dict[str, object] = _of_type(dict, "an object", value, where)
    return {key: reader(item, f"{where}.{key[:100]}") for key, item in members.items()}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidReference(f"not base64: {error}") from error


_PLAIN: dict[Any, _Reader] = {
    str: _read_text,
    bool: _read_flag,
    int: _read_count,
    float: _read_amount,
    Digest: partial(_read_parsed, Digest.parse),
    Reference: partial(_read_parsed, written_source),
    Location: partial(_read_parsed, written_location),
    datetime: partial(_read_parsed, parse_time),
    bytes: partial(_read_parsed, _decoded),
    object: lambda value, _: value,
}
