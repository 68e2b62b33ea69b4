"""An entry of index.json that is no descriptor: it is a fault, and stops nobody."""

from __future__ import annotations

from typing import Any, cast

from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest, digest_or_none


class UnreadableEntry:
    """One such entry, as it is in the document, and why it cannot be read.

    Attributes:
        number: its place in the list.
        message: what is wrong.
        name: the full reference or else the tag that its annotations state.
        tag: the tag alone.
    """

    def __init__(self, number: int, message: str, document: object, keys: tuple[str, str]) -> None:
        self.number = number
        self.message = message
        self._document = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
        self._raw = document
        stated = self._document.get("annotations")
        found = stated if isinstance(stated, dict) else {}
        self._annotations = {k: v for k, v in found.items() if isinstance(v, str)}
        full, self.tag = (self._annotations.get(key, "") for key in keys)
        self.name = full or self.tag

    @property
    def label(self) -> str:
        """What it is called: its name, else its digest, else its place in index.json."""
        return self.name or str(self.digest or f"manifests[{self.number}]")

    @property
    def told(self) -> str:
        """What is said by who goes on without it."""
        return f"{self.message}; it is left out, and `ocimirror repair` mends it"

    @property
    def digest(self) -> Digest | None:
        """The digest that it states, also in capitals; None if that is none."""
        stated = self._document.get("digest")
        return digest_or_none(stated.lower()) if isinstance(stated, str) else None

    def digests(self) -> set[Digest]:
        """Return every digest that is anywhere in it."""
        found: set[Digest] = set()
        unread = [self._raw]
        while unread:
            value = unread.pop()
            if isinstance(value, dict):
                unread += [*value, *value.values()]
            elif isinstance(value, list):
                unread += value
            elif (digest := digest_or_none(value)) is not None:
                found.add(digest)
        return found

    def mended(self, known: Descriptor) -> dict[str, object]:
        """Return the entry with the media type and size of the manifest that has its digest."""
        return {
            "mediaType": known.media_type,
            "digest": str(known.digest),
            "size": known.size,
            **({"annotations": self._annotations} if self._annotations else {}),
        }
