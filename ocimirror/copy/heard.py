"""A reporter whose exceptions end the run, from whatever thread they come."""

from __future__ import annotations

from ocimirror.copy.outcome import Reporter, Request
from ocimirror.errors import OciMirrorError


class Heard:
    """Passes everything on to a reporter.

    Attributes:
        error: the first exception that came out of `moved`, in a thread of the pool.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.planned = reporter.planned
        self.finished = reporter.finished
        self._moved = reporter.moved
        self.error: BaseException | None = None

    def moved(self, request: Request, count: int) -> None:
        """Pass on a count that is not 0."""
        if count == 0:
            return
        try:
            self._moved(request, count)
        except OciMirrorError:
            raise
        except BaseException as error:
            self.error = self.error or error
            raise

    def check(self) -> None:
        """Raise what came out of `moved`, in the thread of the caller."""
        if self.error is not None:
            raise self.error
