"""Whether a registry has what it says it stored: its answer states a digest, or we look.

Spec: distribution-spec, pushing manifests, pushing a blob; Docker-Content-Digest was optional up
to version 1.1.
"""

from __future__ import annotations

from collections.abc import Callable

from ocimirror.errors import DigestNotPreserved, NotFound, PushRejected, SizeMismatch
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import MAX_SIZE_BYTES
from ocimirror.registry import answers
from ocimirror.registry.encoding import read_json
from ocimirror.registry.messages import Response, Send

_DIGEST_REFUSED = (400, 404, 405, 406, 415, 422, 501)


def states(response: Response, raw: bytes) -> bool:
    """Whether an answer of success states the digest of these bytes."""
    stated = answers.content_digest(response.headers) if response.status < 300 else None
    if stated is None or not stated.verifiable:
        return False
    return stated == Digest.of(raw, stated.algorithm)


def confirm_manifest(what: str, raw: bytes, head: Response, ask: Callable[[], Response]) -> None:
    """Look whether a name stands for these bytes, since the answer to the push did not say.

    Args:
        what: the name in messages.
        raw: what was pushed.
        head: the answer to a HEAD of that name.
        ask: a GET of it, whose content is hashed if the HEAD states no digest or another one.

    Raises:
        DigestNotPreserved: it stands for other bytes, or for nothing.
    """
    if states(head, raw):
        return
    try:
        found = read_json(ask(), MAX_SIZE_BYTES)
    except (NotFound, SizeMismatch) as error:
        raise DigestNotPreserved(
            f"{what}: the push was accepted, and it is not there: {error.message}"
        ) from error
    if found != raw:
        raise DigestNotPreserved(
            f"{what}: the push was accepted, and it is {Digest.of(found)} now, sent"
            f" {Digest.of(raw)}"
        )


def confirm_blob(send: Send, descriptor: Descriptor) -> None:
    """Look whether a blob is there, since the answer to its upload did not say under which digest.

    Raises:
        DigestNotPreserved: it is not.
        RemoteError: neither HEAD nor GET tells.
    """
    path = f"blobs/{descriptor.digest}"
    head = send("HEAD", path)
    head.drain()
    if head.status == 200 and has_size(head, descriptor):
        return
    found = send("GET", path)
    found.close()
    if found.status == 404 or (found.status == 200 and not has_size(found, descriptor)):
        raise DigestNotPreserved(f"{found}: the upload was accepted, and the blob is not there")
    if found.status not in (200, 401, 403):  # (who may write need not be allowed to read)
        raise found.failure()


def has_size(response: Response, descriptor: Descriptor) -> bool:
    """Whether an answer announces the size of a descriptor, or none.

    A manifest has its digest in the path, and its length in a HEAD is not to be relied on.
    """
    length = answers.content_length(response.headers)
    return descriptor.kind == "manifest" or length in (None, descriptor.size)


def is_about_digest(response: Response, refusal: Exception) -> bool:
    """Whether a manifest put by a digest that is not sha256 was refused for that."""
    return type(refusal) is PushRejected and response.status in _DIGEST_REFUSED
