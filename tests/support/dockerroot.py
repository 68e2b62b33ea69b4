"""A data root of Docker with a graphdriver, as far as names of images need it, made by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.support import images
from tests.support.images import Graph
from tests.support.runnable import image_id_of, manifest_of


@dataclass(frozen=True)
class DataRoot:
    """One storage driver's files below a data root that no dockerd has ever had."""

    path: Path
    driver: str = "vfs"

    @property
    def directory(self) -> Path:
        """The files of the storage driver."""
        return self.path / "image" / self.driver

    @property
    def references(self) -> Path:
        """The reference store."""
        return self.directory / "repositories.json"

    @property
    def database(self) -> Path:
        """The database of volumes, which a running dockerd keeps locked."""
        return self.path / "volumes" / "metadata.db"

    @property
    def backups(self) -> list[Path]:
        """The old reference stores that are kept."""
        return sorted(self.directory.glob("repositories.json.ocimirror-*"))

    def make(self, **names: dict[str, str]) -> DataRoot:
        """Write an empty data root with these names; return it."""
        for directory in (self.directory, self.database.parent):
            directory.mkdir(parents=True, exist_ok=True)
        self.database.touch()
        self.references.write_bytes(document(**names))
        return self

    def add(self, graph: Graph, number: int = 0) -> str:
        """Add an image of a graph: its config and its layers; return its ID."""
        image_id = image_id_of(graph, number)
        manifest = json.loads(graph.manifests[manifest_of(graph, number)][1])
        config = graph.blobs[manifest["config"]["digest"]]
        _write(self.directory / "imagedb/content/sha256" / _encoded(image_id), config)
        chain = ""
        for diff_id in json.loads(config)["rootfs"]["diff_ids"]:
            chain = images.digest_of(f"{chain} {diff_id}".encode()) if chain else diff_id
            below = self.directory / "layerdb/sha256" / _encoded(chain)
            _write(below / "diff", diff_id.encode())
        return image_id


def document(**names: dict[str, str]) -> bytes:
    """Return a reference store in the bytes that dockerd writes."""
    return json.dumps({"Repositories": names}, separators=(",", ":")).encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _encoded(digest: str) -> str:
    return digest.partition(":")[2]
