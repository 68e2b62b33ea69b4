"""verify --lock: what a place has of the images in a lock file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocimirror.cli import output

if TYPE_CHECKING:
    from ocimirror.cli.options import Settings
    from ocimirror.workflows.verify_lock import Compared, LockReport


def verify_lock(path: str, location: str, settings: Settings, *, deep: bool) -> int:
    """Compare a lock file with a place, or with the sources; print what differs."""
    from ocimirror.errors import exit_code_of
    from ocimirror.sync.lock import LockFile
    from ocimirror.workflows.verify_lock import verify_lock as compare

    lock = LockFile.read(path)
    with settings.places() as places:
        report = compare(lock, location, places, deep=deep, jobs=settings.jobs, stop=settings.stop)
    code = exit_code_of(report.exit_codes)
    if settings.json:
        output.document("verify", code, _document(report, path))
    elif code or not settings.quiet:
        _print(report, path, location or "the sources")
    return code


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
        "faults": [output.fault_document(fault) for fault in content.faults],
    }


def _image_document(image: Compared) -> dict[str, object]:
    return {
        "source": image.record.source,
        "location": image.location,
        "status": image.state,
        "digest": str(image.record.digest),
        "found": str(image.found) if image.found else None,
        "message": image.message,
        "error": None if image.error is None else output.error_document(image.error),
    }


def _print(report: LockReport, path: str, place: str) -> None:
    for image in report.images:
        if image.error is not None:
            output.complain(image.error, image.record.source)
        elif image.state != "kept":
            output.line(f"{image.state}  {image.location}")
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
