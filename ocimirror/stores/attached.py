"""What the entries of an index.json say of one another: which of them are attachments, and of what.

    subject   an entry, named or not, whose manifest has a `subject`; also a manifest that an entry
              leads to, as BuildKit puts attestations into the index of their image
    list      an index tagged <algorithm>-<encoded>: a list of referrers, as registries without the
              API keep it and as regctl and olareg find them in layouts; it is no image
    cosign    the tags <algorithm>-<encoded>.sig .att .sbom, and what `cosign save` writes: entries
              of a `kind`, each about the image before it

What entries lead to is read when somebody asks what refers to something, and not before.

Spec: distribution-spec, referrers tag schema.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from ocimirror.errors import IntegrityError, NotFound, OciMirrorError, Unsupported
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Descent, Seen, drop
from ocimirror.model.reference import (
    attachment_tag,
    is_attachment_tag,
    is_referrers_tag,
    subject_of_tag,
)
from ocimirror.stores.edges import Edges
from ocimirror.stores.entry import Entry
from ocimirror.stores.store import Referrer

COSIGN_KIND = "kind"
_COSIGN = "dev.cosignproject.cosign/"
_COSIGN_IMAGES = frozenset({f"{_COSIGN}image", f"{_COSIGN}imageIndex"})
_COSIGN_SUFFIXES = {f"{_COSIGN}sigs": ".sig", f"{_COSIGN}atts": ".att"}


def may_be_referrers_list(tag: str, root: Descriptor) -> bool:
    """Whether a tag can be a list of referrers: its form, and an index that is not its subject."""
    # (GitLab reads the tag as the digest, and answers with the image: oras #2148.)
    is_index = root.media_type == mediatype.OCI_INDEX
    return is_referrers_tag(tag) and is_index and attachment_tag(root.digest) != tag


def cosign_suffix(descriptor: Descriptor) -> str:
    """Return what `cosign save` says that an entry is: `.sig`, `.att`, or nothing."""
    return _COSIGN_SUFFIXES.get(descriptor.annotations.get(COSIGN_KIND, ""), "")


def cosign_saved(entries: Iterable[Entry]) -> Iterator[tuple[Digest, Referrer]]:
    """Yield what `cosign save` wrote of each image, with the tag that it has at a registry."""
    image: Digest | None = None
    for entry in entries:
        descriptor = entry.descriptor
        if descriptor.annotations.get(COSIGN_KIND) in _COSIGN_IMAGES:
            image = descriptor.digest
        suffix = cosign_suffix(descriptor)
        if suffix and image is not None and not entry.name:
            yield image, Referrer(attachment_tag(image) + suffix, descriptor)


class Attached:
    """The attachments among the entries of one index.json, and below them. Thread-safe.

    Args:
        entries: of index.json, in its order.
        edges: what the manifests of that place say of others.

    Attributes:
        lists: the entries that are lists of referrers, by their tag.
    """

    def __init__(self, entries: Iterable[Entry], edges: Edges) -> None:
        self._edges = edges
        self._guard = threading.Lock()
        self._looked_below = False
        self._subjects: dict[Digest, dict[Digest, Descriptor]] = {}
        self._types: dict[Digest, str] = {}
        self.lists: dict[str, list[Entry]] = {}
        self._unread: list[Digest] = []
        self._listed: dict[str, dict[Digest, Descriptor]] = {}
        self._by_tag: dict[str, list[Referrer]] = {}
        self._errors: dict[str, OciMirrorError] = {}
        self._entries = tuple(entries)
        for entry in self._entries:
            self._add(entry)
        for _, referrer in cosign_saved(self._entries):
            self._by_tag.setdefault(referrer.tag, []).append(referrer)

    @property
    def subjects(self) -> Mapping[Digest, Mapping[Digest, Descriptor]]:
        """Subject → what refers to it, wherever it is; each manifest was read."""
        self._look_below()
        return self._subjects

    @property
    def types(self) -> Mapping[Digest, str]:
        """What manifests of unknown type are called by what names them."""
        self._look_below()
        return self._types

    @property
    def unread(self) -> Sequence[Digest]:
        """What may be an attachment and cannot be read: without a name, or below an entry."""
        self._look_below()
        return self._unread

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

        A list of referrers is none, also if its subject is elsewhere.
        An entry without a name is none if it refers to what is here, or if an index here names it
        (oras writes such entries for each child). One that cannot be read may be either.
        """
        images = [
            entry
            for entry in self.images(size_of)
            if not cosign_suffix(entry.descriptor)
            and not self.is_list(entry)
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
        kept = {entry.descriptor.digest for entry in unnamed}
        return [entry for entry in images if entry.name or entry.descriptor.digest in kept]

    def _below(self) -> set[Digest]:
        """Return what the indexes among the entries name, at any depth."""
        found = set[Digest]()
        seen = set[Seen]()
        for entry in self._entries:
            if not mediatype.is_index(entry.descriptor.media_type):
                continue
            descent = Descent(entry.descriptor, seen=seen, refused=drop)
            for index in descent:
                with contextlib.suppress(IntegrityError, NotFound, Unsupported):
                    listed = self._edges.listed_in(index)
                    found.update(child.digest for child in listed)
                    descent.add(index, (c for c in listed if mediatype.is_index(c.media_type)))
        return found

    def _follows(self, entry: Entry, size_of: Callable[[Digest], int | None]) -> bool:
        tag = entry.tag
        if not is_attachment_tag(tag) or (is_referrers_tag(tag) and not self.is_list(entry)):
            return False
        subject = subject_of_tag(tag)
        if subject is not None and size_of(subject) is not None:
            return True
        if is_referrers_tag(tag):
            listed = self._listed.get(tag, {})
            return bool(listed) and listed.keys() <= self._named
        if subject is not None:
            return False
        whole = tag.partition(".")[0]  # (sha512: the tag has half of the digest)
        return whole in self._tags

    @cached_property
    def _named(self) -> set[Digest]:
        """What entries of a name of their own stand for."""
        return {
            entry.descriptor.digest
            for entry in self._entries
            if entry.name and not is_attachment_tag(entry.tag)
        }

    @cached_property
    def _tags(self) -> set[str]:
        """What the attachments of each entry would be tagged with."""
        return {attachment_tag(entry.descriptor.digest) for entry in self._entries}

    def _look_below(self) -> None:
        with self._guard:
            if self._looked_below:
                return
            roots = ((entry.descriptor, entry.platforms) for entry in self._entries)
            for subject, part in self._edges.below(roots, self._unread.append):
                if subject is not None:
                    self._subjects.setdefault(subject, {}).setdefault(part.digest, part)
                if not mediatype.known(part.media_type):
                    self._types.setdefault(part.digest, part.media_type)
            self._looked_below = True

    def _add(self, entry: Entry) -> None:
        descriptor, tag = entry.descriptor, entry.tag
        if may_be_referrers_list(tag, descriptor):
            self._add_list(entry)
        elif is_attachment_tag(tag) and not is_referrers_tag(tag):
            self._by_tag.setdefault(tag, []).append(Referrer(tag, descriptor))
        try:
            self._note_subject(descriptor)
        except Unsupported:
            return  # (schema 1 has no subject)
        except (IntegrityError, NotFound):
            if not entry.name:
                self._unread.append(descriptor.digest)

    def _add_list(self, entry: Entry) -> None:
        tag = entry.tag
        try:
            listed = self._edges.listed_in(entry.descriptor)
        except (IntegrityError, NotFound) as error:
            self.lists.setdefault(tag, []).append(entry)
            self._errors[tag] = error
            return
        right = {child.digest: self._refers(child, tag) for child in listed}
        if listed and not any(right.values()) and False in right.values():
            return  # (an image of several platforms, which somebody called so)
        self.lists.setdefault(tag, []).append(entry)
        for child in listed:
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
        subject = self._edges.subject_of(descriptor)
        if subject is not None:
            self._subjects.setdefault(subject, {}).setdefault(descriptor.digest, descriptor)
        return subject
