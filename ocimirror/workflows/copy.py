"""copy: one image from any location to any location."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ocimirror.copy.copy import copy as copy_images
from ocimirror.copy.outcome import Options, Outcome, Reporter, Request, Silent
from ocimirror.errors import Interrupted, OciMirrorError, UsageError, blamed_on
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location
from ocimirror.stores.archive import ArchiveWriter
from ocimirror.stores.index import LayoutSource, is_synthesised
from ocimirror.stores.profiles import (
    Image,
    Profile,
    has_docker_manifest,
    index_document,
    one_image,
)
from ocimirror.stores.store import Source
from ocimirror.workflows.identity import note_on_identity
from ocimirror.workflows.places import Places, new_name


def copy(
    source: Location,
    destination: Location,
    places: Places,
    options: Options,
    reporter: Reporter | None = None,
    *,
    platforms: tuple[Platform, ...] = (),
    profile: Profile | None = None,
) -> list[Outcome]:
    """Copy an image; a destination without a name keeps the source's.

    Args:
        profile: the engine that an OCI archive is for; what refers to the image is left out.

    Raises:
        UsageError: the image would have no name in a layout, or does not suit the profile.
        NotFound: the source layout has no such image.
    """
    reporter = reporter or Silent()
    if profile is not None and destination.scheme != "oci-archive":
        raise UsageError("--profile says what an oci-archive: is for; nothing else has one")
    origin = places.source(source)
    name = new_name(destination, origin, source)
    if not platforms and isinstance(origin, LayoutSource) and source.digest is None:
        platforms = origin.index().find(source.name).platforms
    manifest_for = platforms if len(platforms) == 1 else ()
    if profile is not None:
        _refuse_unsuited(profile, origin, source, name, manifest_for)
        options = replace(options, referrers=False)
    store = places.destination(
        destination, dry_run=options.dry_run, profile=profile, platforms=manifest_for
    )
    shown = str(source), str(_named(destination, name))
    request = Request(origin, source.read_name, store, name, *shown, platforms)
    (outcome,) = copy_images([request], options, _Unfinished(reporter))
    if outcome.error is None and outcome.root is not None and is_synthesised(outcome.root):
        root = origin.read_manifest(outcome.root)
        outcome.notes += note_on_identity(root, verified=outcome.status == "copied")
    if profile is not None:
        outcome.notes.append(f"for {profile}: without signatures, SBOMs and attestations beside it")
    if isinstance(store, ArchiveWriter) and outcome.error is None:
        _commit(store, outcome, options)
    reporter.finished(outcome)
    return [outcome]


def _refuse_unsuited(
    profile: Profile, origin: Source, source: Location, name: str, platforms: Sequence[Platform]
) -> None:
    """Find out before anything moves what the archive could not be."""
    root = origin.resolve(source.read_name)
    index_document(profile, [Image(name, root)])
    if has_docker_manifest(profile):
        one_image(origin, root, platforms)


def _commit(archive: ArchiveWriter, outcome: Outcome, options: Options) -> None:
    """Write the archive; the image is reported only after that."""

    def watch(_: int) -> None:
        if options.stop.is_set():
            raise Interrupted("stopped before the archive was written")

    try:
        with blamed_on("destination"):
            archive.commit(watch)
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
