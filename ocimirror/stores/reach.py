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
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest, refuse_too_deep
from ocimirror.model.platform import Platform
from ocimirror.stores.layout.index import Entry, platforms_of
from ocimirror.stores.store import Source

# (With the size and the platforms: another name of one digest may state or need other ones.)
Seen = tuple[Digest, int, tuple[Platform, ...]]


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
    platforms = platforms_of(root)
    unread = [(root, 1)]
    while unread:
        if stop is not None and stop.is_set():
            raise Interrupted("stopped before every manifest was read")
        descriptor, depth = unread.pop()
        key = descriptor.digest, descriptor.size, platforms
        if key in seen:
            continue
        seen.add(key)
        try:
            refuse_too_deep(f"image {root.digest}", depth)
            manifest = source.read_manifest(descriptor)
        except (IntegrityError, LocalStorageError, RemoteError) as error:
            failed(error, descriptor)
            continue
        yield manifest
        wanted = manifest.children_for(platforms)
        needed = {(child.digest, child.size) for child in wanted}
        others = [c for c in manifest.manifests if (c.digest, c.size) not in needed]
        children = (*wanted, *_present(source, others, failed))
        unread += [(child, depth + 1) for child in children]


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
