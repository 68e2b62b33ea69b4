"""What a run knows of each image and of each blob that images share, and how far it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from ocimirror.copy.attachments import (
    Name,
    attachment_name,
    is_referrers_list,
    listed_in,
    notes_on,
    tag_of,
)
from ocimirror.copy.outcome import Outcome, Request
from ocimirror.copy.plan import Plan
from ocimirror.copy.walk import Walk
from ocimirror.errors import MissingContent, NotFound, OciMirrorError
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import attestation_of
from ocimirror.model.manifest import Manifest
from ocimirror.model.reference import is_attachment_tag
from ocimirror.stores.entry import platforms_of, sparse
from ocimirror.stores.store import Store


@dataclass(slots=True, eq=False)
class Image:
    """One request under way."""

    number: int
    request: Request
    outcome: Outcome
    started: float = field(default_factory=time.monotonic)
    walk: Walk | None = None
    plan: Plan | None = None
    waiting: int = 0  # tasks of the present step that have not come back
    level: int = 0
    done: bool = False
    moving: list[Name] | None = None  # what is named where some names must not move

    @property
    def the_plan(self) -> Plan:
        """The plan, in the steps that have one."""
        assert self.plan is not None  # noqa: S101 - a programming error, not input
        return self.plan

    def take_in(self, plan: Plan) -> None:
        """Take in the plan, and what the outcome says of it."""
        self.walk, self.plan = None, plan
        outcome = self.outcome
        outcome.bytes_total = plan.size_bytes
        outcome.sparse = bool(plan.absent)
        outcome.referrers = len(plan.attachments)
        outcome.attachments = tuple(found.digest for _, found in plan.attachments)
        outcome.blobs["skipped"] = len(plan.foreign)
        outcome.notes += [f"foreign layer not carried: {layer.digest}" for layer in plan.foreign]
        outcome.left_out += plan.left_out
        outcome.notes += notes_on(plan.left_out)
        if plan.absent and self.request.platforms == platforms_of(plan.root.descriptor):
            outcome.notes += [
                f"{child.platform} is not in {self.request.source.location}"
                for child in plan.absent
                if child.platform is not None and attestation_of(child) is None
            ]
        alone = plan.root.opaque and not (plan.root.manifests or plan.root.blobs)
        outcome.carried = "alone" if alone else "closure"
        outcome.notes += [note for m in plan.opaque for note in _notes_on_unknown(m)]
        if self.is_list:
            outcome.notes.append(
                f"{tag_of(self.request.new_name)} is a list of referrers: what it lists joins the"
                " list of the destination; it is not an image of its own"
            )

    def go_on_without(self, blob: Descriptor, error: OciMirrorError) -> bool:
        """Leave out the attachments that need a blob which the source lacks; False if it must fail.

        Only an absence is one: a registry that fails, or content that is damaged, is an error.
        """
        absent = error.side == "source" and isinstance(error, (NotFound, MissingContent))
        if self.plan is None or not absent:
            return False
        if all(blob.digest != each.digest for each in self.plan.blobs):
            return True  # (of an attachment that was left out before)
        plan = self.plan.without(blob.digest, error.message)
        if plan is None:
            return False
        self.plan, outcome = plan, self.outcome
        outcome.bytes_total = plan.size_bytes
        outcome.referrers = len(plan.attachments)
        outcome.attachments = tuple(found.digest for _, found in plan.attachments)
        outcome.left_out += plan.left_out
        outcome.notes += notes_on(plan.left_out)
        return True

    @property
    def has_cosign_tags(self) -> bool:
        """Whether something is named by an attachment's tag, which may be taken already."""
        tagged = any(tag for tag, _ in self.the_plan.attachments)
        root = is_attachment_tag(tag_of(self.request.new_name)) and not self.is_list
        return self.moving is None and (tagged or root)

    @property
    def is_list(self) -> bool:
        """Whether the image is a list of referrers: what it lists is kept, it is never named."""
        return is_referrers_list(self.the_plan, tag_of(self.request.new_name))

    def names(self) -> list[Name]:
        """Return what is named when all is in: attachments, then the root, last of all.

        The root of a sparse copy is named with the platforms that it holds.
        """
        if self.moving is not None:
            return self.moving
        new_name, plan = self.request.new_name, self.the_plan
        if self.is_list:
            return [("", found) for found in listed_in(plan, tag_of(new_name))]
        names = [(attachment_name(new_name, tag), found) for tag, found in plan.attachments]
        if new_name:
            platforms = self.request.platforms if plan.absent else ()
            root = replace(plan.root, descriptor=sparse(plan.root.descriptor, platforms))
            names.append((new_name, root))
        return names


def _notes_on_unknown(manifest: Manifest) -> list[str]:
    """Return what is said of content of unknown type: what came along, and what is absent."""
    what = f"{manifest.digest} is a {manifest.media_type}, which is not known"
    found = len(manifest.manifests) + len(manifest.blobs)
    if not found:
        how = f"{manifest.digest} is carried alone: what a {manifest.media_type} refers to is"
        notes = [f"{how} not known"]
    else:
        descriptors = "1 descriptor" if found == 1 else f"{found} descriptors"
        notes = [f"{what}: carried with what its {descriptors} name"]
    return notes + [
        f"{manifest.digest} names {absent.digest}, which the source does not have"
        for absent in manifest.absent
    ]


# (With the size: an image that states a wrong one must not fail the others, nor pass with them.)
BlobKey = tuple[Store, Digest, int]


@dataclass(slots=True)
class SharedBlob:
    """One blob on its way to one store; the first image that waits for it carries it."""

    waiting: list[Image]
    stored: bool = False


def key_of(image: Image, blob: Descriptor) -> BlobKey:
    """Return what tells one blob of a run from another."""
    return image.request.destination, blob.digest, blob.size
