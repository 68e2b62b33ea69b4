"""The lock file: every source reference, and what it stood for.

It is meant for version control: sorted by source, an image on four lines, the same records the
same bytes. It comes back from there as anybody may have edited it, so it is read as input: with a
cap, as strict JSON, refused as a whole where anything in it is not what we write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from ocimirror.errors import (
    DamagedLockFile,
    InvalidReference,
    LockConflict,
    MalformedManifest,
)
from ocimirror.model import strictjson
from ocimirror.model.codec import from_document, time_text, to_document, whole_seconds
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.later import LATER
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference
from ocimirror.stores.disk.atomic import replace_file
from ocimirror.stores.disk.files import read_input
from ocimirror.stores.entry import sparse
from ocimirror.sync.shards import Owned, Shard

SCHEMA, _OLD_SCHEMA = "ocimirror.lock/v2", "ocimirror.lock/v1"
MAX_SIZE_BYTES = 256 * 1024 * 1024
_WHOLE = Shard()
_MEDIA_TYPE = re.compile(r"[!-~]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One source reference and what it stood for.

    Platforms and attachments are kept sorted and unique, and the time in whole seconds of UTC, so
    that equal records are written as equal bytes.

    Attributes:
        source: with a tag, or a digest.
        digest: what it stood for.
        media_type: of the manifest with that digest.
        size: bytes of the whole image, as far as it was asked for.
        platforms: what was asked for; empty for everything.
        attachments: digests of the manifests that refer to it, and of cosign's tags.
        time: when the source was found to stand for this digest.
    """

    source: Reference
    digest: Digest
    media_type: str
    size: int
    platforms: tuple[str, ...]
    attachments: tuple[Digest, ...]
    time: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "platforms", tuple(sorted(set(self.platforms))))
        object.__setattr__(self, "attachments", tuple(sorted(set(self.attachments))))
        object.__setattr__(self, "time", whole_seconds(self.time))


class LockFile:
    """Records by source, immutable. Iterates over the records, sorted by source.

    Make one with `of`, `parse` or `read`.

    Attributes:
        shard: which part of a configuration it tells of.
        own: the targets that this mirror made itself, sorted.
    """

    def __init__(
        self,
        records: Mapping[Reference, ImageRecord],
        shard: Shard = _WHOLE,
        own: Iterable[Owned] = (),
    ) -> None:
        self._records = {source: records[source] for source in sorted(records, key=str)}
        self.shard = shard
        self.own = tuple(sorted({made.target: made for made in own}.values(), key=_target))

    @classmethod
    def of(
        cls,
        records: Iterable[ImageRecord] = (),
        shard: Shard = _WHOLE,
        own: Iterable[Owned] = (),
    ) -> LockFile:
        """Return a lock of these records.

        Several records of one source become one, with the platforms and attachments of all of
        them, and the earliest time; records without platforms stand for all platforms.

        Raises:
            LockConflict: records of one source have different digests.
        """
        joined: dict[Reference, ImageRecord] = {}
        for record in records:
            known = joined.get(record.source)
            joined[record.source] = record if known is None else _joined(known, record)
        return cls(joined, shard, own)

    @classmethod
    def parse(cls, raw: bytes, what: str) -> LockFile:
        """Parse a lock file's content; `what` names it in errors.

        Raises:
            DamagedLockFile: not strict JSON, keys that are missing or unknown, a source twice,
                a digest, reference, platform or time that is none.
        """
        try:
            return cls(*_parsed(raw, what))
        except (MalformedManifest, InvalidReference) as error:
            raise DamagedLockFile(f"{what}: {error.message}") from error

    @classmethod
    def read(cls, path: str) -> LockFile:
        """Read a lock file; nothing of it is believed unless all of it is valid.

        Raises:
            UsageError: there is no such file, or it has more than 256 MiB.
            DamagedLockFile: it is no lock file.
            LocalStorageError: it cannot be read.
        """
        return cls.parse(read_input(path, "lock file", MAX_SIZE_BYTES, pipes=False), path)

    def roots(self) -> Iterator[tuple[Reference, Descriptor]]:
        """Yield what each source is called and stood for, with the platforms asked for."""
        for record in self:
            platforms = [Platform.parse(text) for text in record.platforms]
            root = Descriptor(record.media_type, record.digest, 0, "manifest")
            yield record.source, sparse(root, platforms)

    def write(self, path: str, *, durable: bool = True) -> None:
        """Replace the file, atomically.

        Raises:
            LocalStorageError: it could not be written; what was there is there still.
        """
        replace_file(path, self.to_bytes(), durable=durable)

    def to_bytes(self) -> bytes:
        """Return the file's content: the same records are the same bytes."""
        images = ",".join(f"\n  {_record_object(record)}" for record in self)
        own = ",".join(f"\n  {_object(to_document(made))}" for made in self.own)
        end = "\n " if own else ""
        shard = self.shard
        named = {"configuration": shard.configuration} if shard.configuration else {}
        head = {
            "schema": SCHEMA,
            **named,
            "shard": shard.number,
            "of": shard.count,
            "run": shard.run,
        }
        return (
            f'{{{_members(head, head)},\n "own": [{own}{end}],\n "images": [{images}\n ]}}\n'
        ).encode()

    def renewed(
        self,
        records: Iterable[ImageRecord],
        shard: Shard = _WHOLE,
        own: Iterable[Owned] = (),
    ) -> LockFile:
        """Return a lock of these records; whose digest is known here already keeps its time.

        So a night on which nothing moved leaves the file as it was.

        Raises:
            LockConflict: as `of` does.
        """
        new = LockFile.of(records)
        return LockFile(
            {
                record.source: replace(record, time=known.time)
                if known is not None and known.digest == record.digest
                else record
                for record in new
                for known in [self.find(record.source)]
            },
            shard,
            own,
        )

    def find(self, source: Reference) -> ImageRecord | None:
        """Return the record of a source."""
        return self._records.get(source)

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)


