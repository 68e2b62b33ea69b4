"""Progress for people: one bar an image and a total on a terminal, else one line an image."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ocimirror.cli.output import outcome_line
from ocimirror.copy.outcome import Outcome, Request, Silent
from ocimirror.copy.plan import Plan
from ocimirror.shown import printable

if TYPE_CHECKING:
    from rich.progress import TaskID


class Progress(Protocol):
    """A reporter that is a context."""

    def __enter__(self) -> Progress: ...

    def __exit__(self, *_: object) -> None: ...

    def planned(self, request: Request, plan: Plan) -> None:
        """See copy.outcome.Reporter."""

    def moved(self, request: Request, count: int) -> None:
        """See copy.outcome.Reporter."""

    def finished(self, outcome: Outcome) -> None:
        """See copy.outcome.Reporter."""


Show = Callable[[Outcome], None]
"""Prints what is to be told of an image that is done."""


class Lines(Silent):
    """One line an image, when it is done."""

    def __init__(self, show: Show) -> None:
        self._show = show

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def finished(self, outcome: Outcome) -> None:
        """Print the image's line."""
        self._show(outcome)


class Bars:
    """Bars on stderr while images move; their lines follow when the bars are gone."""

    def __init__(self, images: int | None, show: Show) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._of = "" if images is None else f" of {images}"
        self._show = show
        self._done: list[Outcome] = []
        self._bars: dict[str, TaskID] = {}
        self._total = self._progress.add_task(f"total (0{self._of})", total=None)
        self._total_bytes = 0

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        for outcome in self._done:
            self._show(outcome)

    def planned(self, request: Request, plan: Plan) -> None:
        """Draw a bar for the image."""
        description = printable(request.shown_source).removeprefix("docker://")[-60:]
        self._bars[request.shown_destination] = self._progress.add_task(
            description, total=plan.size_bytes
        )
        self._total_bytes += plan.size_bytes
        self._progress.update(self._total, total=self._total_bytes)

    def moved(self, request: Request, count: int) -> None:
        """Advance the image's bar and the total."""
        bar = self._bars.get(request.shown_destination)
        if bar is not None:
            self._progress.advance(bar, count)
            self._progress.advance(self._total, count)

    def finished(self, outcome: Outcome) -> None:
        """Remove the image's bar and count it."""
        self._done.append(outcome)
        bar = self._bars.pop(outcome.request.shown_destination, None)
        if bar is not None:
            self._progress.remove_task(bar)
        text = f"total ({len(self._done)}{self._of})"
        self._progress.update(self._total, description=text)


def progress_for(
    images: int | None, *, json: bool, quiet: bool, bars: bool, show: Show = outcome_line
) -> Progress:
    """Return what this run shows: bars on a terminal; failures only where the rest is not wanted.

    Args:
        images: how many; None where that is not known before.
        json, quiet, bars: as the user wants it.
        show: prints an image that is done.
    """
    if json or quiet:
        return Lines(lambda outcome: show(outcome) if outcome.error is not None else None)
    return Bars(images, show) if bars and sys.stderr.isatty() else Lines(show)


class Still:
    """Shows nothing of bytes that go through; a context."""

    def __enter__(self) -> Still:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def moved(self, count: int) -> None:
        """Count bytes; from any thread."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to what is printed in the block."""
        yield


class Moving(Still):
    """Shows on stderr how many bytes went through, and how fast."""

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import (
            DownloadColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(what, total=None)

    def __enter__(self) -> Moving:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def moved(self, count: int) -> None:
        """Count bytes; from any thread."""
        self._progress.advance(self._task, count)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to what is printed in the block."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


def moving(what: str, *, shown: bool) -> Still:
    """Return what shows bytes on the move: on a terminal, where it is to be shown."""
    return Moving(what) if shown and sys.stderr.isatty() else Still()
