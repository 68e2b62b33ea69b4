"""What a mended index.json says: no image that the blobs prove is left out, and no name moves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import closure
from ocimirror.model.manifest import Manifest
from ocimirror.stores.entry import Entry, sparse
from ocimirror.stores.layout.index import LayoutIndex

Names = Mapping[Digest, Sequence[tuple[str, Descriptor]]]
"""What manifests are called elsewhere: the name, and the entry that has it there."""


def with_readable(index: LayoutIndex, known: Mapping[Digest, Manifest]) -> bytes:
    """Return index.json with each unreadable entry made readable, or else left out.

    Args:
        index: what it is now.
        known: the manifests that are there.
    """
    documents: list[Any] = []
    taken = {entry.name for entry in index.entries if entry.name}
    for row, document in index.rows():
        if isinstance(row, Entry):
            documents.append(document)
        elif row.digest is not None and row.digest in known and row.name not in taken:
            documents.append(row.mended(known[row.digest].descriptor))
            taken |= {row.name} - {""}
    return index.with_documents(documents)


def with_described(index: LayoutIndex, right: Mapping[Digest, Descriptor]) -> bytes:
    """Return index.json with the media type and size that the content itself proves."""
    documents = [
        {**document, "mediaType": known.media_type, "size": known.size} if known else document
        for row, document in index.rows()
        for known in [right.get(row.descriptor.digest) if isinstance(row, Entry) else None]
    ]
    return index.with_documents(documents)


def with_roots(
    index: LayoutIndex,
    roots: Iterable[Manifest],
    names: Names,
    what: str,
    manifests: Mapping[Digest, Manifest],
    *,
    outdated: bool = False,
) -> bytes:
    """Return index.json with an entry for each root that has none, and with names found elsewhere.

    Each name comes back whose manifest is here, also that of a manifest within an index. A name
    that stands for another root stays where it is. An entry without a name gives way to the same
    root with its name.

    Args:
        index: what it is now.
        roots: what no entry reaches, platforms that are held in their annotations.
        names: what to call them, and entries without a name.
        what: the layout, for errors.
        manifests: those that are here.
        outdated: `index` is an older one: a name there whose manifest is not here may move.
    """
    taken = {
        entry.name
        for entry in index.entries
        if entry.name and (entry.descriptor.digest in manifests or not outdated)
    }
    unnamed = [entry for entry in index.entries if not entry.name]
    found = {root.digest: root.descriptor for root in roots}
    here = {entry.descriptor.digest: entry.descriptor for entry in unnamed} | found
    added: list[tuple[str, Descriptor]] = []
    for digest in sorted(names.keys() & (here.keys() | manifests.keys())):
        descriptor = here.get(digest) or manifests[digest].descriptor
        for name, there in names[digest]:
            if name not in taken:
                taken.add(name)
                added.append((name, replace(descriptor, annotations=there.annotations)))
    named = {descriptor.digest for _, descriptor in added}
    base = index.without([entry for entry in unnamed if entry.descriptor.digest in named])
    added += [("", descriptor) for digest, descriptor in found.items() if digest not in named]
    return LayoutIndex.parse(base, what).with_names(added) or base


def roots_among(
    manifests: Mapping[Digest, Manifest], index: LayoutIndex, present: Collection[Digest]
) -> list[Manifest]:
    """Return the manifests that no entry and no other root reaches, sorted by digest.

    What a manifest names as a blob is one, and its own content is not reached by that: it is a
    root of its own if nothing else needs what it names. An index that lacks children is returned
    with the platforms of those that are there.

    Args:
        manifests: all that are here.
        index: the entries that there are.
        present: the digests of all files that are here.
    """
    reached: set[Digest] = set()
    needed: set[Digest] = set()
    roots: list[Digest] = []
    blobs = {blob.digest for manifest in manifests.values() for blob in manifest.blobs}
    new = [entry.descriptor.digest for entry in index.entries]
    while True:
        for digest, manifest in closure(new, manifests, without=reached).items():
            reached.add(digest)
            needed.update(blob.digest for blob in manifest.blobs)
        left = manifests.keys() - reached
        tops = left - {child.digest for digest in left for child in manifests[digest].manifests}
        alone = [d for d in tops & blobs if _content(manifests[d], present) - reached - needed]
        new = sorted(tops - blobs) or sorted(alone)
        if not new:
            return [_as_held(manifests[digest], manifests) for digest in sorted(roots)]
        roots += new


def _content(manifest: Manifest, present: Collection[Digest]) -> set[Digest]:
    named = (*manifest.manifests, *manifest.blobs)
    return {each.digest for each in named if each.digest in present}


def _as_held(manifest: Manifest, manifests: Mapping[Digest, Manifest]) -> Manifest:
    held = [child for child in manifest.manifests if child.digest in manifests]
    platforms = tuple(dict.fromkeys(child.platform for child in held if child.platform))
    if len(held) == len(manifest.manifests) or not platforms:
        return manifest
    return replace(manifest, descriptor=sparse(manifest.descriptor, platforms))
