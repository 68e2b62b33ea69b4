"""An image that runs without a network and without a C library, and archives that docker loads."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from tests.support import images
from tests.support.images import Builder, Descriptor, Graph
from tests.support.programs import require_program

PLATFORM, OTHER_PLATFORM = images.PLATFORMS[0], images.PLATFORMS[1]
SAYS = "hello from the image"


def runnable() -> Graph:
    """Make an index of linux/amd64 and linux/arm64; the first one says hello in a container."""
    builder = Builder()
    program = Path(require_program("busybox", "busybox-static")).read_bytes()
    children = [
        _image(builder, PLATFORM, {"bin/busybox": program}),
        _image(builder, OTHER_PLATFORM, {"bin/busybox": b"of another machine"}),
    ]
    return builder.graph(builder.index(children))


def _image(builder: Builder, platform: dict[str, str], files: dict[str, bytes]) -> Descriptor:
    tars = [_tar_of_programs(files), images.tar_of({"etc/os-release": b"ID=fixture\n"})]
    config = images.config_of(tars, platform)
    config["config"] = {"Entrypoint": ["/bin/busybox"], "Cmd": ["echo", SAYS]}
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": builder.blob(images.compact(config), images.OCI_CONFIG),
        "layers": [builder.blob(images.gzip_stored(tar), images.OCI_LAYER_GZIP) for tar in tars],
    }
    # (Odd white space: what is written again has another digest.)
    raw = images.indented(document, 3) + b"\n "
    return {**builder.manifest(raw, images.OCI_MANIFEST), "platform": dict(platform)}


def _tar_of_programs(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def manifest_of(graph: Graph, number: int = 0) -> str:
    """Return the digest of an image manifest of an index, or of the graph's own root."""
    document = json.loads(graph.raw)
    return str(document["manifests"][number]["digest"]) if "manifests" in document else graph.root


def image_id_of(graph: Graph, number: int = 0) -> str:
    """Return the digest of the config of an image in a graph: Docker's image ID."""
    manifest = json.loads(graph.manifests[manifest_of(graph, number)][1])
    return str(manifest["config"]["digest"])


def docker_archive(path: Path, graph: Graph, *tags: str, number: int = 0) -> Path:
    """Write what `docker save` writes of one image of a graph, layers as they are; return it."""
    manifest = json.loads(graph.manifests[manifest_of(graph, number)][1])
    digests = [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    names = [digest.partition(":")[2] for digest in digests]
    listed = [{"Config": names[0], "RepoTags": list(tags), "Layers": names[1:]}]
    files = {name: graph.blobs[digest] for name, digest in zip(names, digests, strict=True)}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in {**files, "manifest.json": json.dumps(listed).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
