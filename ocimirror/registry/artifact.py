"""Small files of ours as an artifact in a registry, by oras' own client, over our connections.

oras (0.2.43) says what is sent and in which order: it asks for each blob, uploads it in one PUT,
and puts the manifest. How it is sent is ours: its client has one method through which every
request goes, and that is replaced here. So TLS policy, credentials, limits and retries are those
of all other requests, no secret leaves its origin, and an upload location is judged and kept as it
was given. What oras does not do is done here as well: everything is read back and compared.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import oras.container
import oras.oci
import oras.provider

from ocimirror.errors import DigestNotPreserved, IntegrityError, NotFound, storage_errors
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.registry.messages import Access
from ocimirror.registry.repository import RegistryRepository
from ocimirror.registry.uploads import rejection

EMPTY_CONFIG = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"

logging.getLogger("oras").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """One file of an artifact; `name` is what clients call it when they pull it."""

    name: str
    media_type: str
    content: bytes = field(repr=False)


def push_artifact(
    repository: RegistryRepository,
    tag: str,
    artifact_type: str,
    files: Sequence[ArtifactFile],
    annotations: Mapping[str, str],
) -> Descriptor:
    """Push files as an artifact, name it, and read all of it back.

    Not atomic, but the tag moves last. Held in memory; meant for documents.

    Args:
        repository: where to.
        tag: what it is called there; it is moved if it is there.
        artifact_type: what kind of artifact it is.
        files: one or more; each name once.
        annotations: of the manifest.

    Returns:
        What the tag stands for now.

    Raises:
        PushRejected: the registry refused.
        DigestNotPreserved: what it gives back is something else.
        RemoteError: as any push.

    Spec: image-spec manifest.md#guidelines-for-artifact-usage.
    """
    client = _Client(repository, tag)
    with tempfile.TemporaryDirectory(prefix="ocimirror-") as directory:
        layers = [
            client.push_file(os.path.join(directory, file.name), file.content, file.media_type)
            for file in files
        ]
        config = client.push_file(os.path.join(directory, "{}"), EMPTY_CONFIG, EMPTY_TYPE)
    for layer, file in zip(layers, files, strict=True):
        layer["annotations"] = {TITLE: file.name}
    raw = client.push_manifest(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": config,
            "layers": layers,
            "annotations": dict(annotations),
        }
    )
    descriptor = Descriptor(mediatype.OCI_MANIFEST, Digest.of(raw), len(raw), kind="manifest")
    _read_back(repository, tag, descriptor, raw, [*files, ArtifactFile("", "", EMPTY_CONFIG)])
    return descriptor


def _read_back(
    pushed: RegistryRepository,
    tag: str,
    descriptor: Descriptor,
    raw: bytes,
    files: Sequence[ArtifactFile],
) -> None:
    # (A store of its own: one that saw what was pushed would not ask.)
    repository = pushed.host.repository(pushed.name)
    what = f"{repository.location}:{tag}"
    try:
        found = repository.resolve(tag)
        if found.digest != descriptor.digest:
            raise DigestNotPreserved(f"{what} reads back as {found.digest}, not {descriptor}")
        manifest = repository.read_manifest(descriptor)
        kept = manifest.raw == raw
        for file in files:
            size = len(file.content)
            blob = Descriptor(mediatype.OCTET_STREAM, Digest.of(file.content), size, kind="blob")
            with repository.fetch(blob) as stream:
                kept &= stream.read_all(size) == file.content
    except (NotFound, IntegrityError) as error:
        raise DigestNotPreserved(f"{what} does not read back: {error.message}") from error
    if not kept:
        raise DigestNotPreserved(f"{what} reads back as other bytes")


class _Client(oras.provider.Registry):  # type: ignore[misc]
    """oras' client of one repository; its requests are ours."""

    def __init__(self, repository: RegistryRepository, tag: str) -> None:
        endpoint = repository.host.endpoint
        super().__init__(endpoint.authority, insecure=endpoint.scheme == "http")
        self._host = repository.host
        self._access = Access(repository.name, push=True)
        # (Not parsed by oras, which takes a first component with a dot for a registry.)
        self._container = oras.container.Container("none", registry=endpoint.authority)
        self._container.namespace, self._container.repository = None, repository.name
        self._container.tag, self._container.digest = tag, None
        self._location = ""
        self._manifest = b""

    def push_file(self, path: str, content: bytes, media_type: str) -> dict[str, Any]:
        """Write a file for oras, let it upload that, and return its descriptor."""
        with storage_errors(path), open(path, "wb") as file:
            file.write(content)
        layer: dict[str, Any] = oras.oci.NewLayer(path, media_type=media_type)
        self.upload_blob(path, self._container, layer)
        return layer

    def push_manifest(self, manifest: dict[str, Any]) -> bytes:
        """Let oras put the manifest; return the bytes that went out."""
        self.upload_manifest(manifest, self._container)
        return self._manifest

    def _request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        json: dict[str, Any] | None = None,
        stream: bool = False,  # noqa: ARG002 - oras' signature
    ) -> _Answer:
        """Send what oras asks for; refusals raise, but that of a HEAD, which is an answer."""
        if json is not None:
            data = self._manifest = _written(json)
        if self._location and method == "PUT" and json is None:
            url = _with_digest(self._location, url)
            self._location = ""
        endpoint = str(self._host.endpoint)
        response = self._host.send(
            method,
            self._host.policy.follow(endpoint, url, "upload location"),
            self._access,
            headers={name: text for name, text in (headers or {}).items() if name in _PASSED_ON},
            body=data,
        )
        if response.status >= 300 and method != "HEAD":
            raise rejection(response)
        response.drain()
        answer = _Answer(response.status, dict(response.headers))
        if method == "POST":
            target = response.headers.get("Location", "")
            self._location = self._host.policy.follow(response.url, target, "upload location")
            answer.headers["location"] = self._location
        return answer

    do_request = _request  # (as oras calls it)


_PASSED_ON = frozenset({"Accept", "Content-Type"})


def _written(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()


def _with_digest(location: str, url: str) -> str:
    """Return an upload location with the digest of oras' URL appended as text.

    oras parses the query and writes it again, which breaks signatures.
    """
    digest = parse_qs(urlsplit(url).query)["digest"][-1]
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What oras looks at in a response of requests."""

    status_code: int
    headers: dict[str, str]
