"""sync: the nightly mirror."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output, record
from ocimirror.cli.options import (
    Settings,
    deep,
    dry_run,
    durable,
    extra,
    option,
    seconds,
    settings_from,
    shared,
)
from ocimirror.errors import Interrupted, Locked, OciMirrorError, UsageError
from ocimirror.model.codec import to_document

if TYPE_CHECKING:
    from ocimirror.cli.progress import Progress
    from ocimirror.copy.places import Places
    from ocimirror.model.reference import Reference
    from ocimirror.sync.config import Config
    from ocimirror.sync.lock import LockFile
    from ocimirror.sync.report import Report
    from ocimirror.sync.state import State


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
    help="One of N machines that share the configuration; sync merge joins their lock files.",
)
@option(
    "--run",
    metavar="ID",
    default="",
    help="What the shards of one night have in common; sync merge needs it, and takes no others.",
)
@option(
    "--merged",
    metavar="FILE",
    help="The lock file of all shards: what was another shard's before comes from there.",
)
@option(
    "--deadline",
    metavar="TIME",
    default="0",
    callback=seconds,
    help="End cleanly after 5h, 90m; what is left, of the lowest priority, is deferred.",
)
@option(
    "--state",
    metavar="FILE",
    help="What is remembered (default: beside CONFIG, sync.state for sync.yaml).",
)
@option(
    "--lock",
    metavar="FILE",
    help="The lock file (default: beside CONFIG, sync.lock for sync.yaml).",
)
@option("--locked", is_flag=True, help="Mirror what the lock file says; a moved tag fails.")
@option(
    "--every",
    metavar="TIME",
    default="0",
    callback=seconds,
    help="Go on running, a sync every 6h, 30m; SIGHUP, or a change, loads CONFIG again.",
)
@option("--report-html", metavar="FILE", help="Write a page that says what was done.")
@option("--metrics-file", metavar="FILE", help="Write metrics for Prometheus' textfile collector.")
@option(
    "--publish-lock",
    metavar="REFERENCE",
    callback=record.reference,
    help="Push the lock file and the report as an artifact: HOST/REPOSITORY:TAG.",
)
@deep
@dry_run
@durable
@shared
def sync_command(
    config: Path,
    only: str,
    shard: tuple[int, int],
    run: str,
    merged: str | None,
    deadline: float,
    state: str | None,
    lock: str | None,
    locked: bool,
    report_html: str | None,
    metrics_file: str | None,
    publish_lock: Reference | None,
    every: float,
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
      ocimirror sync sync.yaml --shard 1/4 --run ID --lock shard-1.lock --state shard-1.state
      ocimirror sync merge --of 4 shard-*.lock --output sync.lock
    """
    from ocimirror.copy.outcome import Options

    with extra("sync", "sync"):
        from ocimirror.sync.config import load
    from ocimirror.stores.layout.writable import refuse_irregular_file
    from ocimirror.sync.lock import joined
    from ocimirror.sync.plan import Chosen
    from ocimirror.sync.run import SyncOptions, sync
    from ocimirror.sync.shards import Shard

    planned, whole = options.pop("dry_run"), options.pop("deep")
    settings = settings_from(options, writes=True)
    first = load(config, os.environ)
    part = Shard(*shard, run if shard[1] > 1 else "")
    state_file, lock_file = state or _beside_it(config, "state"), lock or _beside_it(config, "lock")
    for path in (lock_file, report_html, metrics_file):
        if path:
            refuse_irregular_file(path)

    def night(wanted: Config) -> int:
        if publish_lock is not None:
            from ocimirror.sync.publish import refuse_source

            refuse_source(publish_lock, wanted)
        previous = _lock(lock_file, wanted, needed=locked)
        copying = Options(
            jobs=settings.jobs,
            retries=settings.retries,
            deep=whole,
            dry_run=planned,
            stop=settings.stop,
        )
        # (As the first night of a mirror has none yet, a file that does not exist is no mistake.)
        all_shards = _lock(merged, wanted, needed=False) if merged else None
        if all_shards is not None:
            previous = joined(previous, all_shards)
        only_locked = previous if locked else None
        how = SyncOptions(copying, Chosen(only, shard), deadline, only_locked, all_shards)
        with ExitStack() as stack:
            memory = _state(stack, state_file, wanted, dry_run=planned)
            places = stack.enter_context(_places(settings, wanted))
            progress = stack.enter_context(_progress(settings))
            done = sync(wanted, places, memory, previous, how, progress, str(config))
            if only and shard[1] == 1 and not (done.report.entries or settings.signal):
                raise UsageError(
                    f"--only {only} is no source of {config}",
                    advice="It is compared with HOST/REPOSITORY, as docker.io/library/*.",
                )
            published: record.Published | None = None
            written = _Written()
            if done.error is not None:
                written.failed(done.error)
            if not planned:
                described = replace(part, configuration=wanted.name)
                renewed = previous.renewed(done.records, described, done.own)
                if not locked:
                    written.write(partial(renewed.write, lock_file, durable=settings.fsync))
                if publish_lock is not None:
                    published = record.publish(publish_lock, places, renewed, done.report, settings)
            written.write(memory.close)
        written.codes |= {done.report.exit_code, published.exit_code if published else 0}
        _beside(done.report, written, settings, report_html, metrics_file)
        code = written.exit_code(settings)
        _tell(done.report, code, settings, published, written.error)
        return code

    if not every:
        return night(first)
    from ocimirror.cli.nights import Nights

    return Nights(config, first, settings, every).run(night)


