"""Bodies on the wire: one on its way out at the rate of the run, one as it comes back."""

from __future__ import annotations

import io
import time

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from ocimirror.errors import Interrupted, RegistryUnavailable, RemoteError
from ocimirror.registry.connections import limited
from ocimirror.registry.failures import root_cause, translated
from ocimirror.registry.limits import Limits
from ocimirror.registry.messages import Request
from ocimirror.shown import Lease
from ocimirror.stores.stream import VerifiedStream

MIN_RATE_BYTES_S = 1024
# A TLS record holds 16 KiB, and one read returns one record: a larger buffer is made for nothing.
TLS_PIECE_BYTES = 64 * 1024
_GATHER_S = 0.05
_DRIP_BYTES = 1024


class Upload:
    """A body on its way out, in pieces as the rate of the run allows them."""

    def __init__(self, body: bytes | VerifiedStream, limits: Limits) -> None:
        self._size_bytes = len(body)
        self._body = io.BytesIO(body) if isinstance(body, bytes) else body
        self._limits = limits

    def __len__(self) -> int:
        return self._size_bytes

    def read(self, amount: int, /) -> bytes:
        """Return the next bytes, once they may be sent."""
        piece = self._body.read(min(amount, self._limits.piece_bytes))
        self._limits.moved(len(piece))
        return piece


class Body:
    """A body as it comes off the wire: a Reader that fails with our errors only.

    Silence ends it, and so does a trickle: less than 1 KiB/s over the time of silence.
    """

    def __init__(
        self,
        raw: BaseHTTPResponse,
        request: Request,
        window_s: float,
        piece_bytes: int,
        limits: Limits,
        lease: Lease | None,
    ) -> None:
        self._raw = raw
        self._lease = lease
        self._request = request
        self._window_s = window_s
        self._piece_bytes = piece_bytes
        self._limits = limits
        self._waited_s = 0.0
        self._received = 0
        self._failure: RemoteError | None = None

    def read(self, amount: int, /) -> bytes:
        """Return 1 to `amount` bytes as soon as some are there, none at the end.

        Raises:
            RegistryUnavailable: the connection broke, fell silent, or only trickles.
            Interrupted: the run was stopped.
        """
        began = time.monotonic()
        pieces = self._gathered(min(amount, self._limits.piece_bytes), began + _GATHER_S)
        # Only the time spent in here counts: a slow destination is not a slow source.
        self._waited_s += time.monotonic() - began
        received = sum(map(len, pieces))
        if received < _DRIP_BYTES and self._limits.stop.is_set():
            raise Interrupted("stopped")
        self._received += received
        if self._waited_s >= self._window_s:
            if self._received < MIN_RATE_BYTES_S * self._waited_s:
                raise RegistryUnavailable(
                    f"{self._request}: stalled, {self._received} bytes in {self._waited_s:.0f} s"
                )
            self._waited_s, self._received = 0.0, 0
        self._limits.moved(received)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _gathered(self, amount: int, until: float) -> list[bytes]:
        """Return what comes within a moment: many small pieces cost more than one large one.

        A failure after the first piece waits for the next read: what came before it came.
        """
        if self._failure is not None:
            raise self._failure
        pieces: list[bytes] = []
        while amount and (not pieces or time.monotonic() < until):
            try:
                # (Not `read`: it would wait for a trickle to fill the whole amount.)
                with limited(self._window_s, self._limits.stop):
                    piece = self._raw.read1(min(amount, self._piece_bytes))
            except (HTTPError, OSError) as error:
                self._failure = translated(error, self._request)
                self._failure.__cause__ = root_cause(error)
                if not pieces:
                    raise self._failure from self._failure.__cause__
                break
            if not piece:
                break
            pieces.append(piece)
            amount -= len(piece)
        return pieces

    def close(self) -> None:
        """Give the connection back; before the end of the body that closes it."""
        self._raw.close()
        self._raw.release_conn()
        # (Who reads an answer after all was closed may quote it in an error later.)
        self._lease = self._lease and self._lease.ended()
