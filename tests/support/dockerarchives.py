"""Docker archives as tools write them, and odd ones, member by member."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import images


@dataclass(frozen=True)
class Saved:
    """An image as an engine has it: a config, and layers that are plain tars."""

    config: bytes
    tars: tuple[bytes, ...]

    @property
    def image_id(self) -> str:
        """The digest of the config."""
        return images.digest_of(self.config)

    @property
    def hex(self) -> str:
        """The same without its algorithm."""
        return self.image_id.removeprefix("sha256:")

    @property
    def diff_ids(self) -> list[str]:
        """The digests of the layers."""
        return [images.digest_of(tar) for tar in self.tars]


def saved(seed: object = "saved", layers: int = 2) -> Saved:
    """Return an image whose config has whitespace that no serialiser writes."""
    tars = tuple(images.tar_of(images.files_of((seed, number))) for number in range(layers))
    config = images.indented(images.config_of(tars, images.PLATFORMS[0]), 3) + b"\n"
    return Saved(config, tars)


class DockerTar:
    """A tar in the making."""

    def __init__(self) -> None:
        self.members: list[tuple[tarfile.TarInfo, bytes]] = []

    def file(self, name: str, content: bytes) -> None:
        """Add a regular file."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self.members.append((member, content))

    def link(self, name: str, target: str, *, hard: bool = False) -> None:
        """Add a link."""
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.LNKTYPE if hard else tarfile.SYMTYPE, target
        self.members.append((member, b""))

    def json(self, name: str, document: Any) -> None:
        """Add a document, compact."""
        self.file(name, images.compact(document))

    def write(self, path: Path) -> Path:
        """Write the tar; return its path."""
        with path.open("wb") as file:
            for member, content in self.members:
                file.write(member.tobuf(tarfile.GNU_FORMAT))
                file.write(content + b"\0" * (-len(content) % 512))
            file.write(b"\0" * 1024)
        return path


def flat(image: Saved, tags: Sequence[str] | None, **changed: Any) -> DockerTar:
    """Make what skopeo and podman write: files at the top, named by digest.

    Args:
        image: what is in it.
        tags: RepoTags.
        changed: keys of manifest.json's entry that are to be different.
    """
    tar = DockerTar()
    layers = [f"{digest.removeprefix('sha256:')}.tar" for digest in image.diff_ids]
    for name, content in dict(zip(layers, image.tars, strict=True)).items():
        tar.file(name, content)
    tar.file(f"{image.hex}.json", image.config)
    entry = {"Config": f"{image.hex}.json", "RepoTags": tags, "Layers": layers, **changed}
    tar.json("manifest.json", [entry])
    return tar


def of_builders(image: Saved) -> dict[str, DockerTar]:
    """Make what builders write, by the name of who does: one image, `reg.example.com/NAME:1`."""
    zipped = [images.gzip_stored(tar) for tar in image.tars]
    blobs = [images.digest_of(content).removeprefix("sha256:") for content in zipped]
    plain = [digest.removeprefix("sha256:") for digest in image.diff_ids]
    made: dict[str, tuple[str, list[str], list[bytes], str]] = {
        "crane": (image.image_id, [f"{blob}.tar.gz" for blob in blobs], zipped, ""),
        "rules_docker": (
            f"{image.hex}.json",
            [f"{digest}/layer.tar" for digest in plain],
            [*image.tars],
            "./",
        ),
        "rules_oci": (
            f"blobs/sha256/{image.hex}",
            [f"blobs/sha256/{blob}.tar.gz" for blob in blobs],
            zipped,
            "",
        ),
        "jib": ("config.json", [f"{blob}.tar.gz" for blob in blobs], zipped, ""),
        "nix": (f"{image.hex}.json", [f"{p}/layer.tar" for p in plain], [*image.tars], ""),
    }
    tars = {}
    for name, (config, layers, contents, before) in made.items():
        tar = tars[name] = DockerTar()
        for layer, content in zip(layers, contents, strict=True):
            tar.file(before + layer, content)
        tar.file(before + config, image.config)
        tags = [f"reg.example.com/{name}:1"]
        entry = {"Config": config, "RepoTags": tags, "Layers": layers}
        tar.json(f"{before}manifest.json", [entry])
    return tars


