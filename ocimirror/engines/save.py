"""save: images of a container engine into a layout, with a receipt of what came out original.

containerd, and Docker's containerd store, give the bytes that they were given. Docker's older
store and Podman have no layer as it was: a manifest is made anew and marked so, unless the
original is at hand and can be proved to lead to this image.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO

from ocimirror.copy.identity import note_on_identity, notes_on_restored
from ocimirror.copy.naming import name_in_a_layout
from ocimirror.copy.originals import Restored, restore
from ocimirror.copy.outcome import Options, Request
from ocimirror.copy.pipeline import copy
from ocimirror.copy.places import Places
from ocimirror.engines.containerd import Containerd
from ocimirror.engines.contentstore import ContentStore
from ocimirror.engines.docker.engine import Docker
from ocimirror.engines.engine import Engine, canonical, words
from ocimirror.engines.load import Loaded
from ocimirror.engines.podman import Podman
from ocimirror.engines.receipt import Index, Receipt
from ocimirror.engines.wanted import examine
from ocimirror.errors import (
    DamagedEngineStore,
    DigestMismatch,
    DigestNotPreserved,
    IntegrityError,
    Interrupted,
    LocalStorageError,
    MissingContent,
    NotFound,
    OciMirrorError,
    UsageError,
    storage_errors,
)
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import attestation_of, images_in
from ocimirror.model.manifest import Manifest
from ocimirror.model.platform import WITHOUT_ATTESTATIONS, Platform
from ocimirror.model.reference import Location, Reference
from ocimirror.stores.dockerarchive.read import DockerArchive
from ocimirror.stores.entry import is_synthesised
from ocimirror.stores.layout.writable import PRIVATE
from ocimirror.stores.profiles import image_in
from ocimirror.stores.store import Source, Store


def save(
    names: Sequence[str],
    layout: str,
    engine: Engine,
    places: Places,
    options: Options,
    *,
    platforms: tuple[Platform, ...] = (),
    originals: Location | None = None,
) -> Iterator[Loaded]:
    """Save images one after the other, and yield what came of each.

    Args:
        names: as the engine knows them.
        layout: the directory; made if absent.
        engine: where from.
        places: opens the layout and the originals.
        options: of the copy.
        platforms: those wanted of an index; empty for all that the engine has.
        originals: where original manifests may be, for images that were saved without.

    Raises:
        Interrupted: the run was stopped.
        LocalStorageError: nothing more can be saved.
    """
    for name in names:
        Reference.parse(name)
    destination = places.layout_to_write(layout)
    content = ContentStore(engine) if isinstance(engine, Containerd) else None
    for name in names:
        try:
            if content is not None:
                reference = Reference.parse(name).readable()
                original = _Original(places, originals, destination)
                yield _as_original(content, name, reference, original, engine, options, platforms)
                continue
            if not isinstance(engine, (Docker, Podman)):
                raise UsageError(f"nothing can be saved from {engine.name}")
            reference = name_in_engine(engine, name)
            # (In the layout, where there is room for it; without a name, it never stays.)
            with _temporary_file(os.path.join(layout, PRIVATE, "tmp")) as file:
                engine.export(name, file)
                original = _Original(places, originals, destination)
                yield _exported(file, reference, original, engine, options, platforms)
        except (Interrupted, LocalStorageError):
            raise
        except OciMirrorError as error:
            yield Loaded(name, error=error)


def _temporary_file(directory: str) -> IO[bytes]:
    with storage_errors(f"cannot make a file in {directory}"):
        return tempfile.TemporaryFile(dir=directory)


def name_in_engine(engine: Docker | Podman, name: str) -> Reference:
    """Return the full name of an image in docker or podman.

    Podman finds `app:v1` as `localhost/app:v1`, and both find an image by its ID.

    Raises:
        NotFound: no such image.
        UsageError: it was found by its ID, or by a name that is short for several.
    """
    inspected = engine.inspect(name)
    if inspected is None:
        raise NotFound(f"{engine.name} has no image {name}")
    known = canonical([*words(inspected, "RepoTags"), *words(inspected, "RepoDigests")])
    reference = Reference.parse(name).readable()
    by_digest = replace(reference, tag="") if reference.digest else reference
    if str(by_digest) in known:
        return reference
    tag = "" if reference.digest else reference.tag
    short = name if not tag or name.endswith(f":{tag}") else f"{name}:{tag}"
    longer = [full for full in known if full.endswith(f"/{short}")]
    if len(longer) == 1:
        return Reference.parse(longer[0])
    raise UsageError(
        f"{name} is no name of the image that {engine.name} finds by it",
        advice=f"Give it one: {engine.name} tag {name} HOST/REPOSITORY:TAG; or name it as one of:"
        f" {', '.join(sorted(known)) or 'none'}",
    )


@dataclass(frozen=True, slots=True)
class _Original:
    """Where the original manifest of an image may be, and where the image goes."""

    places: Places
    location: Location | None
    destination: Store

    def of(self, source: Source, made: Descriptor, reference: Reference) -> Restored | None:
        """Return the image under its original manifest, None if the one at hand is what there is.

        What the layout has under the name already is not given up for a manifest that was made.

        Raises:
            DigestNotPreserved: the place that was named has another image.
        """
        name = name_in_a_layout(reference)
        if self.location is not None:
            place = self.places.source(self.location)
            return restore(source, made, place, self.location.read_name, name)
        if is_synthesised(made) and name in self.destination.names():
            with contextlib.suppress(DigestNotPreserved):
                return restore(source, made, self.destination, name)
        return None


def _exported(
    file: IO[bytes],
    reference: Reference,
    original: _Original,
    engine: Docker | Podman,
    options: Options,
    platforms: tuple[Platform, ...],
) -> Loaded:
    with _opened(file, f"image {reference} of {engine.name}") as archive:
        archive.location = f"{engine.name}:{reference}"
        _refuse_other_platform(archive, reference, archive.resolve(""), platforms)
        return _as_original(archive, "", reference, original, engine, options, platforms)


def _as_original(
    source: Source,
    name: str,
    reference: Reference,
    original: _Original,
    engine: Engine,
    options: Options,
    platforms: tuple[Platform, ...],
) -> Loaded:
    """Save an image under its original manifest, if that is known; else as the engine gives it."""
    made = source.resolve(name)
    restored = original.of(source, made, reference)
    rest = reference, original.destination, engine, options
    if restored is None:
        return _saved(source, name, *rest, platforms)
    if restored.root.digest == made.digest:
        place = restored.source if is_synthesised(made) else source
        saved = _saved(place, name if place is source else str(made.digest), *rest, platforms)
        notes = [f"manifest {made.digest} is the original: nothing to restore"]
        return _noted(saved, (*notes, *(saved.receipt.notes if saved.receipt else ())))
    root = restored.root
    if reference.digest == restored.manifest.digest:
        root = restored.manifest.descriptor
    platforms = restored.platforms if root is restored.root else ()
    digest = restored.manifest.digest
    saved = _saved(restored.source, str(root.digest), *rest, platforms, digest)
    where = str(original.location or original.destination.location)
    return _noted(saved, notes_on_restored(root, restored.manifest, where))


def _noted(saved: Loaded, notes: Sequence[str]) -> Loaded:
    if saved.receipt is None:
        return saved
    return replace(saved, receipt=replace(saved.receipt, notes=tuple(notes)))


def _opened(file: IO[bytes], what: str) -> DockerArchive:
    """Open what an engine saved; some save half an image, exit code 0, if the rest is damaged."""
    path = f"/proc/self/fd/{file.fileno()}"
    try:
        archive = DockerArchive(path)
        for said in archive.misnamed.values():
            archive.close()
            raise DigestMismatch(said)
        return archive
    except IntegrityError as error:
        said = error.message.replace(path, "the archive")
        raise DamagedEngineStore(f"{what} does not come out whole: {said}") from error


def _refuse_other_platform(
    source: Source, reference: Reference, root: Descriptor, platforms: Sequence[Platform]
) -> None:
    """Refuse an image that is for one platform, where that was not asked for."""
    if not platforms or mediatype.is_index(root.media_type):
        return
    (image,) = examine(source, reference, root, ()).images
    if not any(platform.matches(image.platform) for platform in platforms):
        asked = ", ".join(map(str, platforms))
        raise NotFound(f"{source.location} is for {image.label}, and was asked for {asked}")


def _saved(
    source: Source,
    name: str,
    reference: Reference,
    destination: Store,
    engine: Engine,
    options: Options,
    platforms: tuple[Platform, ...] = (),
    image: Digest | None = None,
) -> Loaded:
    """Copy an image that is at hand, and ask the engine about what came out.

    `image` is the manifest that the engine has, where it keeps one of several.
    """
    root = source.resolve(name)
    if reference.digest not in (None, root.digest):
        raise DigestNotPreserved(
            f"{engine.name} does not give {reference}: what comes out is {root.digest}",
            advice="--with names a place that has the original.",
        )
    platforms = platforms or held_platforms(source, source.read_manifest(root))
    new_name = name_in_a_layout(reference)
    shown = f"{engine.name}:{reference}", f"{destination.location}:{new_name}"
    request = Request(source, name, destination, new_name, *shown, platforms)
    (outcome,) = copy([request], options)
    if outcome.error is not None:
        return Loaded(str(reference), error=outcome.error)
    entry = destination.find(new_name)
    if entry is None:
        raise NotFound(f"{destination.location} does not keep names")
    wanted = examine(destination, reference, entry.descriptor, ())
    if image is not None:
        held = tuple(found for found in wanted.images if found.manifest.digest == image)
        wanted = replace(wanted, images=held)
    root_manifest = replace(wanted.root, descriptor=entry.descriptor)
    receipt = replace(engine.audit(wanted), route="archive")
    receipt = _of_what_came_out(receipt, entry.descriptor)
    notes = (*receipt.notes, *outcome.notes, *note_on_identity(root_manifest, verified=True))
    return Loaded(str(reference), replace(receipt, notes=notes))


def _of_what_came_out(receipt: Receipt, root: Descriptor) -> Receipt:
    """Say of index and manifest what the layout has; the engine knows of tag and image ID."""
    if is_synthesised(root):
        return replace(receipt, index="lost", manifest="synthesised")
    index: Index = "kept" if mediatype.is_index(root.media_type) else "not_applicable"
    return replace(receipt, index=index, manifest="kept")


def held_platforms(source: Source, root: Manifest) -> tuple[Platform, ...]:
    """Return which platforms of an index are in a place; nothing where all of it is.

    An engine that pulled for one platform has that one, and not the attestations of it.
    """
    held = {descriptor.digest for descriptor in image_in(source, "", root.descriptor).manifests}
    there = [child for child in root.manifests if child.digest in held]
    about = {str(child.digest) for child in there}
    attestations = [c for c in root.manifests if attestation_of(c) in about]
    complete = all(_whole(source, child) for child in attestations)
    expected = images_in(root)
    if complete and len(there) == len(expected):
        return ()
    platforms = [child.platform for child in there if child.platform is not None]
    return tuple(dict.fromkeys([*platforms, *([] if complete else [WITHOUT_ATTESTATIONS])]))


def _whole(source: Source, child: Descriptor) -> bool:
    if not source.exists(child):
        return False
    try:
        return all(source.exists(blob) for blob in source.read_manifest(child).blobs)
    except (NotFound, MissingContent):
        return False
