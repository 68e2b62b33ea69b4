"""What is asked of a copy, and what came of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from ocimirror.copy.plan import Plan
from ocimirror.errors import OciMirrorError, SourceMoved
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference
from ocimirror.stores.store import Source, Store

Sparse = Literal["fail", "full", "child"]
Extent = Literal["closure", "alone"]
Status = Literal["copied", "unchanged", "failed", "planned"]


@dataclass(frozen=True, slots=True)
class Request:
    """One image to copy.

    Attributes:
        source, name: where from: a tag, a digest, or in a layout a full reference.
        destination, new_name: where to; an empty new name means by digest alone.
        shown_source, shown_destination: both ends as full locations, for people and reports.
        platforms: what is wanted of an index, everything where it is empty.
        expected: what the name has to stand for; None for whatever it does.
        pinned: the source's name if it has a tag and a digest. The digest is what is read; a note
            says if the tag stands for something else there.
        whole: the root that an earlier run brought to the new name with all of these platforms;
            None if that is not known.
    """

    source: Source
    name: str
    destination: Store
    new_name: str
    shown_source: str
    shown_destination: str
    platforms: tuple[Platform, ...] = ()
    expected: Digest | None = None
    pinned: Reference | None = None
    whole: Digest | None = None

    def resolve(self) -> Descriptor:
        """Return what the name stands for now.

        Raises:
            NotFound: nothing.
            SourceMoved: something else than was expected.
        """
        root = self.source.resolve(self.name)
        if self.expected not in (None, root.digest):
            raise SourceMoved(
                f"{self.shown_source} stands for {root.digest}, and not for {self.expected}"
            )
        return root


class LeftOut(NamedTuple):
    """An attachment that did not come along, and why."""

    digest: Digest
    subject: Digest
    reason: str


@dataclass(slots=True)
class Outcome:
    """What came of one request; counts say how content came to be at the destination.

    `copied` went through our hash in this run, and so did `linked`, which is a file of another
    layout; `present` and `mounted` did not and are never called verified; `skipped` are foreign
    layers. In a dry run, `copied` is what would be, each blob once. `attachments` are the
    manifests that refer to the image, where they were looked at; `left_out` are those that did
    not come along, each of which is a note too. `carried` is "alone" if the root is of unknown type
    and names nothing that the source has. `previous` is what the name stood for at the
    destination before, None where it did not exist or was not looked at.
    """

    request: Request
    status: Status = "failed"
    root: Descriptor | None = None
    previous: Digest | None = None
    manifests: dict[str, int] = field(default_factory=lambda: {"copied": 0, "present": 0})
    blobs: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("copied", "present", "mounted", "linked", "skipped"), 0
        )
    )
    bytes_total: int = 0
    bytes_copied: int = 0
    seconds: float = 0.0
    referrers: int = 0
    attachments: tuple[Digest, ...] = ()
    left_out: list[LeftOut] = field(default_factory=list)
    carried: Extent = "closure"
    sparse: bool = False
    notes: list[str] = field(default_factory=list)
    error: OciMirrorError | None = None

    @property
    def digest(self) -> Digest | None:
        """What the source's name stands for; None if that was never found out."""
        return None if self.root is None else self.root.digest


@dataclass(frozen=True, slots=True)
class Options:
    """How a run copies.

    Attributes:
        jobs: threads that read and write; each holds one connection a host.
        retries: how often a failed transfer is tried again, where that may help.
        deep: believe neither names nor sizes; look at everything the destination has.
        referrers: carry what refers to an image: signatures, SBOMs, attestations.
        replace_signatures: overwrite a cosign tag at the destination whose layers the source
            lacks.
        allow_foreign: copy images without their foreign layers, and count those as skipped.
        sparse: what to do where a registry refuses an index with absent children.
        dry_run: plan, ask what is missing, change nothing.
        previous: look at what each name stands for at the destination before it is moved.
        stop: set to end the run; what is under way is given up, what is named stays.
    """

    jobs: int = 4
    retries: int = 5
    deep: bool = False
    referrers: bool = True
    replace_signatures: bool = False
    allow_foreign: bool = False
    sparse: Sparse = "fail"
    dry_run: bool = False
    previous: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


class Reporter(Protocol):
    """Told what happens; `moved` comes from any thread, the others from the caller's."""

    def planned(self, request: Request, plan: Plan) -> None:
        """Everything the image consists of is known."""
        ...

    def moved(self, request: Request, count: int) -> None:
        """Bytes of this image went through; a present blob moves all its bytes at once."""
        ...

    def finished(self, outcome: Outcome) -> None:
        """The image is done, or failed."""
        ...


class Silent:
    """Reports nothing."""

    def planned(self, request: Request, plan: Plan) -> None:
        """Say nothing."""

    def moved(self, request: Request, count: int) -> None:
        """Say nothing."""

    def finished(self, outcome: Outcome) -> None:
        """Say nothing."""
