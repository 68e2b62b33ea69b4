"""What is asked of a copy, and what came of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from ocimirror.copy.plan import LeftOut, Plan
from ocimirror.errors import OciMirrorError, SourceMoved, UsageError
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.failure import Failure
from ocimirror.model.later import LATER
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference
from ocimirror.stores.entry import is_synthesised
from ocimirror.stores.store import Source, Store

Sparse = Literal["fail", "full", "child"]
Extent = Literal["closure", "alone"]
Status = Literal["copied", "unchanged", "failed", "planned", "deferred", "pruned"]
"""What came of an image; a run of a sync that ends early has deferred what is left."""


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
        notes: what the outcome tells once the image is there.
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
    notes: tuple[str, ...] = ()

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


@dataclass(frozen=True, slots=True)
class ByteCounts:
    """Bytes of an image: what it consists of, and what moved in this run, or in a dry one would."""

    total: int = 0
    copied: int = 0


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What came of one image, as every document, table and page tells it.

    Without stores and exceptions, so that it can be kept, written and read back.

    Attributes:
        entry: the name of the entry of a sync's configuration; empty elsewhere.
        source, destination: full locations.
        digest: what the source stands for, None where that was not found out.
        previous: what the destination stood for before, None where it was absent or is not known.
        referrers: how many attachments came along.
        synthesised: the manifest is one that was made, and no registry knows its digest.

    The others are those of `Outcome`.
    """

    entry: str
    source: str
    destination: str
    status: Status
    digest: Digest | None = None
    previous: Digest | None = None
    media_type: str | None = None
    manifests: Mapping[str, int] = field(default_factory=dict)
    blobs: Mapping[str, int] = field(default_factory=dict)
    bytes: ByteCounts = ByteCounts()
    referrers: int = 0
    left_out: tuple[LeftOut, ...] = field(default=(), metadata=LATER)
    carried: Extent = field(default="closure", metadata=LATER)
    sparse: bool = False
    synthesised: bool = field(default=False, metadata=LATER)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    error: Failure | None = None

    @property
    def moved(self) -> bool:
        """Whether the destination stands, or in a dry run would stand, for something else now."""
        return (
            self.status in ("copied", "planned")
            and self.previous is not None
            and self.digest is not None
            and self.previous != self.digest
        )

    @property
    def goes(self) -> bool:
        """Whether the destination is pruned, or would be: nothing takes its place."""
        planned = self.status == "planned" and self.digest is None and self.previous is not None
        return planned or self.status == "pruned"


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

    def result(self, entry: str = "") -> ImageResult:
        """Return it as a value; `entry` is whose it is in a sync."""
        root = self.root
        return ImageResult(
            entry,
            self.request.shown_source,
            self.request.shown_destination,
            self.status,
            digest=self.digest,
            previous=self.previous,
            media_type=None if root is None else root.media_type,
            manifests=dict(self.manifests),
            blobs=dict(self.blobs),
            bytes=ByteCounts(self.bytes_total, self.bytes_copied),
            referrers=self.referrers,
            left_out=tuple(self.left_out),
            carried=self.carried,
            sparse=self.sparse,
            synthesised=root is not None and is_synthesised(root),
            notes=tuple(self.notes),
            seconds=self.seconds,
            error=None if self.error is None else Failure.of(self.error),
        )


@dataclass(frozen=True, slots=True)
class Options:
    """How a run copies; UsageError for what is out of range.

    `jobs`, `retries` and `stop` are of the copying; those of `NetworkOptions` are of the requests.

    Attributes:
        jobs: at least 1; threads that read and write; each holds one connection a host.
        retries: how often a failed transfer is tried again, where that may help.
        deep: believe neither names nor sizes; look at everything the destination has.
        referrers: carry what refers to an image: signatures, SBOMs, attestations.
        replace_signatures: overwrite a cosign tag at the destination whose layers the source
            lacks.
        allow_foreign: copy images without their foreign layers, and count those as skipped.
        sparse: what to do where a registry refuses an index with absent children: "fail", copy
            every platform ("full"), or name the one platform's manifest ("child").
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

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.retries < 0:
            raise UsageError("Options: jobs is at least 1, and retries at least 0")
        if self.sparse not in get_args(Sparse):
            raise UsageError(f"Options: sparse is one of {', '.join(get_args(Sparse))}")


class Reporter(Protocol):
    """Told what happens; `moved` comes from any thread, the others from the caller's.

    A Protocol: any object with all three methods is one. An exception in one of them ends the
    run and is raised as it is; what is at the destination is whole, or not named.
    """

    def planned(self, request: Request, plan: Plan) -> None:
        """Everything the image consists of is known."""
        ...

    def moved(self, request: Request, count: int) -> None:
        """At least one byte of this image went through; a present blob's all go at once."""
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
