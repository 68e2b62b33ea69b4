"""An entry of index.json: a descriptor, what it is called, and what we noted of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ocimirror.errors import InvalidReference
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference

IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
PLATFORMS = "dev.ocimirror.platforms"
"""What a sparse image was asked for, comma-separated; what is absent outside it is no fault."""
MANIFEST = "dev.ocimirror.manifest"
SYNTHESISED = "synthesised"
"""What MANIFEST says where no original manifest was at hand: no registry knows its digest."""
OURS = (PLATFORMS, MANIFEST)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of index.json. `name` is a full reference where one is known, else the tag."""

    descriptor: Descriptor
    name: str
    tag: str

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms that a sparse image holds; empty for a whole one."""
        return platforms_of(self.descriptor)

    def reference(self) -> Reference | None:
        """Return the name as a reference, or None where it is not one (a bare tag, free text)."""
        if "/" not in self.name:
            return None
        try:
            return Reference.parse(self.name)
        except InvalidReference:
            return None


def platforms_of(descriptor: Descriptor) -> tuple[Platform, ...]:
    """Return the platforms that an entry's annotation names; empty where it is absent or odd."""
    try:
        return tuple(
            Platform.parse(text)
            for text in descriptor.annotations.get(PLATFORMS, "").split(",")
            if text
        )
    except InvalidReference:
        return ()


def sparse(descriptor: Descriptor, platforms: Sequence[Platform]) -> Descriptor:
    """Return a root as it is named where only these platforms of it are held."""
    annotations = {PLATFORMS: ",".join(map(str, platforms))} if platforms else {}
    if MANIFEST in descriptor.annotations:
        annotations[MANIFEST] = descriptor.annotations[MANIFEST]
    return replace(descriptor, annotations=annotations)


def is_synthesised(descriptor: Descriptor) -> bool:
    """Whether an entry says that its manifest was made without the original one."""
    return descriptor.annotations.get(MANIFEST) == SYNTHESISED


def synthesised(descriptor: Descriptor) -> Descriptor:
    """Return a root as it is named where its manifest was made without the original one."""
    return replace(descriptor, annotations={**descriptor.annotations, MANIFEST: SYNTHESISED})


def annotations_of_ours(descriptor: Descriptor) -> dict[str, str]:
    """Return what entries of ours say of a root, beside its names."""
    return {key: descriptor.annotations[key] for key in OURS if key in descriptor.annotations}
