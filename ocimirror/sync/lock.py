"""The lock file: every source reference, and what it stood for.

It is meant for version control: sorted by source, an image on four lines, the same records the
same bytes. It comes back from there as anybody may have edited it, so it is read as input: with a
cap, as strict JSON, refused as a whole where anything in it is not what we write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from ocimirror.errors import (
    DamagedLockFile,
    InvalidReference,
    LockConflict,
    MalformedManifest,
)
from ocimirror.model import strictjson
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location, Reference
from ocimirror.stores.disk.atomic import replace_file
from ocimirror.stores.disk.files import read_input
from ocimirror.stores.layout.entry import sparse
from ocimirror.sync.record import ImageRecord, parse_time, time_text
from ocimirror.sync.shards import Owned, Shard

DEFAULT_NAME = "the lock file"
SCHEMA, _OLD_SCHEMA = "ocimirror.lock/v2", "ocimirror.lock/v1"
MAX_SIZE_BYTES = 256 * 1024 * 1024
_MAX_NUMBER = 2**63 - 1
_WHOLE = Shard()
_MEDIA_TYPE = re.compile(r"[!-~]{1,255}", re.ASCII)
_KEYS = {
    "source": str,
    "digest": str,
    "size": int,
    "media_type": str,
    "time": str,
    "platforms": list,
    "attachments": list,
}


class LockFile:
    """Records by source, immutable. Iterates over the records, sorted by source.

    Make one with `of`, `parse` or `read`.

    Attributes:
        shard: which part of a configuration it tells of.
        own: the targets that this mirror made itself, sorted.
    """

    def __init__(
        self,
        records: Mapping[str, ImageRecord],
        shard: Shard = _WHOLE,
        own: Iterable[Owned] = (),
    ) -> None:
        self._records = {source: records[source] for source in sorted(records)}
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
        joined: dict[str, ImageRecord] = {}
        for record in records:
            known = joined.get(record.source)
            joined[record.source] = record if known is None else _joined(known, record)
        return cls(joined, shard, own)

    @classmethod
    def parse(cls, raw: bytes, what: str = DEFAULT_NAME) -> LockFile:
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
            reference = Location.parse(record.source).reference
            if reference is not None:
                platforms = [Platform.parse(text) for text in record.platforms]
                root = Descriptor(record.media_type, record.digest, 0, "manifest")
                yield reference, sparse(root, platforms)

    def write(self, path: str, *, durable: bool = True) -> None:
        """Replace the file, atomically.

        Raises:
            LocalStorageError: it could not be written; what was there is there still.
        """
        replace_file(path, self.to_bytes(), durable=durable)

    def to_bytes(self) -> bytes:
        """Return the file's content: the same records are the same bytes."""
        images = ",".join(f"\n  {_lines(record)}" for record in self)
        own = ",".join(f"\n  {_own_line(made)}" for made in self.own) + ("\n " * bool(self.own))
        shard = f'"shard": {self.shard.number}, "of": {self.shard.count}'
        if self.shard.configuration:
            shard = f'"configuration": {_text(self.shard.configuration)}, {shard}'
        return (
            f'{{"schema": {_text(SCHEMA)}, {shard}, "run": {_text(self.shard.run)},\n'
            f' "own": [{own}],\n "images": [{images}\n ]}}\n'
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

    def find(self, source: str) -> ImageRecord | None:
        """Return the record of a source."""
        return self._records.get(source)

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LockFile) and (self._records, self.shard, self.own) == (
            other._records,
            other.shard,
            other.own,
        )

    __hash__ = None  # type: ignore[assignment]


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
            f"{one.source} is {one.digest} at {time_text(one.time)}"
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


def _lines(record: ImageRecord) -> str:
    """Return a record on four lines, so that what changes shows in a diff, and nothing else."""
    platforms = _text(list(record.platforms))
    attachments = _text([str(digest) for digest in record.attachments])
    return (
        f'{{"source": {_text(record.source)},\n'
        f'   "digest": {_text(str(record.digest))}, "size": {record.size},\n'
        f'   "media_type": {_text(record.media_type)}, "time": {_text(time_text(record.time))},\n'
        f'   "platforms": {platforms}, "attachments": {attachments}}}'
    )


def _target(made: Owned) -> str:
    return made.target


