"""verify: hash everything reachable again, and report every fault."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from ocimirror.errors import (
    DamagedLayout,
    IntegrityError,
    Interrupted,
    InvalidReference,
    LocalStorageError,
    MalformedManifest,
    MissingContent,
    NotFound,
    OciMirrorError,
    RemoteError,
    SizeMismatch,
    Unsupported,
    exit_code_of,
)
from ocimirror.fault import Fault, FaultKind
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import MAX_GENERATIONS, Seen
from ocimirror.model.manifest import Manifest
from ocimirror.model.platform import WITHOUT_ATTESTATIONS, Platform, parsed, sparse_text
from ocimirror.stores.entry import platforms_of, sparse
from ocimirror.stores.layout.partial import held
from ocimirror.stores.layout.source import LayoutSource
from ocimirror.stores.reach import reach, whole_first
from ocimirror.stores.store import Image, Referrer, Source
from ocimirror.stores.stream import Watch


@dataclass(slots=True)
class Report:
    """What was looked at, and what is wrong with it.

    `images` counts the roots, with entries that cannot be read; `attachments` what was looked at
    because it refers to the one image that was asked for. `repairable` is a layout in a directory:
    `repair` writes to nothing else.
    """

    images: int = 0
    attachments: int = 0
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    hashed: bool = True
    repairable: bool = True
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The code of the worst fault; 0 without one."""
        return exit_code_of({fault.exit_code for fault in self.faults})


def verify(
    place: Image | Source,
    *,
    deep: bool = False,
    jobs: int = 4,
    stop: threading.Event | None = None,
    platforms: Sequence[Platform | str] = (),
) -> None:
    """Hash everything reachable again: an image, or a whole layout or archive. Writes nothing.

    Args:
        place: what is checked. An image with its attachments, as a pull of it brings them; of an
            image in a registry the manifests are hashed, and its blobs are proved to be there.
        deep: download the blobs of a registry too, and hash them.
        jobs: threads that read.
        stop: set to end it.
        platforms: what has to be there of an image in a registry; all of it if there are none.

    Raises:
        IntegrityError: something is wrong; `faults` has all of it, a `Fault` each.
        RemoteError: the registry does not tell what the name stands for.
        Interrupted: `stop` was set.
    """
    image = place if isinstance(place, Image) else place[""]
    report = check(image, deep=deep, jobs=jobs, stop=stop, platforms=parsed(platforms))
    if report.faults:
        more = f" and {len(report.faults) - 1} more" if len(report.faults) > 1 else ""
        wrong = IntegrityError(f"{image}: {report.faults[0].message}{more}")
        wrong.faults = tuple(report.faults)
        raise wrong


def check(
    image: Image,
    shown: str = "",
    *,
    deep: bool = False,
    jobs: int = 4,
    stop: threading.Event | None = None,
    platforms: Sequence[Platform] = (),
) -> Report:
    """Check an image, or a whole layout or archive if it has no name. Writes nothing.

    An image is checked with its attachments, as a pull of it brings them. In a layout everything
    reachable is hashed. Of a registry's image the manifests are downloaded and hashed and the blobs
    are proved present. A layout says which platforms of an image it was asked for.

    Args:
        image: what is checked.
        shown: what faults call it, if not by itself.
        deep: download the blobs of a registry too, and hash them.
        jobs: threads that read.
        stop: set to end it.
        platforms: what has to be there of an image in a registry; all of it if there are none.

    Raises:
        DamagedLayout: index.json itself cannot be read.
        RemoteError: the registry does not tell what the name stands for.
        Interrupted: `stop` was set.
    """
    shown = shown or str(image)
    source, name = image.place, image.name
    report = Report(hashed=source.local or deep, repairable=source.mendable)
    roots = _roots(image, shown, platforms)
    if not name:
        report.faults += _unreadable(source)
    report.images = len(roots) + len(report.faults)
    for digest, text in source.misnamed.items():
        report.faults.append(Fault("corrupt", str(digest), "manifest.json", "", text))
    if source.local and not source.mendable:
        held = ((what, platforms_of(root)) for what, root in roots)
        report.notes += [sparse_text(what, here) for what, here in held if here]
    blobs: dict[tuple[Digest, int], tuple[Descriptor, str]] = {}
    seen: set[Seen] = set()
    check_manifests = _with_attachments if name else _check_manifests
    for what, root in roots:
        for manifest in check_manifests(source, root, what, seen, report, stop):
            for blob in manifest.blobs:
                if not mediatype.is_foreign(blob.media_type):
                    blobs.setdefault((blob.digest, blob.size), (blob, what))
    report.manifests = len({digest for digest, _, _ in seen})

    def watch(_: int) -> None:
        if stop is not None and stop.is_set():
            raise Interrupted("stopped before everything was verified")

    look = partial(_check_blob, source, watch=watch, hashed=report.hashed)
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda item: look(*item), blobs.values()))
    report.blobs = len({digest for digest, _ in blobs})
    report.bytes += sum(blob.size for blob, _ in blobs.values()) if report.hashed else 0
    report.faults += [fault for fault in found if fault is not None]
    if isinstance(source, LayoutSource) and source.mendable:
        report.notes += _perhaps_sparse(source, roots, report.faults)
    if not name:
        report.faults += _strays(source.blob_files())
    return report


