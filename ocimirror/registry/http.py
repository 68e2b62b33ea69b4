"""The one place that calls requests: sending, waiting, following.

No requests.Session: it would add cookies, .netrc, proxies from the environment, and quote signed
URLs again. Its transport adapter is used directly; urllib3's pool below it is thread-safe.
"""

from __future__ import annotations

import functools
import logging
import math
import ssl
import time
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from weakref import finalize

from requests import PreparedRequest, RequestException
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

from ocimirror.errors import (
    OciMirrorError,
    RateLimited,
    RegistryUnavailable,
    RemoteError,
    UrlRefused,
    UsageError,
)
from ocimirror.registry.bodies import TLS_PIECE_BYTES, Body, Upload
from ocimirror.registry.connections import POOLS, limited, through
from ocimirror.registry.failures import root_cause, translated
from ocimirror.registry.limits import Limits
from ocimirror.registry.messages import RETRIED, Request, Response
from ocimirror.registry.notices import Notices
from ocimirror.registry.options import NetworkOptions
from ocimirror.registry.pulse import Pulse
from ocimirror.registry.tls import certificates_of, client_context
from ocimirror.registry.url import Origin, UrlPolicy, bypasses_proxy, redact
from ocimirror.retries import Tries
from ocimirror.shown import Lease, Secrets
from ocimirror.stores.stream import CHUNK_BYTES, VerifiedStream
from ocimirror.version import __version__

CONNECT_TIMEOUT_S = 10.0
BRIEF_S = 3.0
MAX_REDIRECTS = 5
# A registry hashes the whole blob, or moves it in its storage, before it answers.
CLOSING_S = 600.0

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"ocimirror/{__version__}"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


logger = logging.getLogger(__name__)
# urllib3's debug lines hold whole URLs, and so the signatures of redirect targets.
logging.getLogger("urllib3").setLevel(logging.WARNING)


class Transport:
    """The connections of one run, to all registries. Thread-safe.

    Args:
        options: what the user said about the network.

    Attributes:
        secrets: what was sent to prove who we are, and is not shown until this is closed.

    Raises:
        UsageError: a certificate file, or the proxy, of the options cannot be used.
    """

    def __init__(self, options: NetworkOptions) -> None:
        scheme, separator, _ = options.proxy.partition("://")
        if separator and scheme not in ("http", "https"):
            raise UsageError(f"a proxy is an http:// or https:// URL, not {scheme}://")
        self.options = options
        self._adapter = _Adapter(options)
        self._limits = Limits(options)
        self._pulses: dict[Origin, Pulse] = {}
        self._notices = Notices()
        self.secrets = Secrets()
        self.secrets.keep(*options.secrets)
        # (Who never closes it is not to have its secrets for words that cannot be shown for ever.)
        finalize(self, self.secrets.abandon).atexit = False

    def send(self, request: Request) -> Response:
        """Send a request until it is answered by something else than 408, 429 and 5xx.

        501 is an answer, and so is 500 to HEAD: GET tells then. What a streamed body raises comes
        out as it is.

        Raises:
            RegistryUnavailable: no answer, or 408, 429 (RateLimited) and 5xx to the last; or not
                sent, since the host is dead.
            UntrustedCertificate, UrlRefused: and nothing was tried again.
            Interrupted: `options.stop` was set.
        """
        again = request.repeatable and not request.brief
        tries = self.tries(request.url, None if again else 0)
        url, redirects = request.url, 0
        while True:
            try:
                response = self._sent(request, url, last=again and tries.last)
            except RegistryUnavailable as error:
                error.exhausted |= request.repeatable and tries.last
                if not tries.again(error):
                    raise
                url, redirects = request.url, 0
                continue
            target = _redirect(request, response)
            if not target:
                return response
            response.drain()
            url = request.policy.follow(url, target, request.use)
            redirects += 1
            if redirects > MAX_REDIRECTS:
                raise UrlRefused(f"{request}: more than {MAX_REDIRECTS} redirects")

    def tries(self, url: str, retries: int | None = None) -> Tries:
        """Return the tries of something that is asked for at a URL.

        Args:
            url: what its server says of waiting holds for all threads.
            retries: else those of the options.
        """
        often = self.options.retries if retries is None else retries
        return Tries(often, partial(self._wait, url))

    def _wait(self, url: str, seconds: float, failure: OciMirrorError) -> None:
        host, busy = self._limits.of(Origin.of(url)), isinstance(failure, RateLimited)
        asked = isinstance(failure, RegistryUnavailable) and failure.retry_after_s is not None
        begins = (busy or asked) and host.hold(seconds)
        level = logging.WARNING if begins and busy else logging.INFO
        logger.log(level, "%s; trying again in %.1f s", failure, seconds)
        host.wait(seconds)

    def close(self) -> None:
        """Close the connections that are not in use, and forget secrets; idempotent."""
        self._adapter.close()
        self.secrets.close()

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sent(self, request: Request, url: str, *, last: bool) -> Response:
        """Send a request, unless its host is dead; find out if it is, where that seems so."""
        origin = Origin.of(url)
        pulse = self._pulses.get(origin) or self._pulses.setdefault(origin, Pulse())
        answered: Response | None = None
        try:
            with pulse.learning(request, last=last):
                response = self._exchange(request, url)
                answered = response
                if response.status in RETRIED:
                    raise response.failure()
        except RegistryUnavailable:
            if pulse.stops():
                self._look_for_life(origin, pulse, request.policy)
            if answered is not None and request.method == "HEAD" and answered.status == 500:
                return answered  # (some cannot answer HEAD; GET is asked, and tried again)
            raise
        return response

    def _look_for_life(self, origin: Origin, pulse: Pulse, policy: UrlPolicy) -> None:
        request = Request(method="GET", url=f"{origin}/v2/", policy=policy, brief=True)
        try:
            response = self._exchange(request, request.url)
            if response.status in RETRIED - {429}:
                raise response.failure()
        except RemoteError as error:
            logger.warning("%s; requests to this host fail at once from now on", error)
            pulse.dies(error.message)
        else:
            response.drain()

    def _exchange(self, request: Request, url: str) -> Response:
        origin = Origin.of(url)
        lease: Lease | None = self.secrets.lease()
        try:
            prepared = self._prepared(request, url, origin)
            silence_s = min(self.options.timeout_s, BRIEF_S if request.brief else math.inf)
            answer_s = max(silence_s, CLOSING_S) if request.closes_upload else silence_s
            # (urllib3 sends a body under the timeout for connecting.)
            connect_s = silence_s if request.body else min(CONNECT_TIMEOUT_S, silence_s)
            proxies = self._proxies(origin)
            # (A proxy resolves names itself, and is to judge them.)
            gate = None if proxies else request.policy.gate(url)
            with self._limits.of(origin).turn() as turn:
                began = time.monotonic()
                try:
                    with limited(math.inf, self.options.stop), through(gate):
                        raw = self._adapter.send(
                            prepared,
                            stream=True,
                            timeout=(connect_s, answer_s),
                            proxies=proxies,
                        ).raw
                except (RequestException, HTTPError, OSError) as error:
                    logger.debug("%s %s failed", request.method, redact(url))
                    raise translated(error, request) from root_cause(error)
                turn.status = raw.status
            if logger.isEnabledFor(logging.DEBUG):
                ms = (time.monotonic() - began) * 1000
                logger.debug("%s %s %d %.0f ms", request.method, redact(url), raw.status, ms)
            self._notices.read(origin, raw.headers)
            piece_bytes = TLS_PIECE_BYTES if origin.scheme == "https" else CHUNK_BYTES
            timeout_s = self.options.timeout_s
            body = Body(raw, request, timeout_s, piece_bytes, self._limits, lease)
            return Response(request, url, raw.status, raw.headers, body)
        finally:
            lease = None  # (the traceback of an error keeps this frame)

    def _prepared(self, request: Request, url: str, origin: Origin) -> PreparedRequest:
        prepared = PreparedRequest()
        prepared.method, prepared.url = request.method, url
        # (requests sends what has `read` and a length.)
        prepared.body = cast("Any", self._paced(request.body))
        prepared.headers = CaseInsensitiveDict({**_HEADERS, **request.headers})
        if request.body is not None:
            prepared.headers["Content-Length"] = str(len(request.body))
        authorization = request.authorization
        if authorization is not None and authorization.origin == origin:
            self.secrets.keep(authorization.value.partition(" ")[2])
            prepared.headers["Authorization"] = authorization.value
        return prepared

    def _proxies(self, origin: Origin) -> dict[str, str] | None:
        proxy = self.options.proxy
        if not proxy or bypasses_proxy(origin, self.options.no_proxy):
            return None
        return {origin.scheme: proxy}

    def _paced(self, body: bytes | VerifiedStream | None) -> object:
        return Upload(body, self._limits) if body and self.options.bytes_per_second else body


