"""Docker's data root on the disk, as far as names of images need it.

    image/<driver>/repositories.json          the reference store, see `references`
    image/<driver>/imagedb/content/sha256/    the config of each image, by image ID
    image/<driver>/layerdb/sha256/            what is known of each layer, by chain ID

Images are only read here. The reference store is written while no dockerd uses the data root, so
that a crash at any moment leaves the old file or the new one, and a backup of the old one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ocimirror.engines.docker.references import MAX_SIZE_BYTES, DockerReferences
from ocimirror.engines.docker.use import kept_from_dockerd
from ocimirror.errors import (
    DamagedEngineStore,
    LocalStorageError,
    NotFound,
    UsageError,
    storage_error,
    storage_errors,
)
from ocimirror.model.chain import chain_ids
from ocimirror.model.config import MAX_SIZE_BYTES as MAX_CONFIG_BYTES
from ocimirror.model.config import ImageConfig
from ocimirror.model.digest import Digest
from ocimirror.stores.disk.files import open_regular, read_bounded
from ocimirror.stores.disk.oslayer import OsLayer

FILE = "repositories.json"
_MAX_DIFF_BYTES = 256
_AS_ROOT = "Docker's files belong to root: run this as root."


class DockerRoot:
    """One graphdriver's store below a data root.

    Args:
        data_root: Docker's directory, as /var/lib/docker.
        driver: the name of the storage driver, as overlay2; empty for the only one there is.

    Raises:
        NotFound: no reference store is there.
        UsageError: several are, and no driver is given.
    """

    def __init__(self, data_root: str, driver: str = "") -> None:
        self._os = OsLayer()
        self.data_root = os.path.abspath(data_root)
        self.driver = driver or self._only_driver()
        self._directory = os.path.join(self.data_root, "image", self.driver)
        self.path = os.path.join(self._directory, FILE)
        if not _exists(self.path):
            raise NotFound(
                f"there is no {self.path}",
                advice="dockerd makes it when it first starts with this storage driver.",
            )

    def _only_driver(self) -> str:
        parent = os.path.join(self.data_root, "image")
        try:
            names = sorted(os.listdir(parent))
        except FileNotFoundError as error:
            raise NotFound(
                f"{self.data_root} is no data root of Docker with a storage driver",
                advice="It has no directory image/; the containerd store needs none, and keeps"
                " digests by itself.",
            ) from error
        except OSError as error:
            raise _refused(error, parent) from error
        drivers = [name for name in names if _exists(os.path.join(parent, name, FILE))]
        if not drivers:
            raise NotFound(f"there is no {FILE} in {parent}/*")
        if len(drivers) > 1:
            raise UsageError(
                f"{parent} has several storage drivers: {', '.join(drivers)}",
                advice="Name the one in use with --driver.",
            )
        return drivers[0]

    # --- reading -------------------------------------------------------------------------------

    def references(self) -> DockerReferences:
        """Return the reference store as it is on the disk.

        Raises:
            DamagedEngineStore: it is not what dockerd writes.
        """
        return DockerReferences.parse(self._read(self.path, MAX_SIZE_BYTES), self.path)

    def image_ids(self) -> list[Digest]:
        """Return the IDs of all images, sorted."""
        directory = os.path.join(self._directory, "imagedb", "content", "sha256")
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _refused(error, directory) from error
        hexadecimal = [n for n in names if len(n) == 64 and set(n) <= set("0123456789abcdef")]
        return [Digest.parse(f"sha256:{name}") for name in hexadecimal]

    def has(self, image_id: Digest) -> bool:
        """Whether an image is there; its content is not looked at."""
        return image_id.algorithm == "sha256" and _exists(self._config_path(image_id))

    def config(self, image_id: Digest) -> bytes:
        """Return the config of an image, which hashes to the image's ID.

        Raises:
            DamagedEngineStore: it hashes to something else.
        """
        path = self._config_path(image_id)
        raw = self._read(path, MAX_CONFIG_BYTES)
        if Digest.of(raw) != image_id:
            raise DamagedEngineStore(f"{path} has the digest {Digest.of(raw)}")
        return raw

    def check_layers(self, config: ImageConfig, image_id: Digest) -> None:
        """Check that the layers of a config are what Docker has for its image.

        Raises:
            DamagedEngineStore: a layer is not there, or another one is.
        """
        called = zip(config.diff_ids, chain_ids(config.diff_ids), strict=True)
        for number, (diff_id, chain_id) in enumerate(called):
            path = os.path.join(self._directory, "layerdb", "sha256", chain_id.encoded, "diff")
            if self._read(path, _MAX_DIFF_BYTES).strip() != str(diff_id).encode():
                raise DamagedEngineStore(f"{path}: layer {number} of {image_id} is not {diff_id}")

    def _config_path(self, image_id: Digest) -> str:
        parts = ("imagedb", "content", image_id.algorithm, image_id.encoded)
        return os.path.join(self._directory, *parts)

    def _read(self, path: str, limit: int) -> bytes:
        try:
            fd = open_regular(path)
        except FileNotFoundError as error:
            raise DamagedEngineStore(f"there is no {path}") from error
        except OSError as error:
            raise _refused(error, path) from error
        with open(fd, "rb") as file, storage_errors(f"cannot read {path}"):
            raw = read_bounded(file, limit)
        if len(raw) > limit:
            raise DamagedEngineStore(f"{path} is larger than {limit} bytes")
        return raw

    # --- writing -------------------------------------------------------------------------------

    def edit(
        self, edit: Callable[[DockerReferences], bytes], pid_files: Sequence[str], now: datetime
    ) -> str:
        """Replace the reference store, durably and whole; return the path of the old one's backup.

        Args:
            edit: makes the new file of the current one.
            pid_files: where the process id of a dockerd would be.
            now: names the backup.

        Raises:
            EngineRunning: a dockerd uses the data root.
        """
        with kept_from_dockerd(self.data_root, pid_files):
            # (1) As it is now: dockerd wrote it last when it stopped.
            old = self._read(self.path, MAX_SIZE_BYTES)
            new = edit(DockerReferences.parse(old, self.path))
            # (2) The backup is on the disk before the new file has the name.
            backup = self._backup_path(now)
            self._write(backup, old)
            # (3) The new file takes the name.
            self._write(self.path, new)
            return backup

    def put_back(self, backup: str, written: bytes) -> None:
        """Give the name to what the backup holds, where the file is still what was written.

        The backup stays.
        """
        if self.raw() == written:
            self._write(self.path, self._read(backup, MAX_SIZE_BYTES))

    def raw(self) -> bytes:
        """Return the bytes of the reference store."""
        return self._read(self.path, MAX_SIZE_BYTES)

    def _backup_path(self, now: datetime) -> str:
        name = f"{self.path}.ocimirror-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        taken = 1
        path = name
        while os.path.lexists(path):
            taken += 1
            path = f"{name}-{taken}"
        return path

    def _write(self, path: str, content: bytes) -> None:
        # (One name for the temporary file: what a killed run left is in nobody's way.)
        temporary = os.path.join(self._directory, f".tmp-{FILE}.ocimirror")
        with storage_errors(f"cannot write {path}"):
            old = os.stat(self.path, follow_symlinks=False)
            if os.path.lexists(temporary):
                self._os.unlink(temporary)
            fd = self._os.create(temporary)
            try:
                # (As dockerd's are, before there is anything to read.)
                os.fchmod(fd, stat.S_IRUSR | stat.S_IWUSR)
                os.fchown(fd, old.st_uid, old.st_gid)
                self._os.write(fd, content)
                self._os.sync(fd)
            finally:
                self._os.close(fd)
            self._os.rename(temporary, path)
            self._os.sync_directory(self._directory)


def _exists(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _refused(error, path) from error


def _refused(error: OSError, path: str) -> LocalStorageError:
    refused = storage_error(error, f"cannot read {path}")
    if isinstance(error, PermissionError):
        return type(refused)(refused.message, advice=_AS_ROOT)
    return refused