def merge(locks: Iterable[LockFile]) -> LockFile:
    """Join the locks of a sync's shards into what one process would have written.

    Raises:
        LockConflict: two of them have different digests of one source.
    """
    found = list(locks)
    own = [made for lock in found for made in lock.own]
    names = sorted({lock.shard.configuration for lock in found} - {""})
    whole = Shard(configuration=names[0] if len(names) == 1 else "")
    return LockFile.of((record for lock in found for record in lock), whole, own)


def joined(lock: LockFile, others: LockFile) -> LockFile:
    """Return a lock with the records of another one besides, of sources that it lacks."""
    more = (record for record in others if lock.find(record.source) is None)
    return LockFile.of((*lock, *more), lock.shard, lock.own)


def _joined(one: ImageRecord, other: ImageRecord) -> ImageRecord:
    if one.digest != other.digest:
        raise LockConflict(
            f"{one.source.location} is {one.digest} at {time_text(one.time)}"
            f" and {other.digest} at {time_text(other.time)}",
            advice="Sync this source once more, in one process.",
        )
    whole = not one.platforms or not other.platforms
    return replace(
        one,
        size=max(one.size, other.size),
        platforms=() if whole else one.platforms + other.platforms,
        attachments=one.attachments + other.attachments,
        time=min(one.time, other.time),
    )


# --- writing ------------------------------------------------------------------------------------

# What stands on one line of a record, so that what changes shows in a diff, and nothing else.
_LINES = (("source",), ("digest", "size"), ("media_type", "time"), ("platforms", "attachments"))


def _object(document: Mapping[str, object]) -> str:
    return "{" + _members(document, document) + "}"


def _record_object(record: ImageRecord) -> str:
    document = to_document(record)
    return "{" + ",\n   ".join(_members(document, keys) for keys in _LINES) + "}"


def _members(document: Mapping[str, object], keys: Iterable[str]) -> str:
    return ", ".join(f'"{key}": {json.dumps(document[key], ensure_ascii=True)}' for key in keys)


def _target(made: Owned) -> str:
    return str(made.target)


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _OldFile:
    schema: str
    images: tuple[ImageRecord, ...]


@dataclass(frozen=True, slots=True)
class _File:
    schema: str
    shard: int
    of: int
    run: str
    own: tuple[Owned, ...]
    images: tuple[ImageRecord, ...]
    configuration: str = field(default="", metadata=LATER)


def _parsed(raw: bytes, what: str) -> tuple[dict[Reference, ImageRecord], Shard, Sequence[Owned]]:
    document = strictjson.loads(raw, "it")
    schema = document.get("schema")
    if schema not in (SCHEMA, _OLD_SCHEMA):
        raise DamagedLockFile(
            f"{what}: schema is {str(schema)[:100]!r}, wanted {SCHEMA!r}",
            advice="A newer ocimirror may have written it.",
        )
    if schema == _OLD_SCHEMA:
        return _by_source(from_document(_OldFile, document, exact=True).images), Shard(), ()
    file = from_document(_File, document, exact=True)
    shard = Shard(file.shard, file.of, file.run, file.configuration)
    return _by_source(file.images), shard, file.own


def _by_source(images: Sequence[ImageRecord]) -> dict[Reference, ImageRecord]:
    records: dict[Reference, ImageRecord] = {}
    for number, record in enumerate(images):
        _check_record(record, f"images[{number}]")
        if record.source in records:
            raise InvalidReference(f"{record.source.location} is there twice")
        records[record.source] = record
    return records


def _check_record(record: ImageRecord, what: str) -> None:
    if not _MEDIA_TYPE.fullmatch(record.media_type):
        raise InvalidReference(f"{what}: not a media type: {record.media_type[:300]!r}")
    for text in record.platforms:
        if str(Platform.parse(text)) != text:
            raise InvalidReference(f"not a platform as it is written here: {text[:300]!r}")
