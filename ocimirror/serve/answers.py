"""A request as the server sees it, the answer it gets, and the refusals of the specification."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ocimirror.shown import printable
from ocimirror.stores.layout.openblob import OpenBlob


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its path decoded once.

    Attributes:
        headers: by their names in any case.
        client: the address that it came from.
        query: the first value of each parameter.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    client: str = ""


@dataclass(slots=True)
class Answer:
    """One answer; its body is in memory, or a range of a file.

    Attributes:
        file: an open file, closed by whoever sends the answer; None where `body` is all.
        start, length: which of its bytes.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: OpenBlob | None = None
    start: int = 0
    length: int = 0


class Refused(Exception):
    """What a client asked for and does not get.

    `code` is one of the specification's (distribution-spec, Error Codes). `ambiguous` says that
    the name stands for images of several registries.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        ambiguous: bool = False,
    ) -> None:
        super().__init__(message)
        self.ambiguous = ambiguous
        self.answer = document_answer(
            {"errors": [{"code": code, "message": printable(message)[:500], "detail": None}]},
            status=status,
            headers=headers,
        )


def document_answer(
    document: object,
    *,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Return a JSON document as an answer."""
    body = json.dumps(document, separators=(",", ":")).encode()
    return Answer(status, {"Content-Type": media_type, **(headers or {})}, body)


def not_modified(headers: Mapping[str, str], request: Request) -> bool:
    """Whether the client has what its ETag in `headers` stands for.

    Spec: RFC 9110 section 13.1.2 (weak comparison).
    """
    wanted = request.headers.get("If-None-Match", "")
    tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
    return wanted.strip() == "*" or headers["ETag"] in tags
