"""Fault: one thing that a check found wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FaultKind = Literal[
    "corrupt", "missing", "wrong_size", "malformed", "stray", "unsupported", "unreadable"
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `path` is below the layout, `image` the first that needs it.

    `exit_code` is 5 for what is wrong, and the error's own for what could not be read.
    """

    kind: FaultKind
    digest: str
    path: str
    image: str
    message: str
    exit_code: int = 5
