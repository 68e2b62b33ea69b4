"""inspect and list: what an image consists of, and which images there are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ocimirror.copy.places import Places
from ocimirror.copy.walk import walk
from ocimirror.errors import (
    IntegrityError,
    LocalStorageError,
    MissingContent,
    NotFound,
    OciMirrorError,
    Unsupported,
)
from ocimirror.model import mediatype, strictjson
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Descent, attestation_of
from ocimirror.model.manifest import MAX_SIZE_BYTES, Manifest
from ocimirror.model.platform import WITHOUT_ATTESTATIONS
from ocimirror.model.reference import Location
from ocimirror.stores.entry import Entry, platforms_of
from ocimirror.stores.layout.partial import held
from ocimirror.stores.layout.source import LayoutSource
from ocimirror.stores.store import Referrer, Source


@dataclass(frozen=True, slots=True)
class Inspection:
    """One manifest and, of an index, its children.

    `platform` is empty where nothing states one; `missing` are children that are not there;
    `referrers` is what refers to it: signatures, SBOMs, attestations.
    """

    manifest: Manifest
    platform: str
    children: tuple[Inspection, ...] = ()
    missing: tuple[Descriptor, ...] = ()
    referrers: tuple[Referrer, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The bytes of everything below and with it, each digest once."""
        return sum(self._sizes().values())

    def _sizes(self) -> dict[Digest, int]:
        sizes = {blob.digest: blob.size for blob in self.manifest.blobs}
        sizes[self.manifest.digest] = self.manifest.descriptor.size
        for child in self.children:
            sizes |= child._sizes()
        return sizes


@dataclass(frozen=True, slots=True)
class Listed:
    """One image of a layout or archive; `fault` says why its size and platforms are unknown.

    `exit_code` is that of a disk that refused, otherwise 0: to list what is damaged is no failure.
    Of a `sparse` one its entry says that only a part is there.
    """

    entry: Entry
    size_bytes: int
    platforms: tuple[str, ...]
    fault: str = ""
    exit_code: int = 0
    sparse: bool = False


def inspect(location: Location, places: Places) -> Inspection:
    """Read an image's manifests; configs are read for the platform of a lone image only.

    Raises:
        NotFound: no such image.
        IntegrityError: its manifest is damaged.
    """
    source = places.source(location)
    return _inspect(source, source.resolve(location.read_name))


def raw_manifest(location: Location, places: Places) -> bytes:
    """Return the bytes of the manifest, exactly as they are."""
    source = places.source(location)
    return source.read_manifest(source.resolve(location.read_name)).raw


def list_images(location: Location, places: Places) -> list[Listed] | list[str]:
    """Return the images of a layout or archive, or the tags of a repository."""
    if location.reference is not None:
        return places.repository(location.reference).names()
    source = places.indexed(location, "")
    attached = source.attached()
    return [_listed(source, e) for e in source.entries() if not attached.is_list(e)]


def _inspect(source: Source, root: Descriptor) -> Inspection:
    """Inspect a manifest and what it leads to, each manifest once: an index may name one often."""
    descent = Descent(root)
    alone: list[tuple[Descriptor, Inspection]] = []
    missing: dict[Digest, list[Descriptor]] = {}
    for named in descent:
        parent = descent.parent_of(named)
        try:
            alone.append((named, _inspect_alone(source, named)))
        except (NotFound, MissingContent):
            if parent is None:
                raise
            missing.setdefault(parent.digest, []).append(named)
        else:
            descent.add(named, alone[-1][1].manifest.manifests)
    children: dict[Digest, list[Inspection]] = {}
    while True:
        named, inspection = alone.pop()  # (the last is what nothing else needs)
        below = reversed(children.pop(named.digest, ()))
        absent = missing.get(named.digest, ())
        inspection = replace(inspection, children=tuple(below), missing=tuple(absent))
        parent = descent.parent_of(named)
        if parent is None:
            return inspection
        children.setdefault(parent.digest, []).append(inspection)


def _inspect_alone(source: Source, named: Descriptor) -> Inspection:
    manifest = source.read_manifest(named)
    platform = _platform(source, manifest)
    referrers = tuple(_typed(source, referrer) for referrer in source.referrers(named))
    return Inspection(manifest, platform, referrers=referrers)


def _typed(source: Source, referrer: Referrer) -> Referrer:
    """Return a referrer with its manifest's artifactType if what names it states none."""
    descriptor = referrer.descriptor
    if descriptor.artifact_type or referrer.tag:
        return referrer
    try:
        listed = source.read_manifest(descriptor).listed_type
    except (IntegrityError, NotFound, Unsupported):
        return referrer  # (it is named all the same; whoever reads it says what is wrong)
    return referrer._replace(descriptor=replace(descriptor, artifact_type=listed))


def _platform(source: Source, manifest: Manifest) -> str:
    stated = manifest.descriptor.platform
    if stated is not None:
        return str(stated)
    config = manifest.blobs[0] if mediatype.is_image_manifest(manifest.media_type) else None
    if config is None or config.media_type not in (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG):
        return ""
    try:
        with source.fetch(config) as stream:
            document = strictjson.loads(stream.read_all(MAX_SIZE_BYTES), "config")
    except (NotFound, IntegrityError):
        return ""
    parts = [document.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(part for part in parts if isinstance(part, str) and part)


def _listed(source: LayoutSource, entry: Entry) -> Listed:
    try:
        plan = walk(source, entry.descriptor, entry.platforms)
    except OciMirrorError as error:
        code = error.exit_code if isinstance(error, LocalStorageError) else 0
        here = held(source, entry.descriptor) if isinstance(error, MissingContent) else None
        platforms = platforms_of(here) if here and not entry.platforms else ()
        shown = tuple(str(p) for p in platforms if p != WITHOUT_ATTESTATIONS)
        fault = error.message
        if shown:
            fault += f"; only {', '.join(shown)} is here in whole: sparse, or damaged"
        return Listed(entry, entry.descriptor.size, shown, fault, code)
    offered = [
        str(child.platform)
        for manifest in plan.manifests
        for child in manifest.manifests
        if child.platform is not None and attestation_of(child) is None
        if child not in plan.absent
    ]
    if not plan.root.manifests:
        offered = [_platform(source, plan.root)]
    shown = tuple(platform for platform in dict.fromkeys(offered) if platform)
    return Listed(entry, plan.size_bytes, shown, sparse=bool(plan.absent))
