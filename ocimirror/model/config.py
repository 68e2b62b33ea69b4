"""The image config, as far as identity needs it: the platform, and the digests of bare layers.

Configs are content and pass through unread where images are copied. Engines know an image by its
config's digest and recompute the diff_ids, so what is loaded or converted is checked against both.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from ocimirror.errors import InvalidReference, MalformedManifest
from ocimirror.model import strictjson
from ocimirror.model.descriptor import text_of
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform

MAX_SIZE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A parsed config.

    Attributes:
        platform: what it runs on; linux/amd64 parts that it leaves out are empty.
        diff_ids: digests of the uncompressed layers, bottom first.
        created: when it says that it was built; None where it does not, or not as RFC 3339 wants.
    """

    platform: Platform
    diff_ids: tuple[Digest, ...]
    created: datetime | None = None

    @classmethod
    def parse(cls, raw: bytes, what: str) -> ImageConfig:
        """Parse a config.

        Args:
            raw: the whole document; its digest is the image ID of Docker and Podman.
            what: the config, for errors.

        Raises:
            MalformedManifest: not strict JSON, or without a list of diff_ids.

        Spec: image-spec config.md.
        """
        document = strictjson.loads(raw, what)
        rootfs = document.get("rootfs")
        listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            raise MalformedManifest(f"{what}: no rootfs.diff_ids")
        try:
            diff_ids = tuple(Digest.parse(item) for item in listed)
        except InvalidReference as error:
            raise MalformedManifest(f"{what}: rootfs.diff_ids: {error.message}") from error
        words = [text_of(document, key, what) for key in ("os", "architecture", "variant")]
        return cls(Platform(*words), diff_ids, _time(text_of(document, "created", what)))


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
