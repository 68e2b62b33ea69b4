"""Plan: everything one image consists of, known before a blob moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import closure
from ocimirror.model.manifest import Manifest
from ocimirror.model.reference import subject_of_tag


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An attachment that did not come along, and why."""

    digest: Digest
    subject: Digest
    reason: str


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
        left_out: what is said to refer to a manifest of the image and is not carried.
        absent: children of indexes that are for other platforms than those asked for; where there
            are any, the copy is sparse.
    """

    levels: tuple[tuple[Manifest, ...], ...]
    blobs: tuple[Descriptor, ...]
    foreign: tuple[Descriptor, ...] = ()
    opaque: tuple[Manifest, ...] = ()
    attachments: tuple[tuple[str, Manifest], ...] = ()
    left_out: tuple[LeftOut, ...] = ()
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

    def without(self, blob: Digest, reason: str) -> Plan | None:
        """Return the plan without the attachments that need a blob, and what refers to those.

        None if the image itself needs it.
        """
        known = {manifest.digest: manifest for manifest in self.manifests}
        image = closure([self.root.digest], known)
        if _needs(image, blob):
            return None
        kept: dict[Digest, Manifest] = dict(image)
        gone: dict[Digest, str] = {}
        left = {manifest.digest: manifest for _, manifest in self.attachments}
        parts = {digest: closure([digest], known) for digest in left}
        for digest in left:
            if _needs(parts[digest], blob):
                gone[digest] = reason
        again = True
        while again:
            again = False
            for digest, manifest in left.items():
                subject = manifest.subject.digest if manifest.subject else None
                if digest not in gone and subject in gone:
                    gone[digest] = f"{subject}, which it refers to, was left out"
                    again = True
        for digest in left:
            if digest not in gone:
                kept |= parts[digest]
        levels = tuple(tuple(m for m in level if m.digest in kept) for level in self.levels)
        named = {each.digest for manifest in kept.values() for each in manifest.blobs}
        return replace(
            self,
            levels=tuple(level for level in levels if level),
            blobs=tuple(each for each in self.blobs if each.digest in named),
            opaque=tuple(m for m in self.opaque if m.digest in kept),
            attachments=tuple(pair for pair in self.attachments if pair[1].digest not in gone),
            left_out=tuple(
                LeftOut(digest, _subject_of(manifest, tag, self.root), gone[digest])
                for tag, manifest in {m.digest: (t, m) for t, m in self.attachments}.values()
                if (digest := manifest.digest) in gone
            ),
        )


def _needs(manifests: Mapping[Digest, Manifest], blob: Digest) -> bool:
    return any(each.digest == blob for m in manifests.values() for each in m.blobs)


def _subject_of(manifest: Manifest, tag: str, root: Manifest) -> Digest:
    if manifest.subject is not None:
        return manifest.subject.digest
    return subject_of_tag(tag) or root.digest
