"""An image without an index has one platform, which only its config says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from ocimirror.copy.attachments import find_attachments
from ocimirror.copy.outcome import Options, Request
from ocimirror.errors import MalformedManifest, NotFound, Unsupported, blamed_on
from ocimirror.model.config import MAX_SIZE_BYTES, ImageConfig
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.manifest import Manifest
from ocimirror.model.platform import WITHOUT_ATTESTATIONS, Platform
from ocimirror.stores.profiles import is_container_image
from ocimirror.stores.store import Referrer, Source

logger = logging.getLogger(__name__)


def look_around(
    request: Request, root: Descriptor | None, manifest: Manifest, options: Options
) -> Sequence[Referrer]:
    """Look at what a manifest alone does not say: what refers to it, and a lone image's platform.

    Raises:
        NotFound: the image is for none of the platforms that are asked for.
    """
    if root is not None and manifest.digest == root.digest:
        refuse_other_platform(request, manifest)
    looked_for = options.referrers and request.destination.takes_indexes
    return find_attachments(request, manifest) if looked_for else ()


def refuse_other_platform(request: Request, root: Manifest, reader: Source | None = None) -> None:
    """Read what an image is for if only some platforms are asked for; warn of those it is not for.

    Nothing is refused if the config does not say it.

    Args:
        request: which platforms are asked for.
        root: the image.
        reader: where its config is; the source of the request if None.

    Raises:
        NotFound: it is for none of them.
    """
    asked = [platform for platform in request.platforms if platform != WITHOUT_ATTESTATIONS]
    if not asked or not is_container_image(root) or root.blobs[0].size > MAX_SIZE_BYTES:
        return
    config = root.blobs[0]
    try:
        with blamed_on("source"), (reader or request.source).fetch(config) as stream:
            raw = stream.read_all(MAX_SIZE_BYTES)
        held = ImageConfig.parse(raw, f"config {config.digest}").platform
    except (MalformedManifest, Unsupported):
        return
    if not held.os or not held.architecture:
        return
    absent = [platform for platform in asked if not _may_be(platform, held)]
    text = f"image {root.digest} has nothing for {', '.join(map(str, absent))}"
    if len(absent) == len(asked):
        raise NotFound(text, advice=f"It has no index, and is for {held}.", side="source")
    if absent:
        logger.warning("%s: %s: it has no index, and is for %s", request.shown_source, text, held)


def _may_be(asked: Platform, held: Platform) -> bool:
    """Whether an image is for a platform; many configs leave out the variant."""
    return asked.matches(held if held.variant else replace(held, variant=asked.variant))
