"""Gives an image its original manifest back, from a place that still has it.

What an engine or a docker-archive holds is known by its image ID. Where a layout or a registry
has the manifest, and the index, that lead to this ID, the chain is proved, and the image goes on
under its original digest, with the layers as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ocimirror.errors import DigestNotPreserved, MalformedManifest
from ocimirror.model.config import MAX_SIZE_BYTES as MAX_CONFIG_BYTES
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.graph import images_in
from ocimirror.model.manifest import Manifest
from ocimirror.model.platform import Platform
from ocimirror.stores.entry import MANIFEST, is_synthesised, platforms_of, sparse
from ocimirror.stores.profiles import image_in, is_container_image
from ocimirror.stores.reach import chains, ignore
from ocimirror.stores.store import Referrer, Source, opened
from ocimirror.stores.stream import Reader


@dataclass(frozen=True, slots=True)
class Restored:
    """An image with its original root.

    Attributes:
        source: serves everything of it; close neither of the places it reads from before.
        root: the original index or manifest.
        manifest: the image manifest below it, or the root itself.
        platforms: what there is of an index, where that is not all.
    """

    source: Source
    root: Descriptor
    manifest: Manifest
    platforms: tuple[Platform, ...]


def restore(
    held: Source, made: Descriptor, originals: Source, name: str = "", prefers: str = ""
) -> Restored:
    """Find the original manifest of an image, and prove that it is.

    Args:
        held: where the image is, under a manifest that was made for it.
        made: that manifest.
        originals: the place that may know better.
        name: which image of that place; empty for any of a layout that fits.
        prefers: the name that is taken where several roots of a layout lead to the image.

    Raises:
        DigestNotPreserved: no root leads to this image, or a layer is in neither place.
        NotFound: no such name there.
    """
    manifest = held.read_manifest(made)
    roots = _roots(originals, name, prefers)
    # (A layout may have got it from the same archive; what a registry returns is no longer new.)
    tells = not is_synthesised(made) or not originals.local
    if tells and made.digest in {root.digest for root in roots}:
        return _confirmed(held, made, manifest, originals)
    if not is_container_image(manifest):
        raise DigestNotPreserved(
            f"{originals.location} has another image than {made.digest}, which is no image of one"
            " platform: there is nothing to prove it by",
        )
    config = manifest.blobs[0]
    with held.fetch(config) as stream:
        raw = stream.read_all(MAX_CONFIG_BYTES)
    # (Where a root is sparse or damaged, another may do.)
    leading = [
        chain
        for root in roots
        for chain in chains(originals, root, ignore)
        if is_container_image(chain.manifest) and chain.image_id == config.digest
    ]
    # (An index names the manifest by its digest, and no archive has one for what is made from it.)
    lost = is_synthesised(made)
    others = [
        chain
        for chain in leading
        if chain.manifest.digest != made.digest or (lost and len(chain.path) > 1)
    ]
    chain = next(iter(others), None)
    same = any(found.manifest.digest == made.digest for found in leading)
    if tells and same and (chain is None or chain.manifest.digest != made.digest):
        return _confirmed(held, made, manifest, originals)
    if chain is None:
        where = f"{originals.location}:{name}" if name else originals.location
        raise DigestNotPreserved(f"{where} has no original manifest of image {config.digest}")
    try:
        chain.prove(raw)
    except MalformedManifest as error:
        raise DigestNotPreserved(error.message) from error
    source = _Joined(held, originals, chain.root.descriptor)
    for layer in chain.manifest.blobs:
        if not source.exists(layer):
            raise DigestNotPreserved(
                f"{layer.digest} of the original manifest {chain.manifest.digest} is neither in"
                f" {held.location} nor in {originals.location}"
            )
    return Restored(source, chain.root.descriptor, chain.manifest, _present(source, chain.root))


def _confirmed(held: Source, made: Descriptor, manifest: Manifest, originals: Source) -> Restored:
    """Return an image as it is: the place that knows better has the same manifest."""
    root = sparse(made, platforms_of(made))
    root = replace(root, annotations={k: v for k, v in root.annotations.items() if k != MANIFEST})
    return Restored(_Joined(held, originals, root), root, manifest, platforms_of(made))


def _roots(originals: Source, name: str, prefers: str) -> Sequence[Descriptor]:
    if name or not originals.local:
        return [originals.resolve(name)]
    entries = sorted(originals.entries(), key=lambda entry: entry.name != prefers)
    return [entry.descriptor for entry in entries if not is_synthesised(entry.descriptor)]


def _present(source: Source, root: Manifest) -> tuple[Platform, ...]:
    """Return the platforms of an index that are there, nothing where all are."""
    there = {descriptor.digest for descriptor in image_in(source, "", root.descriptor).manifests}
    wanted = images_in(root)
    if all(child.digest in there for child in wanted):
        return ()
    found = [child.platform for child in wanted if child.digest in there and child.platform]
    return tuple(dict.fromkeys(found))


class _Joined(Source):
    """Content of the first place, else of the second; manifests and referrers of the second."""

    def __init__(self, held: Source, originals: Source, root: Descriptor) -> None:
        self.location = held.location
        self.local = held.local and originals.local
        self._held = held
        self._originals = originals
        self._root = root

    def _place_of(self, descriptor: Descriptor) -> Source:
        at_hand = descriptor.kind == "blob" and self._held.exists(descriptor)
        return self._held if at_hand else self._originals

    def _resolve(self, name: str) -> Descriptor:
        return self._root if name == str(self._root.digest) else self._originals.resolve(name)

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        return opened(self._place_of(descriptor), descriptor, position)

    def _exists(self, descriptor: Descriptor) -> bool:
        return self._held.exists(descriptor) or self._originals.exists(descriptor)

    def _names(self) -> list[str]:
        return []

    def _referrers(self, descriptor: Descriptor) -> Iterable[Referrer]:
        return self._originals.referrers(descriptor)
