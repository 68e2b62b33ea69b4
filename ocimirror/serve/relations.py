"""What manifests say of one another: who refers to whom, and what an index calls its children.

Read once for each version of a layout, and only when somebody asks. What was read stays known by
digest, so that a new version costs its new entries only.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

from ocimirror.errors import OciMirrorError
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import MAX_SIZE_BYTES, Manifest
from ocimirror.serve.files import Proofs, open_blob
from ocimirror.serve.shelf import ServedLayout
from ocimirror.stores.attached import may_be_referrers_list

_MOST_KNOWN = 200_000


@dataclass(slots=True)
class _Said:
    """What one manifest says; nothing where it could not be read."""

    subject: Digest | None = None
    document: dict[str, object] = field(default_factory=dict)
    children: tuple[tuple[Digest, str, int], ...] = ()


@dataclass(slots=True)
class _Related:
    referrers: dict[Digest, dict[Digest, dict[str, object]]] = field(default_factory=dict)
    types: dict[Digest, str] = field(default_factory=dict)


class Relations:
    """The relations of all layouts. Thread-safe; one layout is read at a time."""

    def __init__(self, proofs: Proofs) -> None:
        self._proofs = proofs
        self._guard = threading.Lock()
        self._known: dict[Digest, _Said] = {}
        self._related: weakref.WeakKeyDictionary[ServedLayout, _Related] = (
            weakref.WeakKeyDictionary()
        )

    def referrers(
        self, layouts: Sequence[ServedLayout], subject: Digest
    ) -> list[dict[str, object]]:
        """Return the descriptors of what refers to a manifest, sorted by digest."""
        found: dict[Digest, dict[str, object]] = {}
        for layout in layouts:
            found.update(self._of(layout).referrers.get(subject, {}))
        return [found[digest] for digest in sorted(found)]

    def media_type(self, layouts: Sequence[ServedLayout], digest: Digest) -> str:
        """Return what an index of the layouts calls a child; empty where none does."""
        return next((t for layout in layouts if (t := self._of(layout).types.get(digest))), "")

    def _of(self, layout: ServedLayout) -> _Related:
        with self._guard:
            related = self._related.get(layout)
            if related is None:
                related = self._related[layout] = self._read(layout)
            return related

    def _read(self, layout: ServedLayout) -> _Related:
        related = _Related()
        seen: set[Digest] = set()
        lists = {
            e.descriptor.digest
            for e in layout.entries
            if may_be_referrers_list(e.tag, e.descriptor)
        }
        unread = [(e.descriptor.digest, e.descriptor.media_type) for e in layout.entries]
        while unread:
            digest, media_type = unread.pop()
            if digest in seen:
                continue
            seen.add(digest)
            said = self._said(layout, digest, media_type)
            if said.subject is not None:
                related.referrers.setdefault(said.subject, {})[digest] = said.document
            for child, child_type, _ in said.children:
                related.types.setdefault(child, child_type)
                if mediatype.is_index(child_type) or digest in lists:
                    unread.append((child, child_type))
        return related

    def _said(self, layout: ServedLayout, digest: Digest, media_type: str) -> _Said:
        said = self._known.get(digest)
        if said is None:
            manifest = self._manifest(layout, digest, media_type)
            if manifest is None:
                return _Said()  # (not remembered: it may come)
            said = _Said(
                manifest.subject.digest if manifest.subject else None,
                manifest.as_referrer() if manifest.subject else {},
                tuple((c.digest, c.media_type, c.size) for c in manifest.manifests),
            )
            if len(self._known) < _MOST_KNOWN:
                self._known[digest] = said
        return said

    def _manifest(self, layout: ServedLayout, digest: Digest, media_type: str) -> Manifest | None:
        try:
            file = open_blob(layout.path, digest)
            if file is None:
                return None
            with file:
                raw = self._proofs.read(file.duplicate(), MAX_SIZE_BYTES)
            return Manifest.parse(raw, Descriptor(media_type, digest, len(raw), "manifest"))
        except OciMirrorError:
            return None  # (`verify` reports it)
