"""RegistryHost: one registry in one run: its endpoint, who we are to it, what was seen there."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ocimirror.errors import RegistryUnavailable
from ocimirror.model.digest import Digest
from ocimirror.model.reference import DOCKER_HUB, check_registry, check_repository
from ocimirror.registry.addresses import is_loopback
from ocimirror.registry.http import Transport
from ocimirror.registry.messages import Access, Request, Response
from ocimirror.registry.parts import Habits
from ocimirror.registry.repository import RegistryRepository
from ocimirror.registry.tls import speaks_tls
from ocimirror.registry.url import Origin, UrlPolicy
from ocimirror.stores.stream import VerifiedStream

if TYPE_CHECKING:
    from ocimirror.registry.auth import Authorizer
    from ocimirror.registry.credentials import Credential

HUB_ENDPOINT = "registry-1.docker.io"


class RegistryHost:
    """A registry, for one run. Thread-safe.

    Args:
        registry: `host[:port]` as references name it; docker.io is reached at its endpoint.
        transport: the run's connections; it stays the caller's to close.
        credential: who we are there; else the credential files say it.

    Raises:
        InvalidReference: not a registry.
    """

    def __init__(
        self, registry: str, transport: Transport, credential: Credential | None = None
    ) -> None:
        self.registry = check_registry(registry)
        self.transport = transport
        if credential is not None:
            transport.secrets.keep(*credential.secrets)
        self.blobs: dict[Digest, str] = {}
        """A repository where each blob was seen in this run."""
        self.refuses_sparse = False
        self.habits = Habits()
        self.has_referrers_api: bool | None = None
        self._lock = threading.Lock()
        self._credential = credential
        self._authorizer: Authorizer | None = None

    def repository(self, name: str) -> RegistryRepository:
        """Return the store of one repository; InvalidReference where the name is not one."""
        return RegistryRepository(self, check_repository(name))

    @functools.cached_property
    def endpoint(self) -> Origin:
        """Where the registry is: over TLS, unless it is configured or, on loopback, found not so.

        A loopback host is asked once, and only a handshake that shows another protocol counts.
        """
        host = HUB_ENDPOINT if self.registry == DOCKER_HUB else self.registry
        secure = Origin.of(f"https://{host}")
        plain = self.registry in self.transport.options.plain_http or (
            is_loopback(secure.host) and not speaks_tls(secure)
        )
        return Origin.of(f"http://{host}") if plain else secure

    @functools.cached_property
    def policy(self) -> UrlPolicy:
        """The judge of URLs that this registry names."""
        return UrlPolicy(self.endpoint, self.transport.options.plain_http)

    def admits(self) -> bool:
        """Ask whether it takes us for who we are; False where it does not ask who we are.

        Spec: distribution-spec spec.md#determining-support

        Raises:
            AuthenticationFailed: our credentials are missing or wrong.
            RemoteError: as `send`, and for any other answer than 200.
        """
        response = self.send("GET", "/v2/", Access())
        if response.status != 200:
            raise response.failure()
        response.drain()
        return self._authorizer is not None

    def send(
        self,
        method: str,
        url: str,
        access: Access,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | VerifiedStream | None = None,
        brief: bool = False,
        closes_upload: bool = False,
    ) -> Response:
        """Send a request as whom the registry knows us; a 401 is answered once, then believed.

        Args:
            method: of HTTP.
            url: a path on the registry, or an absolute URL that the policy has let through.
            access: what it must be allowed to do.
            headers: besides our own.
            body: a stream is sent once.
            brief: a courtesy: sent once, and waited for a few seconds only.
            closes_upload: the answer may take ten minutes.

        Raises:
            AuthenticationFailed: credentials are missing, wrong, or do not suffice.
            TokenServiceUnavailable: who could give us a token does not answer.
            RemoteError: as `Transport.send`.
        """
        request = Request(
            method=method,
            url=f"{self.endpoint}{url}" if url.startswith("/") else url,
            policy=self.policy,
            headers=headers or {},
            body=body,
            authorization=self._authorizer.authorization(access) if self._authorizer else None,
            brief=brief,
            closes_upload=closes_upload,
        )
        response = self.transport.send(request)
        # (A courtesy is not worth a token: cancelling an upload may take rights that we lack.)
        if brief or not self._challenges(response):
            return response
        authorizer = self._known_authorizer()
        if not request.repeatable:
            # GitLab's tokens live 5 minutes and are judged when the whole body is there.
            authorizer.expire(access)
            response.close()
            raise RegistryUnavailable(f"{request}: 401: the token expired during the upload")
        fresh = authorizer.answer(response, access, request.authorization)
        response = self.transport.send(replace(request, authorization=fresh))
        if self._challenges(response):
            raise authorizer.refuse(response, access)
        return response

    def _challenges(self, response: Response) -> bool:
        return response.status == 401 and Origin.of(response.url) == self.endpoint

    def _known_authorizer(self) -> Authorizer:
        with self._lock:
            if self._authorizer is None:
                # (Imported here: it imports oras, and most registries never ask.)
                from ocimirror.registry.auth import Authorizer

                self._authorizer = Authorizer(
                    self.registry, self.policy, self.transport, self._credential
                )
            return self._authorizer
