"""An honest token server of the Docker kind, whose tokens a real docker-registry accepts.

Both forms of the protocol: GET with Basic credentials, and the OAuth2 POST with a password or a
refresh token. Every attribute of `TokenServer` that is not read-only may be changed while it runs.

docker-registry 2.8.2 lets every token live 60 seconds longer than its `exp` says, so `exp` is set
that much earlier: a token works for `lifetime_s` seconds, rounded up to a whole second.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import math
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.httpd import LoopbackHandler, LoopbackServer, serve

if TYPE_CHECKING:
    from tests.support.certificates import Certificates

FORM_BYTES = 64 << 10
REGISTRY_LEEWAY_S = 60
ALL_ACTIONS = frozenset({"pull", "push", "delete"})
HTML = b"<!DOCTYPE html><html><body>Sign in to continue</body></html>"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request to the token server; `user` is who it was taken for, None for nobody."""

    method: str
    parameters: dict[str, list[str]]
    form: dict[str, list[str]]
    authorized: bool
    user: str | None
    status: int

    @property
    def scopes(self) -> list[str]:
        """Return the scopes asked for, one each."""
        asked = self.parameters.get("scope", []) + self.form.get("scope", [])
        return " ".join(asked).split()


@dataclass
class TokenServer:
    """A running token server: what it lets in, how it misbehaves, and what it was asked.

    Attributes:
        users: Passwords by user; remove one to revoke it (tokens given before still work).
        actions: What a user may do, where that is not everything.
        anonymous: Whether nobody in particular may pull.
        refuse_get, refuse_post: The status to refuse that method with (POST: 404 is usual).
        broken: Answer everything with status 500, or with a page of HTML and status 200.
        announce_lifetime: False leaves `expires_in` out, which then means 60 seconds.
    """

    realm: str = ""
    service: str = "registry.test"
    issuer: str = "tokens.test"
    users: dict[str, str] = field(default_factory=dict)
    actions: dict[str, frozenset[str]] = field(default_factory=dict)
    anonymous: bool = False
    lifetime_s: float = 300
    refuse_get: int | None = None
    refuse_post: int | None = None
    broken: Literal["500", "html"] | None = None
    announce_lifetime: bool = True
    requests: list[TokenRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._refresh_tokens: dict[str, str] = {}
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.issuer)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .sign(self._key, hashes.SHA256())
        )
        self._certificate_pem = certificate.public_bytes(Encoding.PEM)

    @property
    def certificate_pem(self) -> bytes:
        """Return what a registry needs as its `rootcertbundle`."""
        return self._certificate_pem

    def identity_token(self, user: str) -> str:
        """Return a new refresh token, which `docker login` would store as an identity token."""
        token = secrets.token_urlsafe(24)
        self._refresh_tokens[token] = user
        return token

    def user_of(self, refresh_token: str) -> str | None:
        """Return whose refresh token this is, unless it is nobody's or revoked."""
        user = self._refresh_tokens.get(refresh_token)
        return user if user in self.users else None

    def token(self, user: str | None, scopes: list[str]) -> str:
        """Return a signed token with as much of the scopes as the user may have."""
        now = time.time()
        claims = {
            "iss": self.issuer,
            "sub": user or "",
            "aud": self.service,
            "exp": math.ceil(now + self.lifetime_s) - REGISTRY_LEEWAY_S,
            "nbf": int(now) - REGISTRY_LEEWAY_S,
            "iat": int(now),
            "jti": secrets.token_hex(8),
            "access": [entry for scope in scopes if (entry := self._granted(user, scope))],
        }
        header = {"typ": "JWT", "alg": "RS256", "kid": self._key_id()}
        signed = f"{_encode(_json(header))}.{_encode(_json(claims))}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encode(signature)}"

    def _granted(self, user: str | None, scope: str) -> dict[str, Any] | None:
        kind, _, rest = scope.partition(":")
        name, _, asked = rest.rpartition(":")
        allowed = frozenset({"pull"}) if user is None else self.actions.get(user, ALL_ACTIONS)
        actions = [action for action in asked.split(",") if action in allowed]
        if kind != "repository" or not actions:
            return None
        return {"type": kind, "name": name, "actions": actions}

    def _key_id(self) -> str:
        """Return the key's name in the form that docker-registry 2 looks keys up by (libtrust)."""
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
        return ":".join(text[i : i + 4] for i in range(0, len(text), 4))


