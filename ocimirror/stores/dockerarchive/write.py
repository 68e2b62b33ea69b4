"""A docker-archive as a destination: one image, in a tar that every `docker load` since 1.10 reads.

    manifest.json  <config>.json  <layer>.tar.gz | <layer>.tar ...

Config and layers keep their bytes; a zstd layer alone is decompressed, since Docker before 23
cannot read it. What has no place here (index, manifest, other platforms, what refers to the image)
is lost, and the caller says so.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

from ocimirror.errors import ForeignLayer, MalformedManifest, MissingContent, storage_errors
from ocimirror.model import mediatype
from ocimirror.model.config import MAX_SIZE_BYTES as MAX_CONFIG_BYTES
from ocimirror.model.config import ImageConfig
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.stores.archive import ArchiveWriter
from ocimirror.stores.dockerarchive.compression import (
    MAGIC_BYTES,
    Decompressed,
    compression_of,
)
from ocimirror.stores.dockerarchive.document import MANIFEST_FILE, document_of
from ocimirror.stores.files import FileReader
from ocimirror.stores.index import LayoutSource
from ocimirror.stores.store import Stored, verified
from ocimirror.stores.stream import CHUNK_BYTES, Reader, VerifiedStream, Watch
from ocimirror.stores.tar import TarWriter


class DockerArchiveWriter(ArchiveWriter):
    """Takes one image manifest with its blobs, and writes it when it is committed.

    Blobs of a layout or an archive on this machine are read then, and not before: they pass their
    check once, on the way into the tar. Those of a registry are staged beside the file.

    Args:
        path: the file, replaced when it is committed; `-` is standard output.
        durable: sync the archive before it gets its name.
    """

    def __init__(self, path: str, *, durable: bool = True) -> None:
        super().__init__(path, durable=durable)
        self.location = f"docker-archive:{path}"
        self._elsewhere: dict[Digest, LayoutSource] = {}
        self._image: Descriptor | None = None
        self._name = ""

    def _ingest(self, descriptor: Descriptor, stream: VerifiedStream, replace: bool) -> Stored:
        if descriptor.kind == "manifest":
            self._image = descriptor
        elif isinstance(stream.origin, LayoutSource):
            self._elsewhere[descriptor.digest] = stream.origin
            return Stored.COPIED
        return super()._ingest(descriptor, stream, replace)

    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        for self._name, manifest in names:
            self._ingest(manifest.descriptor, verified(manifest), replace=False)

    def _open_at(self, descriptor: Descriptor, position: int) -> Reader:
        place = self._elsewhere.get(descriptor.digest)
        if place is not None:
            return place._open_at(descriptor, position)
        return super()._open_at(descriptor, position)

    def _pack(self, tar: TarWriter, watch: Watch | None) -> None:
        if self._image is None:
            raise MissingContent(f"{self.path}: no image was copied")
        manifest = self.read_manifest(self._image)
        config, layers = manifest.blobs[0], manifest.blobs[1:]
        with self.fetch(config, watch) as stream:
            raw = stream.read_all(MAX_CONFIG_BYTES)
        diff_ids = ImageConfig.parse(raw, f"config {config.digest}").diff_ids
        if len(diff_ids) != len(layers):
            raise MalformedManifest(
                f"{manifest.digest} has {len(layers)} layers, and its config {len(diff_ids)}"
                " diff_ids: docker refuses it"
            )
        members = [self._member_of(*pair) for pair in zip(layers, diff_ids, strict=True)]
        names = [name for name, _ in members]
        config_name = f"{config.digest.encoded}.json"
        tar.member(MANIFEST_FILE, document_of(config_name, self._name, names))
        tar.member(config_name, raw)
        written = set[str]()
        for (name, plain), layer, diff_id in zip(members, layers, diff_ids, strict=True):
            if name in written:
                continue
            written.add(name)
            if plain:
                with self.fetch(layer, watch) as stream:
                    tar.stream(name, stream)
            else:
                self._write_decompressed(tar, name, layer, diff_id, watch)
        tar.end()

    def _member_of(self, layer: Descriptor, diff_id: Digest) -> tuple[str, bool]:
        """Return the member that a layer becomes, and whether it is written as it is."""
        if mediatype.is_foreign(layer.media_type) and not self._has(layer):
            raise ForeignLayer(
                f"{layer.digest} is a foreign layer and not here: docker needs it in the archive"
            )
        with self.fetch(layer) as stream:
            compression = compression_of(stream.read(MAGIC_BYTES))
        if compression == "zstd":
            return f"{diff_id.encoded}.tar", False
        suffix = "tar.gz" if compression == "gzip" else "tar"
        return f"{layer.digest.encoded}.{suffix}", True

    def _has(self, layer: Descriptor) -> bool:
        return layer.digest in self._elsewhere or self.exists(layer)

    def _write_decompressed(
        self, tar: TarWriter, name: str, layer: Descriptor, diff_id: Digest, watch: Watch | None
    ) -> None:
        """Write what a layer stands for: its size is known only once it is decompressed."""
        with (
            storage_errors(f"cannot decompress {layer.digest} beside {self.path}"),
            tempfile.TemporaryFile(dir=self._staging.name) as file,
        ):
            with self.fetch(layer, watch) as stream:
                content = Decompressed(stream, "zstd", layer.size, f"layer {layer.digest}")
                while chunk := content.read(CHUNK_BYTES):
                    file.write(chunk)
                while stream.read():
                    pass  # (what the library did not ask for is checked too)
            file.flush()
            size, fd = os.fstat(file.fileno()).st_size, file.fileno()
            plain = Descriptor(mediatype.OCI_LAYER, diff_id, size)
            with VerifiedStream(
                plain, lambda at: FileReader(fd, name, at, size, closes=False)
            ) as checked:
                tar.stream(name, checked)
