"""The one place that imports oras: answers to challenges, tokens, and their renewal.

oras (0.2.43) makes the token request: a backend is made for each exchange, so no token and no
password outlives it there, and its requests go through our transport, under our URL policy. What
it has no notion of is here: challenges, several scopes, identity tokens, expiry, refusal.
"""

from __future__ import annotations

import json
import logging
import math
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

import oras.auth
from oras.auth.utils import authHeader

from ocimirror.errors import (
    AuthenticationFailed,
    OciMirrorError,
    RateLimited,
    RegistryUnavailable,
    TokenServiceUnavailable,
)
from ocimirror.registry import answers
from ocimirror.registry.answers import Challenge
from ocimirror.registry.credentials import Credential, CredentialFiles
from ocimirror.registry.http import Transport
from ocimirror.registry.messages import Access, Authorization, Request, Response
from ocimirror.registry.url import Origin, UrlPolicy, redact

MAX_TOKEN_BYTES = 1024 * 1024
DEFAULT_LIFE_S = 60.0  # the token specification's
RENEW_AT = 0.8
_MAX_LIFE_S = 10**9

logging.getLogger("oras").setLevel(logging.WARNING)  # (it tells each request a second time)

_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


@dataclass(slots=True)
class _Grant:
    """What we may send for one kind of access, and whether that was refused for good."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    authorization: Authorization | None = None
    renew_at: float = 0.0
    scopes: tuple[str, ...] = ()
    refused: str = ""


class Authorizer:
    """Who we are to one registry, in one run. Thread-safe: threads share one token request.

    A scope that was refused with a fresh token stays refused: an account is not locked out by us.

    Args:
        registry: as references and credential files name it.
        policy: judges the realms that the registry names.
        transport: carries token requests, under the same TLS policy.
        credential: believed before the credential files.

    Raises:
        UsageError: a credential file cannot be read.
    """

    def __init__(
        self,
        registry: str,
        policy: UrlPolicy,
        transport: Transport,
        credential: Credential | None = None,
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._transport = transport
        self._files = CredentialFiles(transport.options.auth_files, registry, credential)
        self._challenge: Challenge | None = None
        self._grants: dict[Access, _Grant] = {}
        self._lock = threading.Lock()

    def authorization(self, access: Access) -> Authorization | None:
        """Return what to send before being asked, renewed at 80 % of its life.

        None where the registry has not asked yet, or may let us in as nobody.

        Raises:
            AuthenticationFailed: this access was refused before.
        """
        grant = self._grant(access)
        with grant.lock:
            if grant.refused:
                raise self._refusal(grant.refused, access)
            if self._challenge is None:
                return None
            if grant.authorization is None or time.monotonic() >= grant.renew_at:
                try:
                    self._renew(grant, access, self._challenge)
                except AuthenticationFailed:
                    grant.authorization = None
            return grant.authorization

    def answer(
        self, response: Response, access: Access, rejected: Authorization | None
    ) -> Authorization:
        """Answer a 401: return what to send next, fresh unless another thread just got it.

        Args:
            response: the 401; it is read and closed here.
            access: what was asked for.
            rejected: what was sent with it.

        Raises:
            AuthenticationFailed: there is nothing to send, or only the same again.
            TokenServiceUnavailable: no usable answer from where the registry sends us.
            UrlRefused: it sends us where no secret may go.
        """
        offered = list(answers.challenges(response.headers.get("WWW-Authenticate", "")))
        _, message = response.explain()
        by_scheme = {each.scheme: each for each in reversed(offered)}
        challenge = by_scheme.get("bearer") or by_scheme.get("basic")
        grant = self._grant(access)
        if challenge is None:
            # Not remembered: Harbor 2.7 says so of the referrers API only (harbor #18305).
            raise self._refusal(f"{message} (it offers no Bearer and no Basic)", access)
        with grant.lock:
            if grant.refused:
                raise self._refusal(grant.refused, access)
            if grant.authorization is not None and grant.authorization is not rejected:
                return grant.authorization
            try:
                self._challenge = challenge.anywhere()
                if rejected is not None:
                    self._files.forget_helpers()
                fresh = self._renew(grant, access, challenge)
                if fresh == rejected:
                    raise AuthenticationFailed(message)
            except AuthenticationFailed as error:
                grant.refused = error.message
                raise self._refusal(error.message, access) from error
            return fresh

    def refuse(self, response: Response, access: Access) -> AuthenticationFailed:
        """Remember that fresh credentials do not grant this access; return the error to raise."""
        _, message = response.explain()
        grant = self._grant(access)
        with grant.lock:
            grant.refused = message
        return self._refusal(message, access)

    def expire(self, access: Access) -> None:
        """Let the next request of this access renew what it sends."""
        self._grant(access).renew_at = 0.0

    def _grant(self, access: Access) -> _Grant:
        with self._lock:
            return self._grants.setdefault(access, _Grant())

    def _credential(self, access: Access) -> Credential | None:
        credential = self._files.find(access.repository)
        if credential is not None:
            self._transport.secrets.keep(*credential.secrets)
        return credential

    def _refusal(self, message: str, access: Access) -> AuthenticationFailed:
        if self._credential(access) is not None:
            return AuthenticationFailed(message)
        files = ", ".join(str(file) for file in self._transport.options.auth_files)
        where = f"in {files}" if files else "in these options, which name no credential file"
        return AuthenticationFailed(
            message,
            advice=f"There are no credentials for {self._registry} {where}.",
        )

    def _renew(self, grant: _Grant, access: Access, challenge: Challenge) -> Authorization:
        credential = self._credential(access)
        if challenge.scheme == "basic":
            if credential is None or not (credential.username or credential.secret):
                raise AuthenticationFailed(f"{self._registry} wants a user name and a password")
            value, life_s = credential.basic, math.inf
        elif credential is not None and credential.registry_token:
            value, life_s = f"Bearer {credential.registry_token}", math.inf
        else:
            asked = challenge.parameters.get("scope", "").split()
            scopes = _merged(*grant.scopes, *access.scopes(), *asked)
            token, life_s = self._token(challenge.parameters, scopes, credential)
            grant.scopes, value = scopes, f"Bearer {token}"
        grant.renew_at = time.monotonic() + RENEW_AT * life_s
        grant.authorization = Authorization(self._policy.registry, value)
        return grant.authorization

    def _token(
        self, parameters: Mapping[str, str], scopes: Sequence[str], credential: Credential | None
    ) -> tuple[str, float]:
        """Return a token for the scopes and its life in seconds, counted from now."""
        realm = parameters.get("realm", "")
        if not realm:
            raise AuthenticationFailed(f"{self._registry} asks for a token, and not whose")
        service = _TokenService(
            self._policy.follow(str(self._policy.registry), realm, "token realm"),
            self._policy,
            self._transport,
            credential,
        )
        name = parameters.get("service", "")
        if credential is None or not credential.identity_token or not service.refresh(name, scopes):
            backend = oras.auth.get_auth_backend("token", session=service)
            if credential is not None:
                backend.set_basic_auth(credential.username, credential.secret)
            # (A list, which our session sends as one `scope` each: oras passes it on as it is.)
            header = {"realm": service.realm, "service": name, "scope": list(scopes)}
            backend.request_token(authHeader(header))
        return service.token()


class _TokenService:
    """One exchange with a token service; to oras, a requests session."""

    def __init__(
        self, realm: str, policy: UrlPolicy, transport: Transport, credential: Credential | None
    ) -> None:
        self.realm = realm
        self._policy = policy
        self._transport = transport
        self._credential = credential
        self._document: dict[str, object] = {}

    def get(
        self, url: str, headers: Mapping[str, str], params: Mapping[str, object], **_: object
    ) -> _Answer:
        """Make the request that oras asks for. What fails raises, and oras lets it through."""
        query = urlencode(params, doseq=True)
        url = f"{url}{'&' if '?' in url else '?'}{query}" if query else url
        basic = headers.get("Authorization")
        response = self._send(
            Request(
                method="GET",
                url=url,
                policy=self._policy,
                headers={"Accept": "application/json"},
                authorization=Authorization(Origin.of(url), basic) if basic else None,
                use="token realm",
            )
        )
        return self._taken(response)

    def refresh(self, service: str, scopes: Sequence[str]) -> bool:
        """Exchange the identity token (OAuth 2); False where the service does not do that.

        GCR answers 404 then, Artifactory 401, ACR 400 (all of them in containerd's source).
        """
        assert self._credential is not None  # noqa: S101 - the caller's condition
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": "ocimirror",
            "scope": " ".join(scopes),
            "refresh_token": self._credential.identity_token,
        }
        response = self._send(
            Request(
                method="POST",
                url=self.realm,
                policy=self._policy,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(form).encode(),
            )
        )
        if response.status in (400, 401, 404, 405):
            response.drain()
            return False
        self._taken(response)
        return True

    def token(self) -> tuple[str, float]:
        """Return the token that came, and its life in seconds."""
        token = self._document.get("token") or self._document.get("access_token")
        if not isinstance(token, str) or not _HEADER_SAFE.fullmatch(token):
            raise TokenServiceUnavailable(f"{self}: its answer holds no token")
        life = self._document.get("expires_in")
        return token, float(min(life, _MAX_LIFE_S)) if type(
            life
        ) is int and life > 0 else DEFAULT_LIFE_S

    def _send(self, request: Request) -> Response:
        try:
            return self._transport.send(request)
        except RateLimited:
            raise
        except RegistryUnavailable as error:
            raise TokenServiceUnavailable(f"token service: {error}") from error

    def _taken(self, response: Response) -> _Answer:
        if response.status in (400, 401, 403):
            raise AuthenticationFailed(self._explained(response))
        if response.status != 200:
            raise TokenServiceUnavailable(self._explained(response))
        try:
            document = json.loads(response.read_all(MAX_TOKEN_BYTES))
        except (OciMirrorError, ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise TokenServiceUnavailable(f"{self}: its answer is not a token document")
        names = ("token", "access_token", "refresh_token", "id_token")
        texts = (document.get(name) for name in names)
        self._transport.secrets.keep(*(text for text in texts if isinstance(text, str)))
        self._document = document
        return _Answer(document)

    def _explained(self, response: Response) -> str:
        return f"token service: {response.explain()[1]}"

    def __str__(self) -> str:
        return f"token service {redact(self.realm)}"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What oras looks at in a response of requests."""

    document: dict[str, object] = field(repr=False)
    status_code: int = 200

    def json(self) -> dict[str, object]:
        return self.document


def _merged(*scopes: str) -> tuple[str, ...]:
    """Join the actions of one resource: `a:pull` and `a:pull,push` are `a:pull,push`."""
    actions: dict[str, dict[str, None]] = {}
    for scope in scopes:
        resource, _, names = scope.rpartition(":")
        actions.setdefault(resource, {}).update(dict.fromkeys(names.split(",")))
    return tuple(f"{resource}:{','.join(names)}" for resource, names in actions.items())
