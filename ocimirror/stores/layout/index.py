"""A layout's index.json: which name stands for which manifest.

The names follow containerd, which docker and podman read too: `io.containerd.image.name` is the
full reference and `org.opencontainers.image.ref.name` the tag. The document is edited as it was
parsed, so the keys and entries of other tools survive. (This file is not an image: it is written
anew with each name, unlike manifests, which are never serialised.)
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

from ocimirror.errors import (
    DamagedLayout,
    MalformedManifest,
    NotFound,
    OciMirrorError,
)
from ocimirror.model import mediatype, strictjson
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.platform import joined
from ocimirror.model.reference import Reference, attachment_tag_in, spellings, split_digest
from ocimirror.stores.entry import (
    IMAGE_NAME,
    REF_NAME,
    Entry,
    annotations_of_ours,
    is_synthesised,
    platforms_of,
    sparse,
)
from ocimirror.stores.layout.oneimage import damaged_index, not_one
from ocimirror.stores.unreadable import UnreadableEntry

MAX_SIZE_BYTES = 256 * 1024 * 1024
EMPTY = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % mediatype.OCI_INDEX.encode()


class LayoutIndex:
    """The parsed document; immutable, `with_names` returns the bytes of a new one.

    Attributes:
        what: the place, for errors.
        entries: those that can be read.
        unreadable: the others; they are kept where the document is edited.
    """

    def __init__(self, document: dict[str, Any], what: str) -> None:
        self._document = document
        self.what = what
        self._rows = [_row(value, number, what) for number, value in enumerate(_list(document))]
        self.entries = tuple(row for row in self._rows if isinstance(row, Entry))
        self.unreadable = tuple(row for row in self._rows if isinstance(row, UnreadableEntry))

    @classmethod
    def parse(cls, raw: bytes, what: str) -> LayoutIndex:
        """Parse index.json.

        Args:
            raw: the whole file.
            what: the place, for errors.

        Raises:
            DamagedLayout: empty, torn, not strict JSON, or not an index.

        Spec: image-spec image-layout.md#indexjson-file.
        """
        if not raw.strip(b"\0 \n"):
            raise damaged_index(f"{what}: index.json is empty")
        try:
            document = cast("dict[str, Any]", strictjson.loads(raw, f"index.json of {what}"))
            if not isinstance(document.get("manifests"), list | None):
                raise DamagedLayout(f"index.json of {what} has no list of manifests")
            stated = document.get("mediaType", mediatype.OCI_INDEX)
            if document.get("schemaVersion") != 2 or stated != mediatype.OCI_INDEX:
                raise DamagedLayout(f"index.json of {what} is not an image index")
            return cls(document, what)
        except OciMirrorError as error:
            raise damaged_index(error.message) from error

    @classmethod
    def of(
        cls, entries: Sequence[Entry], what: str, unreadable: Sequence[UnreadableEntry] = ()
    ) -> LayoutIndex:
        """Return the index of a place that has no such document."""
        index = cls({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX}, what)
        index.entries = tuple(entries)
        index.unreadable = tuple(unreadable)
        return index

    def find(self, name: str) -> Entry:
        """Return the entry that a name stands for; the first where several have one root.

        Args:
            name: a full reference, else a tag, or a digest.

        Raises:
            NotFound: no entry; the error lists what there is.
            DamagedLayout: the entry of that name cannot be read.
            UsageError: several images; the error lists them.
        """
        name, digest = split_digest(name)
        found = self._lookup(name) or self._in_repository(name)
        if len({entry.descriptor.digest for entry in found}) == 1:
            if digest not in (None, found[0].descriptor.digest):
                raise NotFound(f"{self.what}: {name} is {found[0].descriptor.digest}, not {digest}")
            return found[0]
        raise not_one(self.what, self.entries, self.unreadable, name, found)

    def only(self, images: Sequence[Entry]) -> Entry:
        """Return the one image that several entries stand for, else as `find`."""
        found = images or self.entries
        if len({entry.descriptor.digest for entry in found}) == 1:
            return found[0]
        raise not_one(self.what, self.entries, self.unreadable, "", found)

    def called(self, name: str) -> Sequence[Entry]:
        """Return the entries that have one name in common, found as `find` finds them.

        Raises:
            NotFound: no entry; the error lists what there is.
            UsageError: several names, be it of one image; the error lists them.
        """
        found = self._lookup(name)
        if len({(entry.name, entry.descriptor.digest) for entry in found}) == 1:
            return found
        raise not_one(self.what, self.entries, self.unreadable, name, found)

    def _lookup(self, name: str) -> Sequence[Entry]:
        for spelling in spellings(name):
            found = self._by_name.get(spelling) or self._by_spelling.get(spelling)
            if found:
                return found
        return [entry for entry in self.entries if entry.tag == name]

    def _in_repository(self, name: str) -> Sequence[Entry]:
        """Return the entries that NAME@DIGEST means: of that digest, whatever their tag."""
        before, at, after = name.partition("@")
        found = self._by_spelling.get(after, ()) if at else ()
        names = {str(replace(r, tag="", digest=None)) for e in found if (r := e.reference())}
        return found if names & set(spellings(before)) else ()

    @cached_property
    def _by_name(self) -> dict[str, list[Entry]]:
        entries: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.name:
                entries.setdefault(entry.name, []).append(entry)
        return entries

    @cached_property
    def _by_spelling(self) -> dict[str, list[Entry]]:
        """Entries by their name as Docker would write it, and by digest; the exact goes first."""
        entries: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for spelling in {spellings(entry.name)[-1], str(entry.descriptor.digest)}:
                entries.setdefault(spelling, []).append(entry)
        return entries

    def stands_for(self, name: str, descriptor: Descriptor) -> bool:
        """Whether a name stands for a root, with all the platforms that are asked of it."""
        entries = self._by_name.get(name, [])
        return bool(entries) and all(_moved(entry, descriptor) is None for entry in entries)

    def with_names(self, names: Sequence[tuple[str, Descriptor]]) -> bytes | None:
        """Return the document with each name moved to its descriptor; None where all are there.

        A name keeps its place in the list, and everything else is kept. What an old entry said
        of other content goes with it. Platforms that are added to a sparse image join those it
        has.
        """
        wanted = {name: descriptor for name, descriptor in names if name}
        known = {entry.descriptor.digest for entry in self.entries}
        unnamed = {d.digest: d for name, d in names if not name and d.digest not in known}
        written: set[str] = set()
        documents: list[Any] = []
        stand = all(self.stands_for(name, descriptor) for name, descriptor in wanted.items())
        if stand and not unnamed:
            return None
        for entry, document in self.rows():
            if entry.name not in wanted:
                documents.append(document)
            elif entry.name not in written:
                root = wanted[entry.name]
                moved = _moved(entry, root) if isinstance(entry, Entry) else root
                documents.append(document if moved is None else _document_of(entry.name, moved))
                written.add(entry.name)
        new = [(name, moved) for name, moved in wanted.items() if name not in written]
        documents += [_document_of(name, moved) for name, moved in new]
        documents += [_document_of("", descriptor) for descriptor in unnamed.values()]
        return self.with_documents(documents)

    def without(self, entries: Collection[Entry]) -> bytes:
        """Return the document without some of its entries; everything else is kept."""
        going = set(entries)
        return self.with_documents([value for row, value in self.rows() if row not in going])

    def rows(self) -> list[tuple[Entry | UnreadableEntry, Any]]:
        """Return each entry, in its order, with the JSON value that it was."""
        return list(zip(self._rows, _list(self._document), strict=True))

    def with_documents(self, documents: list[Any]) -> bytes:
        """Return the document with other entries; every other key is kept."""
        whole = {**self._document, "manifests": documents}
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _moved(entry: Entry, wanted: Descriptor) -> Descriptor | None:
    """Return the root that an entry has to name from now on, None where it does already."""
    if entry.descriptor.digest != wanted.digest:
        return wanted
    held, added = entry.platforms, platforms_of(wanted)
    merged = joined(held, added)
    # (Who has it from a registry knows better than who made it without.)
    original = is_synthesised(entry.descriptor) and not is_synthesised(wanted)
    return None if merged == held and not original else sparse(wanted, merged)


def _document_of(name: str, descriptor: Descriptor) -> dict[str, object]:
    # (A tag alone is no image name: containerd would take it for one.)
    annotations = {IMAGE_NAME: name} if "/" in name else {}
    tag = Reference.parse(name).tag if "/" in name else name
    if tag:
        annotations[REF_NAME] = tag
    annotations |= annotations_of_ours(descriptor)
    document: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    return {**document, "annotations": annotations} if annotations else document


def _list(document: dict[str, Any]) -> list[Any]:
    return cast("list[Any]", document.get("manifests") or [])


def _row(value: object, number: int, what: str) -> Entry | UnreadableEntry:
    try:
        return _entry(value, number, what)
    except MalformedManifest as error:
        return UnreadableEntry(number, error.message, value, (IMAGE_NAME, REF_NAME))


def _entry(value: object, number: int, what: str) -> Entry:
    descriptor = Descriptor.parse(value, f"manifests[{number}] of index.json of {what}", "manifest")
    annotations = descriptor.annotations
    tag = annotations.get(REF_NAME, "")
    return Entry(descriptor, annotations.get(IMAGE_NAME) or tag, attachment_tag_in(tag) or tag)
