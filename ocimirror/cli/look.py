"""verify, inspect and list."""

from __future__ import annotations

import sys
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output, receipts
from ocimirror.cli.options import Settings, option, settings_from, shared
from ocimirror.errors import OciMirrorError
from ocimirror.model.codec import to_json

if TYPE_CHECKING:
    from ocimirror.care.inspect import Inspection, Listed
    from ocimirror.care.verify import Report
    from ocimirror.engines.load import Loaded
    from ocimirror.engines.opening import EngineOptions
    from ocimirror.engines.receipt import Part
    from ocimirror.model.platform import Platform
    from ocimirror.model.reference import Location


@click.command(
    "verify", short_help="Hash everything again and report every fault.", no_args_is_help=True
)
@click.argument("location", default="")
@option("--deep", is_flag=True, help="Hash what a registry or an engine (--in) has, too.")
@option(
    "--lock",
    "lock_file",
    metavar="FILE",
    help="Compare the images of a lock file: with LOCATION, or without it with their sources.",
)
@option(
    "--config",
    metavar="FILE",
    help="With --lock: the sync file whose `registries` say how each registry is reached (default:"
    " sync.yaml beside sync.lock).",
)
@option(
    "--in",
    "engine",
    type=click.Choice(["docker", "containerd", "cri", "podman"]),
    help="Ask an engine instead what it has of these images.",
)
@receipts.engine_options
@shared
def verify_command(
    location: str,
    deep: bool,
    lock_file: str | None,
    config: str | None,
    engine: Any,
    host: str,
    namespace: str,
    platforms: tuple[str, ...],
    require: tuple[Part, ...],
    **options: Any,
) -> int:
    """Hash everything reachable again and report every fault; write nothing.

    A layout or archive without a NAME is checked whole; with one, the image and what refers to it,
    as a pull brings them. Of an image in a registry the manifests are hashed and the blobs are
    proved present.

    \b
    Examples:
      ocimirror verify ./layout
      ocimirror verify oci:./layout:docker.io/library/alpine:3.19
      ocimirror verify docker://registry.example.com/alpine:3.19 --deep
      ocimirror verify ./layout --in cri --require index
      ocimirror verify --lock sync.lock docker://registry.example.com
    """
    from ocimirror.care.verify import check
    from ocimirror.copy.places import parse_location

    if lock_file and not engine:
        from ocimirror.cli.lock import verify_lock

        settings = settings_from(options, writes=False)
        return verify_lock(lock_file, location, settings, deep=deep, config=config)
    if config:
        raise click.UsageError("--config goes with --lock")
    if not location or lock_file:
        raise click.UsageError("--lock and --in exclude each other" if location else "no LOCATION")
    where = parse_location(location)
    # (A client of an engine is ended before we are.)
    settings = settings_from(options, writes=engine not in (None, "cri"))
    if engine:
        from ocimirror.engines.opening import EngineOptions

        chosen = EngineOptions(engine, host, namespace)
        wanted = receipts.platforms_from(platforms)
        return _verify_in(chosen, where, wanted, require, settings, deep=deep)
    if host or namespace or platforms or require:
        raise click.UsageError("--host, --namespace, --platform and --require go with --in")
    with settings.places() as places:
        image = places.source(where)[where.read_name]
        report = check(image, str(where), deep=deep, jobs=settings.jobs)
    code = report.exit_code
    if settings.json:
        _verify_document(report, code)
    elif report.faults or not settings.quiet:
        _verify_lines(report, location)
    return code


def _verify_in(
    engine: EngineOptions,
    where: Location,
    platforms: tuple[Platform, ...],
    require: tuple[Part, ...],
    settings: Settings,
    *,
    deep: bool,
) -> int:
    """Print a receipt of what an engine has of each image."""
    from ocimirror.engines.load import NO_ENGINE_TAKES, audit, chosen_entries, left_out
    from ocimirror.engines.opening import open_auditor
    from ocimirror.engines.receipt import PARTS

    audited: list[Loaded] = []
    failed: OciMirrorError | None = None
    parts = require
    with settings.places() as places:
        try:
            source = places.indexed(where, NO_ENGINE_TAKES)
            entries = chosen_entries(source, where, ())
            auditor = open_auditor(engine, settings.stop)
            parts = tuple(part for part in PARTS if part in auditor.keeps or part in require)
            audited_now = audit(source, entries, auditor, platforms, deep=deep)
            for item in chain(audited_now, left_out(source, where, ())):
                audited.append(item)
                if not settings.json:
                    verbose = bool(settings.verbose)
                    receipts.print_loaded(item, parts, verbose=verbose, quiet=settings.quiet)
            auditor.close()
        except OciMirrorError as error:
            failed = error
    return receipts.finish("verify", audited, failed, parts, settings)


