"""Disks that fail: OsLayers that die, refuse, or keep a record of each step."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

from ocimirror.stores.disk.oslayer import OsLayer


class Died(Exception):
    """The process is dead: nothing that it does afterwards reaches the disk."""


class Step(OsLayer):
    """Calls `before(operation, path)` ahead of each change of the disk.

    Paths are those of files; for what goes through a descriptor, the path it was created under.
    """

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}

    def before(self, operation: str, path: str) -> None:
        """Look at, or refuse, what is about to happen."""

    def create(self, path: str) -> int:
        self.before("create", path)
        fd = super().create(path)
        self._paths[fd] = path
        return fd

    def write(self, fd: int, content: bytes) -> None:
        self.before("write", self._paths[fd])
        super().write(fd, content)

    def sync(self, fd: int) -> None:
        self.before("sync", self._paths[fd])
        super().sync(fd)

    def rename(self, old: str, new: str) -> None:
        self.before("rename", new)
        super().rename(old, new)

    def link(self, path: str, new: str) -> None:
        self.before("link", new)
        super().link(path, new)

    def unlink(self, path: str) -> None:
        self.before("unlink", path)
        super().unlink(path)

    def make_directory(self, path: str) -> None:
        self.before("make_directory", path)
        super().make_directory(path)

    def remove_directory(self, path: str) -> None:
        self.before("remove_directory", path)
        super().remove_directory(path)

    def sync_file(self, path: str) -> None:
        self.before("sync_file", path)
        super().sync_file(path)

    def sync_directory(self, path: str) -> None:
        self.before("sync_directory", path)
        super().sync_directory(path)


class Dies(Step):
    """Lets `steps` changes through, the last of them perhaps torn, and none after them."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps
        self._guard = threading.Lock()

    @property
    def dead(self) -> bool:
        """Whether the end has come."""
        return self._left < 0

    def before(self, operation: str, path: str) -> None:
        with self._guard:
            self._left -= 1
            if self._left < 0:
                raise Died(f"before {operation} {path}")

    def write(self, fd: int, content: bytes) -> None:
        try:
            super().write(fd, content)
        except Died:
            if self._left == -1:
                os.write(fd, content[: len(content) // 2])
            raise


class Refuses(Step):
    """Raises an OSError for each step that `when` picks."""

    def __init__(self, when: Callable[[str, str], bool], number: int = errno.EIO) -> None:
        super().__init__()
        self._when, self._errno = when, number
        self.refused: list[str] = []

    def before(self, operation: str, path: str) -> None:
        if self._when(operation, path):
            self.refused.append(operation)
            raise OSError(self._errno, os.strerror(self._errno))