class _Handler(LoopbackHandler):
    """Answers GET and POST at the realm."""

    def answer(self) -> None:
        """Answer a request for a token, and record it before the client sees the answer."""
        tokens = cast(_Server, self.server).tokens
        target = urlsplit(self.path)
        parameters = parse_qs(target.query, keep_blank_values=True)
        form = {}
        if self.command == "POST":
            body = self.read_body(FORM_BYTES) or b""
            form = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
        refused = tokens.refuse_post if self.command == "POST" else tokens.refuse_get
        user: str | None = None
        if target.path != "/token":
            status, document = 404, _error("NOT_FOUND", "the realm is /token")
        elif tokens.broken is not None:
            status, document = (500 if tokens.broken == "500" else 200), None
        elif refused is not None or self.command not in ("GET", "POST"):
            status, document = refused or 405, _error("UNSUPPORTED", "not this method")
        elif self.command == "POST":
            user, status, document = self._post(tokens, form)
        else:
            user, status, document = self._get(tokens, parameters)
        authorized = "Authorization" in self.headers
        tokens.requests.append(
            TokenRequest(self.command, parameters, form, authorized, user, status)
        )
        if document is None:
            self.reply(status, HTML, {"Content-Type": "text/html"})
            return
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="tokens"'
        self.reply(status, _json(document), headers)

    def _get(
        self, tokens: TokenServer, parameters: dict[str, list[str]]
    ) -> tuple[str | None, int, dict[str, Any]]:
        """Answer the older form. Spec: distribution, "Token Authentication Specification"."""
        user, password = self.basic_credentials() or (None, "")
        if user is None:
            if "Authorization" in self.headers or not tokens.anonymous:
                return None, 401, _error("UNAUTHORIZED", "authentication required")
        elif tokens.users.get(user) != password:
            return None, 401, _error("UNAUTHORIZED", "wrong user or password")
        token = tokens.token(user, " ".join(parameters.get("scope", [])).split())
        document = _answer(tokens, {"token": token, "access_token": token})
        if user is not None and parameters.get("offline_token") == ["true"]:
            document["refresh_token"] = tokens.identity_token(user)
        return user, 200, document

    def _post(
        self, tokens: TokenServer, form: dict[str, list[str]]
    ) -> tuple[str | None, int, dict[str, Any]]:
        """Answer the OAuth2 form. Spec: distribution, "Docker Registry v2 OAuth2"."""
        values = {name: items[0] for name, items in form.items()}
        missing = {"grant_type", "service", "client_id"} - values.keys()
        if missing:
            return None, 400, {"error": "invalid_request", "error_description": f"no {missing}"}
        refresh_token = None
        if values["grant_type"] == "refresh_token":
            refresh_token = values.get("refresh_token", "")
            user = tokens.user_of(refresh_token)
        elif values["grant_type"] == "password":
            user = values.get("username", "")
            if tokens.users.get(user) is None or tokens.users[user] != values.get("password"):
                user = None
            elif values.get("access_type") == "offline":
                refresh_token = tokens.identity_token(user)
        else:
            return None, 400, {"error": "unsupported_grant_type"}
        if user is None:
            return None, 401, _error("UNAUTHORIZED", "wrong credentials")
        scope = values.get("scope", "")
        document = _answer(
            tokens, {"access_token": tokens.token(user, scope.split()), "scope": scope}
        )
        if refresh_token is not None:
            document["refresh_token"] = refresh_token
        return user, 200, document


class _Server(LoopbackServer):
    """The listening server of a token server."""

    def __init__(self, tokens: TokenServer, port: int, certificates: Certificates | None) -> None:
        self.tokens = tokens
        super().__init__(_Handler, port=port, certificates=certificates)


@contextmanager
def run_token_server(
    *,
    users: Mapping[str, str] | None = None,
    anonymous: bool = False,
    lifetime_s: float = 300,
    port: int = 0,
    certificates: Certificates | None = None,
) -> Iterator[TokenServer]:
    """Run a token server on loopback until the block ends."""
    tokens = TokenServer(users=dict(users or {}), anonymous=anonymous, lifetime_s=lifetime_s)
    server = _Server(tokens, port, certificates)
    tokens.realm = f"{server.url}/token"
    with serve(server):
        yield tokens


def _answer(tokens: TokenServer, document: dict[str, Any]) -> dict[str, Any]:
    """Add what every answer says about time."""
    now = datetime.datetime.now(datetime.UTC)
    document["issued_at"] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    if tokens.announce_lifetime:
        document["expires_in"] = int(tokens.lifetime_s)
    return document


def _error(code: str, message: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message, "detail": None}]}


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
