"""An independent judge of image layouts: the standard library only, and nothing of ocimirror."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import images

_INDEXES = {images.OCI_INDEX, images.DOCKER_LIST}
_MANIFESTS = {images.OCI_MANIFEST, images.DOCKER_MANIFEST}
_FOREIGN = (images.OCI_LAYER_FOREIGN, "application/vnd.docker.image.rootfs.foreign.")


Files = Mapping[str, bytes | None]
"""Path below the layout → content, None for what is no regular file."""


def names_of(layout: Path) -> dict[str, str]:
    """Return name → digest, as index.json has it; {} where there is no index yet."""
    path = layout / "index.json"
    return names_in({"index.json": path.read_bytes()} if path.exists() else {})


def names_in(files: Files) -> dict[str, str]:
    """Return the same for a layout in memory."""
    index = files.get("index.json")
    if index is None:
        return {}
    named = {}
    for entry in json.loads(index)["manifests"]:
        annotations = entry.get("annotations", {})
        name = annotations.get(images.IMAGE_NAME_ANNOTATION)
        name = name or annotations.get(images.REF_NAME_ANNOTATION)
        if name:
            named[name] = entry["digest"]
    return named


def faults_of(layout: Path) -> list[str]:
    """Return all that is wrong with a layout; [] also where it was not made yet.

    Checked: index.json is an index, everything reachable from it is there with its size and
    digest, and every file under blobs/ has the name of its content.
    """
    paths = [layout / "oci-layout", layout / "index.json", *layout.glob("blobs/*/*")]
    return faults_in(
        {
            path.relative_to(layout).as_posix(): path.read_bytes() if _regular(path) else None
            for path in paths
            if path.is_symlink() or path.exists()
        }
    )


def faults_in(files: Files) -> list[str]:
    """Return the same for a layout in memory."""
    faults: list[str] = []
    if "index.json" in files:
        try:
            document = json.loads(files["index.json"] or b"")
            entries = document["manifests"]
        except (ValueError, KeyError) as error:
            return [f"index.json: {error!r}"]
        if files.get("oci-layout") != b'{"imageLayoutVersion":"1.0.0"}':
            faults.append("oci-layout is wrong")
        seen: set[str] = set()
        for entry in entries:
            _follow(files, entry, seen, faults)
    for path, content in files.items():
        if path.startswith("blobs/"):
            if content is None:
                faults.append(f"{path} is no regular file")
            elif _hash(path.split("/")[1], content) != path.split("/")[2]:
                faults.append(f"{path} has the wrong name")
    return faults


def _regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


@functools.lru_cache(4096)
def _hash(algorithm: str, content: bytes) -> str:
    return hashlib.new(algorithm, content).hexdigest()


def _follow(files: Files, descriptor: dict[str, Any], seen: set[str], faults: list[str]) -> None:
    digest, media_type = descriptor["digest"], descriptor["mediaType"]
    if digest in seen or media_type.startswith(_FOREIGN):
        return
    seen.add(digest)
    content = files.get(f"blobs/{digest.replace(':', '/')}")
    if content is None:
        faults.append(f"{digest} is missing")
        return
    if len(content) != descriptor["size"]:
        faults.append(f"{digest} has {len(content)} bytes, not {descriptor['size']}")
        return
    if media_type in _INDEXES:
        children = json.loads(content)["manifests"]
    elif media_type in _MANIFESTS:
        document = json.loads(content)
        children = [document["config"], *document["layers"]]
    else:
        children = []
    for child in children:
        _follow(files, child, seen, faults)


def contents_of(layout: Path, *, lists: bool = True) -> dict[str, bytes]:
    """Return digest → bytes of every file under blobs/.

    Args:
        lists: with the lists of referrers, which a layout has for other tools.
    """
    contents = {
        f"{path.parent.name}:{path.name}": path.read_bytes()
        for path in sorted(layout.glob("blobs/*/*"))
    }
    if not lists:
        for entry in json.loads((layout / "index.json").read_bytes())["manifests"]:
            tag = entry.get("annotations", {}).get("org.opencontainers.image.ref.name", "")
            if tag.startswith(("sha256-", "sha512-")):
                del contents[entry["digest"]]
    return contents


def leftovers_of(layout: Path) -> list[str]:
    """Return the names of temporary files."""
    return sorted(path.name for path in (layout / ".ocimirror" / "tmp").glob("*"))
