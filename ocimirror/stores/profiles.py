"""What an archive says to one engine: an index.json, and a manifest.json where that is read.

Engines differ in which names they take from a tar. One file that suits each of them is `any`:

    any         one entry an image, and a manifest.json for engines without indexes
    docker      the same: docker reads index.json or manifest.json, by its kind of store
    containerd  an entry a name: REPOSITORY:TAG, REPOSITORY@ROOT and REPOSITORY@MANIFEST of each
                platform that is there, so that an image is found by its digests too
    podman      exactly one entry, whose both annotations are the full name; beside a
                manifest.json podman may read that instead, and lose the digest

The documents are made from values alone; `image_in` reads those out of a store. Content is not
touched: index.json and manifest.json are no part of an image.
"""

from __future__ import annotations

import json
import platform as this_machine
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ocimirror.errors import (
    InvalidReference,
    MissingContent,
    NotFound,
    OciMirrorError,
    Unsupported,
    UsageError,
)
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Descent, images_in
from ocimirror.model.manifest import Manifest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference
from ocimirror.stores.entry import IMAGE_NAME, REF_NAME, annotations_of_ours
from ocimirror.stores.store import Source

Profile = Literal["any", "docker", "containerd", "podman"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
_Named = tuple[Digest, Platform | None]  # a manifest, and the platform it is named for


@dataclass(frozen=True, slots=True)
class Image:
    """One image of an archive.

    Attributes:
        name: a full reference, else a tag; empty where it has no name.
        root: what the name stands for, annotated as its entry in a layout is.
        manifests: the image manifests below an index that are there with all their blobs; each
            with its platform.
        chosen: the one that an engine without indexes is to load, where there is one.
    """

    name: str
    root: Descriptor
    manifests: tuple[Descriptor, ...] = ()
    chosen: Manifest | None = None

    @property
    def reference(self) -> Reference | None:
        """The name as a reference, None where it is a tag alone or free text."""
        return _reference(self.name)


def _reference(name: str) -> Reference | None:
    if "/" not in name:
        return None
    try:
        return Reference.parse(name)
    except InvalidReference:
        return None


def index_document(profile: Profile, images: Sequence[Image]) -> bytes:
    """Return index.json as a profile's engine reads it; the same images give the same bytes.

    Raises:
        UsageError: several images for podman, or an image without a full name for containerd.
    """
    if profile == "podman" and len(images) != 1:
        raise UsageError(f"podman reads archives of one image; these are {len(images)}")
    entries: dict[str, dict[str, object]] = {}
    for image in images:
        named = _self_naming(image) if profile == "containerd" else [_entry(profile, image)]
        for name, entry in named:
            entries.setdefault(name or str(image.root.digest), entry)
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_INDEX,
            "manifests": list(entries.values()),
        }
    )


def has_docker_manifest(profile: Profile | None) -> bool:
    """Whether a profile's archive has a manifest.json."""
    return profile in ("any", "docker")


def docker_manifest(images: Sequence[Image]) -> bytes:
    """Return manifest.json: for each image with a `chosen` manifest its config and layers.

    The files are the archive's blobs, layers as they are: docker decompresses gzip and, since
    version 23, zstd.
    """
    return _json(
        [
            {
                "Config": blob_path(image.chosen.blobs[0].digest),
                "RepoTags": repo_tags(image.name),
                "Layers": [blob_path(layer.digest) for layer in image.chosen.blobs[1:]],
            }
            for image in images
            if image.chosen is not None
        ]
    )


def repo_tags(name: str) -> list[str] | None:
    """Return a name as manifest.json has it: never with a digest, null where there is no tag."""
    reference = _reference(name)
    if reference is None or not reference.tag:
        return None
    return [str(replace(reference, digest=None))]


