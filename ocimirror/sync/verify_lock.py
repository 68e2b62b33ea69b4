"""verify --lock: whether places hold what a lock file says.

Without a place the sources themselves are asked what they stand for now. A layout, an archive or
a registry is asked for each image by its name, and what it holds is checked as `verify` does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from ocimirror.care.verify import Report, check
from ocimirror.copy.naming import name_in_a_layout
from ocimirror.copy.places import Places, parse_location
from ocimirror.copy.push import parse_target, pushed
from ocimirror.errors import (
    IntegrityError,
    InvalidReference,
    NotFound,
    OciMirrorError,
    RemoteError,
    UsageError,
)
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location, Reference
from ocimirror.stores.entry import platforms_of
from ocimirror.stores.store import Source
from ocimirror.sync.lock import ImageRecord, LockFile

State = Literal["kept", "moved", "absent", "incomplete", "failed"]
_AT_SOURCE, _AT_DESTINATION = 4, 9


@dataclass(frozen=True, slots=True)
class Compared:
    """One image of the lock, and what was found.

    Attributes:
        state: `kept`: the digest of the lock. `moved`: another one. `absent`: no such name.
            `incomplete`: platforms or attachments of the lock are not there. `failed`: no answer.
        location: where it was looked for; None if it can have no name there.
        found: the digest that was found.
        message: what is missing.
        error: why there was no answer.
    """

    record: ImageRecord
    state: State
    location: Location | None
    found: Digest | None = None
    message: str = ""
    error: OciMirrorError | None = None


@dataclass(slots=True)
class LockReport:
    """What was compared, in the order of the lock, and the faults of what is held.

    Attributes:
        at_source: the sources were asked, and not a copy of them.
    """

    at_source: bool
    images: list[Compared] = field(default_factory=list)
    content: Report = field(default_factory=Report)

    @property
    def exit_codes(self) -> set[int]:
        """The code of each kind of fault, as the contract has them.

        5: content is damaged. 4: a source moved, or is gone. 9: a copy is not what the lock says.
        Of what did not answer: the error's own.
        """
        differs = _AT_SOURCE if self.at_source else _AT_DESTINATION
        codes = {image.error.exit_code for image in self.images if image.error is not None}
        if any(image.state in ("moved", "absent", "incomplete") for image in self.images):
            codes.add(differs)
        return codes | {fault.exit_code for fault in self.content.faults}


class _Place(NamedTuple):
    """Where an image of the lock may be, what to ask for, and how that is shown."""

    source: Source
    name: str
    location: Location


def verify_lock(
    lock: LockFile,
    text: str,
    places: Places,
    *,
    deep: bool = False,
    jobs: int = 4,
    stop: threading.Event | None = None,
) -> LockReport:
    """Compare each image of a lock with what a place has. Writes nothing.

    Args:
        lock: what is wanted.
        text: empty for the sources; a layout or an archive; or `docker://HOST[/PREFIX]`, where
            an image is called as `push` calls it, with `--keep-host` or without, or where PREFIX
            is its repository.
        places: the stores of this run.
        deep: of a registry, download the blobs too.
        jobs: requests at the same time.
        stop: ends the run.

    Raises:
        UsageError: `text` is no such place.
        DamagedLayout: the layout's index cannot be read.
    """
    if not text:
        return _compare(lock, _at_sources(places), jobs, at_source=True)
    if text.startswith("docker://"):
        report = _compare(lock, _at_registry(text, places), jobs, at_source=False)
        for number, image in enumerate(report.images):
            at = image.location.reference if image.location is not None else None
            if at is None or image.state not in ("kept", "incomplete"):
                continue
            where = replace(at, digest=image.record.digest)
            try:
                content = check(
                    places.repository(where)[where.read_name],
                    str(where.location),
                    deep=deep,
                    jobs=jobs,
                    stop=stop,
                    platforms=[Platform.parse(text) for text in image.record.platforms],
                )
            except (RemoteError, IntegrityError) as error:
                report.images[number] = replace(image, state="failed", error=error)
            else:
                _add(report.content, content)
        return report
    location = parse_location(text)
    if location.read_name:
        raise UsageError(f"{location}: a whole layout or archive goes with --lock, without a NAME")
    report = _compare(lock, _in_layout(location, places), 1, at_source=False)
    whole = places.source(location)[""]
    report.content = check(whole, deep=deep, jobs=jobs, stop=stop)
    return report


def _compare(
    lock: LockFile, candidates: Callable[[Reference], list[_Place]], jobs: int, *, at_source: bool
) -> LockReport:
    found = [(record, candidates(record.source)) for record in lock]
    with ThreadPoolExecutor(jobs) as pool:
        compared = pool.map(lambda item: _compared(*item, at_source=at_source), found)
        return LockReport(at_source, list(compared))


def _at_sources(places: Places) -> Callable[[Reference], list[_Place]]:
    def candidates(reference: Reference) -> list[_Place]:
        return [_Place(places.repository(reference), reference.read_name, reference.location)]

    return candidates


def _at_registry(text: str, places: Places) -> Callable[[Reference], list[_Place]]:
    registry, prefix = parse_target(text.removeprefix("docker://").rstrip("/"))

    def candidates(reference: Reference) -> list[_Place]:
        return [
            _Place(places.repository(name), name.read_name, name.location)
            for name in _names_at(reference, registry, prefix)
        ]

    return candidates


def _names_at(reference: Reference, registry: str, prefix: str) -> Iterator[Reference]:
    """Yield what an image may be called at a registry, the likeliest first."""
    digest = None if reference.tag else reference.digest
    for keep_host in (False, True):
        try:
            named = pushed(reference, registry, prefix, keep_host=keep_host)
        except InvalidReference:
            continue  # (too long a name is the name of nothing)
        yield replace(named, digest=digest)
    if prefix:
        yield Reference(registry, prefix, reference.tag, digest)


def _in_layout(location: Location, places: Places) -> Callable[[Reference], list[_Place]]:
    source = places.indexed(location, " holds no images by their names")

    def candidates(reference: Reference) -> list[_Place]:
        name = name_in_a_layout(reference)
        return [_Place(source, name, replace(location, name=name))]

    return candidates


def _compared(record: ImageRecord, places: list[_Place], *, at_source: bool) -> Compared:
    """Return what the first place with the digest has, else what the likeliest of them has."""
    other: Compared | None = None
    for place in places:
        try:
            root = place.source.resolve(place.name)
            same = root.digest == record.digest
            missing = _missing(record, root, place.source) if same and not at_source else ""
        except NotFound:
            continue
        except OciMirrorError as error:
            other = other or Compared(record, "failed", place.location, error=error)
            continue
        if same:
            state: State = "incomplete" if missing else "kept"
            return Compared(record, state, place.location, root.digest, missing)
        other = other or Compared(record, "moved", place.location, root.digest)
    return other or Compared(record, "absent", places[0].location if places else None)


def _missing(record: ImageRecord, root: Descriptor, source: Source) -> str:
    """Return what the lock has and the place lacks: platforms and attachments."""
    held = {str(platform) for platform in platforms_of(root)}
    lacking = []
    if held and not record.platforms:
        lacking.append(f"platforms other than {', '.join(sorted(held))}")
    elif held:
        lacking += [platform for platform in record.platforms if platform not in held]
    lacking += [str(digest) for digest in record.attachments if not _has(source, digest)]
    return f"not there: {', '.join(lacking)}" if lacking else ""


def _has(source: Source, digest: Digest) -> bool:
    try:
        source.resolve(str(digest))
    except NotFound:
        return False
    return True


def _add(report: Report, other: Report) -> None:
    report.manifests += other.manifests
    report.blobs += other.blobs
    report.bytes += other.bytes
    report.hashed = other.hashed
    report.faults += other.faults
