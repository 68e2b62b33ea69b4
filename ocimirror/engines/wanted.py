"""What an engine is to hold of an image: proved from the place it comes from, byte by byte.

An engine imports damaged content without a word, so all of it is hashed before any of it is sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ocimirror.errors import (
    DigestMismatch,
    ForeignLayer,
    MissingContent,
    NotFound,
    OciMirrorError,
    UsageError,
)
from ocimirror.model import mediatype
from ocimirror.model.config import MAX_SIZE_BYTES as MAX_CONFIG_BYTES
from ocimirror.model.config import ImageConfig
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Descent, attestation_of, children_for, images_in, levels
from ocimirror.model.manifest import Manifest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference
from ocimirror.stores.entry import Entry, platforms_of
from ocimirror.stores.profiles import Image, is_container_image
from ocimirror.stores.store import Source
from ocimirror.stores.stream import Watch


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """A container image for one platform: its manifest, and what its config says."""

    manifest: Manifest
    config: ImageConfig

    @property
    def platform(self) -> Platform:
        """What the index says it is for; where there is none, what its config says."""
        return self.manifest.descriptor.platform or self.config.platform

    @property
    def label(self) -> str:
        """The platform as receipts have it: unlike any other one of the same index."""
        platform = self.platform
        if not platform.os or not platform.architecture:
            return "unknown"
        version = f"({platform.os_version})" if platform.os_version else ""
        return str(platform).replace(platform.os, f"{platform.os}{version}", 1)

    @property
    def config_digest(self) -> Digest:
        """The image ID of engines that know an image by its config."""
        return self.manifest.blobs[0].digest


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image as an engine should have it.

    Attributes:
        reference: its full name, with a tag, a digest, or both.
        root: the manifest that the name stands for.
        images: what can be run of it: the platforms that were asked for.
        manifests: all manifests that belong to those, children first, the root last.
        blobs: all blobs, each once.
        absent: manifests of the index that are not here.
    """

    reference: Reference
    root: Manifest
    images: tuple[PlatformImage, ...]
    manifests: tuple[Manifest, ...]
    blobs: tuple[Descriptor, ...]
    absent: tuple[Descriptor, ...] = ()

    @property
    def name(self) -> str:
        """The name that people use: with the tag where there is one, else the digest."""
        if self.reference.tag:
            return str(replace(self.reference, digest=None))
        return self.by_digest(self.root.digest)

    @property
    def is_index(self) -> bool:
        """Whether the name stands for an index."""
        return mediatype.is_index(self.root.media_type)

    def by_digest(self, digest: Digest) -> str:
        """Return the repository of the image with a digest, as engines write it."""
        return str(replace(self.reference, tag="", digest=digest))

    def image_for(self, platform: Platform) -> PlatformImage | None:
        """Return what runs on a platform; the only one of an image that is no index."""
        if not self.is_index and len(self.images) == 1:
            return self.images[0]
        return next((i for i in self.images if platform.matches(i.platform)), None)

    def foreign(self, image: PlatformImage) -> tuple[Descriptor, ...]:
        """Return the layers of an image that live at their own URLs, and not here."""
        here = {blob.digest for blob in self.blobs}
        return tuple(blob for blob in image.manifest.blobs if blob.digest not in here)

    def refuse_foreign(self, image: PlatformImage) -> None:
        """Refuse an image whose layers are not all here: nobody has hashed what is at a URL.

        Raises:
            ForeignLayer: an engine would have to fetch one.
        """
        for layer in self.foreign(image):
            raise ForeignLayer(
                f"image {self.name}: {layer.digest} is a foreign layer and not here",
                advice="The engine has to pull this image from its registry.",
            )

    def archived(self) -> Image:
        """Return the image as the archive profiles take it."""
        images = tuple(image.manifest.descriptor for image in self.images) if self.is_index else ()
        return Image(str(self.reference), replace(self.root.descriptor, annotations={}), images)

    def only(self, image: PlatformImage) -> Wanted:
        """Return what an engine that keeps one platform needs: its manifest and its blobs."""
        here = {blob.digest for blob in self.blobs}
        blobs = {b.digest: b for b in image.manifest.blobs if b.digest in here}
        above = [m for m in self.manifests if m.manifests or m.digest == self.root.digest]
        manifests = dict.fromkeys(m.digest for m in (image.manifest, *above))
        known = {m.digest: m for m in (image.manifest, *above)}
        return replace(
            self,
            images=(image,),
            manifests=tuple(known[digest] for digest in manifests),
            blobs=tuple(blobs.values()),
        )


def full_reference(entry: Entry) -> Reference:
    """Return what an image is called in an engine.

    Raises:
        UsageError: the entry has no name, or a bare tag, which engines would complete each in
            their own way.
        DigestMismatch: it is named by another digest than its own; engines believe names.
    """
    reference = entry.reference()
    if reference is None:
        raise UsageError(
            f"{entry.name or entry.descriptor.digest} is no full name of an image",
            advice="Name it first: ocimirror tag LAYOUT NAME HOST/REPOSITORY:TAG",
        )
    if reference.digest not in (None, entry.descriptor.digest):
        raise DigestMismatch(f"{entry.name} is the name of {entry.descriptor.digest}")
    reference = reference.readable()
    return replace(reference, digest=None) if reference.tag else reference


