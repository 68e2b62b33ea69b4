"""What a mended index.json says: no image that the blobs prove is left out, and no name moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.stores.index import Entry, LayoutIndex, sparse

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


def with_roots(index: LayoutIndex, roots: Iterable[Manifest], names: Names, what: str) -> bytes:
    """Return index.json with an entry for each root that has none, and with names found elsewhere.

    A name that stands for another root stays where it is. An entry without a name gives way to
    the same root with its name.

    Args:
        index: what it is now.
        roots: what no entry reaches, platforms that are held in their annotations.
        names: what to call them, and entries without a name.
        what: the layout, for errors.
    """
    taken = {entry.name for entry in index.entries if entry.name}
    digests = {entry.descriptor.digest for entry in index.entries if entry.name}
    unnamed = [entry for entry in index.entries if not entry.name]
    found = {root.digest: root.descriptor for root in roots}
    added: list[tuple[str, Descriptor]] = []
    for descriptor in [*(entry.descriptor for entry in unnamed), *found.values()]:
        if descriptor.digest in digests:
            continue
        for name, there in names.get(descriptor.digest, ()):
            if name not in taken:
                taken.add(name)
                added.append((name, replace(descriptor, annotations=there.annotations)))
    named = {descriptor.digest for _, descriptor in added}
    base = index.without([entry for entry in unnamed if entry.descriptor.digest in named])
    added += [("", descriptor) for digest, descriptor in found.items() if digest not in named]
    return LayoutIndex.parse(base, what).with_names(added) or base


def roots_among(manifests: Mapping[Digest, Manifest], index: LayoutIndex) -> list[Manifest]:
    """Return the manifests that no other one and no entry names, sorted by digest.

    An index that lacks children is returned with the platforms of those that are there.
    """
    named = {c.digest for m in manifests.values() for c in (*m.manifests, *m.blobs)}
    named |= {entry.descriptor.digest for entry in index.entries}
    return [_as_held(manifests[digest], manifests) for digest in sorted(manifests.keys() - named)]


def _as_held(manifest: Manifest, manifests: Mapping[Digest, Manifest]) -> Manifest:
    held = [child for child in manifest.manifests if child.digest in manifests]
    platforms = tuple(dict.fromkeys(child.platform for child in held if child.platform))
    if len(held) == len(manifest.manifests) or not platforms:
        return manifest
    return replace(manifest, descriptor=sparse(manifest.descriptor, platforms))