def _verify_document(report: Report, code: int) -> None:
    checked = {"manifests": report.manifests, "blobs": report.blobs, "bytes": report.bytes}
    checked["attachments"] = report.attachments
    faults = to_json(report.faults)
    content: dict[str, object] = {"images": report.images, "checked": checked, "faults": faults}
    if report.notes:
        content["notes"] = report.notes
    output.document("verify", code, content)


def _verify_lines(report: Report, location: str) -> None:
    for fault in report.faults:
        needed = f"  (needed by {fault.image})" if fault.image else ""
        output.line(f"{fault.kind}  {fault.digest}{needed}")
        output.line(f"  {fault.message}")
    for note in report.notes:
        output.line(f"note  {note}")
    how = f"{output.size(report.bytes)} hashed" if report.hashed else "blobs present, not hashed"
    checked = f"{report.manifests} manifests, {report.blobs} blobs, {how}"
    if report.faults:
        count = len(report.faults)
        faults = "1 fault" if count == 1 else f"{count} faults"
        output.line(f"{faults} in {location}: {checked}")
        kinds = {fault.kind for fault in report.faults}
        if report.repairable and kinds - {"unreadable", "stray", "unsupported"}:
            output.line("  `ocimirror repair` fetches what is damaged or missing again")
        if "stray" in kinds:
            output.line("  remove or move away what is stray: it belongs to no image")
        if "unreadable" in kinds:
            output.line("  what cannot be read may be whole: verify again once it can")
    elif not report.images:
        output.line(f"empty  {location}: no image, nothing to verify")
    else:
        output.line(f"ok  {location}: {checked}")


@click.command("inspect", no_args_is_help=True)
@click.argument("location")
@option("--raw", is_flag=True, help="Write the manifest's bytes, exactly as they are.")
@shared
def inspect_command(location: str, raw: bool, **options: Any) -> int:
    """Show an image's digest, platforms, sizes and layers.

    \b
    Examples:
      ocimirror inspect docker://alpine:3.19
      ocimirror inspect oci:./layout:docker.io/library/alpine:3.19
      ocimirror inspect ./layout --raw | sha256sum
    """
    from ocimirror.care.inspect import inspect, raw_manifest
    from ocimirror.copy.places import parse_location

    where = parse_location(location)
    settings = settings_from(options, writes=False)
    with settings.places() as places:
        if raw:
            sys.stdout.buffer.write(raw_manifest(where, places))
            return 0
        inspection = inspect(where, places)
    if settings.json:
        output.document("inspect", 0, {"location": str(where), **_inspect_document(inspection)})
    else:
        output.line(str(where))
        _inspect_lines(inspection, "")
    return 0


def _inspect_document(inspection: Inspection) -> dict[str, object]:
    from ocimirror.stores.entry import is_synthesised

    manifest = inspection.manifest
    return {
        "digest": str(manifest.digest),
        "media_type": manifest.media_type,
        "size": manifest.descriptor.size,
        "total_size": inspection.size_bytes,
        "platform": inspection.platform or None,
        "artifact_type": manifest.artifact_type or None,
        "synthesised": is_synthesised(manifest.descriptor),
        "annotations": dict(manifest.annotations),
        "subject": str(manifest.subject.digest) if manifest.subject else None,
        "blobs": [
            {"digest": str(b.digest), "media_type": b.media_type, "size": b.size}
            for b in manifest.blobs
        ],
        "referrers": [
            {
                "digest": str(referrer.descriptor.digest),
                "tag": referrer.tag or None,
                "artifact_type": referrer.descriptor.artifact_type or None,
                "media_type": referrer.descriptor.media_type,
                "size": referrer.descriptor.size,
            }
            for referrer in inspection.referrers
        ],
        "manifests": [
            {**_inspect_document(child), "present": True} for child in inspection.children
        ]
        + [
            {
                "digest": str(child.digest),
                "media_type": child.media_type,
                "size": child.size,
                "platform": str(child.platform) if child.platform else None,
                "present": False,
            }
            for child in inspection.missing
        ],
    }


