"""The file oci-layout, which says that a directory or a tar is an image layout.

Spec: image-spec image-layout.md#oci-layout-file.
"""

from __future__ import annotations

import os

from ocimirror.errors import DamagedLayout, MalformedManifest
from ocimirror.model import strictjson
from ocimirror.stores.atomic import replace_file
from ocimirror.stores.files import read_whole

LAYOUT_FILE = "oci-layout"
LAYOUT_VERSION = b'{"imageLayoutVersion":"1.0.0"}'
MAX_LAYOUT_FILE_BYTES = 64 * 1024


def check_layout_file(raw: bytes | None, what: str) -> None:
    """Check the content of an oci-layout file; whoever may do without it asks first.

    Raises:
        DamagedLayout: absent, not JSON, or a version we do not know.
    """
    if raw is None:
        raise DamagedLayout(f"{what} is not an OCI image layout: it has no {LAYOUT_FILE}")
    try:
        version = strictjson.loads(raw, LAYOUT_FILE).get("imageLayoutVersion")
    except MalformedManifest as error:
        raise DamagedLayout(f"{what}: {error}") from error
    if version != "1.0.0":
        raise DamagedLayout(f"{what}: image layout version {version!r:.50}, wanted 1.0.0")


def mend_layout_file(path: str) -> None:
    """Write the file anew if it is torn and a layout is around it; another version stays.

    Raises:
        LocalStorageError: it cannot be written.
    """
    if not all(os.path.lexists(os.path.join(path, name)) for name in ("index.json", "blobs")):
        return
    file = os.path.join(path, LAYOUT_FILE)
    try:
        # (A link is an error here, so that nothing is written elsewhere.)
        raw = read_whole(file, MAX_LAYOUT_FILE_BYTES)
        if raw is not None:
            strictjson.loads(raw, LAYOUT_FILE)
    except OSError:
        return
    except MalformedManifest:
        replace_file(file, LAYOUT_VERSION)
