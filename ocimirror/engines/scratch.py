"""A temporary file with a name, which the next run removes if this one is killed.

Podman wants a path, and does not take one below /proc. The living owner of such a file holds a
lock on it, which the kernel takes away with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import IO

_SUFFIX = ".tar"


@contextlib.contextmanager
def scratch_file(prefix: str) -> Iterator[IO[bytes]]:
    """Make a temporary file that is there as long as the block runs.

    Args:
        prefix: of its name; what dead runs of this user left under it is removed first.
    """
    _sweep(prefix)
    with contextlib.ExitStack() as stack:
        while True:
            file = tempfile.NamedTemporaryFile(prefix=prefix, suffix=_SUFFIX)  # noqa: SIM115
            stack.enter_context(contextlib.closing(file))
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # (else swept before it was locked)
                break
        yield file


def _sweep(prefix: str) -> None:
    directory = tempfile.gettempdir()
    for name in os.listdir(directory):
        if name.startswith(prefix) and name.endswith(_SUFFIX):
            with contextlib.suppress(OSError):
                _remove_if_dead(os.path.join(directory, name))


def _remove_if_dead(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
    finally:
        os.close(fd)
