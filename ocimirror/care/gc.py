"""gc: remove from a layout what nothing reaches, in two runs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from ocimirror.copy.places import Places
from ocimirror.errors import (
    DamagedLayout,
    IntegrityError,
    InvalidReference,
    LocalStorageError,
    OciMirrorError,
    Unsupported,
)
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Seen
from ocimirror.model.manifest import MAX_SIZE_BYTES
from ocimirror.model.mediatype import OCTET_STREAM
from ocimirror.stores.layout.exclusive import ExclusiveLayout
from ocimirror.stores.layout.quarantine import BlobFile
from ocimirror.stores.layout.writable import was_damaged
from ocimirror.stores.reach import reach

_QUOTED_DIGEST = re.compile(rb'"([a-z0-9+._-]{1,64}:[a-zA-Z0-9=_-]{32,200})"')


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of each file, or would come of it in a dry run.

    Attributes:
        kept: needed, or younger than the grace.
        quarantined: put aside in this run.
        waiting: put aside by an earlier run, not long enough ago.
        deleted: gone.
        restored: put back, since it has become needed.
        strays: paths under blobs/ that are no blobs; they stay.
        spared: those of `kept` that nothing needs, and that only the grace keeps.
        spared_until: when the last of them may go; `waiting_until` of those in quarantine.
    """

    kept: list[BlobFile]
    quarantined: list[BlobFile]
    waiting: list[BlobFile]
    deleted: list[BlobFile]
    restored: list[BlobFile]
    strays: list[str] = field(default_factory=list)
    spared: list[BlobFile] = field(default_factory=list)
    spared_until: float = 0.0
    waiting_until: float = 0.0


def gc(
    path: str,
    grace_s: float,
    places: Places,
    *,
    dry_run: bool = False,
    after_repair: bool = False,
) -> Collected:
    """Put aside the blobs that no entry of index.json reaches, and delete those of earlier runs.

    What is younger than the grace stays, with everything that it may name; what has become
    needed is put back. Nobody else reads or writes the layout meanwhile, and a run that is killed
    leaves it valid.

    Args:
        path: the layout's directory.
        grace_s: seconds that a blob has to be there, and then in quarantine, before it goes on.
        places: the stores of this run.
        dry_run: change nothing.
        after_repair: what was made of a damaged index.json is right; later runs need not be told.

    Raises:
        Locked: somebody is at work there.
        DamagedLayout: what is needed cannot be told, since index.json or a manifest that is
            needed is absent or damaged, or index.json was; nothing was removed.
    """
    with places.exclusive_layout(path, writes=not dry_run) as layout:
        if was_damaged(layout.path) and not after_repair:
            raise DamagedLayout(
                f"{path}: index.json was damaged, and names may be missing; nothing was removed",
                advice="Compare `ocimirror list` with what it is to hold, then run gc with"
                " --after-repair once. The damaged file is .ocimirror/index.json.damaged.",
            )
        needed = _needed(layout)
        old = time.time() - grace_s
        stored, strays = layout.quarantine.stored()
        present = {file.digest for file in stored}
        young = [f.digest for f in stored if f.since > old or not f.digest.verifiable]
        kept = needed.union(young, _mentioned(layout, (d for d in young if d not in needed)))
        waiting = layout.quarantine.waiting()
        restored = [
            file for file in waiting if file.digest in needed and file.digest not in present
        ]
        back = {file.digest for file in restored}
        young_only = kept - needed
        spared = [f for f in stored if f.digest in young_only and f.digest.verifiable]
        aside = [file for file in waiting if file.digest not in back and file.since > old]
        collected = Collected(
            kept=[file for file in stored if file.digest in kept],
            quarantined=[file for file in stored if file.digest not in kept],
            waiting=aside,
            deleted=[file for file in waiting if file.digest not in back and file.since <= old],
            restored=restored,
            strays=strays,
            spared=spared,
            spared_until=_last(spared, grace_s),
            waiting_until=_last(aside, grace_s),
        )
        if not dry_run:
            layout.refuse_replaced("nothing was removed")
            layout.sync_index()
            layout.quarantine.put_back(collected.restored)
            layout.quarantine.delete(collected.deleted)
            layout.quarantine.take(collected.quarantined)
            layout.forget_damage()
            layout.refuse_replaced("what was removed was removed there")
        return collected


def _last(files: Iterable[BlobFile], grace_s: float) -> float:
    return max((file.since + grace_s for file in files), default=0.0)


def _needed(layout: ExclusiveLayout) -> set[Digest]:
    """Return what the entries of index.json reach; raise where that cannot be told."""
    needed: set[Digest] = set()
    opaque: set[Digest] = set()
    seen: set[Seen] = set()

    def failed(error: OciMirrorError, descriptor: Descriptor) -> None:
        if not descriptor.digest.verifiable:
            raise Unsupported(
                f"nothing was removed: {error.message}, so what it needs is not known",
                advice="`ocimirror remove` takes the image out of the layout.",
            ) from error
        if not isinstance(error, Unsupported):
            _refuse(error)
        needed.add(descriptor.digest)  # (Docker schema 1: what it names is in it)
        opaque.add(descriptor.digest)

    index = layout.index()
    for row in index.unreadable:
        needed |= row.digests()
        opaque |= row.digests()
    for entry in index.entries:
        for manifest in reach(layout, entry.descriptor, seen, failed):
            needed.add(manifest.digest)
            needed.update(blob.digest for blob in manifest.blobs)
            if manifest.opaque:
                opaque.add(manifest.digest)
    return needed | _mentioned(layout, opaque)


def _refuse(error: OciMirrorError) -> None:
    if isinstance(error, LocalStorageError):
        raise error
    raise DamagedLayout(
        f"nothing was removed: {error.message}",
        advice="`ocimirror repair` fetches it again.",
    ) from error


def _mentioned(layout: ExclusiveLayout, digests: Iterable[Digest]) -> set[Digest]:
    """Return whatever looks like a digest in these documents, and in those that are meant.

    For content of which nothing says how it is to be read: rather too much than too little.
    """
    found: set[Digest] = set()
    unread = list(digests)
    while unread:
        new = _digests_in(_document(layout, unread.pop())) - found
        found |= new
        unread += new
    return found


def _document(layout: ExclusiveLayout, digest: Digest) -> bytes:
    """Return content that may be a manifest; nothing where it is none, absent or damaged."""
    try:
        size = layout.size_of(digest)
        if size is None or size > MAX_SIZE_BYTES:
            return b""
        with layout.fetch(Descriptor(OCTET_STREAM, digest, size)) as stream:
            raw = stream.read_all(MAX_SIZE_BYTES)
    except (IntegrityError, Unsupported):
        return b""
    return raw if raw.lstrip().startswith(b"{") else b""


def _digests_in(document: bytes) -> set[Digest]:
    found = set()
    for text in _QUOTED_DIGEST.findall(document):
        try:
            found.add(Digest.parse(text.decode("ascii")))
        except InvalidReference:
            continue
    return found