def _roots(image: Image, shown: str, platforms: Sequence[Platform]) -> list[tuple[str, Descriptor]]:
    source = image.place
    if source.local and not image.name:
        entries = whole_first(source.entries())
        if not entries:  # (a place without an index has names all the same)
            return [(name, source.resolve(name)) for name in source.names()]
        return [(entry.name or str(entry.descriptor.digest), entry.descriptor) for entry in entries]
    root = source.resolve(image.name)
    return [(shown, sparse(root, platforms) if platforms else root)]


def _perhaps_sparse(
    layout: LayoutSource, roots: Sequence[tuple[str, Descriptor]], faults: Sequence[Fault]
) -> Iterator[str]:
    """Yield a note on each image that would be whole if its entry said which platforms it has."""
    lacking = {fault.image for fault in faults if fault.kind == "missing"}
    for image, root in roots:
        here = platforms_of(held(layout, root)) if image in lacking else ()
        if here and not platforms_of(root):
            only = ", ".join(str(p) for p in here if p != WITHOUT_ATTESTATIONS)
            yield (
                f"{image} may be sparse: only {only} is here in whole, and its entry does not say"
                " that no more was asked for; `ocimirror copy --platform` makes a layout that does"
            )


def _unreadable(source: Source) -> Iterable[Fault]:
    advice = "`ocimirror repair` mends it" if source.mendable else "make the archive anew"
    for row in source.unreadable():
        digest = str(row.digest or "")
        message = f"{row.message}; {advice}"
        yield Fault("malformed", digest, "index.json", row.name, message)


def _check_manifests(
    source: Source,
    root: Descriptor,
    image: str,
    seen: set[Seen],
    report: Report,
    stop: threading.Event | None,
) -> Iterator[Manifest]:
    """Check each manifest below a root once; yield those that can be read."""

    def failed(error: OciMirrorError, descriptor: Descriptor) -> None:
        report.faults.append(_fault(error, descriptor, image))

    for manifest in reach(source, root, seen, failed, stop):
        report.bytes += manifest.descriptor.size
        report.notes += [
            f"{manifest.digest} is of unknown type and names {absent.digest}, which is not here"
            for absent in manifest.absent
        ]
        yield manifest


def _with_attachments(
    source: Source,
    root: Descriptor,
    image: str,
    seen: set[Seen],
    report: Report,
    stop: threading.Event | None,
) -> Iterator[Manifest]:
    """Check the manifests of an image, and those of what refers to them, as deep as a pull goes."""
    unread: list[tuple[Descriptor, Digest | None, int]] = [(root, None, 0)]
    while unread:
        start, subject, generation = unread.pop()
        for manifest in _check_manifests(source, start, image, seen, report, stop):
            if manifest.digest == start.digest and generation:
                if subject is not None and not _is_about(manifest, subject):
                    what = f"{start.digest} is listed as an attachment of {subject}"
                    report.notes.append(f"{what}; its subject is another manifest")
                    break
                report.attachments += 1
            yield manifest
            if generation < MAX_GENERATIONS:
                unread += [
                    (found, None if tag else manifest.digest, generation + 1)
                    for tag, found in _referrers(source, manifest, image, report)
                ]
    report.notes += source.notes_on_referrers()


def _is_about(manifest: Manifest, subject: Digest) -> bool:
    return manifest.subject is not None and manifest.subject.digest == subject


def _referrers(
    source: Source, manifest: Manifest, image: str, report: Report
) -> Sequence[Referrer]:
    try:
        return source.referrers(manifest.descriptor)
    except (IntegrityError, LocalStorageError, RemoteError) as error:
        what = f"what refers to {manifest.digest} cannot be told: {error.message}"
        kind: FaultKind = "malformed" if isinstance(error, IntegrityError) else "unreadable"
        report.faults.append(Fault(kind, str(manifest.digest), "", image, what, error.exit_code))
        return ()


def _check_blob(
    source: Source, blob: Descriptor, image: str, *, watch: Watch, hashed: bool
) -> Fault | None:
    try:
        if hashed:
            with source.fetch(blob, watch) as stream:
                while stream.read():
                    pass
        elif not source.exists(blob):
            with source.fetch(blob) as stream:  # (its error says how it is wrong)
                stream.read(1)
    except (IntegrityError, LocalStorageError, RemoteError) as error:
        return _fault(error, blob, image)
    return None


def _fault(error: OciMirrorError, descriptor: Descriptor, image: str) -> Fault:
    digest = descriptor.digest
    kinds: Sequence[tuple[type[OciMirrorError], FaultKind]] = (
        (MissingContent, "missing"),
        (NotFound, "missing"),
        (SizeMismatch, "wrong_size"),
        (MalformedManifest, "malformed"),
        (DamagedLayout, "malformed"),
        (Unsupported, "unsupported"),
        (RemoteError, "unreadable"),
        (LocalStorageError, "unreadable"),
    )
    kind: FaultKind = next((kind for known, kind in kinds if isinstance(error, known)), "corrupt")
    path = f"blobs/{digest.algorithm}/{digest.encoded}"
    code = error.exit_code if kind in ("unreadable", "unsupported") else 5
    return Fault(kind, str(digest), path, image, error.message, code)


def _strays(files: Iterable[tuple[str, str]]) -> Iterable[Fault]:
    """Yield a fault for each file under blobs/ whose name is no digest (image-layout.md)."""
    for path, text in files:
        try:
            Digest.parse(text)
        except InvalidReference as error:
            yield Fault("stray", text, path, "", f"{path} is no blob: {error.message}")
