"""One piece of content from source to destination, tried again where that may help."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from ocimirror.copy.outcome import Options, Reporter, Request
from ocimirror.copy.plan import Plan
from ocimirror.errors import (
    IntegrityError,
    Interrupted,
    ManifestBlobUnknown,
    OciMirrorError,
    RegistryUnavailable,
    SparseRefused,
    blamed_on,
)
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.graph import closure
from ocimirror.model.manifest import Manifest
from ocimirror.retries import Tries
from ocimirror.stores.store import Source, Store, Stored

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Carried(NamedTuple):
    """How a blob came to be stored, and the bytes of it that moved in this run, in all tries.

    In a dry run, what would be.
    """

    stored: Stored
    bytes: int = 0


def holds(destination: Store, descriptor: Descriptor, *, hashed: bool) -> bool:
    """Whether the destination has this content; `hashed`, a local one is read to find out."""
    if not destination.exists(descriptor):
        return False
    if not hashed or not destination.local:
        return True
    try:
        with destination.fetch(descriptor) as stream:
            while stream.read():
                pass
    except IntegrityError as error:
        logger.warning("replacing damaged content: %s", error)
        return False
    return True


class Carrier:
    """Carries one blob at a time, in whatever thread calls it."""

    def __init__(self, options: Options, reporter: Reporter) -> None:
        self.options = options
        self._reporter = reporter

    def carry(self, request: Request, blob: Descriptor) -> Carried:
        """Bring a blob to the destination, unless it is there, or this is a dry run.

        Raises:
            OciMirrorError: of the last try, with its side.
        """
        options = self.options
        if not options.dry_run and not options.deep:
            return self.transfer(request, blob)
        with blamed_on("destination"):
            present = holds(request.destination, blob, hashed=options.deep)
        if present or options.dry_run:
            self._reporter.moved(request, blob.size)
            return Carried(Stored.PRESENT) if present else Carried(Stored.COPIED, blob.size)
        return self.transfer(request, blob, replace=True)

    def read_manifest(self, request: Request, descriptor: Descriptor) -> Manifest:
        """Read a manifest from the source, tried again as a blob is."""
        tries = self._tries()
        while True:
            try:
                return _read_manifest(request.source, descriptor)
            except OciMirrorError as error:
                if not tries.again(error):
                    raise
                logger.warning("trying again: %s", error)

    def transfer(self, request: Request, blob: Descriptor, *, replace: bool = False) -> Carried:
        """Fetch and push; each try is a fresh fetch."""
        moved = _Moved(request, self._reporter, self.options)
        tries = self._tries()
        while True:
            try:
                with request.source.fetch(blob, moved) as stream:
                    stored = request.destination.push(blob, stream, replace=replace)
            except OciMirrorError as error:
                error.at("destination")
                moved.settle(0)
                if not tries.again(error):
                    raise
                logger.warning("trying again: %s", error)
            else:
                moved.settle(blob.size)
                return Carried(stored, moved.bytes)

    def _tries(self) -> Tries:
        return Tries(self.options.retries, self._wait, backoff_s=1.0)

    def _wait(self, seconds: float, _: OciMirrorError) -> None:
        if self.options.stop.wait(seconds):
            raise Interrupted("stopped while waiting to try again")

    def push_closure_again(self, request: Request, manifest: Manifest, plan: Plan) -> None:
        """Push what a manifest names once more, whatever the destination says it has."""
        needed = closure([manifest.digest], {each.digest: each for each in plan.manifests})
        named = {blob.digest for each in needed.values() for blob in each.blobs}
        for blob in plan.blobs:
            if blob.digest in named:
                self.transfer(request, blob, replace=True)
        for each in plan.manifests:  # (children first)
            if each.digest in needed and each.digest != manifest.digest:
                request.destination.push_manifest(each, replace=True)


def _read_manifest(source: Source, descriptor: Descriptor) -> Manifest:
    with blamed_on("source"):
        try:
            return source.read_manifest(descriptor)
        except RegistryUnavailable as error:
            # The size came from a HEAD, and some answer GET in another length (Harbor).
            right = descriptor if error.exhausted else source.resolve(str(descriptor.digest))
            if right.size == descriptor.size:
                raise
            return source.read_manifest(replace(descriptor, size=right.size))


class _Moved:
    """Tells the reporter of bytes as they move, and ends a stream once the run is stopped.

    `bytes` have moved; what was settled is not among them.
    """

    def __init__(self, request: Request, reporter: Reporter, options: Options) -> None:
        self.bytes = 0
        self._request = request
        self._reporter = reporter
        self._stop = options.stop
        self._count = 0

    def __call__(self, count: int) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped")
        self.bytes += count
        self._count += count
        self._reporter.moved(self._request, count)

    def settle(self, total: int) -> None:
        """Correct what was reported to `total`: a try in vain, or content that was present."""
        self._reporter.moved(self._request, total - self._count)
        self._count = total


def push_manifest(request: Request, manifest: Manifest, plan: Plan, carrier: Carrier) -> Stored:
    """Store one manifest, whose children are in."""
    destination = request.destination
    local = destination.local
    with blamed_on("destination"):
        if local and holds(destination, manifest.descriptor, hashed=True):
            return Stored.PRESENT
        return _believing_nothing(
            destination,
            partial(destination.push_manifest, manifest, replace=local),
            partial(carrier.push_closure_again, request, manifest, plan),
            sparse=_is_sparse(manifest, plan),
        )


def move_names(
    names: Sequence[tuple[str, Manifest]],
    request: Request,
    plan: Plan,
    carrier: Carrier,
) -> None:
    """Move names to manifests whose closures are in.

    `request` and `plan` are those of the first image; a registry is given one image at a time.
    """

    def push_again() -> None:
        for _, manifest in names:
            carrier.push_closure_again(request, manifest, plan)

    destination = request.destination
    with blamed_on("destination"):
        _believing_nothing(
            destination,
            partial(destination.tag, names),
            push_again,
            sparse=any(_is_sparse(manifest, plan) for _, manifest in names),
        )


def _is_sparse(manifest: Manifest, plan: Plan) -> bool:
    absent = {descriptor.digest for descriptor in plan.absent}
    return any(child.digest in absent for child in manifest.manifests)


def _believing_nothing(
    destination: Store, work: Callable[[], T], push_again: Callable[[], None], *, sparse: bool
) -> T:
    """Run `work`; where the destination misses what it said it had, push that and try once more.

    Raises:
        SparseRefused: it misses the platforms that were not asked for; it is not asked again.
    """
    try:
        if sparse and destination.refuses_sparse:
            raise SparseRefused(f"{destination.location} refuses an index with absent children")
        return work()
    except ManifestBlobUnknown as error:
        if sparse:
            destination.refuses_sparse = True
            raise SparseRefused(error.message) from error
        logger.warning("pushing again what the destination misses: %s", error)
        push_again()
        return work()
