"""An OCI image layout in a tar: read at random, written whole and deterministically.

Reading is tarmembers.py's. Writing stages a layout and packs it: the same index.json over
the same content gives the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial

from ocimirror.errors import (
    DamagedLayout,
    MissingContent,
    OciMirrorError,
    SizeMismatch,
    storage_error,
    storage_errors,
)
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.model.mediatype import OCTET_STREAM
from ocimirror.model.platform import Platform
from ocimirror.stores.archive.tar import TarWriter
from ocimirror.stores.archive.tarmembers import TarMembers
from ocimirror.stores.disk.atomic import ABANDONED_S, FileLock, NewFile
from ocimirror.stores.disk.oslayer import OsLayer
from ocimirror.stores.layout import index as layout_index
from ocimirror.stores.layout.index import LayoutIndex
from ocimirror.stores.layout.layout import Layout
from ocimirror.stores.layout.layoutfile import LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES, check_layout_file
from ocimirror.stores.layout.partial import with_held
from ocimirror.stores.layout.source import LayoutSource
from ocimirror.stores.layout.writable import refuse_unwritable_archive
from ocimirror.stores.profiles import (
    Profile,
    docker_manifest,
    has_docker_manifest,
    image_in,
    index_document,
)
from ocimirror.stores.stream import Reader, Watch


class Archive(LayoutSource):
    """A tar that holds an image layout, for reading.

    Args:
        path: the file; `-` is standard input; gzip and zstd are decompressed.
        watch: called often while the archive is opened; raises to stop.

    Raises:
        NotFound: there is no such file.
        DamagedLayout: not a tar, not a layout, or members that no layout has: links, devices,
            `..`, duplicates, sizes that do not fit the file.
    """

    def __init__(self, path: str | os.PathLike[str], watch: Watch | None = None) -> None:
        self.path = path = os.fspath(path)
        self.location = f"oci-archive:{path}"
        self._members = TarMembers(path, watch=watch)
        try:
            stated = self._members.small(LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES)
            if stated is not None:  # (some tools leave it out)
                check_layout_file(stated, path)
            raw = self._document("index.json", layout_index.MAX_SIZE_BYTES)
            self._index = with_held(self, LayoutIndex.parse(raw, path), path)
        except BaseException:
            self.close()
            raise

    def _document(self, name: str, limit: int) -> bytes:
        raw = self._members.small(name, limit)
        if raw is None:
            raise DamagedLayout(f"{self.path} is not an OCI archive: it has no {name}")
        return raw

    def index(self) -> LayoutIndex:
        """Return index.json as it was when the archive was opened."""
        return self._index

    def size_of(self, digest: Digest) -> int | None:
        """Return the size of the member of that name, None where there is none."""
        return self._members.size_of(_member_name(digest))

    def blob_files(self) -> list[tuple[str, str]]:
        """Return (member name, digest text) of each member under blobs/, sorted."""
        names = sorted(name for name in self._members if name.startswith("blobs/"))
        return [(name, ":".join(name.split("/")[1:])) for name in names]

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        name = _member_name(descriptor.digest)
        size = self._members.size_of(name)
        if size is None:
            raise MissingContent(f"{self.path}: {descriptor} is missing")
        if size != descriptor.size:
            raise SizeMismatch(
                f"{self.path}: {descriptor.digest} has {size} bytes, wanted {descriptor.size}"
            )
        return self._members.reader(name, position)

    def _close(self) -> None:
        self._members.close()


def _member_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


_STAGING = ".ocimirror-archive-"


def _remove_abandoned_staging(directory: str) -> None:
    """Remove what a killed writer staged; its lock died with it."""
    for entry in os.scandir(directory):
        lock = os.path.join(entry.path, ".ocimirror", "lock")
        if not entry.name.startswith(_STAGING) or not os.path.isfile(lock):
            continue
        with contextlib.suppress(OciMirrorError, OSError):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime < ABANDONED_S:
                continue  # (perhaps made, and not locked yet)
            held = FileLock(lock, create=False)
            try:
                held.acquire("exclusive", wait=False)
                shutil.rmtree(entry.path)
            finally:
                held.release()


class ArchiveWriter(Layout):
    """A layout in a temporary directory beside the file it will become.

    Nothing is visible under the file's name before `commit`, which replaces what was there, and
    after which nothing more is taken. Leaving the context without it writes no file, and warns:

        with ArchiveWriter("images.tar") as archive:
            copy(registry["team/app:1.0"], archive)
            archive.commit()

    Args:
        path: the file; `-` is standard output.
        durable: sync the archive before it gets its name.
        profile: the engine it is for; else index.json is a layout's, with everything in it.
        platforms: which one a manifest.json is about, where there are several.
    """

    mendable = False
    _forgotten: bool = False
    """Something was named here, and no file was asked for."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durable: bool = True,
        profile: Profile | None = None,
        platforms: Sequence[Platform] = (),
    ) -> None:
        path = os.fspath(path)
        beside = tempfile.gettempdir() if path == "-" else os.path.dirname(os.path.abspath(path))
        if path != "-":
            refuse_unwritable_archive(path)
        try:
            _remove_abandoned_staging(beside)
            self._staging = tempfile.mkdtemp(prefix=_STAGING, dir=beside)
        except OSError as error:
            raise storage_error(error, f"cannot write {path}") from error
        super().__init__(self._staging, write=True, durable=False)
        self.path = path
        self._beside = os.path.abspath(beside)
        try:
            self._os.hold(self._beside)
        except OSError as error:
            self.close()
            raise storage_error(error, f"cannot write {path}") from error
        self.location = f"oci-archive:{path}"
        self._sync_archive = durable
        self._profile = profile
        self._platforms = platforms

    def _tag(self, names: Sequence[tuple[str, Manifest]]) -> None:
        super()._tag(names)
        self._forgotten = True

    def _commit(self, watch: Watch | None) -> int:
        self._forgotten = False
        written = self._write(watch)
        self._sealed = (
            "was committed, and takes nothing more",
            "Copy all of its images first, and commit then; or open another.",
        )
        return written

    def _write(self, watch: Watch | None) -> int:
        """Write the archive: the documents, then blobs in the order of their digests.

        Each blob passes its check once more on the way into the archive.
        """
        if self.path == "-":
            try:
                # (Not its buffer: what a full disk leaves there fails once more at exit.)
                sys.stdout.flush()
                tar = TarWriter(partial(OsLayer().write, sys.stdout.fileno()))
                self._pack(tar, watch)
            except OSError as error:
                raise storage_error(error, "cannot write standard output") from error
            return tar.written
        final = os.path.abspath(self.path)
        packed = os.path.join(self._root, "archive.tar")
        with NewFile(self._os, packed, final, durable=self._sync_archive) as file:
            tar = TarWriter(file.write)
            self._pack(tar, watch)
            file.commit()
        self.refuse_replaced("the archive is in the directory that was there")
        if self._sync_archive:
            with storage_errors(f"cannot sync the directory of {final}"):
                self._os.sync_directory(self._beside)
        return tar.written

    def _pack(self, tar: TarWriter, watch: Watch | None) -> None:
        for name, content in self._documents():
            tar.member(name, content)
        files = list(self.blob_files())
        directories = {name.rpartition("/")[0] for name, _ in files}
        for directory in sorted({"blobs", *directories}):
            tar.directory(directory)
        for name, text in files:
            digest = Digest.parse(text)
            descriptor = Descriptor(OCTET_STREAM, digest, self.size_of(digest) or 0)
            with self.fetch(descriptor, watch) as stream:
                tar.stream(name, stream)
        tar.end()

    def _documents(self) -> Iterator[tuple[str, bytes]]:
        yield LAYOUT_FILE, self._read_small(LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES) or b""
        if self._profile is None:
            yield "index.json", self._read_small("index.json", layout_index.MAX_SIZE_BYTES) or b""
            return
        images = [
            image_in(self, entry.name, entry.descriptor, self._platforms)
            for entry in self.entries()
        ]
        yield "index.json", index_document(self._profile, images)
        if has_docker_manifest(self._profile):
            yield "manifest.json", docker_manifest(images)

    def _close(self) -> None:
        if self._forgotten and sys.exc_info()[0] is None:
            said = f"{self.location} was closed without commit(): what was copied is in no file"
            warnings.warn(said, UserWarning, stacklevel=4)
        self._forgotten = False
        # (In the directory that it was made in, whatever has that path by now.)
        name, beside = self._os.at(self._staging)
        shutil.rmtree(name, ignore_errors=True, dir_fd=beside)
        super()._close()
