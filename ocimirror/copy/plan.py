"""Plan: everything one image consists of, known before a blob moves."""

from __future__ import annotations

from dataclasses import dataclass

from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Plan:
    """The closure of one root, and what refers to a part of it where that was asked for.

    Attributes:
        levels: manifests, children before parents; within a level none needs another. The last
            level is the root alone.
        blobs: configs and layers to carry, each digest once, in document order.
        foreign: layers that registries do not distribute; not carried, never silently.
        opaque: manifests of unknown type, carried with what looks like a descriptor in them.
        attachments: (tag, manifest) of what refers to a manifest of the image; the tag is
            cosign's, empty where a subject field says it. They are among the levels.
        left_out: (digest, subject, reason) of what is said to refer to a manifest of the image
            and is not carried.
        absent: children of indexes that are for other platforms than those asked for; where there
            are any, the copy is sparse.
    """

    levels: tuple[tuple[Manifest, ...], ...]
    blobs: tuple[Descriptor, ...]
    foreign: tuple[Descriptor, ...] = ()
    opaque: tuple[Manifest, ...] = ()
    attachments: tuple[tuple[str, Manifest], ...] = ()
    left_out: tuple[tuple[Digest, Digest, str], ...] = ()
    absent: tuple[Descriptor, ...] = ()

    @property
    def root(self) -> Manifest:
        """The manifest that the name stands for."""
        return self.levels[-1][0]

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """Every manifest once, children before parents, the root last."""
        return tuple(manifest for level in self.levels for manifest in level)

    @property
    def size_bytes(self) -> int:
        """The bytes of all manifests and blobs that are carried."""
        return sum(m.descriptor.size for m in self.manifests) + sum(b.size for b in self.blobs)
