"""Reading a blob to its end over answers that break off."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ocimirror.errors import RegistryUnavailable
from ocimirror.registry import answers
from ocimirror.registry.messages import Response
from ocimirror.retries import Tries
from ocimirror.stores.stream import CHUNK_BYTES

MAX_RESTARTS = 2
PROGRESS_BYTES = 1024 * 1024

logger = logging.getLogger(__name__)


class ResumedBody:
    """A blob's bytes, asked for again from where an answer broke off. A Reader.

    Each time the registry itself is asked, since a signed URL that it gave may have ended. It sits
    below VerifiedStream, whose hash goes on: no answer is believed to fit to the one before.

    Args:
        response: the first answer, a whole body; None asks for what is behind `position`.
        size_bytes: of the blob.
        position: where the reader begins.
        ask: asks the registry for the bytes from a position on; 0 for the whole.
        tries: how often in a row, as long as less than 1 MiB comes of it.
    """

    def __init__(
        self,
        response: Response | None,
        size_bytes: int,
        position: int = 0,
        *,
        ask: Callable[[int], Response],
        tries: Tries,
    ) -> None:
        self._size_bytes = size_bytes
        self._ask = ask
        self._tries = tries
        self._position = position
        self._resumed_at = position
        self._restarts = 0
        self._response = response or self._rest()

    def read(self, amount: int, /) -> bytes:
        """Return 1 to `amount` bytes, none at the end.

        Raises:
            RegistryUnavailable: the last answer broke off too, or the rest is not to be had.
        """
        while True:
            try:
                chunk = self._response.read(amount)
                if not chunk and self._position < self._size_bytes and self._ends_by_closing():
                    raise RegistryUnavailable(f"{self._response}: the connection was closed")
            except RegistryUnavailable as error:
                self._resume(error)
            else:
                self._position += len(chunk)
                return chunk

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()

    def _ends_by_closing(self) -> bool:
        """Whether nothing announced where the body ends, so that an end may be an accident."""
        headers = self._response.headers
        return "Content-Length" not in headers and "Transfer-Encoding" not in headers

    def _resume(self, failure: RegistryUnavailable) -> None:
        self._response.close()
        if self._position - self._resumed_at >= PROGRESS_BYTES:
            self._tries.progressed()
        self._resumed_at = self._position
        if not self._tries.again(failure):
            raise failure
        logger.info("asking again from byte %d", self._position)
        self._response = self._rest()

    def _rest(self) -> Response:
        """Return an answer that stands at our position."""
        response = self._ask(self._position)
        rest = (self._position, self._size_bytes - 1, self._size_bytes)
        fits = answers.content_range(response.headers) == rest
        if (
            response.status == 206
            and fits
            and not answers.encoded(response.headers, self._size_bytes - self._position)
        ):
            return response
        # Another range, the whole, or a refusal: registry.k8s.io answers 400 or 200 to a range
        # (kubernetes/registry.k8s.io #333). A 416 of docker-registry cannot even be drained.
        if response.status != 200:
            response.close()
            response = self._ask(0)
        if response.status != 200:
            raise response.failure()
        return self._skipped(response)

    def _skipped(self, response: Response) -> Response:
        """Read over what we have already; a registry that makes us do so is not asked for ever."""
        self._restarts += self._position > 0
        left = self._position
        try:
            if self._restarts > MAX_RESTARTS or answers.encoded(response.headers, self._size_bytes):
                raise RegistryUnavailable(f"{response}: it cannot be resumed")
            while left:
                chunk = response.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise RegistryUnavailable(f"{response}: it ended before where it broke off")
                left -= len(chunk)
        except RegistryUnavailable:
            response.close()
            raise
        return response
