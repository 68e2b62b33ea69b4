"""Who may read: users of an htpasswd file, holders of a token.

Clients of registries log in with Basic, so a token is taken as a password too, under any name.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

import bcrypt

from ocimirror.errors import UsageError
from ocimirror.serve.answers import Refused, Request
from ocimirror.serve.turns import Turns
from ocimirror.serve.watch import Reloaded
from ocimirror.stores.disk.files import open_regular

_MAX_FILE_BYTES = 4 * 1024 * 1024
_MOST_REMEMBERED = 1000
_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)
_TOKEN = re.compile(r"[!-~]{16,4096}", re.ASCII)
_BCRYPT_BYTES = 72  # what it looks at; the library refuses more, htpasswd cuts
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="ocimirror", charset="UTF-8"'}


@dataclass(frozen=True, slots=True)
class AccessFiles:
    """Where those who may read are listed; both empty lets everybody read.

    Attributes:
        htpasswd: users with bcrypt hashes, as `htpasswd -B` writes it.
        tokens: one token a line.
    """

    htpasswd: str = ""
    tokens: str = ""


class Access:
    """Says who may read. Used from one event loop, but for `refresh`.

    Raises:
        UsageError: a file cannot be read, lists nobody, or has other than bcrypt hashes.
    """

    def __init__(self, files: AccessFiles) -> None:
        htpasswd, tokens = files.htpasswd, files.tokens
        self._users = Reloaded((htpasswd,), lambda: _users(htpasswd)) if htpasswd else None
        self._tokens = Reloaded((tokens,), lambda: _tokens(tokens)) if tokens else None
        self._secret = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, bytes] = OrderedDict()
        self._turns = Turns()

    def refresh(self, force: bool = False) -> bool:
        """Read the files again where they changed; a bad one leaves the old in force."""
        users = self._users is not None and self._users.refresh(force)
        tokens = self._tokens is not None and self._tokens.refresh(force)
        return users or tokens

    async def check(self, request: Request, executor: Executor) -> None:
        """Return where the request may be answered.

        Args:
            executor: where passwords are hashed, and nothing else is done; that takes a tenth of
                a second each.

        Raises:
            Refused: 401; 429, this client has too many log-ins waiting.
        """
        if self._users is None and self._tokens is None:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip().encode()):
            return
        if scheme.lower() == "basic":
            name, password = _basic(given.strip())
            if self._is_token(password) or await self._is_user(
                request.client, name, password, executor
            ):
                return
        raise Refused(401, "UNAUTHORIZED", "authentication required", _CHALLENGE)

    def _is_token(self, given: bytes) -> bool:
        tokens = self._tokens.value if self._tokens else ()
        # (All are compared, so that the time says nothing of which.)
        return sum(hmac.compare_digest(given, token) for token in tokens) > 0

    async def _is_user(self, client: str, name: str, password: bytes, executor: Executor) -> bool:
        if self._users is None:
            return False
        users = self._users.value
        known = users.get(name)
        key = hmac.digest(self._secret, name.encode() + b"\0" + password, hashlib.sha256)
        if known is not None and self._remembered.get(key) == known:
            return True
        async with self._turns.turn(client, name):
            loop = asyncio.get_running_loop()
            right = await loop.run_in_executor(executor, _matches, password, known, users.values())
        if known is None or not right:
            return False
        self._remembered[key] = known
        while len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return True


def _cost(stated: bytes) -> int:
    return int(stated[4:6])


def _matches(password: bytes, known: bytes | None, users: Iterable[bytes]) -> bool:
    """Whether a password is right; what is wrong takes as long for every name, known or not.

    A hash of cost c takes 2**c rounds. One of the highest cost stands for an unknown user, and
    those of the costs in between make up for a user whose cost is lower.
    """
    highest = max(map(_cost, users))
    if known is None:
        _compare(password, _nobody(highest))
        return False
    if _compare(password, known):
        return True
    for cost in range(_cost(known), highest):
        _compare(password, _nobody(cost))
    return False


def _compare(password: bytes, stated: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], stated)
    except ValueError:
        return False


def _nobody(cost: int) -> bytes:
    return b"$2b$%02d$%s" % (cost, b"." * 53)


def _basic(given: str) -> tuple[str, bytes]:
    """Return name and password (RFC 7617); empty ones where there are none."""
    try:
        name, _, password = base64.b64decode(given, validate=True).partition(b":")
        return name.decode(), password
    except (binascii.Error, ValueError):
        return "", b""


def _users(path: str) -> dict[str, bytes]:
    users: dict[str, bytes] = {}
    for number, line in _lines(path):
        name, _, stated = line.partition(":")
        if not name or not _BCRYPT.fullmatch(stated):
            raise UsageError(
                f"{path}: line {number} is not NAME:BCRYPT", advice="htpasswd -B writes bcrypt."
            )
        users.setdefault(name, stated.encode())
    return users


def _tokens(path: str) -> tuple[bytes, ...]:
    for number, line in _lines(path):
        if not _TOKEN.fullmatch(line):
            raise UsageError(
                f"{path}: line {number} is no token",
                advice="A token is 16 or more printable ASCII characters, without spaces.",
            )
    return tuple(line.encode() for _, line in _lines(path))


def _lines(path: str) -> list[tuple[int, str]]:
    """Return the lines that say something, with their numbers."""
    try:
        with os.fdopen(open_regular(os.path.realpath(path)), "rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
        text = raw.decode()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if len(raw) > _MAX_FILE_BYTES:
        raise UsageError(f"{path} is larger than {_MAX_FILE_BYTES} bytes")
    numbered = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    found = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not found:
        raise UsageError(f"{path} lists nobody")
    return found
