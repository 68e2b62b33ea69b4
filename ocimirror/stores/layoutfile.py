"""The file oci-layout, which says that a directory or a tar is an image layout.

Spec: image-spec image-layout.md#oci-layout-file.
"""

from __future__ import annotations

from ocimirror.errors import DamagedLayout, MalformedManifest
from ocimirror.model import strictjson

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
