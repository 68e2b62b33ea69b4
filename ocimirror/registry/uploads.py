"""How blobs come into a repository, and what a registry's refusal of a push means."""

from __future__ import annotations

import logging
from contextlib import suppress

from ocimirror.errors import (
    AuthenticationFailed,
    DigestNotPreserved,
    ManifestBlobUnknown,
    OciMirrorError,
    PushRejected,
    RegistryUnavailable,
    RemoteError,
)
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.registry import answers
from ocimirror.registry.chunks import CHUNK_BYTES, ChunkedUpload, minimum_of
from ocimirror.registry.claims import confirm_blob
from ocimirror.registry.messages import Response, Send
from ocimirror.registry.parts import Habits, Repository
from ocimirror.registry.url import UrlPolicy
from ocimirror.stores.store import Stored
from ocimirror.stores.stream import VerifiedStream

logger = logging.getLogger(__name__)

STORED = frozenset({200, 201, 204})

# So many blobs in a row that a repository lacked: then it is being filled.
_ABSENCES = 8

_CHILD_UNKNOWN = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"})
_SESSION_LOST = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"})
_ADVICE = {
    403: "Check that these credentials may push to this repository, and its quota.",
    404: "Some registries want the repository created first.",
    405: "This registry, or this repository of it, does not take pushes.",
    413: "The registry, or a proxy before it, limits the size.",
}


