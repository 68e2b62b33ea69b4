"""What the entries of an index.json say of one another: which of them are attachments, and of what.

    subject   an entry, named or not, whose manifest has a `subject`
    list      an index tagged <algorithm>-<encoded>: a list of referrers, as registries without the
              API keep it and as regctl and olareg find them in layouts; it is no image
    cosign    the tags <algorithm>-<encoded>.sig .att .sbom, and what `cosign save` writes: entries
              of a `kind`, each about the image before it

Pure: whoever uses it says how a manifest is read. What was read is remembered by digest, so that a
new index.json costs its new entries only.

Spec: distribution-spec, referrers tag schema.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from ocimirror.errors import IntegrityError, NotFound, OciMirrorError, Unsupported
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import MAX_DEPTH, Manifest
from ocimirror.model.reference import (
    attachment_tag,
    is_attachment_tag,
    is_referrers_tag,
    subject_of_tag,
)
from ocimirror.stores.store import Referrer

if TYPE_CHECKING:
    from ocimirror.stores.index import Entry

COSIGN_KIND = "kind"
_COSIGN = "dev.cosignproject.cosign/"
_COSIGN_IMAGES = frozenset({f"{_COSIGN}image", f"{_COSIGN}imageIndex"})
_COSIGN_SUFFIXES = {f"{_COSIGN}sigs": ".sig", f"{_COSIGN}atts": ".att"}


class Said(NamedTuple):
    """What one manifest says: its subject, and the manifests that it names."""

    subject: Digest | None
    listed: tuple[Descriptor, ...]


Read = Callable[[Descriptor], Manifest]
Known = MutableMapping[tuple[Digest, bool], Said]


def may_be_referrers_list(tag: str, root: Descriptor) -> bool:
    """Whether a tag can be a list of referrers: its form, and an index that is not its subject."""
    # (GitLab reads the tag as the digest, and answers with the image: oras #2148.)
    is_index = root.media_type == mediatype.OCI_INDEX
    return is_referrers_tag(tag) and is_index and attachment_tag(root.digest) != tag


def cosign_suffix(descriptor: Descriptor) -> str:
    """Return what `cosign save` says that an entry is: `.sig`, `.att`, or nothing."""
    return _COSIGN_SUFFIXES.get(descriptor.annotations.get(COSIGN_KIND, ""), "")


class Attached:
    """The attachments among the entries of one index.json.

    Args:
        entries: of index.json, in its order.
        read: returns a manifest; raises where it is absent or damaged.
        known: what manifests were found to say; added to.

    Attributes:
        subjects: subject → what refers to it, each manifest read.
        lists: the entries that are lists of referrers, by their tag.
        unread: entries without a name that cannot be read; they may be attachments.
    """

    def __init__(self, entries: Iterable[Entry], read: Read, known: Known) -> None:
        self._read = read
        self._known = known
        self.subjects: dict[Digest, dict[Digest, Descriptor]] = {}
        self.lists: dict[str, list[Entry]] = {}
        self.unread: list[Digest] = []
        self._listed: dict[str, dict[Digest, Descriptor]] = {}
        self._by_tag: dict[str, list[Referrer]] = {}
        self._errors: dict[str, OciMirrorError] = {}
        image: Descriptor | None = None
        self._entries = tuple(entries)
        for entry in self._entries:
            if entry.descriptor.annotations.get(COSIGN_KIND) in _COSIGN_IMAGES:
                image = entry.descriptor
            self._add(entry, image)

    def of(self, subject: Digest) -> Iterator[Referrer]:
        """Yield what is said to refer to a manifest; what a list names may be absent or false.

        Raises:
            IntegrityError: its list of referrers is absent or damaged.
        """
        tag = attachment_tag(subject)
        if tag in self._errors:
            raise self._errors[tag]
        found = {**self._listed.get(tag, {}), **self.subjects.get(subject, {})}
        yield from (Referrer("", descriptor) for descriptor in found.values())
        for suffix in ("", ".sig", ".att", ".sbom"):
            yield from self._by_tag.get(tag + suffix, ())

    def is_list(self, entry: Entry) -> bool:
        """Whether an entry is a list of referrers, and so no image."""
        return entry in self.lists.get(entry.tag, ())

    def images(self, size_of: Callable[[Digest], int | None]) -> list[Entry]:
        """Return the entries that are images of their own, or attachments of what is not here.

        Args:
            size_of: returns the size of content that is here, else None.
        """
        return [entry for entry in self._entries if not self._follows(entry, size_of)]

    def alone(self, size_of: Callable[[Digest], int | None]) -> list[Entry]:
        """Return the entries that may be meant if no name is given: images, named or not.

        An entry without a name is none if it refers to what is here, or if an index here names it
        (oras writes such entries for each child). One that cannot be read may be either.
        """
        images = [
            entry
            for entry in self.images(size_of)
            if not cosign_suffix(entry.descriptor)
            and (not is_attachment_tag(entry.tag) or is_referrers_tag(entry.tag))
        ]
        named = {entry.descriptor.digest for entry in images if entry.name}
        unnamed = [e for e in images if not e.name and e.descriptor.digest not in named]
        if unnamed and len(images) > 1:
            here = [r for s, r in self.subjects.items() if size_of(s) is not None]
            others = self._below().union(self.unread, *here)
            unnamed = [e for e in unnamed if e.descriptor.digest not in others] or (
                [] if named else unnamed
            )
        return [entry for entry in images if entry.name or entry in unnamed]

    def _below(self) -> set[Digest]:
        """Return what the indexes among the entries name, at any depth."""
        found = set[Digest]()
        waiting = [entry.descriptor for entry in self._entries]
        for _ in range(MAX_DEPTH):
            indexes = [d for d in waiting if mediatype.is_index(d.media_type)]
            waiting = []
            for index in indexes:
                with contextlib.suppress(IntegrityError, NotFound, Unsupported):
                    listed = self._said(index, listing=True).listed
                    waiting += [child for child in listed if child.digest not in found]
                    found.update(child.digest for child in listed)
        return found

    def _follows(self, entry: Entry, size_of: Callable[[Digest], int | None]) -> bool:
        tag = entry.tag
        if not is_attachment_tag(tag) or (is_referrers_tag(tag) and not self.is_list(entry)):
            return False
        subject = subject_of_tag(tag)
        if subject is not None:
            return size_of(subject) is not None
        whole = tag.partition(".")[0]  # (sha512: the tag has half of the digest)
        return whole in self._tags

    @cached_property
    def _tags(self) -> set[str]:
        """What the attachments of each entry would be tagged with."""
        return {attachment_tag(entry.descriptor.digest) for entry in self._entries}

    def _add(self, entry: Entry, image: Descriptor | None) -> None:
        descriptor, tag = entry.descriptor, entry.tag
        suffix = cosign_suffix(descriptor)
        if may_be_referrers_list(tag, descriptor):
            self._add_list(entry)
        elif is_attachment_tag(tag) and not is_referrers_tag(tag):
            self._by_tag.setdefault(tag, []).append(Referrer(tag, descriptor))
        elif suffix and image is not None and not entry.name:
            name = attachment_tag(image.digest) + suffix
            self._by_tag.setdefault(name, []).append(Referrer(name, descriptor))
        try:
            self._note_subject(descriptor)
        except Unsupported:
            return  # (schema 1 has no subject)
        except (IntegrityError, NotFound):
            if not entry.name:
                self.unread.append(descriptor.digest)

    def _add_list(self, entry: Entry) -> None:
        tag = entry.tag
        try:
            said = self._said(entry.descriptor, listing=True)
        except (IntegrityError, NotFound) as error:
            self.lists.setdefault(tag, []).append(entry)
            self._errors[tag] = error
            return
        right = {child.digest: self._refers(child, tag) for child in said.listed}
        if said.listed and not any(right.values()) and False in right.values():
            return  # (an image of several platforms, which somebody called so)
        self.lists.setdefault(tag, []).append(entry)
        for child in said.listed:
            self._listed.setdefault(tag, {}).setdefault(child.digest, child)

    def _refers(self, child: Descriptor, tag: str) -> bool | None:
        """Whether a manifest of a list refers to the list's subject; None if it is not readable."""
        try:
            subject = self._note_subject(child)
        except (IntegrityError, NotFound):
            return None
        except Unsupported:
            return False
        return subject is not None and attachment_tag(subject) == tag

    def _note_subject(self, descriptor: Descriptor) -> Digest | None:
        subject = self._said(descriptor).subject
        if subject is not None:
            self.subjects.setdefault(subject, {}).setdefault(descriptor.digest, descriptor)
        return subject

    def _said(self, descriptor: Descriptor, *, listing: bool = False) -> Said:
        key = descriptor.digest, listing
        said = self._known.get(key)
        if said is None:
            manifest = self._read(descriptor)
            # (What other indexes name is not needed; one may name thousands.)
            listed = manifest.manifests if listing else ()
            said = Said(manifest.subject.digest if manifest.subject else None, listed)
            self._known[key] = said
        return said
