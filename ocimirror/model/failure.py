"""An error as a value: the one form in which JSON documents, tables and pages have errors."""

from __future__ import annotations

from dataclasses import dataclass

from ocimirror.errors import InvalidReference, OciMirrorError

_MAX_EXIT_CODE = 255


@dataclass(frozen=True, slots=True)
class Failure:
    """An error without its exception; make one with `of`.

    Attributes:
        code: the class of the error in snake_case.
        message: what happened.
        retryable: whether another run may help.
        side: source or destination; None if neither is to blame.
        exit_code: of a run that fails for this alone.
        diagnostics: the message with its side and one line on what to do next.

    Raises:
        InvalidReference: an exit code that no process has.
    """

    code: str
    message: str
    retryable: bool
    side: str | None
    exit_code: int
    diagnostics: str

    def __post_init__(self) -> None:
        if not 0 < self.exit_code <= _MAX_EXIT_CODE:
            raise InvalidReference("exit_code is out of range")

    @classmethod
    def of(cls, error: OciMirrorError) -> Failure:
        """Return an error as a value."""
        return cls(
            error.code,
            error.message,
            error.retryable,
            error.side,
            error.exit_code,
            error.diagnostics(),
        )
