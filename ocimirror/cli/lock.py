"""verify --lock: what a place has of the images in a lock file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ocimirror.cli import output
from ocimirror.cli.options import extra
from ocimirror.errors import OciMirrorError
from ocimirror.model.codec import to_json

if TYPE_CHECKING:
    from ocimirror.cli.options import Settings
    from ocimirror.sync.config import RegistrySettings
    from ocimirror.sync.lock import LockFile
    from ocimirror.sync.verify_lock import Compared, LockReport


def verify_lock(
    path: str, location: str, settings: Settings, *, deep: bool, config: str | None = None
) -> int:
    """Compare a lock file with a place, or with the sources; print what differs.

    Registries are reached as the sync file says: `config`, or the one beside the lock file.
    """
    from ocimirror.copy.places import Places
    from ocimirror.errors import exit_code_of
    from ocimirror.sync.access import own_ways
    from ocimirror.sync.lock import LockFile
    from ocimirror.sync.verify_lock import verify_lock as compare

    lock = LockFile.read(path)
    own = own_ways(_registries(lock, path, config, settings))
    with Places(settings.network, stop=settings.stop, own=own) as places:
        report = compare(lock, location, places, deep=deep, jobs=settings.jobs, stop=settings.stop)
    code = exit_code_of(report.exit_codes)
    if settings.json:
        output.document("verify", code, _document(report, path))
    elif code or not settings.quiet:
        _print(report, path, location or "the sources")
    return code


def _registries(
    lock: LockFile, path: str, config: str | None, settings: Settings
) -> Mapping[str, RegistrySettings]:
    """Return what the sync file says of registries.

    One that is only found beside the lock file may be another's, or need variables that are not
    set here: then it is not used, and a line says so.
    """
    named = [config] if config else [str(Path(path).with_suffix(end)) for end in _SUFFIXES]
    file = next((name for name in named if config or os.path.lexists(name)), None)
    if file is None:
        return {}
    try:
        with extra("verify --lock --config", "sync"):
            from ocimirror.sync.config import load
        found = load(Path(file), os.environ)
        lock.shard.belongs_to(found.name, path)
    except OciMirrorError as error:
        if config:
            raise
        if not settings.quiet:
            output.line(f"note: {file} is not used: {error.message}", aside=True)
        return {}
    return found.registries


_SUFFIXES = (".yaml", ".yml")


def _document(report: LockReport, path: str) -> dict[str, object]:
    content = report.content
    return {
        "lock": path,
        "images": [_image_document(image) for image in report.images],
        "checked": {
            "manifests": content.manifests,
            "blobs": content.blobs,
            "bytes": content.bytes,
        },
        "faults": to_json(content.faults),
    }


def _image_document(image: Compared) -> dict[str, object]:
    return {
        "source": str(image.record.source.location),
        "location": str(image.location or ""),
        "status": image.state,
        "digest": str(image.record.digest),
        "found": str(image.found) if image.found else None,
        "message": image.message,
        "error": to_json(image.error),
    }


def _print(report: LockReport, path: str, place: str) -> None:
    for image in report.images:
        if image.error is not None:
            output.complain(image.error, str(image.record.source.location))
        elif image.state != "kept":
            output.line(f"{image.state}  {image.location or ''}")
            told = image.message or (f"it is {image.found}" if image.found else "no such image")
            output.line(f"  locked: {image.record.digest}; {told}")
    for fault in report.content.faults:
        output.line(f"{fault.kind}  {fault.digest}")
        output.line(f"  {fault.message}")
    states = [image.state for image in report.images]
    counted = [f"{states.count(s)} {s}" for s in dict.fromkeys(sorted(states, key=_order))]
    faults = f", {len(report.content.faults)} faults" if report.content.faults else ""
    head = "" if report.exit_codes else "ok  "
    output.line(f"{head}{place} against {path}: {', '.join(counted) or 'no images'}{faults}")


def _order(state: str) -> int:
    return ("failed", "moved", "absent", "incomplete", "kept").index(state)