def runs_something(source: Source, root: Descriptor) -> bool:
    """Whether a root is, or leads to, a container image; what cannot be read may be one."""
    descent = Descent(root)
    try:
        for named in descent:
            manifest = source.read_manifest(named)
            if is_container_image(manifest):
                return True
            if mediatype.is_index(manifest.media_type):
                descent.add(named, images_in(manifest))
    except OciMirrorError:
        return True  # (whoever loads it says what is wrong)
    return False


def examine(
    source: Source, reference: Reference, root: Descriptor, platforms: Sequence[Platform]
) -> Wanted:
    """Read the closure of an image: manifests and configs; `prove` then hashes the blobs.

    Args:
        source: a layout or archive.
        reference: what the image will be called.
        root: its manifest; what a sparse image lacks is no fault.
        platforms: those wanted; empty for all that are here.

    Raises:
        NotFound: nothing here for a platform that was asked for, or nothing that can be run.
        MissingContent, IntegrityError: it is damaged.
    """
    closure = _Closure(source, platforms, platforms_of(root))
    closure.read(root)
    what = f"image {reference}"
    for platform in platforms:
        if not any(_runs_on(platform, image) for image in closure.images):
            raise _nothing_for(platform, what, source, reference, root)
    if not closure.images:
        raise NotFound(
            f"{what}: no container image; engines run images, not artifacts",
            advice="`ocimirror inspect` shows what it is.",
        )
    manifests = tuple(manifest for level in levels(closure.manifests) for manifest in level)
    blobs = tuple(closure.blobs.values())
    return Wanted(reference, manifests[-1], tuple(closure.images), manifests, blobs, closure.absent)


def _runs_on(platform: Platform, image: PlatformImage) -> bool:
    return image.label == "unknown" or platform.matches(image.platform)


def _nothing_for(
    platform: Platform, what: str, source: Source, reference: Reference, root: Descriptor
) -> NotFound:
    advice = ""
    with contextlib.suppress(OciMirrorError):
        images = examine(source, reference, root, ()).images
        advice = f"It has: {', '.join(image.label for image in images)}"
    return NotFound(f"{what}: nothing here for {platform}", advice=advice)


class _Closure:
    """What an engine should have of an image, as it is read."""

    def __init__(
        self, source: Source, platforms: Sequence[Platform], held: Sequence[Platform]
    ) -> None:
        self._source = source
        self._platforms = platforms
        self._held = held
        self._below_unknown: set[Digest] = set()
        self.images: list[PlatformImage] = []
        self.manifests: dict[Digest, Manifest] = {}
        self.blobs: dict[Digest, Descriptor] = {}
        self._absent: list[Descriptor] = []

    def read(self, root: Descriptor) -> None:
        """Read the manifests of an image, and the configs of what can be run."""
        descent = Descent(root)
        for named in descent:
            manifest = self._source.read_manifest(named)
            self.manifests[manifest.digest] = manifest
            descent.add(named, self._present(manifest))
            parent = descent.parent_of(named)
            if manifest.opaque or (parent and parent.digest in self._below_unknown):
                self._below_unknown.add(named.digest)  # (engines follow known types only)
            self._take_in(manifest)

    @property
    def absent(self) -> tuple[Descriptor, ...]:
        """What indexes name and the image does not have."""
        return tuple(child for child in self._absent if child.digest not in self.manifests)

    def _present(self, manifest: Manifest) -> Iterator[Descriptor]:
        """Yield the children that belong to the image; note those that are absent."""
        wanted = {child.digest for child in children_for(manifest, self._platforms)}
        promised = {child.digest for child in children_for(manifest, self._held)}
        for child in manifest.manifests:
            needed = child.digest in wanted
            if needed and (child.digest in promised or self._source.exists(child)):
                yield child
            else:
                self._absent.append(child)

    def _take_in(self, manifest: Manifest) -> None:
        for blob in manifest.blobs:
            if not mediatype.is_foreign(blob.media_type):
                if not self._source.exists(blob):
                    raise MissingContent(f"{self._source.location}: {blob} is missing")
                self.blobs.setdefault(blob.digest, blob)
        known = manifest.digest not in self._below_unknown
        if known and is_container_image(manifest) and attestation_of(manifest.descriptor) is None:
            self.images.append(PlatformImage(manifest, self._config(manifest.blobs[0])))

    def _config(self, descriptor: Descriptor) -> ImageConfig:
        with self._source.fetch(descriptor) as stream:
            raw = stream.read_all(MAX_CONFIG_BYTES)
        return ImageConfig.parse(raw, f"config {descriptor.digest}")


def prove(source: Source, wanted: Wanted, jobs: int, watch: Watch | None = None) -> None:
    """Hash every blob of an image once.

    Raises:
        IntegrityError: one does not match; nothing of it may be sent anywhere.
    """

    def check(blob: Descriptor) -> None:
        with source.fetch(blob, watch) as stream:
            while stream.read():
                pass

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(check, wanted.blobs))
