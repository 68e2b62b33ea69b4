"""What refers to an image comes along: signatures, SBOMs, attestations, by subject or by tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ocimirror.copy.outcome import Request
from ocimirror.errors import NotFound, blamed_on
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.manifest import Manifest
from ocimirror.model.reference import Reference, is_attachment_tag
from ocimirror.stores.store import Referrer, Store

Name = tuple[str, Manifest]
"""What a manifest is to be called; an empty text for one that its subject field finds."""


def find_attachments(request: Request, subject: Manifest) -> list[Referrer]:
    """Ask the source what refers to a manifest; a failure to tell is an error, never "none"."""
    with blamed_on("source"):
        return request.source.referrers(subject.descriptor)


def has_new_attachments(request: Request, root: Descriptor) -> bool:
    """Whether the source has attachments of an unchanged image that the destination lacks.

    Those of its children are not asked for: with many images that would be most of the requests.
    """
    with blamed_on("source"):
        offered = _keys(request.source.referrers(root))
    if not offered:
        return False
    with blamed_on("destination"):
        return not offered <= _keys(request.destination.referrers(root))


def _keys(referrers: Sequence[Referrer]) -> set[tuple[str, str]]:
    return {(referrer.tag, str(referrer.descriptor.digest)) for referrer in referrers}


def attachment_name(new_name: str, tag: str) -> str:
    """Return what an attachment is called where the image is called `new_name`.

    Empty for one that its subject field finds; a layout keeps cosign's tag with the repository.
    """
    if tag and "/" in new_name:
        return str(replace(Reference.parse(new_name), tag=tag, digest=None))
    return tag


def keeping_signatures(destination: Store, names: Sequence[Name]) -> tuple[list[Name], list[str]]:
    """Leave out cosign tags whose manifest at the destination has layers that ours lacks.

    Somebody may have signed the mirrored image there; moving the tag would lose that signature.

    Returns:
        The names to move, and a note for each that was left out.
    """
    moving, notes = list[Name](), list[str]()
    for name, manifest in names:
        with blamed_on("destination"):
            lost = _layers_only_there(destination, name, manifest)
        if lost:
            notes.append(
                f"{name} was not overwritten: it has {lost} layers that the source lacks"
                " (--replace-signatures overwrites it)"
            )
        else:
            moving.append((name, manifest))
    return moving, notes


def _layers_only_there(destination: Store, name: str, manifest: Manifest) -> int:
    tag = name.rpartition(":")[2]
    if not tag or not is_attachment_tag(tag):
        return 0
    try:
        there = destination.resolve(name)
    except NotFound:
        return 0
    if there.digest == manifest.digest:
        return 0
    ours = {blob.digest for blob in manifest.blobs}
    return sum(layer.digest not in ours for layer in destination.read_manifest(there).blobs[1:])