def _own_line(made: Owned) -> str:
    gone = None if made.gone_since is None else time_text(made.gone_since)
    return (
        f'{{"target": {_text(made.target)}, "source": {_text(made.source)},'
        f' "digest": {_text(str(made.digest))}, "gone_since": {_text(gone)}}}'
    )


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)


# --- reading ------------------------------------------------------------------------------------


def _parsed(raw: bytes, what: str) -> tuple[dict[str, ImageRecord], Shard, list[Owned]]:
    document = strictjson.loads(raw, "it")
    schema, images = document.get("schema"), document.get("images")
    if schema not in (SCHEMA, _OLD_SCHEMA):
        raise DamagedLockFile(
            f"{what}: schema is {str(schema)[:100]!r}, wanted {SCHEMA!r}",
            advice="A newer ocimirror may have written it.",
        )
    keys = {"schema", "images"} | ({"shard", "of", "run", "own"} if schema == SCHEMA else set())
    optional = {"configuration"} if schema == SCHEMA else set()
    if set(document) - optional != keys or not isinstance(images, list):
        raise InvalidReference(
            f"it has other keys than {', '.join(sorted(keys))}, or no list of images"
        )
    records: dict[str, ImageRecord] = {}
    for number, value in enumerate(cast("list[object]", images)):
        record = _record(value, f"images[{number}]")
        if record.source in records:
            raise InvalidReference(f"{record.source} is there twice")
        records[record.source] = record
    if schema == _OLD_SCHEMA:
        return records, Shard(), []
    shard, own = _shard(document), document["own"]
    if not isinstance(own, list):
        raise InvalidReference("own is no list")
    return records, shard, [_owned(value, f"own[{i}]") for i, value in enumerate(own)]


def _shard(document: Mapping[str, object]) -> Shard:
    number, count, run = (document[key] for key in ("shard", "of", "run"))
    name = document.get("configuration", "")
    if type(number) is not int or type(count) is not int or not isinstance(run, str):
        raise InvalidReference("shard, of or run is of the wrong type")
    if not isinstance(name, str):
        raise InvalidReference("configuration is of the wrong type")
    return Shard(number, count, run, name)


def _owned(value: object, what: str) -> Owned:
    keys = {"target", "source", "digest", "gone_since"}
    if not isinstance(value, dict) or set(value) != keys:
        raise InvalidReference(f"{what} has other keys than {', '.join(sorted(keys))}")
    gone = value["gone_since"]
    texts = [value["target"], value["source"], value["digest"], *([] if gone is None else [gone])]
    target, source, digest = _texts(texts, what)[:3]
    if str(Location.parse(target)) != target:
        raise InvalidReference(f"{what}: not a destination as it is written: {target[:300]!r}")
    since = None if gone is None else parse_time(gone)
    return Owned(target, _source(source, what), Digest.parse(digest), since)


def _record(value: object, what: str) -> ImageRecord:
    if not isinstance(value, dict) or set(value) != set(_KEYS):
        raise InvalidReference(f"{what} has other keys than {', '.join(_KEYS)}")
    for key, kind in _KEYS.items():
        if type(value[key]) is not kind:
            raise InvalidReference(f"{what}: {key} is of the wrong type")
    image = cast("dict[str, Any]", value)
    if not 0 <= image["size"] <= _MAX_NUMBER:
        raise InvalidReference(f"{what}: size is out of range")
    if not _MEDIA_TYPE.fullmatch(image["media_type"]):
        raise InvalidReference(f"{what}: not a media type: {image['media_type'][:300]!r}")
    return ImageRecord(
        _source(image["source"], what),
        Digest.parse(image["digest"]),
        image["media_type"],
        image["size"],
        tuple(_platform(text) for text in _texts(image["platforms"], what)),
        tuple(Digest.parse(text) for text in _texts(image["attachments"], what)),
        parse_time(image["time"]),
    )


def _source(text: str, what: str) -> str:
    """Return a source that is written the one way in which we write it."""
    reference = Location.parse(text).reference
    if reference is None or str(Location("docker", reference=reference.readable())) != text:
        raise InvalidReference(
            f"{what}: not a source as docker://HOST/REPOSITORY:TAG: {text[:300]!r}"
        )
    return text


def _platform(text: str) -> str:
    if str(Platform.parse(text)) != text:
        raise InvalidReference(f"not a platform as it is written here: {text[:300]!r}")
    return text


def _texts(values: list[object], what: str) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise InvalidReference(f"{what}: a list holds something else than text")
    return cast("list[str]", values)