def _inspect_lines(inspection: Inspection, indent: str) -> None:
    from ocimirror.copy.identity import note_on_identity

    manifest = inspection.manifest
    what = inspection.platform or manifest.artifact_type
    head = f"{indent}{manifest.digest}  {output.size(inspection.size_bytes)}"
    output.line(f"{head}  {what}" if what else head)
    output.line(f"{indent}  {manifest.media_type}")
    for note in note_on_identity(manifest):
        output.line(f"{indent}  {note}")
    for key, value in manifest.annotations.items():
        output.line(f"{indent}  {key}: {value[:200]}")
    for blob in manifest.blobs:
        output.line(f"{indent}  {blob.digest}  {output.size(blob.size):>10}  {blob.media_type}")
    for referrer in inspection.referrers:
        what = referrer.tag or referrer.descriptor.artifact_type or referrer.descriptor.media_type
        output.line(f"{indent}  {referrer.descriptor.digest}  refers to it  {what}")
    for child in inspection.children:
        _inspect_lines(child, indent + "  ")
    for absent in inspection.missing:
        output.line(f"{indent}  {absent.digest}  absent  {absent.platform or ''}")


@click.command(
    "list",
    short_help="List images, tags of a repository, or a catalog.",
    no_args_is_help=True,
)
@click.argument("location")
@shared
def list_command(location: str, **options: Any) -> int:
    """List the images of a layout or archive, the tags of a repository, or a registry's catalog.

    \b
    Examples:
      ocimirror list ./layout
      ocimirror list oci-archive:images.tar --json
      ocimirror list docker://registry.example.com/library/alpine
      ocimirror list docker://registry.example.com
    """
    from ocimirror.care.inspect import list_images
    from ocimirror.copy.places import parse_location
    from ocimirror.copy.unread import unread
    from ocimirror.model.reference import registry_location

    registry = registry_location(location)
    if registry:
        return _list_catalog(registry, settings_from(options, writes=False))
    where = parse_location(location)
    settings = settings_from(options, writes=False)
    with settings.places() as places:
        found = list_images(where, places)
        bad = [] if where.reference else list(unread(places.source(where), where))
    tags = [item for item in found if isinstance(item, str)]
    images = [item for item in found if not isinstance(item, str)]
    code = output.exit_code_of({image.exit_code for image in images})
    if settings.json:
        listed: dict[str, object] = {
            "images": [_listed_document(image) for image in images],
            "unreadable": [{"name": label, "message": error.message} for label, error in bad],
        }
        output.document("list", code, {"tags": tags} if where.reference else listed)
        return code
    for tag in tags:
        output.line(tag)
    for image in images:
        output.line(_listed_line(image))
    for label, error in bad:
        output.line(f"{label}  cannot be read: {error.message}")
    return code


def _list_catalog(registry: str, settings: Settings) -> int:
    with settings.places() as places:
        repositories = places.repositories(registry)
    if settings.json:
        output.document("list", 0, {"repositories": repositories})
        return 0
    for repository in repositories:
        output.line(repository)
    return 0


def _listed_document(image: Listed) -> dict[str, object]:
    from ocimirror.stores.entry import is_synthesised

    entry = image.entry
    return {
        "name": entry.name or None,
        "tag": entry.tag or None,
        "digest": str(entry.descriptor.digest),
        "media_type": entry.descriptor.media_type,
        "size": image.size_bytes,
        "platforms": list(image.platforms),
        "synthesised": is_synthesised(entry.descriptor),
        "fault": image.fault or None,
        "sparse": image.sparse,
    }


def _listed_line(image: Listed) -> str:
    from ocimirror.stores.entry import is_synthesised

    entry = image.entry
    told = image.fault or f"{output.size(image.size_bytes)}  {' '.join(image.platforms)}"
    if image.sparse:
        told += "  (sparse)"
    if is_synthesised(entry.descriptor):
        told += "  (digest NEW: synthesised manifest, image ID kept)"
    return f"{entry.name or '(no name)'}  {entry.descriptor.digest}  {told}".rstrip()
