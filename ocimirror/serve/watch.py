"""Looks again at what files say, so that a change is in force without a restart."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from ocimirror.errors import OciMirrorError
from ocimirror.stores.disk.files import Identity, identity_of

logger = logging.getLogger(__name__)
T = TypeVar("T")
INTERVAL_S = 0.25


class Reloaded(Generic[T]):
    """A value that is made of files, and made again when they change.

    Args:
        paths: the files.
        make: makes the value; an OciMirrorError leaves the old one in force, with one warning.

    Raises:
        OciMirrorError: the first value cannot be made.
    """

    def __init__(self, paths: Sequence[str], make: Callable[[], T]) -> None:
        self._paths = paths
        self._make = make
        self._versions = self._seen()
        self.value = make()

    def refresh(self, force: bool = False) -> bool:
        """Make the value again where a file changed, or by force; return whether it was made."""
        versions = self._seen()
        if versions == self._versions and not force:
            return False
        self._versions = versions
        try:
            self.value = self._make()
        except OciMirrorError as error:
            logger.warning("%s; what was in force before stays", error.message)
            return False
        return True

    def _seen(self) -> list[Identity | None]:
        return [_version(path) for path in self._paths]


def _version(path: str) -> Identity | None:
    try:
        return identity_of(os.stat(path))
    except OSError:
        return None


class Watch:
    """Calls `refresh` functions, one after the other and never two at once.

    Args:
        refreshes: each looks at its files, by force where it is told so, and returns whether
            something changed.
        executor: where they run.
    """

    def __init__(self, refreshes: Sequence[Callable[[bool], bool]], executor: Executor) -> None:
        self._refreshes = refreshes
        self._executor = executor
        self._lock = asyncio.Lock()
        self._begun = self._done = 0
        self._took_s = 0.0
        self._ended_s = 0.0

    async def look(self, *, force: bool = False) -> None:
        """Return once a look that began after this call has ended; calls at once share one.

        Looking in vain takes a fifth of the time at most, however often somebody asks for it.
        """
        needed = self._begun + 1
        async with self._lock:
            if self._done >= needed and not force:
                return
            await asyncio.sleep(self._ended_s + 4 * self._took_s - time.monotonic())
            self._begun += 1
            began_s = time.monotonic()
            loop = asyncio.get_running_loop()
            changed = False
            for refresh in self._refreshes:
                changed |= await loop.run_in_executor(self._executor, refresh, force)
            if changed:
                logger.info("what is served has changed")
            self._done = self._begun
            self._ended_s = time.monotonic()
            self._took_s = 0.0 if changed else self._ended_s - began_s

    async def run(self) -> None:
        """Look again and again, until this is cancelled."""
        while True:
            await asyncio.sleep(max(INTERVAL_S, 20 * self._took_s))
            await self.look()
