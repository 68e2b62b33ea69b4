"""Files that a person names: lock files and reports of other runs."""

from __future__ import annotations

import os
import stat

from ocimirror.errors import UsageError, storage_error


def content_of(path: str, what: str, limit: int) -> bytes:
    """Return a file's whole content. A link is followed: a ConfigMap is mounted as links.

    Args:
        path: of the file.
        what: names it in errors: "lock file".
        limit: in bytes.

    Raises:
        UsageError: there is none, it is larger, or it is a directory, FIFO or device.
        LocalStorageError: it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"there is no {what} {path}") from error
    except OSError as error:
        raise storage_error(error, f"cannot read {path}") from error
    try:
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UsageError(f"{path} is not a regular file")
            raw = file.read(limit + 1)
    except IsADirectoryError as error:
        raise UsageError(f"{path} is not a regular file") from error
    except OSError as error:
        raise storage_error(error, f"cannot read {path}") from error
    if len(raw) > limit:
        raise UsageError(f"{path} is larger than {limit} bytes")
    return raw
