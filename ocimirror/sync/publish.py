"""publish: the record of a sync, beside what it mirrored."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from io import BytesIO

from ocimirror.copy.outcome import Options, Request
from ocimirror.copy.pipeline import copy
from ocimirror.copy.places import Places
from ocimirror.errors import DigestNotPreserved, IntegrityError, NotFound, UsageError
from ocimirror.model import mediatype
from ocimirror.model.codec import time_text
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import Manifest
from ocimirror.model.reference import Reference
from ocimirror.stores.memory import MemoryStore
from ocimirror.stores.store import Source
from ocimirror.stores.stream import VerifiedStream
from ocimirror.sync.config import Config
from ocimirror.sync.patterns import Target

ARTIFACT_TYPE = "application/vnd.ocimirror.lock.v1+json"
LOCK_TYPE = ARTIFACT_TYPE
REPORT_TYPE = "application/vnd.ocimirror.sync.v1+json"
EMPTY_CONFIG = b"{}"
TITLE = "org.opencontainers.image.title"
LOCK_NAME, REPORT_NAME = "ocimirror.lock", "report.json"


def record_reference(text: str) -> Reference:
    """Parse where a record goes: a repository with its host and a tag, `:latest` without one.

    Raises:
        UsageError: a digest, no host, or no place in a registry.
    """
    place = Target.parse(text).resolve(Reference("registry.example", "repository", "latest"))
    if place.reference is None or "{" in text:
        raise UsageError(
            f"{text}: a record is published in a registry, under a tag",
            advice="Write it as HOST/REPOSITORY:TAG.",
        )
    return place.reference


def refuse_source(reference: Reference, config: Config) -> None:
    """Raise UsageError where a record would be published into what a sync reads."""
    for mirror in config.mirrors:
        if mirror.source.matches(reference):
            raise UsageError(
                f"{reference}: a record is not published in a repository that is mirrored from"
                f" ({mirror.where})",
                advice="Choose a repository of the mirror.",
            )


def publish(
    places: Places,
    reference: Reference,
    lock: bytes,
    report: bytes,
    time: datetime,
    options: Options,
) -> Descriptor:
    """Push a lock file and a report as one artifact, and read it back.

    Not atomic, but the tag moves last.

    Returns:
        What the tag stands for now.

    Raises:
        PushRejected, RemoteError: it could not be pushed.
        DigestNotPreserved: the registry gives back something else.
        Interrupted: `options.stop` was set.

    Spec: image-spec manifest.md#guidelines-for-artifact-usage.
    """
    artifact, tag = MemoryStore(), reference.tag
    config = _stored(artifact, mediatype.OCI_EMPTY, EMPTY_CONFIG)
    layers = [
        {**_stored(artifact, media_type, content), "annotations": {TITLE: name}}
        for name, media_type, content in (
            (LOCK_NAME, LOCK_TYPE, lock),
            (REPORT_NAME, REPORT_TYPE, report),
        )
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": config,
        "layers": layers,
        "annotations": {"org.opencontainers.image.created": time_text(time)},
    }
    raw = json.dumps(manifest, separators=(",", ":")).encode()
    root = Descriptor(mediatype.OCI_MANIFEST, Digest.of(raw), len(raw), kind="manifest")
    artifact.tag([(tag, Manifest.parse(raw, root))])
    repository = places.repository(reference)
    shown = f"docker://{reference}"
    request = Request(artifact, tag, repository, tag, "the record", shown)
    (outcome,) = copy([request], replace(options, referrers=False))
    if outcome.error is not None:
        raise outcome.error
    # (A store of its own: one that saw what was pushed would not ask.)
    _read_back(repository.host.repository(repository.name), reference, root)
    return root


def _stored(artifact: MemoryStore, media_type: str, content: bytes) -> dict[str, object]:
    descriptor = Descriptor(media_type, Digest.of(content), len(content), kind="blob")
    artifact.push(descriptor, VerifiedStream(descriptor, lambda _: BytesIO(content)))
    return {
        "mediaType": media_type,
        "size": descriptor.size,
        "digest": str(descriptor.digest),
    }


def _read_back(repository: Source, reference: Reference, root: Descriptor) -> None:
    what = f"docker://{reference}"
    try:
        found = repository.resolve(reference.tag)
        if found.digest != root.digest:
            raise DigestNotPreserved(f"{what} reads back as {found.digest}, not {root}")
        manifest = repository.read_manifest(root)
        for blob in manifest.blobs:
            with repository.fetch(blob) as stream:
                stream.read_all(blob.size)
    except (NotFound, IntegrityError) as error:
        raise DigestNotPreserved(f"{what} does not read back: {error.message}") from error
