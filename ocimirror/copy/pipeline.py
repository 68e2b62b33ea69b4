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
from functools import partial
from typing import TypeVar

from ocimirror.copy.attachments import Name, keeping_signatures
from ocimirror.copy.heard import Heard
from ocimirror.copy.image import BlobKey, Image, SharedBlob, key_of
from ocimirror.copy.lone import look_around
from ocimirror.copy.outcome import Options, Outcome, Reporter, Request, Silent, Status
from ocimirror.copy.plan import LeftOut, Plan
from ocimirror.copy.ready import Ready
from ocimirror.copy.sparse import instead_of_sparse, refuse_or_warn_of_sparse
from ocimirror.copy.tasks import Tasks
from ocimirror.copy.there import Begun, Whole, begin, of_what_is_held
from ocimirror.copy.transfer import Carried, Carrier, move_names, push_manifest
from ocimirror.copy.walk import Walk, refuse_foreign
from ocimirror.errors import Interrupted, OciMirrorError, SparseRefused, blamed_on
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.manifest import Manifest
from ocimirror.stores.store import Referrer, Stored

logger = logging.getLogger(__name__)

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


class _Run:
    def __init__(self, options: Options, reporter: Reporter) -> None:
        self._options = options
        self._reporter = Heard(reporter)
        self._tasks = Tasks(options.jobs, options.stop)
        self._carrier = Carrier(options, self._reporter)
        self._images: list[Image] = []
        self._open = 0
        self._blobs: dict[BlobKey, SharedBlob] = {}
        self._ready = Ready()
        self._whole = Whole()

    def run(self, requests: Iterable[Request]) -> list[Outcome]:
        self._images = [Image(n, request, Outcome(request)) for n, request in enumerate(requests)]
        waiting = deque(self._images)
        stop = self._options.stop
        try:
            while waiting or self._tasks.outstanding or self._ready:
                # A few images ahead of the pool keep it busy, and memory bounded. (Those that
                # only wait for their names do not count: they would make batches small.)
                while waiting and self._open < 2 * self._options.jobs and not stop.is_set():
                    self._begin(waiting.popleft())
                if self._tasks.outstanding:
                    due_s = self._ready.due_s()
                    if due_s == 0 or not self._tasks.step(due_s):
                        self._name_ready()
                elif self._ready:
                    self._name_ready()
                elif stop.is_set():
                    break
                self._reporter.check()
        except Interrupted as error:
            logger.warning("%s", error)
        finally:
            self._tasks.close()
        for image in self._images:
            self._fail(image, Interrupted("stopped before it was done"))
        return [image.outcome for image in self._images]

    def _submit(self, image: Image, work: Callable[[], T], then: Callable[[T], None]) -> None:
        self._tasks.submit(work, then, partial(self._fail, image))

    # --- 1 resolve, 2 walk ---------------------------------------------------------------------

    def _begin(self, image: Image) -> None:
        self._open += 1
        image.started = time.monotonic()
        self._resolve(image)

    def _resolve(self, image: Image) -> None:
        work = partial(begin, image.request, self._options, self._whole)
        self._submit(image, work, partial(self._resolved, image))

    def _resolved(self, image: Image, begun: Begun) -> None:
        root, complete, image.outcome.previous, notes = begun
        image.outcome.root = root
        image.outcome.notes += notes
        image.request = of_what_is_held(image.request, root)
        if complete:
            self._end(image, "unchanged")
            return
        image.walk = Walk(root, image.request.platforms)
        self._read(image, [root])

    def _read(self, image: Image, manifests: Sequence[Descriptor]) -> None:
        image.waiting += len(manifests)
        for descriptor in manifests:
            if self._options.stop.is_set():
                return  # (there may be a hundred thousand; the run fails the image at its end)
            self._tasks.submit(
                partial(self._read_one, image, descriptor),
                partial(self._walked, image),
                partial(self._not_read, image, descriptor),
            )

    def _read_one(self, image: Image, descriptor: Descriptor) -> Manifest | None:
        # (What an image that has failed since would have needed is not fetched.)
        return None if image.done else self._carrier.read_manifest(image.request, descriptor)

    def _walked(self, image: Image, manifest: Manifest | None) -> None:
        if image.done or image.walk is None or manifest is None:
            return
        try:
            with blamed_on("source"):
                self._read(image, image.walk.add(manifest))
        except OciMirrorError as error:
            self._fail(image, error)
            return
        if image.walk.holds(manifest):
            image.waiting += 1
            self._submit(
                image,
                partial(look_around, image.request, image.outcome.root, manifest, self._options),
                partial(self._found, image, manifest),
            )
        self._walk_on(image)

    def _not_read(self, image: Image, descriptor: Descriptor, error: OciMirrorError) -> None:
        if image.done or image.walk is None or not image.walk.leave_out(descriptor, error):
            self._fail(image, error)
            return
        self._walk_on(image)

    def _found(self, image: Image, subject: Manifest, referrers: Sequence[Referrer]) -> None:
        """Take in what refers to a manifest; what refers to that in turn is looked for as well."""
        if image.done or image.walk is None:
            return
        try:
            with blamed_on("source"):
                for referrer in referrers:
                    self._read(image, image.walk.attach(subject, referrer))
        except OciMirrorError as error:
            self._fail(image, error)
            return
        self._walk_on(image)

    def _walk_on(self, image: Image) -> None:
        image.waiting -= 1
        if image.waiting or image.walk is None:
            return
        try:
            with blamed_on("source"):
                plan = image.walk.plan()
                if not self._options.allow_foreign:
                    refuse_foreign(plan)
            refuse_or_warn_of_sparse(image.request, plan, self._options.sparse)
        except OciMirrorError as error:
            image.plan = plan if isinstance(error, SparseRefused) else None
            self._fail(image, error)
            return
        self._planned(image, plan)

    def _planned(self, image: Image, plan: Plan) -> None:
        image.take_in(plan)
        self._reporter.planned(image.request, plan)
        image.waiting = len(plan.blobs)
        for blob in plan.blobs:
            self._want(image, blob)
        if not plan.blobs:
            self._blobs_are_in(image)

    # --- 3 what is missing, 4 transfer ---------------------------------------------------------

    def _want(self, image: Image, blob: Descriptor) -> None:
        key = key_of(image, blob)
        known = self._blobs.get(key)
        if known is None:
            self._blobs[key] = SharedBlob([image])
            self._carry(image, blob)
        elif known.stored:
            self._shared(image, blob)
        else:
            known.waiting.append(image)

    def _carry(self, image: Image, blob: Descriptor) -> None:
        def work() -> Carried | None:
            # (What an image that has failed since would have needed is not fetched.)
            return None if image.done else self._carrier.carry(image.request, blob)

        self._tasks.submit(
            work,
            partial(self._carried, blob, image),
            partial(self._not_carried, blob, image),
        )

    def _carried(self, blob: Descriptor, carrier: Image, carried: Carried | None) -> None:
        if carried is None:
            for image in self._blobs.pop(key_of(carrier, blob)).waiting:
                if not image.done:
                    self._want(image, blob)
            return
        state = self._blobs[key_of(carrier, blob)]
        state.stored = True
        waiting, state.waiting = state.waiting, []
        for image in waiting:
            if image is carrier:
                self._blob_is_in(image, carried)
            else:
                self._shared(image, blob)

    def _not_carried(self, blob: Descriptor, carrier: Image, error: OciMirrorError) -> None:
        """Fail whoever reads from the same source; another source may still have the blob."""
        source = carrier.request.source
        waiting = self._blobs.pop(key_of(carrier, blob)).waiting
        for image in waiting:
            if image is carrier or image.request.source is source or self._options.stop.is_set():
                if image.done or not image.go_on_without(blob, error):
                    self._fail(image, error)
                else:
                    self._blob_is_in(image, None)
            elif not image.done:
                self._want(image, blob)

    def _shared(self, image: Image, blob: Descriptor) -> None:
        """Take in a blob that another image of this run carried."""
        if not image.done:
            self._reporter.moved(image.request, blob.size)
        self._blob_is_in(image, Carried(Stored.PRESENT))

    def _blob_is_in(self, image: Image, carried: Carried | None) -> None:
        if image.done:
            return
        if carried is not None:  # (else what needs it was left out)
            image.outcome.blobs[carried.stored.value] += 1
            image.outcome.bytes_copied += carried.bytes
        image.waiting -= 1
        if image.waiting == 0:
            self._blobs_are_in(image)

    # --- 5 publish -----------------------------------------------------------------------------

    def _blobs_are_in(self, image: Image) -> None:
        if self._options.dry_run:
            self._end(image, "planned")
            return
        image.level = 0
        self._publish(image)

    def _publish(self, image: Image) -> None:
        """Push the manifests of one level, or name the root when all levels are in."""
        request, levels = image.request, image.the_plan.levels
        # A registry takes the root together with its name, in one request.
        # A list of referrers is not pushed: what it lists joins the destination's own.
        if image.is_list or (request.new_name and request.destination.names_with_root):
            levels = levels[:-1]
        if image.level < len(levels):
            image.waiting = len(levels[image.level])
            for manifest in levels[image.level]:
                self._submit(
                    image,
                    partial(push_manifest, request, manifest, image.the_plan, self._carrier),
                    partial(self._manifest_is_in, image, manifest),
                )
        elif image.has_cosign_tags:
            looked = partial(
                keeping_signatures,
                request.destination,
                image.names(),
                image.the_plan.root,
                replace=self._options.replace_signatures,
            )
            self._submit(image, looked, partial(self._signatures_are_safe, image))
        elif image.names():
            self._can_be_named(image)
        else:
            self._end(image, "copied")

    def _signatures_are_safe(self, image: Image, kept: tuple[list[Name], list[LeftOut]]) -> None:
        image.moving, left_out = kept
        image.outcome.referrers -= len(left_out)
        image.outcome.left_out += left_out
        image.outcome.notes += [each.reason for each in left_out]
        self._can_be_named(image)

    def _manifest_is_in(self, image: Image, manifest: Manifest, stored: Stored) -> None:
        if image.done:
            return
        self._count_manifest(image, manifest, stored)
        image.waiting -= 1
        if image.waiting == 0:
            image.level += 1
            self._publish(image)

    def _count_manifest(self, image: Image, manifest: Manifest, stored: Stored) -> None:
        self._reporter.moved(image.request, manifest.descriptor.size)
        image.outcome.manifests[stored.value] += 1
        if stored is Stored.COPIED:
            image.outcome.bytes_copied += manifest.descriptor.size

    # --- 6 name, last of all -------------------------------------------------------------------

    def _can_be_named(self, image: Image) -> None:
        self._open -= 1
        self._name(self._ready.add(image))

    def _name_ready(self) -> None:
        for batch in self._ready.take():
            self._name(batch)

    def _name(self, images: Sequence[Image]) -> None:
        """Move the names of images of one destination, in one step where it has one."""
        if not images:
            return
        self._open += len(images)
        names = [name for image in images for name in image.names()]
        request, plan = images[0].request, images[0].the_plan

        def failed(error: OciMirrorError) -> None:
            for image in images:
                self._fail(image, error)

        self._tasks.submit(
            partial(move_names, names, request, plan, self._carrier),
            lambda _: self._named(images),
            failed,
        )

    def _named(self, images: Sequence[Image]) -> None:
        for image in images:
            together = image.request.destination.names_with_root
            if image.request.new_name and together and not image.is_list:
                self._count_manifest(image, image.the_plan.root, Stored.COPIED)
            self._end(image, "copied")

    # --- the end of an image -------------------------------------------------------------------

    def _end(self, image: Image, status: Status) -> None:
        image.done = True
        image.plan = image.walk = None
        self._open -= 1
        image.outcome.status = status
        image.outcome.seconds = time.monotonic() - image.started
        if self._options.referrers and status != "failed":
            image.outcome.notes += image.request.source.notes_on_referrers()
        image.outcome.notes += image.request.notes if status != "failed" else ()
        self._reporter.finished(image.outcome)

    def _fail(self, image: Image, error: OciMirrorError) -> None:
        self._reporter.check()
        if image.done or (isinstance(error, SparseRefused) and self._again_in_full(image)):
            return
        image.outcome.error = error
        self._end(image, "failed")

    def _again_in_full(self, image: Image) -> bool:
        """Begin again with what the user allows instead of a sparse image; whether there is such.

        What was carried is there already; the registry is not asked this a second time.
        """
        instead = instead_of_sparse(image.request, image.the_plan, self._options.sparse)
        if instead is None:
            return False
        request, note = instead
        image.done = True
        other = Image(image.number, request, Outcome(request, notes=[note]), image.started)
        self._images[image.number] = other
        self._resolve(other)
        return True
