"""Copy images: resolve, walk, transfer, publish; names move last.

Many images are one run. Their manifests and blobs are tasks of one bounded pool, and no task
waits for another: the caller's thread alone holds the state, takes in each finished task and
decides what comes next, so there are no locks here and no deadlock to reason about.

    resolve ─→ read manifests ─→ (plan) ─→ blobs ─→ manifests, children first ─→ name ─→ done
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from ocimirror.copy.outcome import Options, Outcome, Reporter, Request, Silent, Status
from ocimirror.copy.plan import Plan
from ocimirror.copy.sparse import instead_of_sparse, refuse_or_warn_of_sparse
from ocimirror.copy.tasks import Tasks
from ocimirror.copy.transfer import Carrier, name_roots, push_manifest
from ocimirror.copy.walk import Walk, refuse_foreign, walk
from ocimirror.errors import (
    IntegrityError,
    Interrupted,
    NotFound,
    OciMirrorError,
    SparseRefused,
    blamed_on,
)
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.stores.index import sparse
from ocimirror.stores.store import Store, Stored

logger = logging.getLogger(__name__)

_NAMES_WAIT_S = 1.0
# (With the size: an image that states a wrong one must not fail the others, nor pass with them.)
_BlobKey = tuple[Store, Digest, int]
T = TypeVar("T")


def copy(
    requests: Iterable[Request], options: Options | None = None, reporter: Reporter | None = None
) -> list[Outcome]:
    """Copy every image asked for, even if an earlier one failed.

    Each name is resolved once and everything after that is by digest, so a tag that moves cannot
    tear a copy. A blob that several images share is carried once.

    Returns:
        One outcome a request, in the order asked for. Failures are in `Outcome.error`; nothing
        is raised for them.
    """
    return _Run(options or Options(), reporter or Silent()).run(requests)


@dataclass(slots=True, eq=False)
class _Image:
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

    @property
    def the_plan(self) -> Plan:
        """The plan, in the steps that have one."""
        assert self.plan is not None  # noqa: S101 - a programming error, not input
        return self.plan

    @property
    def named_root(self) -> Manifest:
        """The root as it is named; of a sparse copy, with the platforms that it holds."""
        root = self.the_plan.root
        platforms = self.request.platforms if self.the_plan.absent else ()
        return replace(root, descriptor=sparse(root.descriptor, platforms))


@dataclass(slots=True)
class _Blob:
    """One blob on its way to one store; the first image that waits for it carries it."""

    waiting: list[_Image]
    stored: bool = False


def _key(image: _Image, blob: Descriptor) -> _BlobKey:
    return image.request.destination, blob.digest, blob.size


class _Run:
    def __init__(self, options: Options, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        self._tasks = Tasks(options.jobs, options.stop)
        self._carrier = Carrier(options, reporter)
        self._images: list[_Image] = []
        self._open = 0
        self._blobs: dict[_BlobKey, _Blob] = {}
        self._ready: dict[Store, list[_Image]] = {}
        self._ready_since = 0.0

    def run(self, requests: Iterable[Request]) -> list[Outcome]:
        self._images = [_Image(n, request, Outcome(request)) for n, request in enumerate(requests)]
        waiting = deque(self._images)
        stop = self._options.stop
        try:
            while waiting or self._tasks.outstanding or self._ready:
                # A few images ahead of the pool keep it busy, and memory bounded.
                while waiting and self._open < 2 * self._options.jobs and not stop.is_set():
                    self._begin(waiting.popleft())
                if self._tasks.outstanding:
                    due_s = self._until_names_are_due()
                    if due_s == 0 or not self._tasks.step(due_s):
                        self._name_ready()
                elif self._ready:
                    self._name_ready()
                elif stop.is_set():
                    break
        except Interrupted as error:
            logger.warning("%s", error)
        finally:
            self._tasks.close()
        for image in self._images:
            self._fail(image, Interrupted("stopped before it was done"))
        return [image.outcome for image in self._images]

    def _submit(self, image: _Image, work: Callable[[], T], then: Callable[[T], None]) -> None:
        self._tasks.submit(work, then, partial(self._fail, image))

    # --- 1 resolve, 2 walk ---------------------------------------------------------------------

    def _begin(self, image: _Image) -> None:
        self._open += 1
        image.started = time.monotonic()
        self._resolve(image)

    def _resolve(self, image: _Image) -> None:
        request = image.request

        def work() -> tuple[Descriptor, bool]:
            with blamed_on("source"):
                root = request.source.resolve(request.name)
            return root, not self._options.deep and self._complete(request, root)

        self._submit(image, work, lambda result: self._resolved(image, *result))

    def _complete(self, request: Request, root: Descriptor) -> bool:
        """Whether the name stands for this root, and all of it is there as far as a look tells."""
        destination = request.destination
        if not request.new_name or not destination.named(request.new_name, root):
            return False
        if destination.name_vouches:
            return True
        try:
            plan = walk(destination, root, request.platforms)
        except (NotFound, IntegrityError):
            return False
        return all(destination.exists(blob) for blob in plan.blobs)

    def _resolved(self, image: _Image, root: Descriptor, complete: bool) -> None:
        image.outcome.root = root
        if complete:
            self._end(image, "unchanged")
            return
        image.walk = Walk(root, image.request.platforms)
        self._read(image, [root])

    def _read(self, image: _Image, manifests: Sequence[Descriptor]) -> None:
        image.waiting += len(manifests)
        for descriptor in manifests:
            self._submit(
                image,
                partial(self._carrier.read_manifest, image.request, descriptor),
                partial(self._walked, image),
            )

    def _walked(self, image: _Image, manifest: Manifest) -> None:
        if image.done or image.walk is None:
            return
        image.waiting -= 1
        try:
            with blamed_on("source"):
                self._read(image, image.walk.add(manifest))
                if image.waiting == 0:
                    self._planned(image, image.walk.plan())
        except OciMirrorError as error:
            self._fail(image, error)

    def _planned(self, image: _Image, plan: Plan) -> None:
        image.walk, image.plan = None, plan
        outcome = image.outcome
        outcome.bytes_total = plan.size_bytes
        outcome.sparse = bool(plan.absent)
        outcome.blobs["skipped"] = len(plan.foreign)
        outcome.notes += [f"foreign layer not carried: {layer.digest}" for layer in plan.foreign]
        outcome.notes += [
            f"{m.digest} is carried alone: what a {m.media_type} refers to is not known"
            for m in plan.opaque
        ]
        if not self._options.allow_foreign:
            refuse_foreign(plan)
        refuse_or_warn_of_sparse(image.request, plan)
        self._reporter.planned(image.request, plan)
        image.waiting = len(plan.blobs)
        for blob in plan.blobs:
            self._want(image, blob)
        if not plan.blobs:
            self._blobs_are_in(image)

    # --- 3 what is missing, 4 transfer ---------------------------------------------------------

    def _want(self, image: _Image, blob: Descriptor) -> None:
        key = _key(image, blob)
        known = self._blobs.get(key)
        if known is None:
            self._blobs[key] = _Blob([image])
            self._carry(image, blob)
        elif known.stored:
            self._shared(image, blob)
        else:
            known.waiting.append(image)

    def _carry(self, image: _Image, blob: Descriptor) -> None:
        self._tasks.submit(
            partial(self._carrier.carry, image.request, blob),
            partial(self._carried, blob, image),
            partial(self._not_carried, blob, image),
        )

    def _carried(self, blob: Descriptor, carrier: _Image, stored: Stored) -> None:
        state = self._blobs[_key(carrier, blob)]
        state.stored = True
        waiting, state.waiting = state.waiting, []
        for image in waiting:
            if image is carrier:
                self._blob_is_in(image, blob, stored)
            else:
                self._shared(image, blob)

    def _not_carried(self, blob: Descriptor, carrier: _Image, error: OciMirrorError) -> None:
        """Fail whoever reads from the same source; another source may still have the blob."""
        source = carrier.request.source
        waiting = self._blobs.pop(_key(carrier, blob)).waiting
        for image in waiting:
            if image is carrier or image.request.source is source or self._options.stop.is_set():
                self._fail(image, error)
            elif not image.done:
                self._want(image, blob)

    def _shared(self, image: _Image, blob: Descriptor) -> None:
        """Take in a blob that another image of this run carried."""
        if not image.done:
            self._reporter.moved(image.request, blob.size)
        self._blob_is_in(image, blob, Stored.PRESENT)

    def _blob_is_in(self, image: _Image, blob: Descriptor, stored: Stored) -> None:
        if image.done:
            return
        image.outcome.blobs[stored.value] += 1
        if stored is Stored.COPIED:
            image.outcome.bytes_copied += blob.size
        image.waiting -= 1
        if image.waiting == 0:
            self._blobs_are_in(image)

    # --- 5 publish -----------------------------------------------------------------------------

    def _blobs_are_in(self, image: _Image) -> None:
        if self._options.dry_run:
            self._end(image, "planned")
            return
        image.level = 0
        self._publish(image)

    def _publish(self, image: _Image) -> None:
        """Push the manifests of one level, or name the root when all levels are in."""
        request, levels = image.request, image.the_plan.levels
        # A registry takes the root together with its name, in one request.
        if request.new_name and request.destination.name_vouches:
            levels = levels[:-1]
        if image.level < len(levels):
            image.waiting = len(levels[image.level])
            for manifest in levels[image.level]:
                self._submit(
                    image,
                    partial(push_manifest, request, manifest, image.the_plan, self._carrier),
                    partial(self._manifest_is_in, image, manifest),
                )
        elif request.new_name:
            self._make_ready(image)
        else:
            self._end(image, "copied")

    def _manifest_is_in(self, image: _Image, manifest: Manifest, stored: Stored) -> None:
        if image.done:
            return
        self._count_manifest(image, manifest, stored)
        image.waiting -= 1
        if image.waiting == 0:
            image.level += 1
            self._publish(image)

    def _count_manifest(self, image: _Image, manifest: Manifest, stored: Stored) -> None:
        self._reporter.moved(image.request, manifest.descriptor.size)
        image.outcome.manifests[stored.value] += 1
        if stored is Stored.COPIED:
            image.outcome.bytes_copied += manifest.descriptor.size

    # --- 6 name, last of all -------------------------------------------------------------------

    def _make_ready(self, image: _Image) -> None:
        destination = image.request.destination
        if not self._ready:
            self._ready_since = time.monotonic()
        ready = self._ready.setdefault(destination, [])
        ready.append(image)
        if len(ready) >= destination.names_at_once:
            self._name(destination)

    def _until_names_are_due(self) -> float | None:
        if not self._ready:
            return None
        return max(0.0, self._ready_since + _NAMES_WAIT_S - time.monotonic())

    def _name_ready(self) -> None:
        for destination in list(self._ready):
            self._name(destination)

    def _name(self, destination: Store) -> None:
        """Move the names of all images that are ready there, in one step where it has one."""
        images = sorted(self._ready.pop(destination), key=lambda image: image.number)
        roots = [(image.request.new_name, image.named_root) for image in images]
        first = images[0]

        def failed(error: OciMirrorError) -> None:
            for image in images:
                self._fail(image, error)

        self._tasks.submit(
            partial(name_roots, destination, roots, first.request, first.the_plan, self._carrier),
            lambda _: self._named(images),
            failed,
        )

    def _named(self, images: Sequence[_Image]) -> None:
        for image in images:
            if image.request.destination.name_vouches:
                self._count_manifest(image, image.the_plan.root, Stored.COPIED)
            self._end(image, "copied")

    # --- the end of an image -------------------------------------------------------------------

    def _end(self, image: _Image, status: Status) -> None:
        image.done = True
        image.plan = None
        self._open -= 1
        image.outcome.status = status
        image.outcome.seconds = time.monotonic() - image.started
        self._reporter.finished(image.outcome)

    def _fail(self, image: _Image, error: OciMirrorError) -> None:
        if image.done or (isinstance(error, SparseRefused) and self._again_in_full(image)):
            return
        image.outcome.error = error
        self._end(image, "failed")

    def _again_in_full(self, image: _Image) -> bool:
        """Begin again with what the user allows instead of a sparse image; whether there is such.

        What was carried is there already; the registry is not asked this a second time.
        """
        instead = instead_of_sparse(image.request, image.the_plan, self._options.sparse)
        if instead is None:
            return False
        request, note = instead
        image.done = True
        other = _Image(image.number, request, Outcome(request, notes=[note]), image.started)
        self._images[image.number] = other
        self._resolve(other)
        return True
