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
from concurrent.futures import Executor
from dataclasses import dataclass

import bcrypt

from ocimirror.errors import UsageError
from ocimirror.serve.answers import Refused, Request
from ocimirror.serve.watch import Reloaded
from ocimirror.stores.files import open_regular

_MAX_FILE_BYTES = 4 * 1024 * 1024
_MOST_REMEMBERED = 1000
_BCRYPT = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}", re.ASCII)
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
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(10))
        self._one_at_a_time = asyncio.Semaphore()

    def refresh(self, force: bool = False) -> bool:
        """Read the files again where they changed; a bad one leaves the old in force."""
        users = self._users is not None and self._users.refresh(force)
        tokens = self._tokens is not None and self._tokens.refresh(force)
        return users or tokens

    async def check(self, request: Request, executor: Executor) -> None:
        """Return where the request may be answered.

        Args:
            executor: where a password is hashed; that takes a tenth of a second.

        Raises:
            Refused: 401.
        """
        if self._users is None and self._tokens is None:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip().encode()):
            return
        if scheme.lower() == "basic":
            name, password = _basic(given.strip())
            if self._is_token(password) or await self._is_user(name, password, executor):
                return
        raise Refused(401, "UNAUTHORIZED", "authentication required", _CHALLENGE)

    def _is_token(self, given: bytes) -> bool:
        tokens = self._tokens.value if self._tokens else ()
        # (All are compared, so that the time says nothing of which.)
        return sum(hmac.compare_digest(given, token) for token in tokens) > 0

    async def _is_user(self, name: str, password: bytes, executor: Executor) -> bool:
        if self._users is None:
            return False
        known = self._users.value.get(name)
        key = hmac.digest(self._secret, name.encode() + b"\0" + password, hashlib.sha256)
        if known is not None and self._remembered.get(key) == known:
            return True
        async with self._one_at_a_time:  # (content has the other threads, whoever guesses here)
            loop = asyncio.get_running_loop()
            wanted = known or self._nobody
            right = await loop.run_in_executor(executor, _matches, password, wanted)
        if known is None or not right:
            return False
        self._remembered[key] = known
        while len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return True


def _matches(password: bytes, wanted: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], wanted)
    except ValueError:
        return False


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
