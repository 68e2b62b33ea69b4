"""Content-Encoding: who sets it has changed the content on the way, or only the field.

Nobody was asked for an encoding. Storage that keeps the field with an object, and proxies that
forget to remove it, send content as it is all the same: the digest tells.
"""

from __future__ import annotations

from ocimirror.errors import RegistryRefused
from ocimirror.model.descriptor import Descriptor
from ocimirror.registry import answers
from ocimirror.registry.messages import Response


def altered(response: Response) -> RegistryRefused:
    """Return the error for content that is not what it was, and close."""
    response.close()
    encoding = response.headers.get("Content-Encoding", "")[:100]
    return RegistryRefused(
        f"{response}: a proxy altered the content (Content-Encoding: {encoding})",
        advice="What is between here and the registry must not compress what it carries.",
    )


def read_json(response: Response, limit: int) -> bytes:
    """Return the whole body of a JSON document, and close.

    Raises:
        SizeMismatch: it is longer than `limit` bytes.
        RegistryRefused: it was encoded.
    """
    raw = response.read_all(limit)
    if answers.encoded(response.headers) and not raw.lstrip().startswith((b"{", b"[")):
        raise altered(response)
    return raw


class UnchangedBody:
    """A body with a Content-Encoding that is the content all the same, or an error. A Reader.

    Args:
        response: announces no length, which would tell before.
        descriptor: what the content must be.
    """

    def __init__(self, response: Response, descriptor: Descriptor) -> None:
        self._response = response
        self._left = descriptor.size
        self._hash = descriptor.digest.hasher()
        self._encoded = descriptor.digest.encoded

    def read(self, amount: int, /) -> bytes:
        """Return 1 to `amount` bytes, none at the end.

        Raises:
            RegistryRefused: before the last of them, if the content is another one.
        """
        chunk = self._response.read(amount)
        self._hash.update(chunk)
        self._left -= len(chunk)
        ended = not chunk or self._left <= 0
        if ended and (self._left != 0 or self._hash.hexdigest() != self._encoded):
            raise altered(self._response)
        return chunk

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()
