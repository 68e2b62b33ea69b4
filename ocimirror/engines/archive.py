"""The tar that an engine is fed with, by index.json: content is checked on its way into it."""

from __future__ import annotations

from ocimirror.engines.wanted import Wanted
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.stores import profiles
from ocimirror.stores.archive.tar import TarWriter, Write
from ocimirror.stores.layout.layoutfile import LAYOUT_FILE, LAYOUT_VERSION
from ocimirror.stores.profiles import Profile
from ocimirror.stores.store import Source, verified
from ocimirror.stores.stream import Watch


def write_archive(
    source: Source,
    wanted: Wanted,
    profile: Profile,
    write: Write,
    watch: Watch | None = None,
) -> None:
    """Write an image as an archive that one engine reads.

    Args:
        source: where its blobs are.
        wanted: the image, with all that goes into the archive.
        profile: whose archive.
        write: takes all bytes that it is given.
        watch: told of each chunk; may raise.

    Raises:
        IntegrityError: a blob is damaged; the tar has no end then.
    """
    tar = TarWriter(write)
    tar.member(LAYOUT_FILE, LAYOUT_VERSION)
    tar.member("index.json", profiles.index_document(profile, [wanted.archived()]))
    manifests = {manifest.digest: manifest for manifest in wanted.manifests}
    blobs: dict[Digest, Descriptor] = {blob.digest: blob for blob in wanted.blobs}
    for digest in sorted({*manifests, *blobs}, key=str):
        if digest in manifests:
            stream = verified(manifests[digest])
        else:
            stream = source.fetch(blobs[digest], watch)
        with stream:
            tar.stream(profiles.blob_path(digest), stream)
    tar.end()
