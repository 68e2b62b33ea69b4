"""What an engine gives back of an image by its `save`: each member hashed as it passes.

Nothing is kept but digests, so an image of any size takes neither disk nor memory. The tar is an
engine's, and its content may be anything: members and headers are bounded, links are only followed
by name.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field

from ocimirror.engines.client import Client, Output
from ocimirror.engines.wanted import PlatformImage, Wanted
from ocimirror.errors import (
    DamagedEngineStore,
    EngineFailed,
    InvalidReference,
    MalformedManifest,
    Unsupported,
)
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.stores.dockerarchive.document import MANIFEST_FILE, MAX_SIZE_BYTES, saved_images
from ocimirror.stores.stream import CHUNK_BYTES, Reader
from ocimirror.stores.tarmembers import MAX_HEADER_BYTES, MAX_LINKS

MAX_MEMBERS = 100_000
_GONE = ("no such file", "not found", "does not exist", "not known", "unexpected eof")


@dataclass(slots=True)
class Saved:
    """The members of one `save`.

    Attributes:
        digests: of each regular member's content; `blobs/ALGORITHM/…` by that algorithm.
        links: what each link stands for.
        document: manifest.json.
    """

    digests: dict[str, Digest] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    document: bytes | None = None

    def digest_of(self, name: str) -> Digest | None:
        """Return the digest of a member, links followed; None if there is none."""
        name = posixpath.normpath(name)
        for _ in range(MAX_LINKS):
            if name in self.digests:
                return self.digests[name]
            name = self.links.get(name, name)
        return None


def hash_unpacked(
    client: Client, arguments: tuple[str, ...], wanted: Wanted, image: PlatformImage, engine: str
) -> str:
    """Hash the config and the layers of an image in an engine that keeps layers unpacked.

    Args:
        client: the engine's.
        arguments: which have it print a docker-archive of this image alone.
        wanted: the image, for errors.
        image: the platform that the engine has.
        engine: its name.

    Returns:
        What was hashed.

    Raises:
        DamagedEngineStore: it gives back something else, or cannot give it back.
        EngineFailed: it prints no archive.
    """
    saved = _saved(client, arguments, wanted, engine)
    try:
        (entry,) = saved_images(saved.document or b"", f"what {engine} saves")
    except (MalformedManifest, ValueError) as error:
        raise EngineFailed(f"{engine} save: it prints no archive of one image") from error
    layers, diff_ids = image.manifest.blobs[1:], image.config.diff_ids
    if any(d.algorithm != "sha256" for d in (image.config_digest, *diff_ids)):
        raise Unsupported(f"image {wanted.name}: a digest that is no sha256 cannot be compared")
    # (A layer that is saved as it came in is as good as its unpacked content.)
    right = [{image.config_digest}] + [
        {diff_id, *(d.digest for d in layers[number : number + 1])}
        for number, diff_id in enumerate(diff_ids)
    ]
    given = [saved.digest_of(name) for name in (entry.config, *entry.layers)]
    if len(given) != len(right):
        raise DamagedEngineStore(
            f"image {wanted.name}: {engine} gives back {len(given) - 1} layers of {len(right) - 1}"
        )
    other = [
        f"{found or 'nothing'} instead of {min(wanted_digests)}"
        for found, wanted_digests in zip(given, right, strict=True)
        if found not in wanted_digests
    ]
    if other:
        raise _damaged(wanted, engine, ", ".join(other))
    return f"config and {_number(len(diff_ids), 'layer')} (unpacked contents)"


def hash_blobs(client: Client, arguments: tuple[str, ...], wanted: Wanted, engine: str) -> str:
    """Hash what an engine gives back that keeps manifests and blobs as they came.

    What a platform's manifest needs has to come with it; platforms that are absent are not looked
    for: the receipt tells of them.

    Returns, Raises: as `hash_unpacked`.
    """
    saved = _saved(client, arguments, wanted, engine)
    blobs = {name: d for name, d in saved.digests.items() if name.startswith("blobs/")}
    descriptors = {m.digest: m.descriptor for m in wanted.manifests}
    descriptors |= {blob.digest: blob for blob in wanted.blobs}
    other = [
        f"{blobs[path]} instead of {digest}"
        for digest, descriptor in descriptors.items()
        if (path := _path_of(descriptor)) in blobs and blobs[path] != digest
    ]
    if _path_of(wanted.root.descriptor) not in blobs:
        other.append(f"nothing instead of {wanted.root.digest}")
    here = {blob.digest for blob in wanted.blobs}
    other += [
        f"nothing instead of {blob.digest}"
        for image in wanted.images
        if _path_of(image.manifest.descriptor) in blobs
        for blob in image.manifest.blobs
        if blob.digest in here and _path_of(blob) not in blobs
    ]
    if other:
        raise _damaged(wanted, engine, ", ".join(dict.fromkeys(other)))
    given = set(blobs.values())
    manifests = len({m.digest for m in wanted.manifests} & given)
    return f"{_number(manifests, 'manifest')} and {_number(len(here & given), 'blob')} as they came"


def _path_of(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.encoded}"


def _damaged(wanted: Wanted, engine: str, what: str) -> DamagedEngineStore:
    return DamagedEngineStore(
        f"image {wanted.name}: {engine} gives back {what}",
        advice="Remove the image from the engine (and what else has this layer), then load it"
        " again.",
    )


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _saved(client: Client, arguments: tuple[str, ...], wanted: Wanted, engine: str) -> Saved:
    try:
        with Output(client, *arguments) as output:
            saved = hashed(output, f"{engine} save")
            while output.read(CHUNK_BYTES):
                pass  # (its exit code comes at the end)
            return saved
    except (EngineFailed, DamagedEngineStore) as error:
        if isinstance(error, DamagedEngineStore) or any(
            words in error.message.lower() for words in _GONE
        ):
            raise _damaged(wanted, engine, f"not all of it: {error.message}") from error
        raise


def hashed(reader: Reader, what: str) -> Saved:
    """Hash each member of a tar as it passes.

    Args:
        reader: of the tar; what comes after its end is not read.
        what: names it in errors.

    Raises:
        DamagedEngineStore: it is cut off.
        EngineFailed: it is no tar, or it has too many members.
    """
    saved = Saved()
    stream = _Forward(reader)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
            for number, member in enumerate(tar):
                if number >= MAX_MEMBERS:
                    raise EngineFailed(f"{what}: more than {MAX_MEMBERS} members")
                tar.members = []  # (tarfile keeps every header it saw)
                stream.begun = True
                _take(member, stream, saved)
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        while reader.read(CHUNK_BYTES):
            pass  # (a client that failed says why at the end of what it prints)
        # (Docker's containerd store stops in the middle of what it cannot read, exit code 0.)
        kind = DamagedEngineStore if saved.digests or stream.begun else EngineFailed
        raise kind(f"{what}: it prints no whole archive: {error}") from error
    return saved


def _take(member: tarfile.TarInfo, stream: _Forward, saved: Saved) -> None:
    name = posixpath.normpath(member.name)
    if member.issym() or member.islnk():
        base = posixpath.dirname(name) if member.issym() else ""
        saved.links[name] = posixpath.normpath(posixpath.join(base, member.linkname))
    if not member.isreg():
        return
    kept = bytearray()
    hasher, algorithm = _hasher_for(name)

    def take(chunk: bytes) -> None:
        hasher(chunk)
        if name == MANIFEST_FILE and len(kept) <= MAX_SIZE_BYTES:
            kept.extend(chunk)

    stream.content(member.size, take)
    saved.digests[name] = algorithm()
    if name == MANIFEST_FILE:
        saved.document = bytes(kept)


def _hasher_for(name: str) -> tuple[Callable[[bytes], None], Callable[[], Digest]]:
    algorithm = "sha256"
    parts = name.split("/")
    if len(parts) == 3 and parts[0] == "blobs":
        try:
            stated = Digest.parse(f"{parts[1]}:{parts[2]}")
            algorithm = stated.algorithm if stated.verifiable else algorithm
        except InvalidReference:
            pass
    hasher = Digest.of(b"", algorithm).hasher()
    return hasher.update, lambda: Digest.parse(f"{algorithm}:{hasher.hexdigest()}")


class _Forward:
    """A tar that comes through a pipe: headers of a bounded size, and no way back."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._at = 0
        self.begun = False

    def read(self, amount: int = -1, /) -> bytes:
        if not 0 <= amount <= MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header larger than 1 MiB")
        pieces = []
        while amount and (chunk := self._reader.read(amount)):
            pieces.append(chunk)
            amount -= len(chunk)
            self._at += len(chunk)
        return b"".join(pieces)

    def content(self, size: int, take: Callable[[bytes], None]) -> None:
        """Read a member's content."""
        while size:
            chunk = self._reader.read(min(size, CHUNK_BYTES))
            if not chunk:
                raise tarfile.ReadError("it ends in the middle of a member")
            take(chunk)
            size -= len(chunk)
            self._at += len(chunk)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence != 0 or offset < self._at:
            raise tarfile.ReadError("a step back")
        self.content(offset - self._at, lambda _: None)
        return self._at

    def close(self) -> None:
        pass
