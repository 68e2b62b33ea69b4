"""verify: hash everything reachable again, and report every fault."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

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
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform, sparse_text
from ocimirror.model.reference import Location
from ocimirror.stores.archive import Archive
from ocimirror.stores.index import LayoutIndex, LayoutSource, platforms_of, sparse
from ocimirror.stores.layout import Layout
from ocimirror.stores.store import Source
from ocimirror.stores.stream import Watch
from ocimirror.workflows.places import Places
from ocimirror.workflows.reach import Seen, reach, whole_first

Kind = Literal[
    "corrupt", "missing", "wrong_size", "malformed", "stray", "unsupported", "unreadable"
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `path` is below the layout, `image` the first that needs it.

    `exit_code` is 5 for what is wrong, and the error's own for what could not be read.
    """

    kind: Kind
    digest: str
    path: str
    image: str
    message: str
    exit_code: int = 5


@dataclass(slots=True)
class Report:
    """What was looked at, and what is wrong with it.

    `images` counts the roots, with entries that cannot be read.
    """

    images: int = 0
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    hashed: bool = True
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The code of the worst fault; 0 without one."""
        return exit_code_of({fault.exit_code for fault in self.faults})


def verify(
    location: Location,
    places: Places,
    *,
    deep: bool = False,
    jobs: int = 4,
    stop: threading.Event | None = None,
    platforms: Sequence[Platform] = (),
) -> Report:
    """Check an image, or a whole layout or archive where no name is given. Writes nothing.

    In a layout everything reachable is hashed. Of a registry's image the manifests are
    downloaded and hashed and the blobs are proved present; `deep` downloads those too. A layout
    says which platforms of an image it was asked for; of a registry's image `platforms` does.

    Raises:
        DamagedLayout: index.json itself cannot be read.
        RemoteError: the registry does not tell what the name stands for.
        Interrupted: `stop` was set.
    """
    source = places.source(location)
    local = isinstance(source, LayoutSource)
    report = Report(hashed=local or deep)
    roots = _roots(source, location, platforms)
    if isinstance(source, LayoutSource) and not location.read_name:
        report.faults += _unreadable(source.index())
    report.images = len(roots) + len(report.faults)
    if isinstance(source, LayoutSource) and not isinstance(source, Layout):
        held = ((image, platforms_of(root)) for image, root in roots)
        report.notes += [sparse_text(image, here) for image, here in held if here]
    blobs: dict[tuple[Digest, int], tuple[Descriptor, str]] = {}
    seen: set[Seen] = set()
    for image, root in roots:
        for blob in _check_manifests(source, root, image, seen, report, stop):
            blobs.setdefault((blob.digest, blob.size), (blob, image))
    report.manifests = len({digest for digest, _, _ in seen})

    def watch(_: int) -> None:
        if stop is not None and stop.is_set():
            raise Interrupted("stopped before everything was verified")

    check = partial(_check_blob, source, watch=watch, hashed=report.hashed)
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda item: check(*item), blobs.values()))
    report.blobs = len({digest for digest, _ in blobs})
    report.bytes += sum(blob.size for blob, _ in blobs.values()) if report.hashed else 0
    report.faults += [fault for fault in found if fault is not None]
    if isinstance(source, (Layout, Archive)) and not location.read_name:
        report.faults += _strays(source.blob_files())
    return report


def _roots(
    source: Source, location: Location, platforms: Sequence[Platform]
) -> list[tuple[str, Descriptor]]:
    if isinstance(source, LayoutSource) and not location.read_name:
        entries = whole_first(source.entries())
        return [(entry.name or str(entry.descriptor.digest), entry.descriptor) for entry in entries]
    root = source.resolve(location.read_name)
    return [(str(location), sparse(root, platforms) if platforms else root)]


def _unreadable(index: LayoutIndex) -> Iterable[Fault]:
    for row in index.unreadable:
        digest = str(row.digest or "")
        message = f"{row.message}; `ocimirror repair` mends it"
        yield Fault("malformed", digest, "index.json", row.name, message)


def _check_manifests(
    source: Source,
    root: Descriptor,
    image: str,
    seen: set[Seen],
    report: Report,
    stop: threading.Event | None,
) -> Iterator[Descriptor]:
    """Check each manifest below a root once; yield the blobs they name."""

    def failed(error: OciMirrorError, descriptor: Descriptor) -> None:
        report.faults.append(_fault(error, descriptor, image))

    for manifest in reach(source, root, seen, failed, stop):
        report.bytes += manifest.descriptor.size
        yield from (b for b in manifest.blobs if not mediatype.is_foreign(b.media_type))


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
    kinds: Sequence[tuple[type[OciMirrorError], Kind]] = (
        (MissingContent, "missing"),
        (NotFound, "missing"),
        (SizeMismatch, "wrong_size"),
        (MalformedManifest, "malformed"),
        (DamagedLayout, "malformed"),
        (Unsupported, "unsupported"),
        (RemoteError, "unreadable"),
        (LocalStorageError, "unreadable"),
    )
    kind: Kind = next((kind for known, kind in kinds if isinstance(error, known)), "corrupt")
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
