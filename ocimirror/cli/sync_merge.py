"""sync merge: what shards of a sync wrote, joined."""

from __future__ import annotations

import os
from typing import Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import option, settings_from, shared


@click.command("sync merge", short_help="Join what shards of a sync wrote.", no_args_is_help=True)
@click.argument("locks", nargs=-1, required=True, metavar="LOCK...")
@option("--output", "joined", metavar="FILE", required=True, help="The lock file to write.")
@option(
    "--of",
    "count",
    type=click.IntRange(1, 9999),
    metavar="N",
    help="How many shards there are: without exactly these, exit 3 (default: as the files say).",
)
@option("--report", "reports", metavar="FILE", multiple=True, help="A shard's --json (repeatable).")
@shared
def sync_merge_command(
    locks: tuple[str, ...],
    joined: str,
    count: int | None,
    reports: tuple[str, ...],
    **options: Any,
) -> int:
    """Join the lock files, and the reports, of shards into what a single run would have written.

    They must be those of all shards of one run, which had the same --run ID, otherwise nothing is
    written (exit 3). Lock files that say different things of one source are refused.

    \b
    Examples:
      ocimirror sync merge --of 4 shard-*.lock --output sync.lock
      ocimirror sync merge shard-*.lock --output all.lock --report 1.json --report 2.json --json
    """
    from ocimirror.sync import document
    from ocimirror.sync.lock import LockFile, merge
    from ocimirror.sync.shards import check_complete
    from ocimirror.sync.table import lines

    settings = settings_from(options, writes=False)
    # (A file that does not exist is a shard that has not ended yet.)
    there = [path for path in locks if count is None or os.path.lexists(path)]
    found = [LockFile.read(path) for path in there]
    check_complete([(p, lock.shard) for p, lock in zip(there, found, strict=True)], count)
    whole = merge(found)
    told = document.merge(document.read(path) for path in reports) if reports else None
    whole.write(joined)
    if settings.json:
        output.document(
            "sync-merge",
            0,
            {"lock": len(whole), "report": document.document(told) if told else None},
        )
    elif not settings.quiet:
        output.line(f"{joined}: {len(whole)} images of {len(locks)} lock files")
        for line in lines(told) if told else ():
            output.line(line)
    return told.exit_code if told else 0
