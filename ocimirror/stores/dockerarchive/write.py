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

from ocimirror.errors import (
    ForeignLayer,
    MissingContent,
    Unsupported,
    UsageError,
    blamed_on,
    storage_errors,
)
from ocimirror.model import mediatype
from ocimirror.model.chain import layers_with_ids
from ocimirror.model.config import MAX_SIZE_BYTES as MAX_CONFIG_BYTES
from ocimirror.model.config import ImageConfig
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.stores.archive.archive import ArchiveWriter
from ocimirror.stores.archive.tar import TarWriter
from ocimirror.stores.disk.files import FileReader
from ocimirror.stores.dockerarchive.compression import (
    MAGIC_BYTES,
    Decompressed,
    compression_of,
)
from ocimirror.stores.dockerarchive.document import MANIFEST_FILE, document_of
from ocimirror.stores.profiles import is_container_image
from ocimirror.stores.store import Source, Stored, opened, verified
from ocimirror.stores.stream import CHUNK_BYTES, Reader, VerifiedStream, Watch


class DockerArchiveWriter(ArchiveWriter):
    """Takes one image manifest with its blobs, and writes it when it is committed.

    A second image is refused, and so is a second name.

    Blobs of a layout or an archive on this machine are read then, and not before: they pass their
    check once, on the way into the tar. Those of a registry are staged beside the file.

    Args:
        path: the file, replaced when it is committed; `-` is standard output.
        durable: sync the archive before it gets its name.
    """

    names_at_once = 1
    takes_indexes = False

    def __init__(self, path: str | os.PathLike[str], *, durable: bool = True) -> None:
        super().__init__(path, durable=durable)
        self.location = f"docker-archive:{self.path}"
        self._elsewhere: dict[Digest, Source] = {}
        self._image: Descriptor | None = None
        self._name: str | None = None
        """Of the image that is complete: the one that is written."""

    def _ingest(self, descriptor: Descriptor, stream: VerifiedStream, replace: bool) -> Stored:
        if self._name is not None and not self._exists(descriptor):
            raise self._full()
        origin = stream.origin
        if descriptor.kind == "blob" and isinstance(origin, Source) and origin.local:
            self._elsewhere[descriptor.digest] = origin
            return Stored.COPIED
        if descriptor.kind == "manifest" and self._name is None:
            self._image = descriptor
        return super()._ingest(descriptor, stream, replace)

    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        for name, manifest in names:
            self._ingest(manifest.descriptor, verified(manifest), replace=False)
            if self._name is None:
                self._name = name
            elif self._image != manifest.descriptor or self._name != name:
                raise self._full()
            self._forgotten = True

    def _full(self) -> UsageError:
        return UsageError(
            f"{self.location} holds {self._name or 'an image'} already, and has room for one",
            advice="Open a DockerArchiveWriter for each image, or an ArchiveWriter for all.",
        )

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        place = self._elsewhere.get(descriptor.digest)
        if place is not None:
            return opened(place, descriptor, position)
        return super()._open(descriptor, position)

    def _exists(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self._elsewhere or super()._exists(descriptor)

    def _pack(self, tar: TarWriter, watch: Watch | None) -> None:
        if self._image is None:
            raise MissingContent(f"{self.path}: no image was copied")
        manifest = self.read_manifest(self._image)
        if not is_container_image(manifest):
            raise Unsupported(f"{self.path}: {manifest.digest} is no image of one platform")
        write_image(tar, self, manifest, self._name or "", self._staging, watch)


def write_image(
    tar: TarWriter,
    source: Source,
    manifest: Manifest,
    name: str,
    directory: str | None,
    watch: Watch | None = None,
) -> None:
    """Write the docker-archive of an image manifest, to its end.

    Args:
        tar: the archive, empty so far.
        source: has the blobs.
        manifest: of one platform.
        name: a full reference with a tag; anything else gives an image without a tag.
        directory: where a zstd layer is decompressed; None for the system's own choice.
        watch: told of each chunk; may raise.

    Raises:
        IntegrityError: a blob is damaged, or not what the config says; the tar has no end then.
        ForeignLayer: a layer that is not there.
        UsageError: a zstd layer, and the library for it is not installed.
    """
    config = manifest.blobs[0]
    with source.fetch(config, watch) as stream:
        raw = stream.read_all(MAX_CONFIG_BYTES)
    with blamed_on("source"):
        layers = layers_with_ids(manifest, ImageConfig.parse(raw, f"config {config.digest}"))
    members = [_member_of(source, layer, diff_id) for layer, diff_id in layers]
    names = [member for member, _ in members]
    config_name = f"{config.digest.encoded}.json"
    tar.member(MANIFEST_FILE, document_of(config_name, name, names))
    tar.member(config_name, raw)
    written = set[str]()
    for (member, plain), (layer, diff_id) in zip(members, layers, strict=True):
        if member in written:
            continue
        written.add(member)
        with source.fetch(layer, watch) as stream:
            if plain:
                tar.stream(member, stream)
            else:
                _write_decompressed(tar, member, stream, diff_id, directory)
    tar.end()


def _member_of(source: Source, layer: Descriptor, diff_id: Digest) -> tuple[str, bool]:
    """Return the member that a layer becomes, and whether it is written as it is."""
    if mediatype.is_foreign(layer.media_type) and not source.exists(layer):
        raise ForeignLayer(
            f"{layer.digest} is a foreign layer and not here: docker needs it in the archive"
        )
    with source.fetch(layer) as stream:
        compression = compression_of(stream.read(MAGIC_BYTES))
    if compression == "zstd":
        return f"{diff_id.encoded}.tar", False
    suffix = "tar.gz" if compression == "gzip" else "tar"
    return f"{layer.digest.encoded}.{suffix}", True


def _write_decompressed(
    tar: TarWriter, name: str, stream: VerifiedStream, diff_id: Digest, directory: str | None
) -> None:
    """Write what a layer stands for: its size is known only once it is decompressed."""
    what = f"layer {stream.descriptor.digest}"
    with (
        storage_errors(f"cannot decompress {what}"),
        tempfile.TemporaryFile(dir=directory) as file,
    ):
        content = Decompressed(stream, "zstd", stream.descriptor.size, what)
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
