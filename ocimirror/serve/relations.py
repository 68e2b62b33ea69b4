"""What manifests say of one another: who refers to whom, and what others are called.

It is what every command finds in a layout (stores/attached.py), read when somebody asks. What was
read stays known by digest, so that a new version of a layout costs its new entries only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ocimirror.errors import MissingContent, NotFound, Unsupported
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.serve.shelf import ServedLayout, warn_of_new
from ocimirror.stores.attached import Attached

_CACHE_BYTES = 32 * 1024 * 1024


class Relations:
    """The relations of all layouts. Thread-safe; one layout is read at a time."""

    def __init__(self) -> None:
        self._warned: dict[str, Attached] = {}
        self._documents: dict[Digest, tuple[Digest, dict[str, object]]] = {}
        self._documents_bytes = 0

    def referrers(
        self, layouts: Sequence[ServedLayout], subject: Digest
    ) -> list[dict[str, object]]:
        """Return the descriptors of what refers to a manifest, sorted by digest.

        What a list names and is absent, or refers to something else, is left out.

        Raises:
            IntegrityError: a list, or what it names, is damaged.
        """
        found: dict[Digest, dict[str, object]] = {}
        for layout in layouts:
            for tag, descriptor in self._of(layout).of(subject):
                of, document = (None, {}) if tag else self._document(layout, descriptor)
                if of == subject:
                    found[descriptor.digest] = document
        return [found[digest] for digest in sorted(found)]

    def media_type(self, layouts: Sequence[ServedLayout], digest: Digest) -> str:
        """Return what a manifest of unknown type is called by what names it; else nothing."""
        return next((t for layout in layouts if (t := self._of(layout).types.get(digest))), "")

    def with_members(self, layouts: Sequence[ServedLayout], manifest: Manifest) -> Manifest:
        """Return content of unknown type with what it names, as far as that is here."""
        for layout in layouts:
            with suppress(NotFound, MissingContent):
                return layout.source.read_manifest(manifest.descriptor)
        return manifest

    def _of(self, layout: ServedLayout) -> Attached:
        attached = layout.source.attached(layout.entries)
        if self._warned.get(layout.path) is not attached:
            told = "cannot be read; it may be an attachment"
            lines = sorted({f"{layout.path}: {digest} {told}" for digest in attached.unread})
            warn_of_new(lines)
            self._warned[layout.path] = attached
        return attached

    def _document(
        self, layout: ServedLayout, descriptor: Descriptor
    ) -> tuple[Digest | None, dict[str, object]]:
        """Return the subject of a referrer, and how a list names it; nothing if it is absent."""
        known = self._documents.get(descriptor.digest)
        if known is not None:
            return known
        try:
            manifest = layout.source.read_manifest(descriptor)
        except (NotFound, MissingContent, Unsupported):  # (Docker schema 1 has no subject)
            return None, {}
        if manifest.subject is None:
            return None, {}
        if self._documents_bytes > _CACHE_BYTES:
            self._documents, self._documents_bytes = {}, 0
        self._documents_bytes += len(manifest.raw)
        # (Another thread may empty the cache meanwhile.)
        found = manifest.subject.digest, manifest.as_referrer()
        self._documents[manifest.digest] = found
        return found
