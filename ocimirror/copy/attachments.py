"""What refers to an image comes along: signatures, SBOMs, attestations, by subject or by tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ocimirror.copy.outcome import Request
from ocimirror.copy.plan import LeftOut, Plan
from ocimirror.errors import NotFound, PushRejected, blamed_on
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.manifest import Manifest
from ocimirror.model.reference import (
    Reference,
    attachment_tag,
    is_attachment_tag,
    subject_of_tag,
)
from ocimirror.stores.attached import may_be_referrers_list
from ocimirror.stores.store import Referrer, Store

_MAX_NOTES = 20
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


def notes_on(left_out: Sequence[LeftOut]) -> list[str]:
    """Return a note for each attachment that was left out; of many, the first and how many."""
    notes = [
        f"attachment {each.digest} of {each.subject} was left out: {each.reason}"
        for each in left_out[:_MAX_NOTES]
    ]
    more = len(left_out) - len(notes)
    return [*notes, f"{more} more attachments were left out"] if more else notes


def tag_of(name: str) -> str:
    """Return the tag of a name: the name itself at a registry, a part of it in a layout."""
    return name.rpartition(":")[2]


def is_referrers_list(plan: Plan, tag: str) -> bool:
    """Whether a root is the list of referrers that its tag says, and no image."""
    root = plan.root
    if not may_be_referrers_list(tag, root.descriptor):
        return False
    return not root.manifests or bool(listed_in(plan, tag))


def listed_in(plan: Plan, tag: str) -> list[Manifest]:
    """Return the manifests of a list of referrers that do refer to its subject."""
    listed = {child.digest for child in plan.root.manifests}
    return [
        manifest
        for manifest in plan.manifests
        if manifest.digest in listed
        and manifest.subject is not None
        and attachment_tag(manifest.subject.digest) == tag
    ]


def keeping_signatures(
    destination: Store, names: Sequence[Name], root: Manifest, *, replace: bool
) -> tuple[list[Name], list[LeftOut]]:
    """Leave out cosign tags whose manifest at the destination has layers that ours lacks.

    Somebody may have signed the mirrored image there; moving the tag would lose that signature.

    Args:
        destination: where the names are.
        names: what is to be named.
        root: the image itself; it is not left out.
        replace: overwrite them; but never a list of referrers.

    Returns:
        The names to move, and what was left out.

    Raises:
        PushRejected: the root's own name would be left out.
    """
    moving, left_out = list[Name](), list[LeftOut]()
    for name, manifest in names:
        with blamed_on("destination"):
            lost, what = _lost(destination, name, manifest)
        advice = "" if what == "referrers" else "--replace-signatures overwrites it"
        if not lost or (replace and advice):
            moving.append((name, manifest))
            continue
        text = f"{name} was not overwritten: it has {lost} {what} that the source lacks"
        if manifest.digest == root.digest:
            raise PushRejected(f"{destination.location}: {text}", advice=advice, side="destination")
        subject = subject_of_tag(tag_of(name)) or root.digest
        left_out.append(LeftOut(manifest.digest, subject, f"{text} ({advice})"))
    return moving, left_out


def _lost(destination: Store, name: str, manifest: Manifest) -> tuple[int, str]:
    """Return how much would be lost if the name moved: layers, or entries of a list."""
    tag = tag_of(name)
    if not tag or not is_attachment_tag(tag):
        return 0, ""
    try:
        there = destination.resolve(name)
        if there.digest == manifest.digest:
            return 0, ""
        theirs = destination.read_manifest(there)
    except NotFound:
        return 0, ""
    ours = {blob.digest for blob in manifest.blobs}
    ours.update(child.digest for child in manifest.manifests)
    if mediatype.is_index(theirs.media_type):
        listed = sum(child.digest not in ours for child in theirs.manifests)
        of_a_list = may_be_referrers_list(tag, there)
        return listed, "referrers" if of_a_list else "manifests"
    return sum(layer.digest not in ours for layer in theirs.blobs[1:]), "layers"
