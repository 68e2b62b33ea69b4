"""tag, remove, repair and gc: what keeps a layout in good order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import (
    Settings,
    dry_run,
    durable,
    layout_argument,
    option,
    seconds,
    settings_from,
    shared,
    waiting,
)
from ocimirror.errors import Interrupted
from ocimirror.model.codec import to_document, to_json

if TYPE_CHECKING:
    from ocimirror.care.gc import Collected
    from ocimirror.care.names import Removed
    from ocimirror.care.repair import Repaired
    from ocimirror.stores.layout.quarantine import BlobFile


# --- names --------------------------------------------------------------------------------------


@click.command("tag", short_help="Give an image of a layout one more name.", no_args_is_help=True)
@click.argument("layout")
@click.argument("name")
@click.argument("new")
@waiting
@shared
def tag_command(layout: str, name: str, new: str, **options: Any) -> int:
    """Give an image of a layout one more name; another image that had it loses it.

    NAME is a full reference, a tag that one image has, or a digest. NEW is a full reference, or a
    tag in the same repository.

    \b
    Examples:
      ocimirror tag ./layout docker.io/library/alpine:3.19 stable
      ocimirror tag ./layout 3.19 registry.example.com/base/alpine:3.19
      ocimirror tag ./layout sha256:... registry.example.com/found:again
    """
    from ocimirror.care.names import tag

    settings = settings_from(options, writes=False)
    with settings.places() as places:
        tagged = tag(layout_argument(layout), name, new, places)
    if settings.json:
        digests = {"digest": str(tagged.root.digest), "previous": to_json(tagged.previous)}
        output.document("tag", 0, {"name": tagged.name, **digests})
    elif not settings.quiet:
        output.line(f"tagged  {tagged.name}  {tagged.root.digest}")
        if tagged.previous not in (None, tagged.root.digest):
            output.line(f"  note: it was {tagged.previous} before")
    return 0


@click.command(
    "remove", short_help="Take a name from a layout; gc frees the space.", no_args_is_help=True
)
@click.argument("layout")
@click.argument("name")
@waiting
@shared
def remove_command(layout: str, name: str, **options: Any) -> int:
    """Take a name from a layout; its content stays until gc.

    With its last name an image loses its signatures, SBOMs and attestations too.

    \b
    Examples:
      ocimirror remove ./layout docker.io/library/alpine:3.18
      ocimirror remove ./layout 3.18 && ocimirror gc ./layout
    """
    from ocimirror.care.names import remove

    settings = settings_from(options, writes=False)
    with settings.places() as places:
        removed = remove(layout_argument(layout), name, places)
    if settings.json:
        output.document("remove", 0, _removed_document(removed))
    elif not settings.quiet:
        _removed_lines(removed, layout)
    return 0


def _removed_document(removed: Removed) -> dict[str, object]:
    return {
        "name": removed.entry.name or None,
        "digest": str(removed.entry.descriptor.digest),
        "other_names": list(removed.others),
        "attachments": [
            {"name": entry.name or None, "digest": str(entry.descriptor.digest)}
            for entry in removed.attachments
        ],
    }


def _removed_lines(removed: Removed, layout: str) -> None:
    entry = removed.entry
    output.line(f"removed  {entry.name or '(no name)'}  {entry.descriptor.digest}")
    for attachment in removed.attachments:
        name = attachment.name or "what referred to it"
        output.line(f"removed  {name}  {attachment.descriptor.digest}")
    if removed.others:
        output.line(f"  note: the image is still {', '.join(removed.others)}")
    else:
        output.line(f"  note: its content stays until `ocimirror gc {layout}`")


# --- content ------------------------------------------------------------------------------------


@click.command(
    "repair", short_help="Fetch again what is damaged or missing in a layout.", no_args_is_help=True
)
@click.argument("layout")
@option(
    "--from",
    "origin",
    metavar="LOCATION",
    default="",
    help="Fetch from this layout or archive, or from docker://HOST[/PREFIX] as push fills it.",
)
@option(
    "--rebuild-index",
    is_flag=True,
    help="Add every image that no entry of index.json reaches, also if index.json is valid.",
)
@option("--lock", "lock_file", metavar="FILE", default="", help="A lock file that knows names.")
@dry_run
@durable
@waiting
@shared
def repair_command(
    layout: str, origin: str, rebuild_index: bool, lock_file: str, **options: Any
) -> int:
    """Verify a layout, and fetch again what is damaged or missing.

    Each image that has faults is copied again, by digest, from the registry that its name says,
    or from --from. A damaged index.json is made anew from index.json.prev and from every image
    among the blobs that has no entry. Their names come from --from (a layout or an archive) or
    --lock; while an image has none, the exit code is 5. Names that are there never move.

    \b
    Examples:
      ocimirror repair ./layout
      ocimirror repair ./layout --from docker://registry.example.com:5000/mirror
      ocimirror repair ./layout --from oci-archive:yesterday.tar
      ocimirror repair ./layout --lock ocimirror.lock
      ocimirror repair ./layout --rebuild-index --from ./other-layout
    """
    from ocimirror.care.repair import repair
    from ocimirror.cli.progress import progress_for
    from ocimirror.copy.outcome import Options
    from ocimirror.sync.lock import LockFile

    planned = options.pop("dry_run")
    settings = settings_from(options, writes=True)
    copy_options = Options(
        jobs=settings.jobs, retries=settings.retries, dry_run=planned, stop=settings.stop
    )
    known = LockFile.read(lock_file).roots() if lock_file else ()
    started = time.monotonic()
    progress = progress_for(0, json=settings.json, quiet=settings.quiet, bars=settings.progress)
    with settings.places() as places, progress:
        try:
            repaired = repair(
                layout_argument(layout),
                origin,
                places,
                copy_options,
                progress,
                rebuild_index=rebuild_index,
                known=known,
            )
        except Interrupted as error:
            return _interrupted(error, settings)
    code = 128 + settings.signal if settings.signal else _repair_code(repaired, planned)
    seconds = time.monotonic() - started
    if settings.json:
        _repair_document(repaired, code, seconds)
    elif code or not settings.quiet:
        _repair_lines(repaired, layout, planned)
    return code


def _interrupted(error: Interrupted, settings: Settings) -> int:
    code = 128 + settings.signal
    output.complain(error)
    if settings.json:
        output.document("repair", code, {"error": to_document(error)})
    return code


def _repair_code(repaired: Repaired, planned: bool) -> int:
    """Return 0 if the layout verifies now and each image has a name, whatever failed before."""
    if repaired.unnamed or repaired.dropped:
        return 5
    if not repaired.faults:
        return 0
    failed = {outcome.error.exit_code for outcome in repaired.outcomes if outcome.error is not None}
    failed |= {fault.exit_code for fault in repaired.faults if fault.kind == "unreadable"}
    return output.exit_code_of(failed) or (
        0 if planned else output.exit_code_of([fault.exit_code for fault in repaired.faults])
    )


def _repair_document(repaired: Repaired, code: int, seconds: float) -> None:
    output.document(
        "repair",
        code,
        {
            "index": repaired.index,
            "unnamed": [str(digest) for digest in repaired.unnamed],
            "dropped": list(repaired.dropped),
            "images": [output.outcome_document(outcome) for outcome in repaired.outcomes],
            "totals": output.totals(repaired.outcomes, seconds),
            "faults": to_json(repaired.faults),
        },
    )


def _repair_lines(repaired: Repaired, layout: str, planned: bool) -> None:
    if repaired.index == "restored":
        output.line(f"index.json of {layout} was restored from index.json.prev")
        output.line("  note: names that moved last may be missing: pull those images again")
    elif repaired.index == "rebuilt":
        output.line(f"index.json of {layout} was mended")
    for message in repaired.dropped:
        output.line(f"dropped  {message}")
    for digest in repaired.unnamed:
        output.line(f"unnamed  {digest}")
    if repaired.unnamed:
        output.line("  --from LAYOUT or --lock FILE give names, or one at a time:")
        output.line(f"  `ocimirror tag {layout} DIGEST NAME`, `ocimirror remove {layout} @DIGEST`")
    if not repaired.faults:
        if not repaired.unnamed:
            output.line(f"ok  {layout}: {'repaired' if repaired.outcomes else 'no faults'}")
        return
    for fault in () if planned else repaired.faults:
        output.line(f"{fault.kind}  {fault.digest}")
        output.line(f"  {fault.message}")
    count = len(repaired.faults)
    output.line(f"{count} {'fault' if count == 1 else 'faults'} in {layout}")


@click.command("gc", short_help="Remove what nothing in a layout reaches.", no_args_is_help=True)
@click.argument("layout")
@option(
    "--grace",
    callback=seconds,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How old a blob has to be, and how long it then waits in quarantine: 0, 90s, 15m, 7d.",
)
@option(
    "--after-repair",
    is_flag=True,
    help="index.json was damaged, and holds all that it is to hold again: needed once.",
)
@dry_run
@waiting
@shared
def gc_command(layout: str, grace: float, after_repair: bool, **options: Any) -> int:
    """Remove what no image of a layout needs, in two runs.

    The first puts it in quarantine, one after the grace deletes it; what has become needed
    meanwhile is put back. No pull, push or verify runs at the same time (exit 7, or --wait).
    Where a manifest that is needed is damaged, nothing is removed; nor after a repair of
    index.json, until --after-repair says once that all images are there again.

    \b
    Examples:
      ocimirror gc ./layout
      ocimirror gc ./layout --dry-run
      ocimirror gc ./layout --grace 7d --wait -q
    """
    from ocimirror.care.gc import gc

    planned = options.pop("dry_run")
    settings = settings_from(options, writes=False)
    with settings.places() as places:
        collected = gc(
            layout_argument(layout), grace, places, dry_run=planned, after_repair=after_repair
        )
    if settings.json:
        output.document("gc", 0, {"dry_run": planned, **_collected_document(collected)})
    elif not settings.quiet:
        _collected_lines(collected, planned)
    return 0


def _counts(collected: Collected) -> dict[str, Sequence[BlobFile]]:
    return {
        "kept": collected.kept,
        "restored": collected.restored,
        "quarantined": collected.quarantined,
        "waiting": collected.waiting,
        "deleted": collected.deleted,
    }


def _collected_document(collected: Collected) -> dict[str, object]:
    counts = {
        what: {"blobs": len(files), "bytes": sum(file.size for file in files)}
        for what, files in _counts(collected).items()
    }
    spared = sum(file.size for file in collected.spared)
    return {
        **counts,
        "spared": {"blobs": len(collected.spared), "bytes": spared},
        "spared_until": _time(collected.spared_until),
        "waiting_until": _time(collected.waiting_until),
        "strays": collected.strays,
    }


def _time(seconds: float) -> str | None:
    """Return seconds of the system's clock as RFC 3339, UTC; None for 0."""
    if not seconds:
        return None
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError):
        return None  # (a file from a year that no clock has)


def _collected_lines(collected: Collected, planned: bool) -> None:
    for path in collected.strays:
        output.line(f"stray  {path} is no blob; it stays")
    parts = [
        f"{len(files)} {what} ({output.size(sum(file.size for file in files))})"
        for what, files in _counts(collected).items()
        if files or what == "kept"
    ]
    output.line(("would be: " if planned else "") + ", ".join(parts))
    if collected.spared:
        size = output.size(sum(file.size for file in collected.spared))
        until = _time(collected.spared_until)
        count = len(collected.spared)
        output.line(f"  spared by --grace: {count} of those kept ({size}), the last until {until}")
    if collected.waiting:
        output.line(f"  in quarantine: the last until {_time(collected.waiting_until)}")
