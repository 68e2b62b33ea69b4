"""What power loss may leave of a directory: each change recorded, then lost or kept.

The disk promises as little as POSIX does. A file's content is on the disk once the file was
synced; before, any part of it may be. An entry of a directory (a file made, renamed or removed, a
directory made) is on the disk once that directory was synced; before, each may be lost or kept by
itself, in any combination. After ALICE (OSDI'14) and SQLite's crash tests.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

DIRECTORY = -1
RANDOM_CHOICES = 12


class Entry(NamedTuple):
    """A change of one directory entry: the path now is a file (by number), a directory, or gone."""

    path: str
    target: int | None


@dataclass
class Disk:
    """A file system as of some step: what is certain, and what hangs in the air."""

    certain: dict[str, int] = field(default_factory=dict)
    pending: list[Entry] = field(default_factory=list)
    synced: dict[int, bytes] = field(default_factory=dict)
    written: dict[int, bytes] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    begun: dict[str, Callable[[], None]] = field(default_factory=dict)

    def create(self, path: str) -> None:
        """Open a file, made if it is not there."""
        if path not in self.live:
            number = 1_000_000 + len(self.written)
            self.synced[number] = self.written[number] = b""
            self.change(path, number)

    def write(self, path: str, content: bytes) -> None:
        """Append to a file."""
        self.written[self.live[path]] += content

    def truncate(self, path: str, size: int) -> None:
        """Make a file that short."""
        self.written[self.live[path]] = self.written[self.live[path]][:size]

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, over whatever has it."""
        self.change(new, self.live[old])
        self.change(old, None)

    def begin_sync(self, who: str, path: str) -> None:
        """Begin to make a file, or the entries of a directory, as they are now, certain."""
        number = self.live[path]
        if number == DIRECTORY:
            now = list(self.pending)
            self.begun[who] = lambda: self.sync_directory(path, now)
        else:
            content = self.written[number]
            self.begun[who] = lambda: self.synced.update({number: content})

    def finish_sync(self, who: str) -> None:
        """End the sync that this thread began."""
        self.begun.pop(who)()

    def change(self, path: str, target: int | None) -> None:
        """Change an entry, which hangs in the air until its directory is synced."""
        self.pending.append(Entry(path, target))
        if target is None:
            self.live.pop(path, None)
        else:
            self.live[path] = target

    def sync_directory(self, directory: str, pending: list[Entry] | None = None) -> None:
        """Make the entries of a directory certain: all, or these."""
        covered = self.pending if pending is None else pending
        covered = [entry for entry in covered if os.path.dirname(entry.path) == directory]
        for entry in covered:
            _apply(self.certain, entry)
        done = {id(entry) for entry in covered}
        self.pending = [entry for entry in self.pending if id(entry) not in done]

    def after_kill(self) -> dict[str, bytes]:
        """Return path → content of what a killed process leaves: all that it did."""
        return {
            path: self.written[number] for path, number in self.live.items() if number != DIRECTORY
        }

    def after_power_loss(self, seed: int, ignore: str = "\0") -> Iterator[dict[str, bytes]]:
        """Yield path → content of what may be found: all lost, all kept, and much in between.

        Paths that contain `ignore` are left out.
        """
        pending = [entry for entry in self.pending if ignore not in entry.path]
        count = len(pending)
        choices = {frozenset[int](), frozenset(range(count))}
        choices |= {frozenset({n}) for n in range(count)}
        choices |= {frozenset(range(count)) - {n} for n in range(count)}
        chance = random.Random(seed)
        for _ in range(RANDOM_CHOICES if count > 2 else 0):
            choices.add(frozenset(n for n in range(count) if chance.random() < 0.5))
        for kept in choices:
            entries = {path: n for path, n in self.certain.items() if ignore not in path}
            for number in sorted(kept):
                _apply(entries, pending[number])
            yield from self._with_contents(entries)

    def _with_contents(self, entries: dict[str, int]) -> Iterator[dict[str, bytes]]:
        reachable = {
            path: target
            for path, target in entries.items()
            if target != DIRECTORY and _is_reachable(path, entries)
        }
        unsynced = any(self.synced[t] != self.written[t] for t in reachable.values())
        for share in (0.0, 0.5, 1.0) if unsynced else (1.0,):
            yield {path: self._content(target, share) for path, target in reachable.items()}

    def _content(self, number: int, share: float) -> bytes:
        certain, whole = self.synced[number], self.written[number]
        return whole[: len(certain) + int((len(whole) - len(certain)) * share)]


def _apply(entries: dict[str, int], entry: Entry) -> None:
    if entry.target is None:
        entries.pop(entry.path, None)
    else:
        entries[entry.path] = entry.target


def _is_reachable(path: str, entries: dict[str, int]) -> bool:
    parent = os.path.dirname(path)
    if parent == path or not parent:
        return True
    return entries.get(parent) == DIRECTORY and _is_reachable(parent, entries)


def disk_of(directory: Path) -> Disk:
    """Return a disk that holds what a directory holds now, all of it certain."""
    disk = Disk()
    numbers = itertools.count()
    for path in [*reversed(directory.parents), directory, *directory.rglob("*")]:
        if path.is_dir():
            disk.certain[str(path)] = DIRECTORY
        else:
            number = next(numbers)
            disk.certain[str(path)] = number
            disk.synced[number] = disk.written[number] = path.read_bytes()
    disk.live = dict(disk.certain)
    return disk
