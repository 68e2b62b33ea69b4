"""publish: the record of a sync, beside what it mirrored."""

from __future__ import annotations

from datetime import datetime

from ocimirror.copy.places import Places
from ocimirror.errors import UsageError
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.reference import Reference
from ocimirror.sync.config import Config
from ocimirror.sync.patterns import Target
from ocimirror.sync.record import time_text

ARTIFACT_TYPE = "application/vnd.ocimirror.lock.v1+json"
LOCK_TYPE = ARTIFACT_TYPE
REPORT_TYPE = "application/vnd.ocimirror.sync.v1+json"
LOCK_NAME, REPORT_NAME = "ocimirror.lock", "report.json"


def record_reference(text: str) -> Reference:
    """Parse where a record goes: a repository with its host and a tag, `:latest` without one.

    Raises:
        UsageError: a digest, no host, or no place in a registry.
    """
    place = Target.parse(text).resolve("registry.example", "repository", "latest")
    if place.reference is None or "{" in text:
        raise UsageError(
            f"{text}: a record is published in a registry, under a tag",
            advice="Write it as HOST/REPOSITORY:TAG.",
        )
    return place.reference


def refuse_source(reference: Reference, config: Config) -> None:
    """Raise UsageError where a record would be published into what a sync reads."""
    for mirror in config.mirrors:
        source = mirror.source
        if source.registry == reference.registry and source.matches(reference.repository):
            raise UsageError(
                f"{reference}: a record is not published in a repository that is mirrored from"
                f" ({mirror.where})",
                advice="Choose a repository of the mirror.",
            )


def publish(
    places: Places, reference: Reference, lock: bytes, report: bytes, time: datetime
) -> Descriptor:
    """Push a lock file and a report as one artifact, and read it back.

    Returns:
        What the tag stands for now.

    Raises:
        PushRejected, RemoteError: it could not be pushed.
        DigestNotPreserved: the registry gives back something else.
    """
    # (Imported here: it imports oras, and few runs publish.)
    from ocimirror.registry.artifact import ArtifactFile, push_artifact

    files = (
        ArtifactFile(LOCK_NAME, LOCK_TYPE, lock),
        ArtifactFile(REPORT_NAME, REPORT_TYPE, report),
    )
    annotations = {"org.opencontainers.image.created": time_text(time)}
    return push_artifact(
        places.repository(reference), reference.tag, ARTIFACT_TYPE, files, annotations
    )
