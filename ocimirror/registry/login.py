"""login and logout: who we are to a registry, proved before it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from ocimirror.errors import UsageError
from ocimirror.model.reference import check_registry
from ocimirror.registry import AuthFile, NetworkOptions, RegistryHost, Transport
from ocimirror.registry.credential_store import choose, erase, knows, store
from ocimirror.registry.credentials import TOKEN_USER, Credential, normal


@dataclass(frozen=True, slots=True)
class Logout:
    """What became of a login.

    Attributes:
        erased_from: a helper's program or a file's path; empty where there was no login.
        still_in: what else has credentials for the registry, or empty.
    """

    erased_from: str
    still_in: str


def parse_registry(text: str) -> str:
    """Return the registry of `HOST[:PORT]`, also where docker's `https://HOST/v1/` names it.

    Raises:
        InvalidReference: anything else, a repository too.
    """
    return check_registry(normal(text.removeprefix("docker://")))


def login(
    registry: str, username: str, password: str, network: NetworkOptions, preferred: AuthFile
) -> str:
    """Prove a user name and a password to a registry, and store them where a pull finds them.

    Args:
        preferred: the file for a registry that none of the network's files knows.

    Returns:
        Where they are: a helper's program or a file's path. Empty where the registry asks
        nobody who they are: nothing was proved then, and nothing is stored.

    Raises:
        UsageError: no user name or password, or a credential file or helper does not work.
        AuthenticationFailed: the registry, or its token service, refuses them.
        RemoteError: it could not be asked.
        LocalStorageError: the file cannot be written.
    """
    if not username or ":" in username or username == TOKEN_USER:
        # (Not shown: whoever types a colon may have typed the password after it.)
        raise UsageError("a user name is not empty, has no colon and is not <token>")
    if not password:
        raise UsageError("the password is empty")
    file = choose(network.auth_files, preferred, registry)
    if file.content:
        raise UsageError(
            f"{file} has credentials for {registry}, and these are believed before any file",
            advice=f"Change them there, or unset {file.path}.",
        )
    credential = Credential(username, password)
    with Transport(network) as transport:
        admitted = RegistryHost(registry, transport, credential).admits()
    return store(file, registry, credential) if admitted else ""


def logout(registry: str, network: NetworkOptions) -> Logout:
    """Erase the login that the next pull would use; the registry is not asked.

    Raises:
        UsageError: a credential file or helper does not work.
        LocalStorageError: the file cannot be written.
    """
    files = network.auth_files
    known = (file for file in files if not file.content and knows(file, registry))
    first = next(known, None)
    place = "" if first is None else erase(first, registry)
    still = next((str(file) for file in files if knows(file, registry)), "")
    return Logout(place, still)
