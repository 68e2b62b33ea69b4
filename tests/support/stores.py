"""Test content in and out of ocimirror's stores, and honest stores behind a fault."""

from __future__ import annotations

import io
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ocimirror import (
    Descriptor,
    Digest,
    Layout,
    Manifest,
    MemoryStore,
    Options,
    Outcome,
    Request,
    Source,
    Store,
    Stored,
    VerifiedStream,
    copy_many,
)
from tests.support.images import Graph

OCTETS = "application/octet-stream"


class Reader(Protocol):
    """Raw bytes below a VerifiedStream, as a store opens them."""

    def read(self, amount: int, /) -> bytes:
        """Return 1 to `amount` bytes, or none at the end."""
        ...

    def close(self) -> None:
        """Release what the reader holds."""
        ...


def blob_of(content: bytes, algorithm: str = "sha256") -> Descriptor:
    """Return the descriptor of a blob."""
    return Descriptor(OCTETS, Digest.of(content, algorithm), len(content))


def stream_of(descriptor: Descriptor, content: bytes) -> VerifiedStream:
    """Return a stream that promises the descriptor and delivers the content."""
    return VerifiedStream(descriptor, lambda _: io.BytesIO(content))


def push_blob(store: Store, content: bytes, algorithm: str = "sha256") -> Descriptor:
    """Store a blob; return its descriptor."""
    descriptor = blob_of(content, algorithm)
    store.push(descriptor, stream_of(descriptor, content))
    return descriptor


def manifests_of(graph: Graph) -> list[Manifest]:
    """Return the manifests of a graph, children first, the root last."""
    return [
        Manifest.parse(raw, Descriptor(media_type, Digest.parse(digest), len(raw), "manifest"))
        for digest, (media_type, raw) in graph.manifests.items()
    ]


def root_of(graph: Graph) -> Descriptor:
    """Return the descriptor of a graph's root."""
    return Descriptor(
        graph.root_media_type, Digest.parse(graph.root), len(graph.raw), kind="manifest"
    )


def fill(store: Store, images: Mapping[str, Graph]) -> None:
    """Push images and name them, without the copy engine."""
    names = []
    for name, graph in images.items():
        for digest, content in graph.blobs.items():
            descriptor = Descriptor(OCTETS, Digest.parse(digest), len(content))
            store.push(descriptor, stream_of(descriptor, content))
        for manifest in manifests_of(graph):
            store.push_manifest(manifest)
            if str(manifest.digest) == graph.root:
                names.append((name, manifest))
    store.tag(names)


def memory(images: Mapping[str, Graph]) -> MemoryStore:
    """Return a memory store that holds these images."""
    store = MemoryStore()
    fill(store, images)
    return store


def named(graphs: Iterable[Graph], tag: str = "v1") -> dict[str, Graph]:
    """Give images the names `registry.example.com/app0:v1`, `…/app1:v1`, …"""
    return {f"registry.example.com/app{n}:{tag}": graph for n, graph in enumerate(graphs)}


def request(source: Source, name: str, destination: Store, new_name: str | None = None) -> Request:
    """Return a request to copy one image, under the same name if no other is given."""
    new_name = name if new_name is None else new_name
    shown = f"{destination.location}:{new_name}"
    return Request(source, name, destination, new_name, f"{source.location}:{name}", shown)


def copy_all(
    source: Source, destination: Store, names: Sequence[str], **options: Any
) -> list[Outcome]:
    """Copy images under their own names."""
    requests = [request(source, name, destination) for name in names]
    return copy_many(requests, Options(**{"jobs": 2, **options}))


def copy_into_layout(
    source: Source, directory: Path, names: Sequence[str], **options: Any
) -> list[Outcome]:
    """Copy images into a layout directory that is opened for this and closed again."""
    with Layout(directory, write=True, durable=False) as layout:
        return copy_all(source, layout, names, **options)


def failures(outcomes: Iterable[Outcome]) -> list[str]:
    """Return the messages of what failed, for an assertion to show."""
    return [outcome.error.diagnostics() for outcome in outcomes if outcome.error is not None]


Fault = Exception | Callable[[Reader], Reader]


class Failing(MemoryStore):
    """A memory store whose way in or out fails as planned, and which is honest otherwise.

    `faults[digest]` are used up one a read: an exception is raised in the place of the content, a
    function makes another reader of the right one. `refusals[digest]` are raised one a push, and
    `name_refusals` one a `tag`. `reads`, `pushes` and `named_in_order` say what was asked.
    """

    def __init__(self, location: str = "memory:failing") -> None:
        super().__init__(location)
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.refusals: dict[str, deque[Exception]] = defaultdict(deque)
        self.name_refusals: deque[Exception] = deque()
        self.reads: list[str] = []
        self.pushes: list[str] = []
        self.named_in_order: list[str] = []
        self._counting = threading.Lock()

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        digest = str(descriptor.digest)
        with self._counting:
            self.reads.append(digest)
            fault = self.faults[digest].popleft() if self.faults[digest] else None
        if isinstance(fault, Exception):
            raise fault
        reader = super()._open(descriptor, position)
        return fault(reader) if fault is not None else reader

    def _ingest(self, descriptor: Descriptor, stream: VerifiedStream, replace: bool) -> Stored:
        digest = str(descriptor.digest)
        with self._counting:
            self.pushes.append(digest)
            refusal = self.refusals[digest].popleft() if self.refusals[digest] else None
        if refusal is not None:
            raise refusal
        return super()._ingest(descriptor, stream, replace)

    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        if self.name_refusals:
            raise self.name_refusals.popleft()
        super()._tag(names)
        self.named_in_order += [name for name, _ in names]

    def forget(self, digest: str) -> None:
        """Lose content, as a registry after garbage collection."""
        self._content.pop(Digest.parse(digest))


class LikeARegistry(Failing):
    """Names one image a request, and a name vouches for its closure, as in a registry."""

    names_prove_closure = names_with_root = may_refuse_sparse = True
    local = False
    names_at_once = 1


def flipped(at: int) -> Callable[[Reader], Reader]:
    """Return the fault that flips a bit of byte `at`."""

    def damage(reader: Reader) -> Reader:
        content = bytearray(_drained(reader))
        content[at] ^= 1
        return io.BytesIO(bytes(content))

    return damage


def shortened(by: int) -> Callable[[Reader], Reader]:
    """Return the fault that ends content early, as a connection closed without a length does."""
    return lambda reader: io.BytesIO(_drained(reader)[:-by])


def lengthened(by: bytes) -> Callable[[Reader], Reader]:
    """Return the fault that adds bytes behind the content."""
    return lambda reader: io.BytesIO(_drained(reader) + by)


def broken_after(count: int, error: Exception) -> Callable[[Reader], Reader]:
    """Return the fault that raises after some bytes."""
    return lambda reader: _Breaking(reader, count, error)


class _Breaking:
    def __init__(self, reader: Reader, count: int, error: Exception) -> None:
        self._reader, self._left, self._error = reader, count, error

    def read(self, amount: int, /) -> bytes:
        if self._left == 0:
            raise self._error
        chunk = self._reader.read(min(amount, self._left))
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        self._reader.close()


def _drained(reader: Reader) -> bytes:
    parts = []
    while chunk := reader.read(1 << 16):
        parts.append(chunk)
    return b"".join(parts)