def blob_path(digest: Digest) -> str:
    """Return where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _entry(profile: Profile, image: Image) -> tuple[str, dict[str, object]]:
    reference = image.reference
    if reference is None:
        names = {REF_NAME: image.name} if image.name else {}
    elif profile == "podman":
        names = {IMAGE_NAME: image.name, REF_NAME: image.name}
    else:
        names = {IMAGE_NAME: image.name}
        if reference.tag:
            names[REF_NAME] = reference.tag
    return image.name, _document(image.root, names)


def _self_naming(image: Image) -> list[tuple[str, dict[str, object]]]:
    reference = image.reference
    if reference is None:
        raise UsageError(
            f"containerd needs a full name for {image.name or image.root.digest}",
            advice="Name the image HOST/REPOSITORY:TAG.",
        )
    entries = []
    if reference.tag and reference.digest is None:
        entries.append(_entry("containerd", image))
    for descriptor in (image.root, *image.manifests):
        name = str(replace(reference, tag="", digest=descriptor.digest))
        entries.append((name, _document(descriptor, {IMAGE_NAME: name})))
    return entries


def _document(descriptor: Descriptor, names: dict[str, str]) -> dict[str, object]:
    document: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.platform is not None:
        platform = descriptor.platform
        keys = ("os", "architecture", "variant", "os.version")
        values = (platform.os, platform.architecture, platform.variant, platform.os_version)
        document["platform"] = {k: v for k, v in zip(keys, values, strict=True) if v}
    annotations = {**names, **annotations_of_ours(descriptor)}
    return {**document, "annotations": annotations} if annotations else document


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


# --- which images a place holds ------------------------------------------------------------------


def image_in(
    source: Source, name: str, root: Descriptor, platforms: Sequence[Platform] = ()
) -> Image:
    """Read what the profiles need to know of an image: manifests only.

    Args:
        source: the place that holds it, perhaps sparse.
        name: a full reference, else a tag; empty for none.
        root: what the name stands for, with the annotations of its entry.
        platforms: which platform is `chosen`, where there are several; else this machine's.

    Raises:
        NotFound, IntegrityError: the root is absent or damaged.
    """
    held = _held(source, source.read_manifest(root))
    manifests = () if mediatype.is_image_manifest(root.media_type) else held
    chosen = choose(held, platforms)
    return Image(
        name,
        root,
        tuple(manifest.descriptor for manifest in manifests),
        chosen[0] if len(chosen) == 1 else None,
    )


def choose(manifests: Sequence[Manifest], platforms: Sequence[Platform]) -> list[Manifest]:
    """Return the image manifests for these platforms, or for this machine where none is named.

    A lone manifest is chosen whatever it is for, where no platform is named.
    """
    if not platforms and len(manifests) == 1:
        return list(manifests)
    wanted = platforms or (this_linux(),)
    return [m for m in manifests if _matches(m.descriptor.platform, wanted)]


def one_image(source: Source, root: Descriptor, platforms: Sequence[Platform] = ()) -> Manifest:
    """Return the one image manifest below a root that an engine without indexes is to have.

    Args:
        source: the place that holds it, perhaps sparse.
        root: an index or an image manifest.
        platforms: what is wanted; else the only one that is there, else this machine's.

    Raises:
        UsageError: several, or none for this machine; the error lists what there is.
        NotFound: nothing for a platform that was asked for.
        Unsupported: it is no container image.
    """
    top = source.read_manifest(root)
    offered = [child for child in _offered(source, top) if source.exists(child)]
    found = offered
    if platforms or len(offered) != 1:
        wanted = platforms or (this_linux(),)
        found = [c for c in offered if _matches(c.platform, wanted)]
    if not mediatype.is_index(top.media_type):
        manifest = top
    elif len(found) == 1:
        manifest = source.read_manifest(found[0])
    else:
        raise _not_one(root, offered, found, platforms)
    if not is_container_image(manifest):
        raise Unsupported(f"{manifest.digest} is no container image: engines cannot load it")
    return manifest


def _offered(source: Source, root: Manifest) -> Iterator[Descriptor]:
    """Yield the descriptors of images below an index, once for each platform; no attestations."""
    offered: set[_Named] = set()
    descent = Descent(root.descriptor)
    for named in descent:
        if named is not root.descriptor and not mediatype.is_index(named.media_type):
            continue
        try:
            index = root if named is root.descriptor else source.read_manifest(named)
        except (NotFound, MissingContent):
            continue  # (a sparse image)
        descent.add(named, index.manifests)
        for child in images_in(index):
            key = child.digest, child.platform
            if key in offered or mediatype.is_index(child.media_type):
                continue
            offered.add(key)
            if _may_be_image(source, child):
                yield child


def _may_be_image(source: Source, child: Descriptor) -> bool:
    """Whether a child of an index is a container image, or is absent and says a platform."""
    if child.platform is not None:
        return True
    try:
        return is_container_image(source.read_manifest(child))
    except (NotFound, MissingContent):
        return False


def _not_one(
    root: Descriptor,
    offered: Sequence[Descriptor],
    found: Sequence[Descriptor],
    platforms: Sequence[Platform],
) -> OciMirrorError:
    has = f"It has: {', '.join(dict.fromkeys(str(child.platform) for child in offered))}"
    asked = ", ".join(map(str, platforms))
    if platforms and not found:
        return NotFound(f"image {root.digest} has nothing for {asked}", advice=has)
    what = f"{asked or this_linux()} is {len(found)} images of {root.digest}, and one is wanted"
    return UsageError(what, advice=f"Choose one with --platform. {has}")


def _matches(offered: Platform | None, wanted: Sequence[Platform]) -> bool:
    return offered is None or any(platform.matches(offered) for platform in wanted)


def this_linux() -> Platform:
    """Return the platform of containers on this machine."""
    return Platform.of_machine(this_machine.machine())


def _held(source: Source, root: Manifest) -> list[Manifest]:
    """Return the container images below a manifest that are there with all their blobs.

    One that indexes name for several platforms is returned for each of them.
    """
    names: dict[_Named, Descriptor] = {(root.digest, None): root.descriptor}
    images: dict[Digest, Manifest] = {}
    descent = Descent(root.descriptor)
    for named in descent:
        try:
            manifest = root if named is root.descriptor else source.read_manifest(named)
        except (NotFound, MissingContent):
            continue  # (a sparse image)
        if not is_container_image(manifest):
            children = images_in(manifest)
            descent.add(named, children)
            for child in children:
                names.setdefault((child.digest, child.platform), child)
        elif all(source.exists(blob) for blob in manifest.blobs):
            images[manifest.digest] = manifest
    return [
        replace(image, descriptor=replace(named, media_type=image.media_type))
        for named in names.values()
        if (image := images.get(named.digest)) is not None
    ]


def is_container_image(manifest: Manifest) -> bool:
    """Whether engines can load it: an image manifest whose config is an image's."""
    kinds = (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG)
    is_manifest = mediatype.is_image_manifest(manifest.media_type)
    return is_manifest and manifest.blobs[0].media_type in kinds
