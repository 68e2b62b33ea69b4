"""The one image manifest that goes into a docker-archive, which has no place for more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ocimirror.copy.identity import notes_on_docker
from ocimirror.model.platform import Platform
from ocimirror.stores.dockerarchive.compression import require_zstd
from ocimirror.stores.profiles import one_image
from ocimirror.stores.store import Source


class ForDocker(NamedTuple):
    """What is read instead of an image, and what the user is told of it once it is there."""

    read_name: str
    of_index: bool
    notes: tuple[str, ...]


def chosen_for_docker(
    source: Source, read_name: str, name: str, platforms: Sequence[Platform]
) -> ForDocker:
    """Choose the image manifest that is read.

    Args:
        name: what the image is called in the archive, empty for nothing.
        platforms: what is wanted of an index.

    Raises:
        UsageError: several, or none, fit; or a layer is zstd, and that cannot be decompressed here.
    """
    root = source.resolve(read_name)
    chosen = one_image(source, root, platforms)
    if any("zstd" in layer.media_type for layer in chosen.blobs):
        require_zstd()
    notes = tuple(notes_on_docker(root, chosen, name))
    return ForDocker(str(chosen.digest), chosen.digest != root.digest, notes)
