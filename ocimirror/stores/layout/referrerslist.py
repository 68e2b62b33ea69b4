"""The lists of referrers of a layout: an index for each subject, tagged <algorithm>-<encoded>.

regctl and olareg find what refers to an image by that list alone, oras and ocimirror by the
entries of index.json; a layout that has both is read by all of them. A list is made anew with
each attachment (it is no image), and what others wrote into it stays.

Spec: distribution-spec, referrers tag schema.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ocimirror.errors import IntegrityError, NotFound
from ocimirror.model import mediatype, strictjson
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import MAX_SIZE_BYTES, Manifest
from ocimirror.model.reference import attachment_tag
from ocimirror.stores.edges import Edges

if TYPE_CHECKING:
    from ocimirror.stores.entry import Entry
    from ocimirror.stores.layout.index import LayoutIndex
    from ocimirror.stores.layout.source import LayoutSource

logger = logging.getLogger(__name__)


def lists_with(layout: LayoutSource, new: Iterable[Manifest]) -> list[tuple[str, Manifest]]:
    """Return the lists that change when these manifests come: (tag, list).

    Args:
        layout: as it is now.
        new: manifests that are about to be entries, and are stored. They, and what they lead to,
            do not matter if they have no subject.
    """
    roots = list(new)
    edges = Edges(layout).below((root.descriptor, ()) for root in roots)
    below = _read(layout, (part for subject, part in edges if subject is not None))
    wanted: dict[Digest, dict[Digest, Manifest]] = {}
    for manifest in (*roots, *below):
        if manifest.subject is not None:
            wanted.setdefault(manifest.subject.digest, {})[manifest.digest] = manifest
    changed = []
    for subject, manifests in wanted.items():
        tag = attachment_tag(subject)
        known = layout.attached().subjects.get(subject, {})
        others = [d for digest, d in known.items() if digest not in manifests]
        taken = [entry for entry in layout.entries() if entry.name == tag]
        if all(layout.attached().is_list(entry) for entry in taken):
            document = _document(layout, taken)
            referrers = [*manifests.values(), *_read(layout, others)]
            index = _with(document, referrers)
            if index is not None:
                changed.append((tag, index))
    return changed


def lists_without(
    layout: LayoutSource, gone: Collection[Digest]
) -> tuple[list[tuple[str, Manifest]], list[Entry]]:
    """Return the lists that change when manifests go: (name, list), and the entries that go too."""
    changed: list[tuple[str, Manifest]] = []
    empty: list[Entry] = []
    texts = {str(digest) for digest in gone}
    for entries in layout.attached().lists.values():
        for entry in entries:
            document = _document(layout, [entry])
            kept = [each for each in document["manifests"] if each.get("digest") not in texts]
            if not kept:
                empty.append(entry)
            elif len(kept) < len(document["manifests"]):
                changed.append((entry.name, _made({**document, "manifests": kept})))
    return changed, empty


def remade(layout: LayoutSource, damaged: Collection[str]) -> list[tuple[str, Manifest]]:
    """Return the lists whose digests are damaged, made anew of the entries: (name, list).

    What only the list named is not in it any more; nobody can tell what that was.
    """
    attached = layout.attached()
    by_tag: dict[str, list[Descriptor]] = {}
    for subject, found in attached.subjects.items():
        by_tag.setdefault(attachment_tag(subject), []).extend(found.values())
    new = []
    for tag, entries in attached.lists.items():
        for entry in entries:
            made = _with(_document(layout, []), _read(layout, by_tag.get(tag, [])))
            if str(entry.descriptor.digest) in damaged and made is not None:
                new.append((entry.name, made))
    return new


def regained(
    roots: Iterable[Manifest], index: LayoutIndex, manifests: Mapping[Digest, Manifest]
) -> tuple[list[tuple[str, Manifest]], set[Digest]]:
    """Return the lists among manifests that have lost their name: (tag, list), and their digests.

    What a list names says what its tag is. Several of one tag, and the one that has the tag,
    become one.

    Args:
        roots: manifests that no entry reaches.
        index: the entries that there are.
        manifests: all that are here.
    """
    by_tag: dict[str, list[Manifest]] = {}
    for root in roots:
        if tag := _tag_of_list(root, manifests):
            by_tag.setdefault(tag, []).append(root)
    lists: list[tuple[str, Manifest]] = []
    found: set[Digest] = set()
    for tag, versions in by_tag.items():
        holders = {e.descriptor.digest for e in index.entries if e.name == tag}
        named = [manifests[digest] for digest in holders if digest in manifests]
        if len(named) < len(holders) or any(_tag_of_list(m, manifests) != tag for m in named):
            continue  # (an image has that name, or what has it cannot be read)
        joined = _joined([*named, *sorted(versions, key=lambda m: -m.descriptor.size)])
        if len(joined.raw) <= MAX_SIZE_BYTES:
            found |= {version.digest for version in versions}
            lists.append((tag, joined))
    return lists, found


def _tag_of_list(manifest: Manifest, manifests: Mapping[Digest, Manifest]) -> str:
    """Return the tag of a list of referrers, as what it names says; empty if it is none."""
    if manifest.media_type != mediatype.OCI_INDEX:
        return ""
    listed = [manifests[child.digest] for child in manifest.manifests if child.digest in manifests]
    tags = {attachment_tag(m.subject.digest) if m.subject else "" for m in listed}
    return tags.pop() if len(tags) == 1 else ""


def _joined(lists: Sequence[Manifest]) -> Manifest:
    """Return the first list, with what the others name besides."""
    documents = [
        cast("dict[str, Any]", strictjson.loads(each.raw, str(each.digest))) for each in lists
    ]
    listed: dict[object, Any] = {}
    for document in documents:
        for each in document.get("manifests") or []:
            listed.setdefault(each.get("digest"), each)
    if len(listed) == len(lists[0].manifests):
        return lists[0]
    return _made({**documents[0], "manifests": list(listed.values())})


def _document(layout: LayoutSource, entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the list that an entry names; a new one if it is absent or damaged."""
    for entry in entries:
        try:
            raw = layout.read_manifest(entry.descriptor).raw
        except (IntegrityError, NotFound) as error:
            logger.warning("a list of referrers is made anew: %s", error)
            continue
        document = cast("dict[str, Any]", strictjson.loads(raw, str(entry.descriptor.digest)))
        return {**document, "manifests": document.get("manifests") or []}
    return {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}


def _read(layout: LayoutSource, descriptors: Iterable[Descriptor]) -> Iterable[Manifest]:
    for descriptor in descriptors:
        try:
            yield layout.read_manifest(descriptor)
        except (IntegrityError, NotFound):
            continue  # (`verify` reports it)


def _with(document: dict[str, Any], manifests: Iterable[Manifest]) -> Manifest | None:
    """Return a list with more manifests; None if it has them all, or has no room for them."""
    listed = document["manifests"]
    present = {each.get("digest") for each in listed}
    more = [m.as_referrer() for m in manifests if str(m.digest) not in present]
    if not more:
        return None
    made = _made({**document, "manifests": [*listed, *more]})
    if len(made.raw) > MAX_SIZE_BYTES:
        logger.warning("a list of referrers has no room for %d more", len(more))
        return None
    return made


def _made(document: dict[str, Any]) -> Manifest:
    raw = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    digest = Digest.of(raw)
    return Manifest(raw, Descriptor(mediatype.OCI_INDEX, digest, len(raw), "manifest"))
