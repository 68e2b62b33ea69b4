"""The graph of manifests: what a manifest leads to, and the one bounded way down.

A manifest leads to its children. Its subject is an edge up, and is never followed from here.
Nothing here reads anything: a `Descent` says what to read next, and whoever reads it, one thread
or a pool, hands over the children. `closure` and `levels` are of manifests that were read already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter

from ocimirror.errors import MalformedManifest, OciMirrorError
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.model.platform import WITHOUT_ATTESTATIONS, Platform

MAX_DEPTH = 8
"""How deep indexes may be nested before they count as a bomb; a root has depth 1."""
MAX_MANIFESTS = 100_000
"""How many manifests one image may have before it counts as a bomb."""
MAX_GENERATIONS = 4
"""How far attachments of attachments are followed."""
_ATTESTATION_OF = "vnd.docker.reference.digest"

Seen = tuple[Digest, int, tuple[Platform, ...]]
"""A manifest as it was named: under another size or for other platforms it is looked at again."""


def attestation_of(child: Descriptor) -> str | None:
    """Return the digest of the manifest that an attestation is about; None for any other child.

    BuildKit puts attestations into the index of their image, with platform unknown/unknown.
    """
    return child.annotations.get(_ATTESTATION_OF)


def images_in(index: Manifest) -> tuple[Descriptor, ...]:
    """Return the children of an index that are no attestations, in document order."""
    return tuple(child for child in index.manifests if attestation_of(child) is None)


def children_for(manifest: Manifest, platforms: Sequence[Platform]) -> tuple[Descriptor, ...]:
    """Return the manifests that an image for these platforms needs; no platforms means all.

    A child without a platform cannot be told apart and is needed; an attestation goes with the
    child that it is about, unless WITHOUT_ATTESTATIONS is among the platforms.
    """
    if not platforms:
        return manifest.manifests
    chosen = {
        child.digest
        for child in manifest.manifests
        if child.platform is None or any(p.matches(child.platform) for p in platforms)
    }
    about = {str(digest) for digest in chosen if WITHOUT_ATTESTATIONS not in platforms}
    return tuple(
        child
        for child in manifest.manifests
        if child.digest in chosen or attestation_of(child) in about
    )


def is_leaf(descriptor: Descriptor) -> bool:
    """Whether a manifest names no other manifests, as its media type says."""
    media_type = mediatype.known(descriptor.media_type)
    return bool(media_type) and not mediatype.is_index(media_type)


def refuse(error: OciMirrorError, _: Descriptor) -> None:
    """Raise the error; for a `Descent` that has to be complete."""
    raise error


def drop(_: OciMirrorError, __: Descriptor) -> None:
    """Leave out what is beyond a bound; for a `Descent` of which somebody else reports that."""


class Descent:
    """What to read of an image: each manifest once, bounded in depth and number. For one thread.

    Iterate over it, read what it yields, and `add` the children of what was read; an iteration
    ends when everything that was named has been yielded, and a new one yields what was named
    since. Read in that order, manifests come level by level, so that the depth of one is the
    length of the shortest way to it.

    Args:
        root: where it begins.
        platforms: for which children are added; what `seen` has for other platforms is new.
        seen: what earlier descents have yielded, which is left out; what this one yields is added.
        refused: told of each descriptor that is nested too deep, which is not yielded; and of the
            first that is one too many, after which nothing is yielded.

    Attributes:
        platforms: as given.
    """

    def __init__(
        self,
        root: Descriptor,
        platforms: Sequence[Platform] = (),
        seen: set[Seen] | None = None,
        refused: Callable[[MalformedManifest, Descriptor], None] = refuse,
    ) -> None:
        self._what = f"image {root.digest}"
        self.platforms = tuple(platforms)
        self._seen = set() if seen is None else seen
        self._refused = refused
        self._full = False
        self._depths: dict[Seen, int] = {}
        self._parents: dict[Seen, Descriptor] = {}
        self._unread: deque[Descriptor] = deque()
        self.start(root)

    def __iter__(self) -> Iterator[Descriptor]:
        """Yield what was named and not yielded yet, in the order in which it was named."""
        while self._unread:
            yield self._unread.popleft()

    def start(self, descriptor: Descriptor) -> None:
        """Name one more manifest at depth 1, such as an attachment of the image."""
        self._name(descriptor, 1)

    def add(self, parent: Descriptor, children: Iterable[Descriptor]) -> None:
        """Name what a manifest leads to.

        Args:
            parent: as it was yielded.
            children: those that are to be read, in document order.
        """
        depth = self._depths[self._key(parent)] + 1
        for child in children:
            if self._name(child, depth):
                self._parents[self._key(child)] = parent

    def forget(self, descriptor: Descriptor) -> None:
        """Take back that a manifest was named: named again, it is yielded again."""
        key = self._key(descriptor)
        self._seen.discard(key)
        self._depths.pop(key, None)
        self._parents.pop(key, None)

    def parent_of(self, descriptor: Descriptor) -> Descriptor | None:
        """Return what named a manifest first; None for one that the descent started with."""
        return self._parents.get(self._key(descriptor))

    def _key(self, descriptor: Descriptor) -> Seen:
        return descriptor.digest, descriptor.size, self.platforms

    def _name(self, descriptor: Descriptor, depth: int) -> bool:
        key = self._key(descriptor)
        if key in self._seen or key in self._depths or self._full:
            return False
        self._depths[key] = depth
        if depth > MAX_DEPTH:
            text = f"{self._what}: indexes nested deeper than {MAX_DEPTH}"
            self._refused(MalformedManifest(text), descriptor)
        elif len(self._depths) > MAX_MANIFESTS:
            self._full = True
            self._seen -= {self._key(unread) for unread in self._unread}
            self._unread.clear()
            text = f"{self._what}: more than {MAX_MANIFESTS} manifests"
            self._refused(MalformedManifest(text), descriptor)
        else:
            self._seen.add(key)
            self._unread.append(descriptor)
        return True


def closure(
    roots: Iterable[Digest], known: Mapping[Digest, Manifest], without: Collection[Digest] = ()
) -> dict[Digest, Manifest]:
    """Return what roots lead to among known manifests, the roots with it.

    Args:
        roots: where to begin; one that is not known leads nowhere.
        known: manifests that were read.
        without: what is not entered.
    """
    found: dict[Digest, Manifest] = {}
    unread = list(roots)
    while unread:
        digest = unread.pop()
        if digest in known and digest not in found and digest not in without:
            found[digest] = known[digest]
            unread += [child.digest for child in known[digest].manifests]
    return found


def levels(known: Mapping[Digest, Manifest]) -> list[tuple[Manifest, ...]]:
    """Return known manifests by height: children before parents; within a level none needs another.

    The first level has what leads to no other known manifest.
    """
    sorter: TopologicalSorter[Digest] = TopologicalSorter()
    for digest, manifest in known.items():
        children = dict.fromkeys(child.digest for child in manifest.manifests)
        sorter.add(digest, *(child for child in children if child in known))
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(tuple(known[digest] for digest in ready))
        sorter.done(*ready)
    return found
