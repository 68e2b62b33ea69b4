"""Credential files of docker and of podman, skopeo and buildah, and the helpers they name."""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from ocimirror.errors import LocalStorageError, UsageError
from ocimirror.model.reference import DOCKER_HUB, check_registry
from ocimirror.registry.options import AuthFile
from ocimirror.stores.disk.files import read_input

HELPER_TIMEOUT_S = 30.0
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_HELPER_BYTES = 1024 * 1024
_POLL_S = 0.02

HUB_KEY = "https://index.docker.io/v1/"
TOKEN_USER = "<token>"  # noqa: S105 - docker's mark for an identity token, not a password
_HELPER = re.compile(r"[a-z0-9-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credential:
    """Who we are to a registry: a password, or a token.

    Attributes:
        identity_token: for the token service of the registry.
        registry_token: for the registry itself, as its token service would give one.
    """

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nothing printed may show; some of them may be empty."""
        login = f"{self.username}:{self.secret}" if self.secret else ""
        return self.password, self.identity_token, self.registry_token, login

    @property
    def secret(self) -> str:
        """What goes where a password goes."""
        return self.identity_token or self.password

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        text = f"{self.username}:{self.secret}"
        return "Basic " + base64.b64encode(text.encode()).decode("ascii")


class CredentialFiles:
    """What the credential files say of one registry. Thread-safe; a helper runs once a server.

    Args:
        files: in the order in which they are believed.
        registry: as references name it.
        given: believed before any file.
    """

    def __init__(
        self, files: Sequence[AuthFile], registry: str, given: Credential | None = None
    ) -> None:
        self._registry = registry
        self._given = given
        self._files = [(file, load(file)) for file in files]
        self._helped: dict[tuple[str, str], Credential | None] = {}
        self._lock = threading.Lock()

    def find(self, repository: str) -> Credential | None:
        """Return the credential for a repository, or None: then we are anonymous.

        In each file: `credHelpers`, then `credsStore`, then `auths`; in containers' files the
        most specific path wins (containers-auth.json(5)), in docker's the host does.

        Args:
            repository: empty for the registry itself.

        Raises:
            UsageError: an entry cannot be read, or a helper does not work.
        """
        if self._given is not None:
            return self._given
        for file, document in self._files:
            in_file = False
            for key in self._keys(file, repository):
                helper = named_helper(matching(document, "credHelpers", file, key), file)
                in_file |= helper == ""  # docker's word for the file itself
                if helper and (found := self._ask(helper, file, key)):
                    return found
            store = None if in_file else named_helper(document.get("credsStore"), file)
            if store and (found := self._ask(store, file, "")):
                return found
            for key in self._keys(file, repository):
                entry = matching(document, "auths", file, key)
                if entry is not None and (found := _parsed(entry, f"{file}: {key}")):
                    return found
        return None

    def forget_helpers(self) -> None:
        """Ask helpers again: what they gave was refused, and may have expired (ECR: 12 hours)."""
        with self._lock:
            self._helped.clear()

    def _keys(self, file: AuthFile, repository: str) -> Iterator[str]:
        parts = repository.split("/") if repository else []
        paths = ["/".join((self._registry, *parts[:n])) for n in range(len(parts), 0, -1)]
        if file.kind == "docker":
            yield self._registry
        yield from paths
        if file.kind == "containers":
            yield self._registry

    def _ask(self, helper: str, file: AuthFile, key: str) -> Credential | None:
        server = server_name(key or self._registry, file)
        with self._lock:
            if (helper, server) not in self._helped:
                self._helped[helper, server] = _run_helper(helper, server, file)
            return self._helped[helper, server]


def load(file: AuthFile) -> dict[str, object]:
    """Return the document of a file; an absent or empty one is an empty one.

    Raises:
        UsageError: it cannot be read, or is not a JSON object.
    """
    try:
        raw = file.content.encode("utf-8", "surrogateescape") or read_input(
            str(file.path), "credential file", MAX_FILE_BYTES
        )
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return {}
        raise
    except LocalStorageError as error:
        raise UsageError(error.message) from error
    if not raw.strip():
        return {}
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None  # (the reason is not shown: it may quote what the file holds)
    if not isinstance(document, dict):
        raise UsageError(f"credential file {file} is not a JSON object")
    return document


def entries(document: Mapping[str, object], section: str, file: AuthFile) -> dict[str, object]:
    """Return a section of a document, empty where it is absent; UsageError for no object."""
    found = document.get(section)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"credential file {file}: {section} is not an object")
    return found


def matching(document: Mapping[str, object], section: str, file: AuthFile, key: str) -> object:
    """Return the entry whose key means the same as ours: an exact match first, then the shortest.

    (Beside the login to Docker Hub, docker keeps `https://index.docker.io/v1/access-token`.)
    """
    found = entries(document, section, file)
    same = [name for name in found if name == key or normal(name) == key]
    return found[min(same, key=lambda name: (name != key, len(name)))] if same else None


def normal(key: str) -> str:
    """Return what a key is for: a host, or `host/path`; all names of Docker Hub are docker.io.

    A URL is for its host, whatever its path is, as docker and containers read it.
    """
    name = re.sub(r"^https?://", "", key)
    host, slash, path = re.sub(r"/v[12]$", "", name.rstrip("/")).partition("/")
    with contextlib.suppress(UsageError):
        host = check_registry(host)
    return host if name != key else host + slash + path


def named_helper(value: object, file: AuthFile) -> str | None:
    """Return the name of a helper, empty for the file itself; None if none is named.

    Raises:
        UsageError: it is not a name.
    """
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"credential file {file} names a helper by something else than a string")


def _parsed(entry: object, what: str) -> Credential | None:
    try:
        if not isinstance(entry, dict):
            raise ValueError("not an object")
        names = ("username", "password", "identitytoken", "registrytoken", "auth")
        texts = [entry.get(name) or "" for name in names]
        if not all(isinstance(each, str) for each in texts):
            raise ValueError("not a string")
        "".join(texts).encode()  # (no lone surrogate)
        username, password, identity, token, encoded = texts
        if encoded:
            # (Line ends are passed over, as docker does.)
            unbroken = re.sub("[\r\n]", "", encoded)
            padded = unbroken + "=" * (-len(unbroken) % 4)
            decoded = base64.b64decode(padded, validate=True).decode("utf-8")
            username, colon, password = decoded.partition(":")
            if not colon:
                raise ValueError("no colon")
    except (binascii.Error, ValueError):
        # Without its cause, which may quote the secret.
        raise UsageError(
            f"credential file {what} has an entry that cannot be read",
            advice='An entry is {"auth": "<base64 of USER:PASSWORD>"}, or has a token.',
        ) from None
    return _credential(username, password.strip("\0"), identity, token)


def _credential(
    username: str, password: str, identity: str = "", token: str = ""
) -> Credential | None:
    if username == TOKEN_USER:
        username, password, identity = "", "", password or identity
    known = username or password or identity or token
    return Credential(username, password, identity, token) if known else None


def _run_helper(name: str, server: str, file: AuthFile) -> Credential | None:
    """Run `docker-credential-NAME get`; None where it knows no such server."""
    status, output = call_helper(name, "get", server.encode(), file)
    if status != 0 and b"credentials not found" in output:
        return None
    try:
        document = json.loads(output if status == 0 else b"")
        (document["Username"] + document["Secret"]).encode()  # (no lone surrogate)
        return _credential(document["Username"].strip(), document["Secret"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        outcome = f"failed with status {status}" if status else "gave no credential"
        raise UsageError(
            f"{_told(name, file)} {outcome} for {server}",
            advice=f"Try it: echo {server} | docker-credential-{name} get",
        ) from None


def server_name(key: str, file: AuthFile) -> str:
    """Return what a helper calls a server; docker has its own name for Docker Hub."""
    return HUB_KEY if key == DOCKER_HUB and file.kind == "docker" else key


def call_helper(name: str, action: str, request: bytes, file: AuthFile) -> tuple[int, bytes]:
    """Run `docker-credential-NAME ACTION`, without a shell and for a limited time.

    Args:
        name: as the file has it.
        action: `get`, `store` or `erase`.
        request: its standard input.
        file: what names the helper.

    Returns:
        Its status, and its output, which may hold a secret.

    Raises:
        UsageError: it cannot be run.
    """
    if not _HELPER.fullmatch(name):
        raise UsageError(f"credential file {file} names a helper that cannot be: {name!r}")
    try:
        return _output([f"docker-credential-{name}", action], request)
    except TimeoutError as error:
        raise UsageError(
            f"{_told(name, file)} did not end in {HELPER_TIMEOUT_S:.0f} s",
            advice="It may be waiting for a prompt, or for a locked keychain.",
        ) from error
    except OSError as error:
        raise UsageError(
            f"{_told(name, file)} cannot be run: {error.strerror}",
            advice="Where it is not on PATH (cron has a short one), add its directory there.",
        ) from error


def _told(name: str, file: AuthFile) -> str:
    return f"credential helper docker-credential-{name} (named by {file})"


def _output(command: Sequence[str], request: bytes) -> tuple[int, bytes]:
    """Run a command for a limited time; return its status and a limited part of its output.

    It ends with the command, or with the limit, whoever keeps the pipes open.

    Raises:
        TimeoutError: the command did not end in time; it was killed.
    """
    until = time.monotonic() + HELPER_TIMEOUT_S
    output = bytearray()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it may hold anything, secrets too
        start_new_session=True,
    ) as process:
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        os.set_blocking(process.stdin.fileno(), False)
        os.set_blocking(process.stdout.fileno(), False)
        try:
            ended = False
            while not ended and len(output) <= MAX_HELPER_BYTES:
                if time.monotonic() >= until:
                    raise TimeoutError(errno.ETIMEDOUT, f"no end in {HELPER_TIMEOUT_S:.0f} s")
                ended = process.poll() is not None  # (before the last read)
                request = _written(process.stdin, request)
                piece = _readable(process.stdout)
                output += piece
                if not piece and not ended:
                    time.sleep(_POLL_S)
        finally:
            if process.poll() is None:
                _kill(process)
    return process.returncode, bytes(output)


def _written(pipe: IO[bytes], request: bytes) -> bytes:
    """Write what a pipe takes now, and close it after the last byte; return the rest."""
    if pipe.closed:
        return b""
    try:
        request = request[os.write(pipe.fileno(), request) :] if request else b""
    except BlockingIOError:
        return request
    except BrokenPipeError:
        request = b""
    if not request:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    return request


def _readable(pipe: IO[bytes]) -> bytes:
    """Return all that is in a pipe now, within the limit of an output."""
    pieces = bytearray()
    with contextlib.suppress(BlockingIOError):
        while len(pieces) <= MAX_HELPER_BYTES and (piece := os.read(pipe.fileno(), 65536)):
            pieces += piece
    return bytes(pieces)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
