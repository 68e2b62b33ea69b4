"""pull: images of registries into a layout directory."""

from __future__ import annotations

from collections.abc import Sequence

from ocimirror.copy.copy import copy
from ocimirror.copy.outcome import Options, Outcome, Reporter, Request
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location, Reference
from ocimirror.workflows.places import Places, name_in_a_layout


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
        UsageError: a directory that holds something else.
    """
    destination = places.layout(layout, write=True, dry_run=options.dry_run)
    requests = []
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
            )
        )
    return copy(requests, options, reporter)
