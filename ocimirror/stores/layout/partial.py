"""Archives of one platform: Docker since 25 and `ctr images export` keep the whole index of it.

Their index.json does not say which platforms are there, so it is found out: children that are
absent in whole are not in the archive, children that are there have to be complete.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ocimirror.errors import OciMirrorError
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.graph import attestation_of, children_for
from ocimirror.model.platform import WITHOUT_ATTESTATIONS, Platform
from ocimirror.stores.entry import PLATFORMS, Entry, platforms_of
from ocimirror.stores.layout.index import LayoutIndex
from ocimirror.stores.layout.source import LayoutSource


def with_held(source: LayoutSource, index: LayoutIndex, what: str) -> LayoutIndex:
    """Return an index.json whose sparse images say which platforms are there.

    Args:
        source: has the content.
        index: as another tool wrote it.
        what: the archive, for errors.
    """
    documents: list[Any] = []
    found = False
    for row, document in index.rows():
        marked = held(source, row.descriptor) if isinstance(row, Entry) else None
        if isinstance(row, Entry) and marked is not None and marked is not row.descriptor:
            document = {**document, "annotations": dict(marked.annotations)}
            found = True
        documents.append(document)
    return LayoutIndex.parse(index.with_documents(documents), what) if found else index


def held(source: LayoutSource, root: Descriptor) -> Descriptor:
    """Return a root with the platforms that are there, or as it is if none is absent in whole."""
    try:
        platforms = _held(source, root)
    except OciMirrorError:
        return root  # (the command that reads it says what is wrong)
    if not platforms:
        return root
    annotations = {**root.annotations, PLATFORMS: ",".join(map(str, platforms))}
    return replace(root, annotations=annotations)


def _held(source: LayoutSource, root: Descriptor) -> tuple[Platform, ...]:
    if platforms_of(root) or not mediatype.is_index(root.media_type):
        return ()
    index = source.read_manifest(root)
    here = {c.digest for c in index.manifests if source.size_of(c.digest) is not None}
    images = [
        child for child in index.manifests if child.digest in here and attestation_of(child) is None
    ]
    absent = any(child.digest not in here for child in index.manifests)
    if not absent or not any(_is_complete(source, child) for child in images):
        return ()
    platforms = tuple(dict.fromkeys(c.platform for c in images if c.platform is not None))
    for choice in (platforms, (*platforms, WITHOUT_ATTESTATIONS)) if platforms else ():
        if all(child.digest in here for child in children_for(index, choice)):
            return choice
    return ()


def _is_complete(source: LayoutSource, child: Descriptor) -> bool:
    try:
        manifest = source.read_manifest(child)
        return bool(manifest.blobs) and all(source.exists(blob) for blob in manifest.blobs)
    except OciMirrorError:
        return False
