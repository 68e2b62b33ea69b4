"""tag and remove: the names of a layout, without touching its content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ocimirror.copy.naming import name_in_a_layout
from ocimirror.copy.places import Places
from ocimirror.errors import UsageError
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Seen
from ocimirror.model.manifest import Manifest
from ocimirror.model.reference import Reference, is_attachment_tag, is_tag
from ocimirror.stores.entry import OURS, Entry
from ocimirror.stores.layout.index import LayoutIndex
from ocimirror.stores.layout.layout import Layout
from ocimirror.stores.layout.referrerslist import lists_without
from ocimirror.stores.reach import ignore, reach


@dataclass(frozen=True, slots=True)
class Tagged:
    """An image that has got a name; `previous` is what had it, None where nothing had."""

    name: str
    root: Descriptor
    previous: Digest | None


@dataclass(frozen=True, slots=True)
class Removed:
    """A name that is gone.

    Attributes:
        entry: as it was.
        others: names that the same image still has; where there are none, gc takes the content
            that nothing else needs.
        attachments: what referred to the image alone, and went with its last name.
    """

    entry: Entry
    others: tuple[str, ...]
    attachments: tuple[Entry, ...]


def tag(path: str, name: str, new: str, places: Places) -> Tagged:
    """Give an image of a layout one more name; whatever had it has it no longer.

    An image without a name has its first one then, and no nameless entry any more.

    Args:
        path: the layout's directory.
        name: of the image, or its digest.
        new: a full reference, or a tag in the same repository.
        places: the stores of this run.

    Raises:
        NotFound: no such image.
        UsageError: several images go by that name, or `new` is no name for this one.
    """

    def edit(index: LayoutIndex) -> tuple[bytes | None, Tagged]:
        entry = index.find(name.removeprefix("@"))
        full = _new_name(entry, new)
        had = next((e.descriptor.digest for e in index.entries if e.name == full), None)
        nameless = _nameless(index, entry.descriptor.digest)
        rest = index.without(nameless) if nameless else None
        base = LayoutIndex.parse(rest, path) if rest else index
        raw = base.with_names([(full, entry.descriptor)]) or rest
        return raw, Tagged(full, entry.descriptor, had)

    def _nameless(index: LayoutIndex, digest: Digest) -> list[Entry]:
        found = [
            entry
            for entry in index.entries
            if not entry.name
            and entry.descriptor.digest == digest
            and entry.descriptor.annotations.keys() <= {*OURS}  # (cosign's say more)
        ]
        return [entry for entry in layout.unnamed() if entry in found] if found else []

    layout = places.present_layout(path)
    return layout.edit_index(edit)


def _new_name(entry: Entry, new: str) -> str:
    known = entry.reference()
    if "/" not in new and ":" not in new:
        if not is_tag(new):
            raise UsageError(f"not a name for an image: {new[:300]!r}")
        return str(replace(known, tag=new, digest=None)) if known else new
    reference = Reference.parse(new)
    if reference.digest not in (None, entry.descriptor.digest):
        raise UsageError(f"{reference} names another digest than {entry.descriptor.digest}")
    return name_in_a_layout(reference)


def remove(path: str, name: str, places: Places) -> Removed:
    """Take a name from a layout; content stays until gc.

    With its last name an image loses what refers to it alone: signatures, SBOMs, attestations.

    Args:
        path: the layout's directory.
        name: a full reference, a tag that one name has, or a digest (also @DIGEST) that one entry
            has.
        places: the stores of this run.

    Raises:
        NotFound: no such name.
        UsageError: several names are meant.
    """
    layout = places.present_layout(path)

    def edit(index: LayoutIndex) -> tuple[bytes | None, Removed]:
        going = _going(index, name)
        entry = going[0]
        same = [e for e in index.entries if e.descriptor.digest == entry.descriptor.digest]
        others = tuple(dict.fromkeys(e.name for e in same if e.name and e not in going))
        attachments, lost = ((), set[Digest]()) if others else _attachments(layout, index, going)
        removed = Removed(entry, others, attachments)
        return _without(layout, index, [*going, *attachments], lost), removed

    return layout.edit_index(edit)


def _going(index: LayoutIndex, name: str) -> list[Entry]:
    """Return the entries that are meant; @DIGEST means those without a name, if there are any."""
    if name.startswith("@"):
        digest = name[1:]
        of_it = [entry for entry in index.entries if str(entry.descriptor.digest) == digest]
        if unnamed := [entry for entry in of_it if not entry.name]:
            return unnamed
        return list(index.called(digest))
    return list(index.called(name))


def _without(
    layout: Layout, index: LayoutIndex, going: list[Entry], lost: set[Digest]
) -> bytes | None:
    """Return index.json without entries, and its lists of referrers without what is gone."""
    staying = {entry.descriptor.digest for entry in index.entries if entry not in going}
    gone = {entry.descriptor.digest for entry in going} - staying | lost
    lists, empty = lists_without(layout, gone)
    raw = index.without([*going, *empty])
    changed = [(name, m) for name, m in lists if name not in {entry.name for entry in going}]
    if not changed:
        return raw
    return LayoutIndex.parse(raw, layout.path).with_names(layout.store_lists(changed)) or raw


def _attachments(
    layout: Layout, index: LayoutIndex, going: list[Entry]
) -> tuple[tuple[Entry, ...], set[Digest]]:
    """Return the entries of what refers to an image that goes, and to nothing that stays.

    And the digests of all that does: some of it may have no entry, but in a list of referrers.
    """
    image = list(_manifests(layout, going))
    candidates = _referring(layout, image)
    staying = (
        entry
        for entry in index.entries
        if entry not in going and entry.descriptor.digest not in candidates
    )
    held = {manifest.digest for manifest in _manifests(layout, staying)}
    lost = _referring(layout, [m for m in image if m.digest not in held])
    entries = tuple(
        entry
        for entry in index.entries
        if entry not in going
        and entry.descriptor.digest in lost
        and (not entry.name or is_attachment_tag(entry.tag))
    )
    named = {e.descriptor.digest for e in index.entries if e not in (*going, *entries)}
    return entries, lost - named


def _manifests(layout: Layout, entries: Iterable[Entry]) -> Iterable[Manifest]:
    seen: set[Seen] = set()
    for entry in entries:
        yield from reach(layout, entry.descriptor, seen, ignore)


def _referring(layout: Layout, manifests: Iterable[Manifest]) -> set[Digest]:
    """Return the digests of what refers to any of these, and of what refers to that in turn."""
    found: set[Digest] = set()
    unread = [manifest.descriptor for manifest in manifests]
    while unread:
        new = [
            r.descriptor for r in layout.referrers(unread.pop()) if r.descriptor.digest not in found
        ]
        found.update(descriptor.digest for descriptor in new)
        unread += new
    return found
