"""An independent judge of image layouts: the standard library only, and nothing of ocimirror."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.support import images

_INDEXES = {images.OCI_INDEX, images.DOCKER_LIST}
_MANIFESTS = {images.OCI_MANIFEST, images.DOCKER_MANIFEST}
_FOREIGN = (images.OCI_LAYER_FOREIGN, "application/vnd.docker.image.rootfs.foreign.")


def names_of(layout: Path) -> dict[str, str]:
    """Return name → digest, as index.json has it; {} where there is no index yet."""
    path = layout / "index.json"
    if not path.exists():
        return {}
    named = {}
    for entry in json.loads(path.read_bytes())["manifests"]:
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
    faults: list[str] = []
    index = layout / "index.json"
    if index.exists():
        try:
            document = json.loads(index.read_bytes())
            entries = document["manifests"]
        except (ValueError, KeyError) as error:
            return [f"index.json: {error!r}"]
        if json.loads((layout / "oci-layout").read_bytes()) != {"imageLayoutVersion": "1.0.0"}:
            faults.append("oci-layout is wrong")
        seen: set[str] = set()
        for entry in entries:
            _follow(layout, entry, seen, faults)
    for path in layout.glob("blobs/*/*"):
        if path.is_symlink() or not path.is_file():
            faults.append(f"{path} is no regular file")
        elif hashlib.new(path.parent.name, path.read_bytes()).hexdigest() != path.name:
            faults.append(f"{path} has the wrong name")
    return faults


def _follow(layout: Path, descriptor: dict[str, Any], seen: set[str], faults: list[str]) -> None:
    digest, media_type = descriptor["digest"], descriptor["mediaType"]
    if digest in seen or media_type.startswith(_FOREIGN):
        return
    seen.add(digest)
    path = images.blob_path(layout, digest)
    if not path.is_file():
        faults.append(f"{digest} is missing")
        return
    content = path.read_bytes()
    if len(content) != descriptor["size"]:
        faults.append(f"{digest} has {len(content)} bytes, not {descriptor['size']}")
    if media_type in _INDEXES:
        children = json.loads(content)["manifests"]
    elif media_type in _MANIFESTS:
        document = json.loads(content)
        children = [document["config"], *document["layers"]]
    else:
        children = []
    for child in children:
        _follow(layout, child, seen, faults)


def contents_of(layout: Path) -> dict[str, bytes]:
    """Return digest → bytes of every file under blobs/."""
    return {
        f"{path.parent.name}:{path.name}": path.read_bytes()
        for path in sorted(layout.glob("blobs/*/*"))
    }


def leftovers_of(layout: Path) -> list[str]:
    """Return the names of temporary files."""
    return sorted(path.name for path in (layout / ".ocimirror" / "tmp").glob("*"))
