"""What manifests say of others: subjects, the entries of a list, and what indexes lead to.

It is read once and remembered by digest, for as long as a place is open: a new index.json costs
its new entries only, until a server has seen far more images than there are. Of what an index
names, what says nothing of others is not remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ocimirror.errors import IntegrityError, MissingContent, NotFound, Unsupported
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Descent, Seen, children_for, drop, is_leaf
from ocimirror.model.manifest import MAX_SIZE_BYTES, Manifest
from ocimirror.model.platform import Platform
from ocimirror.stores.store import Source

Root = tuple[Descriptor, Sequence[Platform]]
"""Where a look below begins, with the platforms that were asked of it."""
_Parts = tuple[Descriptor, ...]
_MOST_KNOWN = 200_000


class Edges:
    """The edges between the manifests of one place. Thread-safe."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._subjects: dict[Digest, Digest | None] = {}
        self._listed: dict[Digest, _Parts] = {}
        self._parts: dict[tuple[Digest, tuple[Platform, ...]], _Parts] = {}

    def kept(self, entries: Sequence[object]) -> Edges:
        """Return this, or an empty one if most of it is of images that have gone since."""
        most = _MOST_KNOWN + 2 * len(entries)
        return Edges(self._source) if len(self._subjects) > most else self

    def subject_of(self, descriptor: Descriptor) -> Digest | None:
        """Return what a manifest refers to, if to anything.

        Raises:
            NotFound, IntegrityError: it is absent, damaged, or no manifest.
            Unsupported: Docker schema 1.
        """
        if descriptor.digest not in self._subjects:
            subject = self._source.read_manifest(descriptor).subject
            self._subjects[descriptor.digest] = subject.digest if subject else None
        return self._subjects[descriptor.digest]

    def listed_in(self, descriptor: Descriptor) -> Sequence[Descriptor]:
        """Return the manifests that a list of referrers names.

        Raises:
            NotFound, IntegrityError: the list is absent or damaged.
        """
        if descriptor.digest not in self._listed:
            self._listed[descriptor.digest] = self._source.read_manifest(descriptor).manifests
        return self._listed[descriptor.digest]

    def below(
        self, roots: Iterable[Root], damaged: Callable[[Digest], None] = lambda _: None
    ) -> Iterator[tuple[Digest | None, Descriptor]]:
        """Yield the manifests below these roots that may say something: (subject, manifest).

        That is what refers to something, and what is an index or of unknown type. What is absent
        or damaged is left out.

        Args:
            roots: what is absent of the platforms that were asked of one may come.
            damaged: told of what is there and cannot be read.
        """
        seen: set[Seen] = set()
        for root, platforms in roots:
            if is_leaf(root):
                continue
            descent = Descent(root, platforms, seen, drop)  # (`verify` reports what is too deep)
            for whole in descent:
                parts = self._parts_of(whole, tuple(platforms), damaged)
                yield from ((self._subjects.get(part.digest), part) for part in parts)
                descent.add(whole, (part for part in parts if not is_leaf(part)))

    def _parts_of(
        self, whole: Descriptor, platforms: tuple[Platform, ...], damaged: Callable[[Digest], None]
    ) -> _Parts:
        key = whole.digest, platforms
        if key in self._parts:
            return self._parts[key]
        try:
            manifest = self._source.read_manifest(whole)
        except (IntegrityError, NotFound, Unsupported):
            return ()
        unread: set[Digest] = set()
        found = tuple(
            child for child in manifest.manifests if self._says_more(child, unread, damaged)
        )
        if all(child.digest not in unread for child in children_for(manifest, platforms)):
            self._parts[key] = found
        return found

    def _says_more(
        self, part: Descriptor, unread: set[Digest], damaged: Callable[[Digest], None]
    ) -> bool:
        if not mediatype.known(part.media_type) and part.size > MAX_SIZE_BYTES:
            return False  # (an index may name a blob so)
        try:
            subject = self._subjects.get(part.digest) or self._read_subject(part)
        except Unsupported:
            return False
        except (IntegrityError, NotFound) as error:
            unread.add(part.digest)
            if isinstance(error, IntegrityError) and not isinstance(error, MissingContent):
                damaged(part.digest)
            return False
        if subject is not None:
            self._subjects[part.digest] = subject
        return subject is not None or not is_leaf(part)

    def _read_subject(self, descriptor: Descriptor) -> Digest | None:
        with self._source.fetch(descriptor) as stream:
            raw = stream.read_all(MAX_SIZE_BYTES)
        # (Most manifests have none, and parsing costs four times what reading does.)
        if b"subject" not in raw and b"\\u" not in raw:
            return None
        subject = Manifest.parse(raw, descriptor).subject
        return subject.digest if subject else None