def docker_before_25(image: Saved, tag: str) -> DockerTar:
    """Make what Docker 1.10 to 24 saves: a directory a layer, and `repositories`."""
    tar = DockerTar()
    names, seen = [], dict[str, str]()
    for number, (content, diff_id) in enumerate(zip(image.tars, image.diff_ids, strict=True)):
        legacy = hashlib.sha256(f"{image.hex}{number}".encode()).hexdigest()
        tar.file(f"{legacy}/VERSION", b"1.0")
        tar.json(f"{legacy}/json", {"id": legacy})
        if diff_id in seen:  # (a layer that is there twice is a link to the first)
            tar.link(f"{legacy}/layer.tar", f"../{seen[diff_id]}/layer.tar")
        else:
            tar.file(f"{legacy}/layer.tar", content)
            seen[diff_id] = legacy
        names.append(f"{legacy}/layer.tar")
    tar.file(f"{image.hex}.json", image.config)
    entry = {"Config": f"{image.hex}.json", "RepoTags": [tag], "Layers": names}
    tar.json("manifest.json", [entry])
    repository, _, version = tag.rpartition(":")
    tar.json("repositories", {repository: {version: names[-1].split("/")[0]}})
    return tar


def docker_before_1_10(image: Saved, tag: str) -> DockerTar:
    """Make what Docker up to 1.9 saves: random IDs, and no manifest.json."""
    tar = docker_before_25(image, tag)
    tar.members = [m for m in tar.members if m[0].name not in ("manifest.json",)]
    return tar


def docker_since_25(
    image: Saved, name: str, *, layers: Sequence[bytes] | None = None, version: int = 28
) -> DockerTar:
    """Make what the graphdriver store saves since Docker 25: a layout with a made-up manifest.

    Version 25 lists no layers in the manifest, and states a platform on the config.
    """
    tar = DockerTar()
    blob = "blobs/sha256/{}".format
    config = images.describe(image.config, images.OCI_CONFIG)
    if version == 25:
        config["platform"] = {"architecture": "amd64", "os": "linux"}
    listed = [images.describe(content, images.OCI_LAYER) for content in image.tars]
    manifest = images.compact(
        {
            "schemaVersion": 2,
            "mediaType": images.OCI_MANIFEST,
            "config": config,
            "layers": [] if version == 25 else listed,
        }
    )
    for content in {*image.tars, image.config, manifest}:
        tar.file(blob(hashlib.sha256(content).hexdigest()), content)
    tag = name.rpartition(":")[2]
    annotations = {images.IMAGE_NAME_ANNOTATION: name, images.REF_NAME_ANNOTATION: tag}
    entry = {**images.describe(manifest, images.OCI_MANIFEST), "annotations": annotations}
    index = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [entry]}
    tar.json("index.json", index)
    saved_as = {
        "Config": blob(image.hex),
        "RepoTags": [name.removeprefix("docker.io/library/")],
        "Layers": [blob(digest.removeprefix("sha256:")) for digest in image.diff_ids],
        "LayerSources": dict(zip(image.diff_ids, listed, strict=True)),
    }
    tar.json("manifest.json", [saved_as])
    tar.file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    return tar


def hybrid(graph: images.Graph, name: str, config: str, layers: Sequence[str]) -> DockerTar:
    """Make what Docker's containerd store and `ctr export` save: a layout and a manifest.json."""
    tar = DockerTar()
    for digest, content in graph.contents.items():
        tar.file(f"blobs/{digest.replace(':', '/')}", content)
    annotations = {
        images.IMAGE_NAME_ANNOTATION: name,
        images.REF_NAME_ANNOTATION: name.rpartition(":")[2],
    }
    entry = {**graph.descriptor, "annotations": annotations}
    index = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [entry]}
    tar.json("index.json", index)
    blob = "blobs/sha256/{}".format
    entry = {
        "Config": blob(config.removeprefix("sha256:")),
        "RepoTags": [name.removeprefix("docker.io/library/")],
        "Layers": [blob(layer.removeprefix("sha256:")) for layer in layers],
    }
    tar.json("manifest.json", [entry])
    tar.file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    return tar


def platform_parts(graph: images.Graph, architecture: str) -> tuple[str, list[str]]:
    """Return the config's and the layers' digests of one platform of an index."""
    for child in json.loads(graph.raw)["manifests"]:
        if child["platform"]["architecture"] == architecture:
            document = json.loads(graph.manifests[child["digest"]][1])
            return document["config"]["digest"], [layer["digest"] for layer in document["layers"]]
    raise AssertionError(architecture)
