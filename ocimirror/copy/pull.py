"""pull: images of registries into a layout directory."""

from __future__ import annotations

from collections.abc import Sequence

from ocimirror.copy.naming import name_in_a_layout
from ocimirror.copy.outcome import Options, Outcome, Reporter, Request
from ocimirror.copy.pipeline import copy
from ocimirror.copy.places import Places
from ocimirror.errors import UsageError
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location, Reference


def pull(
    images: Sequence[Reference],
    layout: str,
    places: Places,
    options: Options,
    reporter: Reporter | None = None,
    *,
    platforms: tuple[Platform, ...] = (),
) -> list[Outcome]:
    """Add images to a layout, each under its full reference.

    With platforms, indexes keep their bytes and the children for others stay absent; pulling
    again with another platform adds it.

    Raises:
        UsageError: a directory that holds something else, or one name with two digests.
    """
    destination = places.layout_to_write(layout, dry_run=options.dry_run)
    requests = []
    digests = _digests(images)
    for image in images:
        reference = image.readable()
        name = name_in_a_layout(reference)
        source = places.repository(reference)
        requests.append(
            Request(
                source,
                reference.read_name,
                destination,
                name,
                str(Location("docker", reference=reference)),
                str(Location("oci", layout, name)),
                platforms,
                expected=None if reference.digest else digests.get(name),
                pinned=reference if reference.pinned else None,
            )
        )
    return copy(requests, options, reporter)


def _digests(images: Sequence[Reference]) -> dict[str, Digest]:
    """Return what names have to stand for in the layout, as they are asked for with a digest.

    Raises:
        UsageError: one name with two digests.
    """
    digests: dict[str, Digest] = {}
    for image in images:
        name = name_in_a_layout(image)
        if image.digest and digests.setdefault(name, image.digest) != image.digest:
            raise UsageError(
                f"{name} cannot be both {digests[name]} and {image.digest} in a layout",
                advice="Pull one of them without its tag: HOST/REPOSITORY@DIGEST",
            )
    return digests
