"""What a root leads to in a place that may be damaged, and may hold sparse images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from ocimirror.errors import (
    IntegrityError,
    Interrupted,
    LocalStorageError,
    NotFound,
    OciMirrorError,
    RemoteError,
    Unsupported,
)
from ocimirror.model import mediatype
from ocimirror.model.chain import Chain
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Descent, Seen, children_for
from ocimirror.model.manifest import Manifest
from ocimirror.stores.entry import Entry, platforms_of
from ocimirror.stores.store import Source


def reach(
    source: Source,
    root: Descriptor,
    seen: set[Seen],
    failed: Callable[[OciMirrorError, Descriptor], None],
    stop: threading.Event | None = None,
) -> Iterator[Manifest]:
    """Yield each manifest from a root down that can be read, parents first.

    Of an index of a sparse image what it was not asked for may be absent; where it is there, it
    counts.

    Args:
        source: the place.
        root: where it begins; an entry's annotation says which platforms were asked for.
        seen: not looked at again; what is looked at is added, also where it cannot be read.
        failed: told of a manifest that is absent, damaged or cannot be read; it may raise.
        stop: ends the walk once it is set.

    Raises:
        Interrupted: `stop` was set.
    """
    descent = Descent(root, platforms_of(root), seen, failed)
    for _, manifest in _read(source, descent, failed, stop):
        yield manifest


def chains(
    source: Source, root: Descriptor, failed: Callable[[OciMirrorError, Descriptor], None]
) -> Iterator[Chain]:
    """Yield the way from a root down to each image manifest that can be read.

    Args:
        source: the place; as it reads them, the documents of a chain have their digests.
        root: where each chain begins.
        failed: as for `reach`.
    """
    paths: dict[Digest, tuple[Manifest, ...]] = {}
    descent = Descent(root, platforms_of(root), refused=failed)
    for named, manifest in _read(source, descent, failed):
        parent = descent.parent_of(named)
        path = (*(paths[parent.digest] if parent else ()), manifest)
        if manifest.manifests:
            paths[manifest.digest] = path
        if mediatype.is_image_manifest(manifest.media_type):
            yield Chain(path)


def _read(
    source: Source,
    descent: Descent,
    failed: Callable[[OciMirrorError, Descriptor], None],
    stop: threading.Event | None = None,
) -> Iterator[tuple[Descriptor, Manifest]]:
    for descriptor in descent:
        if stop is not None and stop.is_set():
            raise Interrupted("stopped before every manifest was read")
        try:
            manifest = source.read_manifest(descriptor)
        except (IntegrityError, LocalStorageError, RemoteError) as error:
            failed(error, descriptor)
            continue
        yield descriptor, manifest
        wanted = children_for(manifest, descent.platforms)
        needed = {(child.digest, child.size) for child in wanted}
        others = [c for c in manifest.manifests if (c.digest, c.size) not in needed]
        descent.add(descriptor, wanted)
        descent.add(descriptor, _present(source, others, failed))


def _present(
    source: Source,
    children: Iterable[Descriptor],
    failed: Callable[[OciMirrorError, Descriptor], None],
) -> Iterator[Descriptor]:
    for child in children:
        try:
            exists = source.exists(child)
        except (LocalStorageError, RemoteError) as error:
            failed(error, child)
        else:
            if exists:
                yield child


def whole_first(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries with sparse images last.

    What a whole one needs is missing even where a sparse one does without.
    """
    return sorted(entries, key=lambda entry: bool(entry.platforms))


def ignore(error: OciMirrorError, _: Descriptor) -> None:
    """Go on past what is absent or damaged; for `reach`. What could not be read is raised."""
    if not isinstance(error, (IntegrityError, NotFound, Unsupported)):
        raise error
