"""Reading JSON from outside: I-JSON or an error (image-spec considerations.md#json)."""

from __future__ import annotations

import json
import re
from typing import cast

from ocimirror.errors import MalformedManifest

MAX_DEPTH = 64
# (Neither steps back nor starts again inside a string that has no end: both take square time.)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"{}[]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def loads(raw: bytes, what: str) -> dict[str, object]:
    """Parse bytes that must be one JSON object, as `parse` does.

    Raises:
        MalformedManifest: with the reason.
    """
    value = parse(raw, what)
    if not isinstance(value, dict):
        raise MalformedManifest(f"{what} is not a JSON object")
    return value


def parse(raw: bytes, what: str) -> object:
    """Parse bytes that must be JSON.

    Refused: a byte order mark, anything but UTF-8, duplicate names, NaN and infinities, lone
    surrogates, nesting deeper than 64.

    Args:
        raw: the whole document; its size is capped by whoever read it.
        what: names the document in the error.

    Raises:
        MalformedManifest: with the reason.
    """
    try:
        _refuse_depth(raw)
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        if _SURROGATE_ESCAPE.search(raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedManifest(f"{what} is not strict JSON: a lone surrogate") from error
    except UnicodeDecodeError as error:
        raise MalformedManifest(f"{what} is not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise MalformedManifest(f"{what} is not strict JSON: {error}") from error
    return cast("object", value)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document: dict[str, object] = {}
    for name, value in pairs:
        if name in document:
            raise ValueError(f"duplicate name {name[:100]!r}")
        document[name] = value
    return document


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _refuse_depth(raw: bytes) -> None:
    """Count brackets outside strings: surer than catching a RecursionError."""
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for byte in _STRING.sub(b"", raw).translate(None, _ALL_BUT_BRACKETS):
        depth += 1 if byte in b"{[" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
