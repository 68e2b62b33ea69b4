"""What an engine gives back of an image by its `save`, hashed and compared with what is due."""

from __future__ import annotations

from ocimirror.engines.client import Client, Output
from ocimirror.engines.wanted import PlatformImage, Wanted
from ocimirror.errors import (
    DamagedEngineStore,
    DamagedLayout,
    EngineFailed,
    MalformedManifest,
    Unsupported,
)
from ocimirror.model.descriptor import Descriptor
from ocimirror.stores.archive.tarstream import Members, hash_members
from ocimirror.stores.dockerarchive.document import saved_images
from ocimirror.stores.stream import CHUNK_BYTES

_GONE = ("no such file", "not found", "does not exist", "not known", "unexpected eof")


def hash_unpacked(
    client: Client, arguments: tuple[str, ...], wanted: Wanted, image: PlatformImage, engine: str
) -> str:
    """Hash the config and the layers of an image in an engine that keeps layers unpacked.

    Args:
        client: the engine's.
        arguments: which have it print a docker-archive of this image alone.
        wanted: the image, for errors.
        image: the platform that the engine has.
        engine: its name.

    Returns:
        What was hashed.

    Raises:
        DamagedEngineStore: it gives back something else, or cannot give it back.
        EngineFailed: it prints no archive.
    """
    saved = _saved(client, arguments, wanted, engine)
    try:
        (entry,) = saved_images(saved.document or b"", f"what {engine} saves")
        if isinstance(entry, MalformedManifest):
            raise entry
    except (MalformedManifest, ValueError) as error:
        raise EngineFailed(f"{engine} save: it prints no archive of one image") from error
    layers, diff_ids = image.manifest.blobs[1:], image.config.diff_ids
    if any(d.algorithm != "sha256" for d in (image.config_digest, *diff_ids)):
        raise Unsupported(f"image {wanted.name}: a digest that is no sha256 cannot be compared")
    # (A layer that is saved as it came in is as good as its unpacked content.)
    right = [{image.config_digest}] + [
        {diff_id, *(d.digest for d in layers[number : number + 1])}
        for number, diff_id in enumerate(diff_ids)
    ]
    given = [saved.digest_of(name) for name in (entry.config, *entry.layers)]
    if len(given) != len(right):
        raise DamagedEngineStore(
            f"image {wanted.name}: {engine} gives back {len(given) - 1} layers of {len(right) - 1}"
        )
    other = [
        f"{found or 'nothing'} instead of {min(wanted_digests)}"
        for found, wanted_digests in zip(given, right, strict=True)
        if found not in wanted_digests
    ]
    if other:
        raise _damaged(wanted, engine, ", ".join(other))
    return f"config and {_number(len(diff_ids), 'layer')} (unpacked contents)"


def hash_blobs(client: Client, arguments: tuple[str, ...], wanted: Wanted, engine: str) -> str:
    """Hash what an engine gives back that keeps manifests and blobs as they came.

    What a platform's manifest needs has to come with it; platforms that are absent are not looked
    for: the receipt tells of them.

    Returns, Raises: as `hash_unpacked`.
    """
    saved = _saved(client, arguments, wanted, engine)
    blobs = {name: d for name, d in saved.digests.items() if name.startswith("blobs/")}
    descriptors = {m.digest: m.descriptor for m in wanted.manifests}
    descriptors |= {blob.digest: blob for blob in wanted.blobs}
    other = [
        f"{blobs[path]} instead of {digest}"
        for digest, descriptor in descriptors.items()
        if (path := _path_of(descriptor)) in blobs and blobs[path] != digest
    ]
    if _path_of(wanted.root.descriptor) not in blobs:
        other.append(f"nothing instead of {wanted.root.digest}")
    here = {blob.digest for blob in wanted.blobs}
    other += [
        f"nothing instead of {blob.digest}"
        for image in wanted.images
        if _path_of(image.manifest.descriptor) in blobs
        for blob in image.manifest.blobs
        if blob.digest in here and _path_of(blob) not in blobs
    ]
    if other:
        raise _damaged(wanted, engine, ", ".join(dict.fromkeys(other)))
    given = set(blobs.values())
    manifests = len({m.digest for m in wanted.manifests} & given)
    return f"{_number(manifests, 'manifest')} and {_number(len(here & given), 'blob')} as they came"


def _path_of(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.encoded}"


def _damaged(wanted: Wanted, engine: str, what: str) -> DamagedEngineStore:
    return DamagedEngineStore(
        f"image {wanted.name}: {engine} gives back {what}",
        advice="Remove the image from the engine (and what else has this layer), then load it"
        " again.",
    )


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _saved(client: Client, arguments: tuple[str, ...], wanted: Wanted, engine: str) -> Members:
    try:
        with Output(client, *arguments) as output:
            members = hash_members(output, f"what {engine} saves")
            while output.read(CHUNK_BYTES):
                pass  # (its exit code comes at the end)
            return members
    except (DamagedEngineStore, DamagedLayout) as error:
        # (Docker's containerd store stops in the middle of what it cannot read, exit code 0.)
        raise _damaged(wanted, engine, f"not all of it: {error.message}") from error
    except EngineFailed as error:
        if any(words in error.message.lower() for words in _GONE):
            raise _damaged(wanted, engine, f"not all of it: {error.message}") from error
        raise
