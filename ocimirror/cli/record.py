"""What a sync publishes beside the images, and what came of that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from ocimirror.cli import output
from ocimirror.cli.options import Settings
from ocimirror.errors import OciMirrorError
from ocimirror.model.codec import to_json

if TYPE_CHECKING:
    from ocimirror.copy.places import Places
    from ocimirror.model.digest import Digest
    from ocimirror.model.reference import Reference
    from ocimirror.sync.lock import LockFile
    from ocimirror.sync.report import Report


@dataclass(frozen=True, slots=True)
class Published:
    """A record that was published, or was not."""

    reference: Reference
    digest: Digest | None = None
    error: OciMirrorError | None = None

    @property
    def exit_code(self) -> int:
        """That of the error."""
        return 0 if self.error is None else self.error.exit_code

    def document(self) -> dict[str, object]:
        """Return it as the document of a sync carries it."""
        return {
            "reference": f"docker://{self.reference}",
            "digest": to_json(self.digest),
            "error": to_json(self.error),
        }


def reference(_: click.Context, __: click.Parameter, text: str | None) -> Reference | None:
    """Read where a record goes; wrong ones are found before anything is transferred."""
    if text is None:
        return None
    from ocimirror.sync.publish import record_reference

    return record_reference(text)


def publish(
    where: Reference, places: Places, lock: LockFile, report: Report, settings: Settings
) -> Published:
    """Publish the lock file and the report; a failure is told of, and undoes nothing.

    After a deadline this is done still; after a signal it is not.
    """
    from ocimirror.copy.outcome import Options
    from ocimirror.copy.tasks import patiently
    from ocimirror.sync import publish as record
    from ocimirror.sync.document import document

    settings.stop.clear()
    if settings.signal:
        settings.stop.set()
    text = output.document_text("sync", report.exit_code, document(report))
    ended = report.ended or report.started
    try:
        documents = lock.to_bytes(), text.encode()
        options = Options(jobs=settings.jobs, retries=settings.retries, stop=settings.stop)
        push = partial(record.publish, places, where, *documents, ended, options)
        pushed = patiently(push, settings.stop)
    except OciMirrorError as error:
        error.at("destination")
        output.complain(error, f"the record was not published as {where}")
        return Published(where, error=error)
    return Published(where, pushed.digest)
