"""What a run knows of each image and of each blob that images share, and how far it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from ocimirror.copy.attachments import (
    Name,
    attachment_name,
    is_referrers_list,
    listed_in,
    tag_of,
)
from ocimirror.copy.outcome import Outcome, Request
from ocimirror.copy.plan import Plan
from ocimirror.copy.walk import Walk
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.reference import is_attachment_tag
from ocimirror.stores.index import sparse
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
