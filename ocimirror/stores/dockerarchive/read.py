"""A docker-archive as a source: its images, each with the manifest it came with or a made one."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace

from ocimirror.errors import (
    DamagedLayout,
    DigestMismatch,
    IntegrityError,
    InvalidReference,
    MalformedManifest,
    MissingContent,
    OciMirrorError,
    SizeMismatch,
    Unsupported,
)
from ocimirror.model import mediatype
from ocimirror.model.config import MAX_SIZE_BYTES as MAX_CONFIG_BYTES
from ocimirror.model.config import ImageConfig
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Descent
from ocimirror.model.manifest import Manifest
from ocimirror.model.reference import Reference
from ocimirror.stores.archive.tarmembers import TarMembers
from ocimirror.stores.dockerarchive.compression import (
    MAGIC_BYTES,
    Compression,
    Decompressed,
    compression_of,
)
from ocimirror.stores.dockerarchive.document import (
    MANIFEST_FILE,
    MAX_SIZE_BYTES,
    SavedImage,
    saved_images,
)
from ocimirror.stores.dockerarchive.synthesis import (
    LAYER_TYPES,
    is_broken,
    is_made_up,
    manifest_for,
)
from ocimirror.stores.entry import IMAGE_NAME, REF_NAME, Entry, is_synthesised, synthesised
from ocimirror.stores.layout import index as layout_index
from ocimirror.stores.layout.index import LayoutIndex
from ocimirror.stores.layout.layoutfile import LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES, check_layout_file
from ocimirror.stores.layout.partial import held
from ocimirror.stores.layout.source import LayoutSource
from ocimirror.stores.profiles import blob_path, is_container_image
from ocimirror.stores.stream import CHUNK_BYTES, Reader, Watch
from ocimirror.stores.unreadable import UnreadableEntry


def is_docker_archive(path: str) -> bool:
    """Whether a tar is better read as a docker-archive than as the image layout it may hold too.

    So it is where there is no layout, or an engine has made that up: Docker 25 lists no layers.
    """
    try:
        members = TarMembers(path, links=True)
        try:
            names = [name for name in (MANIFEST_FILE, "repositories") if name in members]
            layout = LAYOUT_FILE in members
        finally:
            members.close()
        if not names or not layout:
            return bool(names)
        with DockerArchive(path) as archive:
            return any(is_synthesised(entry.descriptor) for entry in archive.entries())
    except OciMirrorError:
        return False  # (whoever opens it says what is wrong)


class DockerArchive(LayoutSource):
    """A tar of `docker save`, `podman save`, `ctr export`, buildx, kaniko, for reading.

    An image whose original manifest is in the archive has that one. Any other gets one that is
    made of its config and layers; its entry says so. What the config says of the layers is
    checked: of uncompressed ones as they are read, of compressed ones when the archive is opened.

    Args:
        path: the file; `-` is standard input, kept in a temporary file first.
        watch: told the number of bytes of each chunk that is decompressed; raises to stop.

    Attributes:
        misnamed: configs that are not what their names say, which are taken as they are, as by
            `docker load` (some tools call them by anything), and what to say of each.

    Raises:
        NotFound: there is no such file.
        IntegrityError: not a tar, not a docker-archive, hostile, or not what it says of itself.
        Unsupported: saved by Docker before 1.10.
        UsageError: zstd layers, and the library for them is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], watch: Watch | None = None) -> None:
        self.path = path = os.fspath(path)
        self._watch = watch
        self.location = f"docker-archive:{path}"
        self._unreadable: tuple[UnreadableEntry, ...] = ()
        self.misnamed: dict[Digest, str] = {}
        self._made: dict[Digest, bytes] = {}
        self._named: dict[Digest, str] = {}
        self._compressed: dict[str, tuple[Descriptor, Digest]] = {}
        self._members = TarMembers(path, links=True, watch=watch)
        try:
            entries = self._read_entries()
            self._index = LayoutIndex.of(entries, path, self._unreadable)
        except BaseException:
            self.close()
            raise

    def _read_entries(self) -> list[Entry]:
        raw = self._document(MANIFEST_FILE, MAX_SIZE_BYTES)
        layout = self._document(LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES)
        if raw is None and layout is None:
            raise self._not_one()
        entries: list[Entry] = []
        originals: dict[Digest, Entry] = {}
        if layout is not None:
            check_layout_file(layout, self.path)
            document = self._document("index.json", layout_index.MAX_SIZE_BYTES)
            index = LayoutIndex.parse(document or b"", self.path)
            self._unreadable = index.unreadable
            for entry in index.entries:
                self._take_entry(entry, entries, originals)
        errors: list[OciMirrorError] = []
        images = saved_images(raw, self.path) if raw is not None else []
        for number, image in enumerate(images):
            try:
                if isinstance(image, MalformedManifest):
                    raise image
                entries += self._entries_of(image, entries, originals)
            except (IntegrityError, Unsupported) as error:
                errors.append(error)
                self._unreadable += (_unreadable(number, image, error),)
        if errors and not entries:
            raise errors[0]
        return entries

    def _not_one(self) -> OciMirrorError:
        if "repositories" in self._members:
            return Unsupported(
                f"{self.path} was saved by Docker before 1.10: it names images by random IDs",
                advice="Load it into a current docker, and save it from there.",
            )
        return DamagedLayout(f"{self.path} is no docker-archive: it has no {MANIFEST_FILE}")

    def _document(self, name: str, limit: int) -> bytes | None:
        member = self._members.find(name)
        return None if member is None else self._members.small(member, limit)

    # --- original manifests --------------------------------------------------------------------

    def _take_entry(
        self, entry: Entry, entries: list[Entry], originals: dict[Digest, Entry]
    ) -> None:
        """Take in an entry of index.json, unless an engine wrote nonsense there."""
        configs = []
        made_up = False
        try:
            for manifest in self._images_of(entry.descriptor):
                config = manifest.blobs[0]
                diff_ids = self._original_config(config).diff_ids
                alone = manifest.digest == entry.descriptor.digest
                if alone and is_broken(manifest, diff_ids):
                    return
                made_up = alone and is_made_up(manifest, diff_ids)
                configs.append(config.digest)
        except (IntegrityError, Unsupported):
            pass  # (whoever reads it says what is wrong; a sparse image may be all right)
        if made_up:
            entry = replace(entry, descriptor=synthesised(entry.descriptor))
        entry = replace(entry, descriptor=held(self, entry.descriptor))
        entries.append(entry)
        for digest in configs:
            originals.setdefault(digest, entry)

    def _images_of(self, root: Descriptor) -> Iterator[Manifest]:
        descent = Descent(root)
        for named in descent:
            manifest = self.read_manifest(named)
            if is_container_image(manifest):
                yield manifest
            descent.add(named, filter(self.exists, manifest.manifests))

    def _original_config(self, config: Descriptor) -> ImageConfig:
        with self.fetch(config) as stream:
            return ImageConfig.parse(stream.read_all(MAX_CONFIG_BYTES), f"config {config.digest}")

    # --- manifests made here -------------------------------------------------------------------

    def _entries_of(
        self, image: SavedImage, known: list[Entry], originals: dict[Digest, Entry]
    ) -> list[Entry]:
        """Return what an image of manifest.json adds to the entries that are known."""
        raw = self._config(image)
        image_id = Digest.of(raw)
        original = originals.get(image_id)
        if original is not None:
            root = original.descriptor
        else:
            root = self._synthesise(image, raw).descriptor
        names = {spelled(entry.name) for entry in known if entry.descriptor.digest == root.digest}
        entries = [
            Entry(root, str(reference), reference.tag)
            for reference in image.references
            if str(reference) not in names
        ]
        return entries or ([] if original is not None else [Entry(root, "", "")])

    def _config(self, image: SavedImage) -> bytes:
        raw = self._document(image.config, MAX_CONFIG_BYTES)
        if raw is None:
            raise DamagedLayout(f"{self.path}: config {image.config!r} is not in the archive")
        found = Digest.of(raw)
        if image.stated_id not in (None, found):
            text = f"{self.path}: config {image.config!r} has digest {found}"
            if image.by_content:
                raise DigestMismatch(f"{text}, wanted {image.stated_id}")
            self.misnamed[found] = f"{text}: it is damaged, or was named so by whoever made it"
        return raw

    def _synthesise(self, image: SavedImage, raw: bytes) -> Manifest:
        config = Descriptor(mediatype.OCI_CONFIG, Digest.of(raw), len(raw))
        diff_ids = ImageConfig.parse(raw, f"config {config.digest} in {self.path}").diff_ids
        if len(diff_ids) != len(image.layers):
            raise MalformedManifest(
                f"{self.path}: image {config.digest} has {len(image.layers)} layers, and its"
                f" config {len(diff_ids)} diff_ids"
            )
        layers = [
            self._layer(name, diff_id) for name, diff_id in zip(image.layers, diff_ids, strict=True)
        ]
        manifest = manifest_for(config, layers)
        self._made[config.digest] = raw
        self._made[manifest.digest] = manifest.raw
        return manifest

    def _layer(self, name: str, diff_id: Digest) -> Descriptor:
        member = self._members.find(name)
        if member is None:
            raise DamagedLayout(f"{self.path}: layer {name!r} is not in the archive")
        compression = compression_of(self._members.reader(member).read(MAGIC_BYTES))
        if compression == "":
            # (Its digest is its diff_id, which is checked whenever it is read.)
            layer = Descriptor(LAYER_TYPES[""], diff_id, self._members.size_of(member) or 0)
        elif compression in LAYER_TYPES:
            layer = self._compressed_layer(member, compression, diff_id)
        else:
            raise Unsupported(
                f"{self.path}: layer {name!r} is compressed with {compression}: OCI has no such"
                " layers",
                advice="Load it into a current docker, and save it from there.",
            )
        self._named.setdefault(layer.digest, member)
        return layer

    def _compressed_layer(
        self, member: str, compression: Compression, diff_id: Digest
    ) -> Descriptor:
        """Hash a layer as it is, and what it stands for, in one pass."""
        if member not in self._compressed:
            size = self._members.size_of(member) or 0
            reader = _Hashing(self._members.reader(member))
            what = f"layer {member!r} of {self.path}"
            content = Decompressed(reader, compression, size, what)
            hasher = diff_id.hasher()
            while chunk := content.read(CHUNK_BYTES):
                hasher.update(chunk)
                if self._watch is not None:
                    self._watch(len(chunk))
            digest = reader.digest()
            layer = Descriptor(LAYER_TYPES[compression], digest, size)
            stands_for = Digest.parse(f"{diff_id.algorithm}:{hasher.hexdigest()}")
            self._compressed[member] = layer, stands_for
        layer, stands_for = self._compressed[member]
        if stands_for != diff_id:
            raise DigestMismatch(
                f"{self.path}: layer {member!r} decompresses to {stands_for}, wanted {diff_id}"
            )
        return layer

    # --- a source ------------------------------------------------------------------------------

    def index(self) -> LayoutIndex:
        """Return the images as index.json would have them."""
        return self._index

    def size_of(self, digest: Digest) -> int | None:
        """Return the size of a config, layer or manifest, None where there is none."""
        if digest in self._made:
            return len(self._made[digest])
        return self._members.size_of(self._member_of(digest))

    def _member_of(self, digest: Digest) -> str:
        path = blob_path(digest)
        return self._named.get(digest) or self._members.find(path) or path

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        size = self.size_of(descriptor.digest)
        if size is None:
            raise MissingContent(f"{self.path}: {descriptor} is missing")
        if size != descriptor.size:
            raise SizeMismatch(
                f"{self.path}: {descriptor.digest} has {size} bytes, wanted {descriptor.size}"
            )
        if descriptor.digest in self._made:
            return io.BytesIO(self._made[descriptor.digest][position:])
        return self._members.reader(self._member_of(descriptor.digest), position)

    def _close(self) -> None:
        self._members.close()


def _unreadable(
    number: int, image: SavedImage | MalformedManifest, error: OciMirrorError
) -> UnreadableEntry:
    """Return an image of manifest.json that cannot be read as index.json would have it."""
    keys = IMAGE_NAME, REF_NAME
    names = [str(each) for each in image.references] if isinstance(image, SavedImage) else []
    document = {"annotations": {keys[0]: names[0]}} if names else {}
    return UnreadableEntry(number, error.message, document, keys)


class _Hashing:
    """A reader that hashes what goes through."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._hash = Digest.of(b"").hasher()

    def read(self, amount: int, /) -> bytes:
        chunk = self._reader.read(amount)
        self._hash.update(chunk)
        return chunk

    def digest(self) -> Digest:
        """Hash what is left too; return the digest of everything."""
        while self.read(CHUNK_BYTES):
            pass
        return Digest.parse(f"sha256:{self._hash.hexdigest()}")

    def close(self) -> None:
        self._reader.close()


def spelled(name: str) -> str:
    """Return an entry's name as a full reference, or as it is."""
    try:
        return str(Reference.parse(name).readable()) if "/" in name else name
    except InvalidReference:
        return name
