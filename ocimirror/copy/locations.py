"""copy: one image from any location to any location."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ocimirror.copy.fordocker import chosen_for_docker
from ocimirror.copy.identity import note_on_identity, notes_on_restored
from ocimirror.copy.naming import new_name
from ocimirror.copy.originals import restore
from ocimirror.copy.outcome import Options, Outcome, Reporter, Request, Silent
from ocimirror.copy.pipeline import copy as copy_images
from ocimirror.copy.places import Places
from ocimirror.copy.unread import failures
from ocimirror.errors import Interrupted, OciMirrorError, UsageError, blamed_on
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location
from ocimirror.stores.entry import is_synthesised
from ocimirror.stores.profiles import (
    Image,
    Profile,
    has_docker_manifest,
    index_document,
    one_image,
)
from ocimirror.stores.store import Source, Store


@dataclass(slots=True)
class _Wanted:
    """What is read where, and what the user is told of it once it is there."""

    source: Source
    read_name: str
    platforms: tuple[Platform, ...]
    referrers: bool
    notes: list[str] = field(default_factory=list)


def copy(
    source: Location,
    destination: Location,
    places: Places,
    options: Options,
    reporter: Reporter | None = None,
    *,
    platforms: tuple[Platform, ...] = (),
    profile: Profile | None = None,
    originals: Location | None = None,
) -> list[Outcome]:
    """Copy an image; a destination without a name keeps the source's.

    Args:
        originals: where the original manifest may be of an image whose manifest was made.
        profile: the engine that an OCI archive is for; what refers to the image is left out.

    Raises:
        UsageError: the image would have no name in a layout, or does not suit the destination.
        NotFound: the source layout has no such image.
        DigestNotPreserved: `originals` do not lead to this image.
    """
    reporter = reporter or Silent()
    if profile is not None and destination.scheme != "oci-archive":
        raise UsageError("--profile says what an oci-archive: is for; nothing else has one")
    origin = places.source(source)
    image = replace(origin[source.read_name], reference=source.reference)
    name = new_name(destination, image, by_digest=source.digest is not None)
    manifest_for = platforms if len(platforms) == 1 else ()
    asked = platforms
    entry = origin.find(source.name) if not platforms and source.digest is None else None
    platforms = entry.platforms if entry else platforms
    wanted = _Wanted(origin, source.read_name, platforms, options.referrers)
    if originals is not None:
        _restore(wanted, places, originals, name)
    if profile is not None:
        _suit_profile(wanted, profile, name, manifest_for)
    elif destination.scheme == "docker-archive":
        _choose_for_docker(wanted, name, asked)
    store = places.destination(
        destination, dry_run=options.dry_run, profile=profile, platforms=manifest_for
    )
    shown = str(source), str(_named(destination, name))
    request = Request(wanted.source, wanted.read_name, store, name, *shown, wanted.platforms)
    if source.reference is not None and source.reference.pinned and originals is None:
        request = replace(request, pinned=source.reference)
    options = replace(options, referrers=wanted.referrers)
    (outcome,) = copy_images([request], options, _Unfinished(reporter))
    if outcome.error is None:
        _commit(store, outcome, options)
    if outcome.error is None:
        outcome.notes += _notes_on_root(wanted.source, outcome)
        outcome.notes += wanted.notes
    reporter.finished(outcome)
    if source.read_name:
        return [outcome]
    return [outcome, *failures(origin, source, str(destination), reporter)]


def _restore(wanted: _Wanted, places: Places, originals: Location, name: str) -> None:
    """Go on with the original manifest, if the one at hand is another."""
    made = wanted.source.resolve(wanted.read_name)
    place = places.source(originals)
    restored = restore(wanted.source, made, place, originals.read_name, name)
    if restored.root.digest == made.digest:
        wanted.notes.append(f"manifest {made.digest} is the original: nothing to restore")
        if not is_synthesised(made):
            return
    wanted.source, wanted.read_name = restored.source, str(restored.root.digest)
    wanted.platforms = wanted.platforms or restored.platforms
    if restored.root.digest == made.digest:
        return
    wanted.notes += notes_on_restored(restored.root, restored.manifest, str(originals))


def _suit_profile(
    wanted: _Wanted, profile: Profile, name: str, platforms: Sequence[Platform]
) -> None:
    """Find out before anything moves what the archive could not be."""
    root = wanted.source.resolve(wanted.read_name)
    index_document(profile, [Image(name, root)])
    if has_docker_manifest(profile):
        one_image(wanted.source, root, platforms)
    wanted.referrers = False
    wanted.notes.append(f"for {profile}: without signatures, SBOMs and attestations beside it")


def _choose_for_docker(wanted: _Wanted, name: str, platforms: Sequence[Platform]) -> None:
    """Read one image manifest only; a docker-archive has no place for more."""
    chosen = chosen_for_docker(wanted.source, wanted.read_name, name, platforms)
    wanted.read_name, wanted.referrers = chosen.read_name, False
    if chosen.of_index:
        wanted.platforms = ()  # (else it is yet to be seen whether they are the image's)
    wanted.notes += chosen.notes


def _notes_on_root(source: Source, outcome: Outcome) -> list[str]:
    if outcome.root is None or not is_synthesised(outcome.root):
        return []
    root = source.read_manifest(outcome.root)
    return note_on_identity(root, verified=outcome.status == "copied")


def _commit(archive: Store, outcome: Outcome, options: Options) -> None:
    """Write the archive; the image is reported only after that."""

    def watch(_: int) -> None:
        if options.stop.is_set():
            raise Interrupted("stopped before the archive was written")

    try:
        with blamed_on("destination"):
            size_bytes = archive.commit(watch)
        if not archive.takes_indexes:
            # (What its layers were at the source is not what they are in there.)
            outcome.bytes_total = outcome.bytes_copied = size_bytes
    except OciMirrorError as error:
        outcome.status, outcome.error = "failed", error


class _Unfinished:
    """Passes everything on but the end, which the caller reports."""

    def __init__(self, reporter: Reporter) -> None:
        self.planned = reporter.planned
        self.moved = reporter.moved

    def finished(self, outcome: Outcome) -> None:
        """Say nothing yet."""


def _named(destination: Location, name: str) -> Location:
    if destination.reference is not None:
        return replace(destination, reference=replace(destination.reference, tag=name))
    return replace(destination, name=name)
