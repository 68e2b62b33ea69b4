"""What a registry's refusal of a push means: for good, for lack of content, or for now."""

from __future__ import annotations

from ocimirror.errors import (
    AuthenticationFailed,
    ManifestBlobUnknown,
    PushRejected,
    RegistryUnavailable,
    RemoteError,
)
from ocimirror.model.digest import Digest
from ocimirror.stores.registry.messages import Response

_CHILD_UNKNOWN = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"})
_SESSION_LOST = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"})
_ADVICE = {
    403: "Check that these credentials may push to this repository, and its quota.",
    404: "Some registries want the repository created first.",
    405: "This registry, or this repository of it, does not take pushes.",
    413: "The registry, or a proxy before it, limits the size.",
}


def rejection(response: Response) -> RemoteError:
    """Read a refusal of a manifest or of a new upload, and return its error."""
    codes, message = response.explain()
    if response.status == 401:
        return AuthenticationFailed(message)
    if response.status < 400:
        return RegistryUnavailable(message)
    if codes & _CHILD_UNKNOWN:
        return ManifestBlobUnknown(message)
    return PushRejected(message, advice=_ADVICE.get(response.status, ""))


def upload_failure(response: Response, digest: Digest) -> RemoteError:
    """Read a refusal of a blob's bytes, and return its error; a fresh upload may help or not."""
    codes, message = response.explain()
    lost = response.status in (404, 416) or codes & _SESSION_LOST
    # Our bytes were verified, so they changed on the way; unless sha512 is not known there.
    damaged = "DIGEST_INVALID" in codes and digest.algorithm == "sha256"
    if response.status < 400 or lost or damaged:
        return RegistryUnavailable(message)
    return PushRejected(message, advice=_ADVICE.get(response.status, ""))
