"""Writing what `credentials` reads: a login, in a credential file or with the helper it names."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import uuid
from collections.abc import Iterator, Sequence

from ocimirror.errors import UsageError, storage_error
from ocimirror.model.reference import DOCKER_HUB
from ocimirror.registry.credentials import (
    HUB_KEY,
    Credential,
    CredentialFiles,
    call_helper,
    entries,
    load,
    matching,
    named_helper,
    normal,
    server_name,
)
from ocimirror.registry.options import AuthFile
from ocimirror.stores.disk.atomic import FileLock, NewFile
from ocimirror.stores.disk.oslayer import OsLayer


def knows(file: AuthFile, registry: str) -> bool:
    """Whether a file, or a helper it names, has a credential for the registry itself.

    Raises:
        UsageError: it cannot be read, or a helper does not work.
    """
    return CredentialFiles((file,), registry).find("") is not None


def choose(files: Sequence[AuthFile], preferred: AuthFile, registry: str) -> AuthFile:
    """Return the file in which a login will be found again.

    That is the preferred one, unless one that is read before it would be believed instead: it
    names a helper for the registry, or has a credential for it.

    Args:
        files: in the order in which they are read; the preferred one is among them.

    Raises:
        UsageError: one of them, up to the preferred, cannot be read.
    """
    load(preferred)
    before = itertools.takewhile(lambda file: file != preferred, files)
    return next(
        (
            file
            for file in before
            if matching(load(file), "credHelpers", file, registry) or knows(file, registry)
        ),
        preferred,
    )


def store(file: AuthFile, registry: str, credential: Credential) -> str:
    """Store a user name and a password where the file says: `credHelpers`, `credsStore`, itself.

    In the file all keys that mean this registry become one; everything else stays as it is. The
    file appears whole, for its owner only. Logins at the same time keep each other's entries;
    docker and podman take no lock.

    Returns:
        The helper's program, or the file's path.

    Raises:
        UsageError: the file cannot be read, or the helper does not work.
        LocalStorageError: the file cannot be written.
    """
    helper = _named(file, registry)
    if helper:
        server = server_name(registry, file)
        login = {
            "ServerURL": server,
            "Username": credential.username,
            "Secret": credential.password,
        }
        return _tell(helper, "store", json.dumps(login), file, server)
    text = f"{credential.username}:{credential.password}"
    with _others(file, registry) as auths:
        key = HUB_KEY if registry == DOCKER_HUB else registry
        auths[key] = {"auth": base64.b64encode(text.encode()).decode("ascii")}
    return str(file.path)


def erase(file: AuthFile, registry: str) -> str:
    """Erase what a file and its helper know of a registry.

    Returns, Raises:
        As `store`.
    """
    place = str(file.path)
    helper = _named(file, registry)
    if helper:
        server = server_name(registry, file)
        place = _tell(helper, "erase", server, file, server)
    if matching(load(file), "auths", file, registry) is not None:
        with _others(file, registry):
            pass
    return place


def _named(file: AuthFile, registry: str) -> str:
    document = load(file)
    helper = named_helper(matching(document, "credHelpers", file, registry), file)
    return (named_helper(document.get("credsStore"), file) if helper is None else helper) or ""


def _tell(helper: str, action: str, request: str, file: AuthFile, server: str) -> str:
    status, _ = call_helper(helper, action, request.encode(), file)
    program = f"docker-credential-{helper}"
    if status != 0:
        raise UsageError(
            f"credential helper {program} (named by {file}) could not {action} the login"
            f" for {server}: status {status}",
            advice="What it keeps logins in may be locked, or not set up for this user.",
        )
    return program


@contextlib.contextmanager
def _others(file: AuthFile, registry: str) -> Iterator[dict[str, object]]:
    """Yield the `auths` of a file without a registry's; what they become is written.

    They are read, changed and written under a lock on the directory.
    """
    path = os.path.realpath(file.path)  # (docker too keeps a config.json that is a link)
    directory, name = os.path.split(path)
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"cannot make {directory}") from error
    lock = FileLock(directory, create=False)
    try:
        with lock.held("exclusive"):
            document = load(file)
            auths = {
                key: entry
                for key, entry in entries(document, "auths", file).items()
                if normal(key) != registry
            }
            yield auths
            document["auths"] = auths
            content = json.dumps(document, indent="\t") + "\n"
            layer = _PrivateLayer(path)
            temporary = os.path.join(directory, f".{name}.{uuid.uuid4().hex}")
            with NewFile(layer, temporary, path, durable=True) as new:
                new.write(content.encode())
                new.commit()
            layer.sync_directory(directory)
    finally:
        lock.release()


class _PrivateLayer(OsLayer):
    """Creates files that only their owner may read: whoever owns the file they replace."""

    def __init__(self, final: str) -> None:
        self._final = final

    def create(self, path: str) -> int:
        """Create a file that must not exist; return its descriptor."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):
            # Under sudo, which may keep HOME, a user is not to lose the file to root.
            owner = os.stat(self._final)
            os.fchown(fd, owner.st_uid, owner.st_gid)
        return fd
