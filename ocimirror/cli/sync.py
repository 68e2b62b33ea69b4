"""sync: the nightly mirror."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import (
    Settings,
    dry_run,
    durable,
    option,
    seconds,
    settings_from,
    shared,
)

if TYPE_CHECKING:
    from ocimirror.cli.progress import Progress
    from ocimirror.sync.config import Config
    from ocimirror.sync.lock import LockFile
    from ocimirror.sync.report import Report
    from ocimirror.sync.state import State
    from ocimirror.workflows.places import Places


def _shard(_: click.Context, __: click.Parameter, text: str) -> tuple[int, int]:
    """Read I/N, I from 1 to N."""
    match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text, re.ASCII)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < number <= count:
        raise click.BadParameter(f"{text!r} is not I/N with I from 1 to N, as 1/4")
    return number, count


@click.command("sync", short_help="Mirror what a configuration says.", no_args_is_help=True)
@click.argument("config", type=click.Path(path_type=Path))
@option("--only", metavar="GLOB", default="", help="Only sources whose HOST/REPOSITORY matches.")
@option(
    "--shard",
    metavar="I/N",
    default="1/1",
    callback=_shard,
    help="One of N machines that share the configuration; sync-merge joins their lock files.",
)
@option(
    "--deadline",
    metavar="TIME",
    default="0",
    callback=seconds,
    help="End cleanly after 5h, 90m; what is left is deferred, lowest priority last.",
)
@option("--state", metavar="FILE", help="What is remembered (default: ocimirror.state by CONFIG).")
@option("--lock", metavar="FILE", help="The lock file (default: ocimirror.lock by CONFIG).")
@option("--locked", is_flag=True, help="Mirror what the lock file says; a moved tag fails.")
@option("--report-html", metavar="FILE", help="Write a page that says what was done.")
@option("--metrics-file", metavar="FILE", help="Write metrics for Prometheus' textfile collector.")
@dry_run
@durable
@shared
def sync_command(
    config: Path,
    only: str,
    shard: tuple[int, int],
    deadline: float,
    state: str | None,
    lock: str | None,
    locked: bool,
    report_html: str | None,
    metrics_file: str | None,
    **options: Any,
) -> int:
    """Mirror what a configuration says, and remember it.

    An image that fails fails alone. A second run at the same time exits 7. What each source
    stood for is written to the lock file, which is made for version control.

    \b
    Examples:
      ocimirror sync sync.yaml --dry-run
      ocimirror sync sync.yaml --quiet --deadline 5h --report-html report.html
      ocimirror sync sync.yaml --locked
      ocimirror sync sync.yaml --shard 1/4 --lock shard-1.lock --state shard-1.state
    """
    from ocimirror.copy.outcome import Options
    from ocimirror.sync.config import load
    from ocimirror.workflows.sync.plan import Chosen
    from ocimirror.workflows.sync.run import SyncOptions, sync

    planned = options.pop("dry_run")
    settings = settings_from(options, writes=True)
    wanted = load(config, os.environ)
    beside = config.parent
    state_file = state or str(beside / "ocimirror.state")
    lock_file = lock or str(beside / "ocimirror.lock")
    previous = _lock(lock_file, needed=locked)
    how = SyncOptions(
        Options(jobs=settings.jobs, retries=settings.retries, dry_run=planned, stop=settings.stop),
        Chosen(only, shard),
        deadline,
        previous if locked else None,
    )
    with ExitStack() as stack:
        memory = _state(stack, state_file, settings, dry_run=planned)
        places = stack.enter_context(_places(settings, wanted))
        progress = stack.enter_context(_progress(settings))
        night = sync(wanted, places, memory, previous, how, progress, str(config))
    if not planned:
        previous.renewed(night.records).write(lock_file, durable=settings.fsync)
    code = 128 + settings.signal if settings.signal else night.report.exit_code
    _tell(night.report, code, settings, report_html, metrics_file)
    return code


def _lock(path: str, *, needed: bool) -> LockFile:
    from ocimirror.sync.lock import LockFile

    return LockFile.read(path) if needed or os.path.lexists(path) else LockFile.of()


def _state(stack: ExitStack, path: str, settings: Settings, *, dry_run: bool) -> State:
    """Open the state; a dry run looks at it, or goes without."""
    from ocimirror.sync.state import State

    if not dry_run:
        return stack.enter_context(State(path, wait=settings.wait))
    if Path(path).exists():
        return stack.enter_context(State(path, read_only=True))
    empty = stack.enter_context(tempfile.TemporaryDirectory(prefix="ocimirror-"))
    return stack.enter_context(State(str(Path(empty) / "state")))


def _places(settings: Settings, config: Config) -> Places:
    from ocimirror.workflows.places import Places
    from ocimirror.workflows.sync.access import own_ways

    own = own_ways(config.registries)
    return Places(settings.network, durable=settings.fsync, stop=settings.stop, own=own)


def _progress(settings: Settings) -> Progress:
    """A line for each image that moved or failed, on stderr: the table on stdout comes last."""
    from ocimirror.cli.progress import Lines
    from ocimirror.copy.outcome import Outcome

    class Moved(Lines):
        def finished(self, outcome: Outcome) -> None:
            if outcome.status != "unchanged":
                super().finished(outcome)

    return Moved(quiet=settings.json or settings.quiet or not settings.progress, aside=True)


def _tell(
    report: Report, code: int, settings: Settings, page: str | None, metrics_file: str | None
) -> None:
    if page or metrics_file or settings.json or code or not settings.quiet:
        output.line(str(report.totals()))
