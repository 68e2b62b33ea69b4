"""Media types: the OCI ones with their Docker twins, and what kind of content each names."""

from __future__ import annotations

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
ORAS_ARTIFACT = "application/vnd.cncf.oras.artifact.manifest.v1+json"
OCTET_STREAM = "application/octet-stream"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
IMAGE_MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ARTIFACT_MANIFESTS = frozenset({OCI_ARTIFACT, ORAS_ARTIFACT})
KNOWN = INDEXES | IMAGE_MANIFESTS | ARTIFACT_MANIFESTS
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
SCHEMA1 = frozenset({DOCKER_SCHEMA1, "application/vnd.docker.distribution.manifest.v1+prettyjws"})
# Offered on every manifest request: docker-registry answers 404 without the right one.
ACCEPTED = (
    OCI_INDEX,
    OCI_MANIFEST,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_ARTIFACT,
    ORAS_ARTIFACT,
)

_LAYER_PREFIXES = (
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
    "application/vnd.in-toto+json",
)
# BuildKit's cache export puts layers and this config into the `manifests` of an index.
_BLOBS_IN_AN_INDEX = frozenset(
    {OCI_CONFIG, DOCKER_CONFIG, "application/vnd.buildkit.cacheconfig.v0"}
)
_FOREIGN_PREFIXES = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)


def known(media_type: str) -> str:
    """Return the manifest type that is meant, as we write it; empty if it is unknown.

    Case and parameters do not matter (RFC 6838 section 4.2, RFC 9110 section 8.3.1).
    """
    bare = media_type.partition(";")[0].strip().lower()
    return bare if bare in KNOWN or bare in SCHEMA1 else ""


def is_index(media_type: str) -> bool:
    """Whether it is an OCI index or a Docker manifest list."""
    return media_type in INDEXES


def is_artifact_manifest(media_type: str) -> bool:
    """Whether it is an artifact manifest, OCI's or that of ORAS: blobs and perhaps a subject."""
    return media_type in ARTIFACT_MANIFESTS


def is_image_manifest(media_type: str) -> bool:
    """Whether it is an OCI image manifest or a Docker schema 2 manifest."""
    return media_type in IMAGE_MANIFESTS


def is_blob_in_index(media_type: str) -> bool:
    """Whether a child of an index is a blob; any other child is a manifest, known or not."""
    return media_type.startswith(_LAYER_PREFIXES) or media_type in _BLOBS_IN_AN_INDEX


def is_foreign(media_type: str) -> bool:
    """Whether it is a layer that registries do not distribute (image-spec layer.md)."""
    return media_type.startswith(_FOREIGN_PREFIXES)
