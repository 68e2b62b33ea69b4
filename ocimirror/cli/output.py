"""Everything that is printed: result lines, errors, and the JSON documents."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ocimirror.errors import OciMirrorError, unexpected
from ocimirror.errors import exit_code_of as exit_code_of  # (for the commands)
from ocimirror.model.failure import Failure
from ocimirror.model.readable import size as size
from ocimirror.shown import printable, without_secrets

if TYPE_CHECKING:
    from ocimirror.copy.outcome import Outcome

_STATES = ("copied", "unchanged", "planned", "failed")


def line(text: str, *, aside: bool = False) -> None:
    """Print one result line, escaped; `aside`, on stderr, where stdout carries something else."""
    print(printable(text), file=sys.stderr if aside else sys.stdout, flush=True)


def complain(error: OciMirrorError, what: str = "") -> None:
    """Print an error and what to do next, on stderr."""
    prefix = f"{printable(what)}: " if what else ""
    first, _, advice = error.diagnostics().partition("\n")
    click.echo(f"error: {prefix}{first}" + (f"\n  {advice}" if advice else ""), err=True)


def document(command: str, exit_code: int, content: Mapping[str, object]) -> None:
    """Print the one JSON document of a command."""
    click.echo(document_text(command, exit_code, content))


def document_text(command: str, exit_code: int, content: Mapping[str, object]) -> str:
    """Return the JSON document of a command."""
    head = {"schema": f"ocimirror.{command}/v1", "exit_code": exit_code}
    return json.dumps({**head, **content}, ensure_ascii=True, indent=2)


def foreign_document(content: dict[str, object]) -> None:
    """Print a document whose form another specification says."""
    click.echo(json.dumps(content, ensure_ascii=True, indent=2))


def outcome_document(outcome: Outcome) -> dict[str, object]:
    """Return one image of a copying command as its document carries it."""
    from ocimirror.model.codec import to_document

    return to_document(outcome.result(), without=("entry", "previous"))


def totals(outcomes: Sequence[Outcome], seconds: float) -> dict[str, object]:
    """Return the totals of a run."""
    states = [outcome.status for outcome in outcomes]
    return {
        "images": len(outcomes),
        "copied": states.count("copied"),
        "unchanged": states.count("unchanged"),
        "planned": states.count("planned"),
        "failed": states.count("failed"),
        "bytes_copied": sum(outcome.bytes_copied for outcome in outcomes),
        "seconds": round(seconds, 3),
    }


def outcome_line(outcome: Outcome, *, aside: bool = False) -> None:
    """Print one image of a copying command: a result on stdout, a failure on stderr."""
    request = outcome.request
    if outcome.error is not None:
        complain(outcome.error, request.shown_source)
        return
    root = outcome.root
    parts = [outcome.status, request.shown_destination, "" if root is None else str(root.digest)]
    if outcome.status != "unchanged":
        parts.append(f"{size(outcome.bytes_copied)} in {outcome.seconds:.1f} s")
    line("  ".join(parts), aside=aside)
    for note in outcome.notes:
        line(f"  note: {note}", aside=aside)


def summary(outcomes: Sequence[Outcome], seconds: float) -> None:
    """Print the last line of a run of several images."""
    told = totals(outcomes, seconds)
    parts = [f"{told[state]} {state}" for state in _STATES if told[state]]
    moved = sum(outcome.bytes_copied for outcome in outcomes)
    line(f"{len(outcomes)} images: {', '.join(parts)}, {size(moved)} in {seconds:.1f} s")


def report_failure(error: Exception, argv: Sequence[str]) -> int:
    """Print what ended the command; return its exit code."""
    if isinstance(error, click.ClickException):
        known: OciMirrorError | None = None
        code, message = 2, error.format_message()
    elif isinstance(error, click.Abort):
        known, code, message = None, 130, "aborted"
    elif isinstance(error, OciMirrorError):
        known, code, message = error, error.exit_code, error.message
    else:
        known = unexpected(error)
        code, message = known.exit_code, known.message
        if any(word.startswith("-v") or word == "--verbose" for word in argv):
            told = without_secrets("".join(traceback.format_exception(error)))
            click.echo(told, err=True, nl=False)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(message, err=True)
    elif known is not None:
        complain(known)
    elif isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"error: {printable(message)}\n{error.ctx.get_usage()}", err=True)
    else:
        click.echo(f"error: {printable(message)}", err=True)
    if "--json" in argv or os.environ.get("OCIMIRROR_JSON", "0") not in ("", "0"):
        command = next((word for word in argv if not word.startswith("-")), "ocimirror")
        if list(argv[:2]) == ["sync", "merge"]:
            command = "sync-merge"
        told = printable(message)
        word = "usage_error" if code == 2 else "bug"
        failure = known or Failure(word, told, False, None, code, told)
        from ocimirror.model.codec import to_document

        document(printable(command), code, {"error": to_document(failure)})
    return code


class TextLog(logging.Formatter):
    """One line a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record without secrets."""
        return without_secrets(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line; names from outside are in it, and may be meant for the terminal."""
        record.message = printable(record.message.replace("\n", " "))
        return super().formatMessage(record)


class JsonLog(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat()
        return json.dumps(
            {
                "time": time,
                "level": record.levelname.lower(),
                "message": without_secrets(record.getMessage()),
            }
        )
