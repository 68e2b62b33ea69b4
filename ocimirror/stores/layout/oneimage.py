"""The error if a name does not stand for exactly one image: it says what there is."""

from __future__ import annotations

from collections.abc import Sequence

from ocimirror.errors import DamagedLayout, NotFound, OciMirrorError, UsageError
from ocimirror.model.reference import some_of, spellings
from ocimirror.stores.entry import Entry
from ocimirror.stores.unreadable import UnreadableEntry


def not_one(
    what: str,
    entries: Sequence[Entry],
    unreadable: Sequence[UnreadableEntry],
    name: str,
    found: Sequence[Entry],
) -> OciMirrorError:
    """Return the error for a name that stands for several images, or for none.

    Args:
        what: the place.
        entries, unreadable: what it has.
        name: empty if none was given.
        found: the entries that it may mean.
    """
    if found:
        several = len({entry.name for entry in found}) < len(found)
        digests = {f"@{e.descriptor.digest}" for e in found if several or not e.name}
        listed = sorted({e.name for e in found if e.name and not several} | digests)
        said = f"{name} names several images" if name else "no name given, and several images"
        return UsageError(f"{what}: {said}", advice=f"Name one of: {some_of(listed)}")
    for entry in unreadable:
        if not name or {entry.name, entry.tag, str(entry.digest)} & {name, *spellings(name)}:
            return DamagedLayout(
                entry.message, advice="`ocimirror verify` of all of it says what can be done."
            )
    known = sorted(entry.name for entry in entries if entry.name)
    missing = f"no image {name}" if name else "no image"
    return NotFound(f"{what}: {missing}", advice=f"It holds: {some_of(known)}" if known else "")


def damaged_index(message: str) -> DamagedLayout:
    """Return the error for an index.json, or an entry of it, that cannot be read."""
    return DamagedLayout(
        message, advice="Nothing was overwritten. `ocimirror repair` takes the last good one."
    )
