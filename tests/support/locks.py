"""The lock of a layout, taken as another process would take it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(layout: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a layout's lock as gc does, or shared, as whoever reads or writes it does.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    (layout / ".ocimirror").mkdir(exist_ok=True)
    with (layout / ".ocimirror" / "lock").open("a") as lock:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
        yield
