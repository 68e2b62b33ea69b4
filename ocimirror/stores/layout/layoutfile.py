"""The file oci-layout, which says that a directory or a tar is an image layout.

Spec: image-spec image-layout.md#oci-layout-file.
"""

from __future__ import annotations

import os
import secrets

from ocimirror.errors import DamagedLayout, MalformedManifest, storage_errors
from ocimirror.model import strictjson
from ocimirror.stores.disk.atomic import NewFile
from ocimirror.stores.disk.files import read_whole
from ocimirror.stores.disk.oslayer import OsLayer

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
    os_layer = OsLayer()
    file = os.path.join(os.path.abspath(path), LAYOUT_FILE)
    try:
        os_layer.hold(os.path.dirname(file))
        name, root = os_layer.at(file)
        # (A link is an error here, so that nothing is written elsewhere.)
        raw = read_whole(name, MAX_LAYOUT_FILE_BYTES, root)
        present = set(os.listdir(root))
        if raw is not None and {"index.json", "blobs"} <= present:
            strictjson.loads(raw, LAYOUT_FILE)
    except OSError:
        return
    except MalformedManifest:
        temporary = f"{file}.{secrets.token_hex(8)}"
        with NewFile(os_layer, temporary, file, durable=True) as new:
            new.write(LAYOUT_VERSION)
            new.commit()
        with storage_errors(f"cannot sync {path}"):
            os_layer.sync_directory(os.path.dirname(file))
    finally:
        os_layer.let_go()