def _beside_it(config: Path, suffix: str) -> str:
    return str(config.parent / f"{config.stem}.{suffix}")


def _old(path: str, suffix: str) -> str:
    """Return what all configurations of a directory had once, if it is there instead of a file."""
    old = str(Path(path).with_name(f"ocimirror.{suffix}"))
    return old if os.path.lexists(old) and not os.path.lexists(path) else ""


def _lock(path: str, wanted: Config, *, needed: bool) -> LockFile:
    """Read the lock file; of an old one that is there instead, what is not ours is left out."""
    from ocimirror.sync.lock import LockFile

    if old := _old(path, "lock"):
        found = LockFile.read(old)
        if found.shard.configuration in ("", wanted.name):
            return found
    if not needed and not os.path.lexists(path):
        return LockFile.of()
    lock = LockFile.read(path)
    lock.shard.belongs_to(wanted.name, path)
    return lock


def _state(stack: ExitStack, path: str, wanted: Config, *, dry_run: bool) -> State:
    """Open the state of a configuration; a dry run looks at it, or goes without.

    An old one, which was that of all configurations of a directory, gives what it knows of the
    sources of this one to a new one.
    """
    from ocimirror.sync.state import State

    old, new = _old(path, "state"), not os.path.lexists(path)
    if not dry_run:
        try:
            state = stack.enter_context(State(path))
        except Locked as error:
            advice = "Another sync has this state: leave the work to it, or to the next run."
            raise Locked(error.message, advice=advice) from error
    elif not new:
        state = stack.enter_context(State(path, read_only=True))
    else:
        import tempfile

        empty = stack.enter_context(tempfile.TemporaryDirectory(prefix="ocimirror-"))
        state = stack.enter_context(State(str(Path(empty) / "state")))
    state.belongs_to(wanted.name)
    if old:
        with State(old, read_only=True) as before:
            if before.configuration() is None:
                state.take_over(before, wanted.mirrors_from)
                state.commit()
    return state


def _places(settings: Settings, config: Config) -> Places:
    from ocimirror.copy.places import Places
    from ocimirror.sync.access import own_ways

    own = own_ways(config.registries)
    return Places(settings.network, durable=settings.fsync, stop=settings.stop, own=own)


def _progress(settings: Settings) -> Progress:
    """A line for each image that moved or failed, on stderr: the table on stdout comes last.

    Without them the table says it all, and says it once.
    """
    from ocimirror.cli.progress import Lines, progress_for
    from ocimirror.copy.outcome import Outcome

    def show(outcome: Outcome) -> None:
        # (What is deferred is no error.)
        if outcome.status != "unchanged" and not isinstance(outcome.error, Interrupted):
            output.outcome_line(outcome, aside=True)

    if settings.json or settings.quiet or not settings.progress:
        return Lines(lambda _: None)
    return progress_for(None, json=False, quiet=False, bars=True, show=show)


class _Written:
    """What a run writes besides images: where one of it fails the rest is written still.

    Attributes:
        codes: exit codes, of the run too.
        error: the first one.
    """

    def __init__(self) -> None:
        self.codes: set[int] = set()
        self.error: OciMirrorError | None = None

    def write(self, work: Callable[[], None]) -> None:
        """Write something; where that fails, say so."""
        try:
            work()
        except OciMirrorError as error:
            self.failed(error)

    def failed(self, error: OciMirrorError) -> None:
        """Take in that something was not written, and say so."""
        output.complain(error)
        self.codes.add(error.exit_code)
        self.error = self.error or error

    def exit_code(self, settings: Settings) -> int:
        """Return the exit code of the run as far as it is known."""
        return 128 + settings.signal if settings.signal else output.exit_code_of(self.codes)


def _beside(
    report: Report,
    written: _Written,
    settings: Settings,
    page: str | None,
    metrics_file: str | None,
) -> None:
    """Write what was asked for beside what is printed."""
    from ocimirror.stores.disk.atomic import replace_file
    from ocimirror.sync.metrics import metrics

    if page:
        from ocimirror.sync import page as report_page

        written.write(lambda: replace_file(page, report_page.page(report).encode()))
    if metrics_file and not report.dry_run:
        text = metrics(report, datetime.now(UTC), written.exit_code(settings))
        written.write(lambda: replace_file(metrics_file, text.encode()))


def _tell(
    report: Report,
    code: int,
    settings: Settings,
    published: record.Published | None,
    error: OciMirrorError | None,
) -> None:
    """Print what was done."""
    from ocimirror.sync.document import document
    from ocimirror.sync.table import attrition_lines, lines, pruned_lines

    if settings.json:
        more: dict[str, object] = {"published": published.document()} if published else {}
        if error is not None:
            more["error"] = to_document(error)
        output.document("sync", code, {**document(report), "exit_code": code, **more})
    elif code or not settings.quiet:
        before = [*attrition_lines(report), *pruned_lines(report)] if report.dry_run else []
        for line in (*before, *lines(report)):
            output.line(line)
        if published is not None and published.digest is not None:
            output.line(f"record  {published.reference}  {published.digest}")