def _redirect(request: Request, response: Response) -> str:
    """Return where an answer sends us, empty if we do not go there."""
    redirects = response.status in _REDIRECTS and request.method in ("GET", "HEAD")
    return response.headers.get("Location", "") if redirects else ""


class _Adapter(HTTPAdapter):
    """The adapter of requests with our buffer size and one TLS context, made when first needed."""

    def __init__(self, options: NetworkOptions) -> None:
        self._options = options
        self._contexts: dict[Origin, ssl.SSLContext] = {}
        if options.ca_file or options.client_cert:
            _ = self._context
        # A job has at most one download and one upload under way.
        super().__init__(pool_connections=64, pool_maxsize=2 * options.jobs + 2)

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        return client_context(self._options)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **pool: Any
    ) -> None:
        """Send bodies in pieces of 256 KiB: a fifth of the CPU time of requests' own 16 KiB."""
        super().init_poolmanager(connections, maxsize, block, blocksize=CHUNK_BYTES, **pool)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **pool: Any) -> Any:
        """Return the manager of a proxy, under the same TLS policy."""
        if proxy.startswith("https:"):
            pool["proxy_ssl_context"] = self._context
        manager = super().proxy_manager_for(proxy, blocksize=CHUNK_BYTES, **pool)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """Choose the pool; requests would read the CA file again for each connection."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] != "https":
            return host, {}
        return host, {"ssl_context": self._context_of(Origin("https", host["host"], host["port"]))}

    def _context_of(self, origin: Origin) -> ssl.SSLContext:
        """Return the run's policy, or a host's own if it has certificates of its own."""
        if origin not in self._contexts:
            own = certificates_of(origin, self._options.certs_dirs)
            made = client_context(self._options, origin) if own else self._context
            self._contexts[origin] = made
        return self._contexts[origin]

    def build_response(self, _: PreparedRequest, raw: Any) -> Any:
        """Wrap the answer: all of it that we use is `raw`; cookies are neither read nor kept."""
        return SimpleNamespace(raw=raw)

    def cert_verify(self, *_: Any) -> None:
        """Leave the connection alone: its context verifies."""