class Uploads:
    """How blobs come into one repository: they are there, or mounted, or sent.

    A HEAD tells whether a blob is there. While a repository is being filled it says no each time,
    so the upload finds out, where the registry can do that: two requests a blob instead of three.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._send = repository.send
        self._absences = 0
        self._sent: Digest | None = None

    def bring(self, descriptor: Descriptor, stream: VerifiedStream, *, replace: bool) -> Stored:
        """Store a blob; see `Store.push`."""
        own, holder = self._repository.name, ""
        # (Who answers to a mount may still begin an upload for sha256 only.)
        plain = descriptor.digest.algorithm == "sha256"
        filling = not replace and plain and self._filling()
        if not replace:
            if not filling and self._exists(descriptor):
                return Stored.PRESENT
            holder = self._holder(stream) or (own if filling else "")
        stored = self._push(stream, holder)
        if stored is Stored.MOUNTED and holder == own:
            # (It is there; whether whole, a HEAD tells.)
            if self._exists(descriptor):
                return Stored.PRESENT
            stored = self._push(stream, "")
        if stored is Stored.COPIED:
            self._sent = descriptor.digest
        return stored

    def _push(self, stream: VerifiedStream, holder: str) -> Stored:
        """Mount a blob, or send it in one PUT, or in chunks.

        One PUT is what every registry takes, unless something before it limits the size of a body;
        that is learned once, and the caller's fresh fetch then goes in chunks.

        Args:
            stream: the blob; not opened where the mount succeeds, never sent twice.
            holder: a repository of the same registry that has it, or an empty string.

        Raises:
            RegistryUnavailable: a fresh upload may succeed.
            PushRejected: it will not.
            IntegrityError: the stream failed its check; the upload was cancelled.
            DigestNotPreserved: the registry stored something else.

        Spec: distribution-spec, pushing a blob monolithically (POST then PUT), mounting a blob.
        """
        send, digest = self._send, stream.descriptor.digest
        policy, habits = self._repository.host.policy, self._repository.host.habits
        session = _mount(send, digest, holder) if holder else None
        if session is not None and session.status == 201:
            if _is_mounted(send, session, stream.descriptor):
                return Stored.MOUNTED
            session = None
        session = session or _begin(send, digest)
        location = _location(session, policy)
        try:
            if habits.chunked and len(stream) > CHUNK_BYTES:
                upload = ChunkedUpload(
                    send,
                    lambda answer: policy.follow(
                        answer.url, answer.headers.get("Location", ""), "upload location"
                    ),
                    location,
                    minimum_of(session),
                )
                upload.send_all(stream)
                location = upload.location
            _put(send, location, stream, habits)
        except OciMirrorError:
            with suppress(OciMirrorError):
                _cancel(send, location)
            raise
        return Stored.COPIED

    def _exists(self, descriptor: Descriptor) -> bool:
        exists = self._repository.exists(descriptor)
        self._absences = 0 if exists else self._absences + 1
        return exists

    def _filling(self) -> bool:
        habits = self._repository.host.habits
        if self._absences < _ABSENCES or self._sent is None:
            return False
        if habits.finds_own is None:
            habits.finds_own = False  # (The other threads look as before meanwhile.)
            habits.finds_own = self._finds(self._sent)
        return habits.finds_own

    def _finds(self, digest: Digest) -> bool:
        """Whether a mount from the repository itself finds a blob that it has."""
        session = _mount(self._send, digest, self._repository.name)
        if session is None:
            return False
        if session.status == 201:
            session.drain()
            return True
        with suppress(OciMirrorError):
            _cancel(self._send, _location(session, self._repository.host.policy))
        return False

    def _holder(self, stream: VerifiedStream) -> str:
        """Return another repository of this registry that has the blob, or an empty string."""
        host, origin = self._repository.host, stream.origin
        if isinstance(origin, type(self._repository)) and origin.host.registry == host.registry:
            holder = origin.name
        else:
            holder = host.blobs.get(stream.descriptor.digest, "")
        return holder if holder != self._repository.name else ""


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


def check_stored(response: Response, wanted: Digest) -> None:
    """Compare the digest of the answer, if it states one of that algorithm.

    docker-registry answers a sha512 upload with the sha256 digest of the same bytes.
    """
    stated = answers.content_digest(response.headers)
    if stated and stated.algorithm == wanted.algorithm and stated != wanted:
        raise DigestNotPreserved(f"{response}: stored as {stated}, sent {wanted}")


def _mount(send: Send, digest: Digest, holder: str) -> Response | None:
    """Ask for the blob of a repository; None where the registry refuses to look.

    400, 401, 403 and 405 were all seen where only the mount was refused.
    """
    try:
        path = f"blobs/uploads/?mount={digest}&from={holder}"
        response = send("POST", path, mount_from=holder)
    except AuthenticationFailed:
        return None
    if response.status in (201, 202):
        return response
    response.drain()
    return None


def _is_mounted(send: Send, answer: Response, blob: Descriptor) -> bool:
    """Whether a mount brought the blob: the answer states its digest, or we look."""
    answer.drain()
    if answers.content_digest(answer.headers) == blob.digest:
        return True
    try:
        confirm_blob(send, blob)
    except DigestNotPreserved:
        logger.warning("%s: a mount was accepted, and the blob is not there: it is sent", answer)
        return False
    return True


def _begin(send: Send, digest: Digest) -> Response:
    algorithm = "" if digest.algorithm == "sha256" else f"?digest-algorithm={digest.algorithm}"
    response = send("POST", f"blobs/uploads/{algorithm}")
    if response.status >= 300:
        raise rejection(response)
    return response


def _location(session: Response, policy: UrlPolicy) -> str:
    session.drain()
    target = session.headers.get("Location", "")
    if session.status != 202 or not target:
        raise RegistryUnavailable(f"{session}: {session.status}, and no upload was opened")
    return policy.follow(session.url, target, "upload location")


def _cancel(send: Send, location: str) -> None:
    send("DELETE", location, brief=True).drain()


def _put(send: Send, location: str, stream: VerifiedStream, habits: Habits) -> None:
    descriptor, in_chunks = stream.descriptor, stream.verified
    # Appended as text: a query that is parsed and written again breaks signatures.
    separator = "&" if "?" in location else "?"
    response = send(
        "PUT",
        f"{location}{separator}digest={descriptor.digest}",
        headers={"Content-Type": mediatype.OCTET_STREAM},
        body=b"" if stream.verified else stream,
        closes_upload=True,
    )
    if response.status == 413 and not in_chunks and len(stream) > CHUNK_BYTES:
        habits.chunked = True
        raise RegistryUnavailable(f"{response}: one PUT is too large for it; chunks are next")
    if response.status not in STORED:
        raise _upload_failure(response, descriptor.digest)
    response.drain()
    if not stream.verified:
        raise RegistryUnavailable(f"{response}: it was answered before the blob was sent")
    check_stored(response, descriptor.digest)
    stated = answers.content_digest(response.headers)
    if stated is None or stated.algorithm != descriptor.digest.algorithm:
        confirm_blob(send, descriptor)


def _upload_failure(response: Response, digest: Digest) -> RemoteError:
    """Read a refusal of a blob's bytes, and return its error; a fresh upload may help or not."""
    codes, message = response.explain()
    # (A 401 that comes here is not the registry's: a signed location ended.)
    lost = response.status in (401, 404, 416) or codes & _SESSION_LOST
    # Our bytes were verified, so they changed on the way; unless sha512 is not known there.
    damaged = "DIGEST_INVALID" in codes and digest.algorithm == "sha256"
    if response.status < 400 or lost or damaged:
        return RegistryUnavailable(message)
    return PushRejected(message, advice=_ADVICE.get(response.status, ""))
