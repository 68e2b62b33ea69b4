"""Whether a layout, an archive or a file could be written somewhere, found out without writing.

What opens for writing asks here first, and a dry run asks nothing else.
"""

from __future__ import annotations

import errno
import os

from ocimirror.errors import UsageError, storage_error
from ocimirror.stores.disk.files import is_there
from ocimirror.stores.layout.layoutfile import LAYOUT_FILE

PRIVATE = ".ocimirror"
DAMAGED_INDEX = "index.json.damaged"


def was_damaged(layout: str) -> bool:
    """Whether index.json was mended, and nobody has said since that all is well."""
    return is_there(os.path.join(layout, PRIVATE, DAMAGED_INDEX))


def is_layout_to_write(path: str) -> bool:
    """Whether a directory is a layout already; if not, one could be made of it.

    Raises:
        UsageError: it holds something else, or is a file.
        LocalStorageError: it cannot be read.
    """
    try:
        present = set(os.listdir(path))
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise UsageError(f"{path} is a file, and no OCI image layout") from error
    except OSError as error:
        raise storage_error(error, f"cannot read {path}") from error
    if {"index.json", "blobs"} <= present:
        return True  # (a layout that has lost the file that says so)
    if present - {"blobs", PRIVATE} and LAYOUT_FILE not in present:
        raise UsageError(
            f"{path} is a directory with other files, and no OCI image layout",
            advice="Name a new or empty directory, or an existing layout.",
        )
    return LAYOUT_FILE in present


def refuse_unwritable_layout(path: str) -> None:
    """Raise LocalStorageError where a layout's directories cannot be made or written into."""
    root = os.path.abspath(path)
    private, blobs = os.path.join(root, PRIVATE), os.path.join(root, "blobs")
    below = (private, os.path.join(private, "tmp"), blobs, os.path.join(blobs, "sha256"))
    for directory in (root, *below):
        while not os.path.lexists(directory):
            directory = os.path.dirname(directory)
        _refuse_unwritable(directory)


def refuse_unwritable_archive(path: str) -> None:
    """Raise where an archive cannot be written: UsageError or LocalStorageError."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UsageError(f"{path} is there, and no regular file")
    _refuse_unwritable(os.path.dirname(os.path.abspath(path)))


def refuse_irregular_file(path: str) -> None:
    """Raise UsageError where a file is to be replaced, and the path, or its link, is no file."""
    real = os.path.realpath(path)
    if os.path.lexists(real) and not os.path.isfile(real):
        raise UsageError(f"{path} is there, and no regular file")


def _refuse_unwritable(directory: str) -> None:
    if not os.path.isdir(directory):
        number = errno.ENOTDIR if os.path.lexists(directory) else errno.ENOENT
    elif not os.access(directory, os.W_OK | os.X_OK):
        number = errno.EACCES
    else:
        return
    refused = OSError(number, os.strerror(number), directory)
    raise storage_error(refused, f"cannot write {directory}") from refused
