"""What is copied: images of gzip layers that do not compress, made here, the same every time.

An image is made as an OCI layout, and placed in a registry by hard links into the storage of
docker-registry, so that content is written once and nothing that is measured has made it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.measure import Failed
from tests.support import images
from tests.support.images import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP, OCI_MANIFEST

MIB = 1 << 20
HOST = "registry.example"
_BLOCK = 0xFFFF  # of deflate, stored
_POOL = 8 * MIB

Descriptor = dict[str, Any]


def write_image(layout: Path, repository: str, platforms: Sequence[Sequence[int]]) -> Path:
    """Write a layout with one image `repository:1`: an index where there are several platforms.

    Args:
        layout: the directory, made here.
        repository: part of the name of the image.
        platforms: for each platform the sizes of its layers in bytes, nearly.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    children = []
    for number, sizes in enumerate(platforms):
        layers = [
            _gzip_layer(blobs, f"{repository}{number}.{place}", size)
            for place, size in enumerate(sizes)
        ]
        platform = images.PLATFORMS[number]
        children.append({**_manifest(blobs, layers, platform), "platform": platform})
    if len(children) == 1:
        return _finish(layout, repository, children[0])
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    return _finish(layout, repository, _document(blobs, index, OCI_INDEX))


def write_sparse_image(layout: Path, repository: str, size_bytes: int) -> Path:
    """Write a layout with an image whose one layer is zeros that take no room on the disk."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    zeros, hasher = bytes(MIB), hashlib.sha256()
    for start in range(0, size_bytes, MIB):
        hasher.update(zeros[: size_bytes - start])
    with (blobs / hasher.hexdigest()).open("wb") as file:
        file.truncate(size_bytes)
    digest = f"sha256:{hasher.hexdigest()}"
    layer = {"mediaType": OCI_LAYER, "digest": digest, "size": size_bytes}
    return _finish(layout, repository, _manifest(blobs, [(layer, digest)], images.PLATFORMS[0]))


def write_tags(layout: Path, repository: str, count: int) -> Path:
    """Write a layout with `count` tags of 5 layers of 50 kB; 2 layers are in all of them."""
    graphs = images.shared_layers(count, 5, 50_000, 0.4)
    named = {f"{HOST}/{repository}:t{n:03}": graph for n, graph in enumerate(graphs)}
    return images.write_layout(layout, named)


def _manifest(
    blobs: Path, layers: Sequence[tuple[Descriptor, str]], platform: Mapping[str, str]
) -> Descriptor:
    config = images.config_of([], platform)
    config["rootfs"]["diff_ids"] = [diff_id for _, diff_id in layers]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _document(blobs, config, OCI_CONFIG),
        "layers": [layer for layer, _ in layers],
    }
    return _document(blobs, document, OCI_MANIFEST)


def _document(blobs: Path, document: object, media_type: str) -> Descriptor:
    raw = images.compact(document)
    descriptor = images.describe(raw, media_type)
    (blobs / descriptor["digest"].partition(":")[2]).write_bytes(raw)
    return descriptor


def _finish(layout: Path, repository: str, root: Descriptor) -> Path:
    names = {
        images.IMAGE_NAME_ANNOTATION: f"{HOST}/{repository}:1",
        images.REF_NAME_ANNOTATION: "1",
    }
    root = {name: root[name] for name in ("mediaType", "digest", "size")}
    index = {"schemaVersion": 2, "manifests": [{**root, "annotations": names}]}
    (layout / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_bytes(images.compact(index))
    return layout


def _gzip_layer(blobs: Path, seed: str, size_bytes: int) -> tuple[Descriptor, str]:
    """Write a gzip of a tar of one file; return its descriptor and its diff_id."""
    hasher, diff_id = hashlib.sha256(), hashlib.sha256()
    checksum = tar_size = 0
    temporary = blobs / "layer"
    with temporary.open("wb") as file:

        def write(data: bytes) -> None:
            hasher.update(data)
            file.write(data)

        write(b"\x1f\x8b\x08\x00\0\0\0\0\x00\xff")
        for block in _tar_blocks(seed, size_bytes):
            diff_id.update(block)
            checksum = zlib.crc32(block, checksum)
            tar_size += len(block)
            write(struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF) + block)
        write(b"\x01\0\0\xff\xff" + struct.pack("<II", checksum, tar_size & 0xFFFFFFFF))
        size = file.tell()
    temporary.rename(blobs / hasher.hexdigest())
    layer = {
        "mediaType": OCI_LAYER_GZIP,
        "digest": f"sha256:{hasher.hexdigest()}",
        "size": size,
    }
    return layer, f"sha256:{diff_id.hexdigest()}"


def _tar_blocks(seed: str, size_bytes: int) -> Iterator[bytes]:
    """Yield a tar in blocks; each has its number in it, so that no two are the same."""
    content = max(0, size_bytes - 3 * 512) // 512 * 512
    member = tarfile.TarInfo("usr/share/noise")
    member.size = content
    yield member.tobuf(tarfile.USTAR_FORMAT)
    pool, seed_bytes = _pool(), hashlib.sha256(seed.encode()).digest()
    for number, start in enumerate(range(0, content, _BLOCK)):
        head = seed_bytes + struct.pack("<Q", number)
        offset = number * 4099 % (_POOL - _BLOCK)
        block = head + pool[offset : offset + _BLOCK - len(head)]
        yield block[: content - start]
    yield bytes(1024)


@cache
def _pool() -> bytes:
    return random.Random("bench").randbytes(_POOL)


# Where it goes, and whether it arrived


def place(layout: Path, data: Path, repository: str) -> None:
    """Put every tagged image of a layout into docker-registry's storage, by hard links."""
    storage = data / "docker" / "registry" / "v2"
    here = storage / "repositories" / repository
    for entry in json.loads((layout / "index.json").read_bytes())["manifests"]:
        tag = here / "_manifests" / "tags" / entry["annotations"][images.REF_NAME_ANNOTATION]
        _link(tag / "current", entry["digest"])
        _link(tag / "index" / entry["digest"].replace(":", "/"), entry["digest"])
        for kind, digest in _closure(layout, entry["digest"]):
            encoded = digest.partition(":")[2]
            _link(here / kind / "sha256" / encoded, digest)
            blob = storage / "blobs" / "sha256" / encoded[:2] / encoded / "data"
            if not blob.exists():
                blob.parent.mkdir(parents=True, exist_ok=True)
                os.link(layout / "blobs" / "sha256" / encoded, blob)


def _closure(layout: Path, root: str) -> Iterator[tuple[str, str]]:
    yield "_manifests/revisions", root
    document = json.loads((layout / "blobs" / root.replace(":", "/")).read_bytes())
    for child in document.get("manifests", ()):
        yield from _closure(layout, child["digest"])
    for blob in (document.get("config"), *document.get("layers", ())):
        if blob:
            yield "_layers", blob["digest"]


def _link(directory: Path, digest: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "link").write_text(digest)


def blobs_of(layout: Path) -> dict[str, int]:
    """Return the size of each blob of a layout by its hex digest."""
    return {file.name: file.stat().st_size for file in (layout / "blobs" / "sha256").iterdir()}


def check_layout(layout: Path, wanted: Mapping[str, int]) -> None:
    """Raise Failed unless a layout has all that was to be copied."""
    _check({encoded: layout / "blobs" / "sha256" / encoded for encoded in wanted}, wanted)


def check_registry(data: Path, wanted: Mapping[str, int]) -> None:
    """Raise Failed unless the storage of a registry has all that was to be copied."""
    storage = data / "docker" / "registry" / "v2" / "blobs" / "sha256"
    _check({encoded: storage / encoded[:2] / encoded / "data" for encoded in wanted}, wanted)


def _check(files: Mapping[str, Path], wanted: Mapping[str, int]) -> None:
    for encoded, file in files.items():
        if not file.exists() or file.stat().st_size != wanted[encoded]:
            raise Failed(f"exit code 0, and sha256:{encoded} is not there")
