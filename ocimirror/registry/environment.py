"""What the environment says of the network: credentials, certificates, proxies.

The one module beside the command line that reads the environment: who calls this package from a
program wants the registries to know him, as docker and podman do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ocimirror.registry.options import AuthFile, NetworkOptions


def from_environment(environment: Mapping[str, str] | None = None) -> NetworkOptions:
    """Return options with the credential files, certificates and proxy of whoever runs this.

    Args:
        environment: instead of the process's own.

    Raises:
        UsageError: HTTPS_PROXY is not a URL of a proxy.
    """
    known = os.environ if environment is None else environment
    return NetworkOptions(
        certs_dirs=certs_dirs(known),
        proxy=first_of(known, "HTTPS_PROXY", "HTTP_PROXY"),
        no_proxy=first_of(known, "NO_PROXY"),
        auth_files=auth_files(known),
    )


def first_of(environment: Mapping[str, str], *names: str) -> str:
    """Return the first value that is set, in capitals or not; else nothing."""
    values = (environment.get(n) or environment.get(n.lower()) or "" for n in names)
    return next((value for value in values if value), "")


def certs_dirs(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where docker and containers keep certificates of single hosts."""
    home = Path(environment.get("HOME") or "/")
    configuration = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return (
        configuration / "containers" / "certs.d",
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    )


def auth_files(environment: Mapping[str, str]) -> tuple[AuthFile, ...]:
    """Return the credential files in the order in which docker and podman look for them."""
    files = []
    if environment.get("DOCKER_AUTH_CONFIG"):
        # (docker 28 and GitLab's runner: the document itself, believed before any file.)
        name = Path("DOCKER_AUTH_CONFIG")
        files.append(AuthFile(name, "docker", environment["DOCKER_AUTH_CONFIG"]))
    if environment.get("REGISTRY_AUTH_FILE"):
        files.append(AuthFile(Path(environment["REGISTRY_AUTH_FILE"]), "containers"))
    if environment.get("DOCKER_CONFIG"):
        files.append(AuthFile(Path(environment["DOCKER_CONFIG"]) / "config.json", "docker"))
    if environment.get("XDG_RUNTIME_DIR"):
        runtime = Path(environment["XDG_RUNTIME_DIR"])
        files.append(AuthFile(runtime / "containers" / "auth.json", "containers"))
    home = Path(environment.get("HOME") or "/")
    configuration = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    files.append(AuthFile(configuration / "containers" / "auth.json", "containers"))
    if not environment.get("DOCKER_CONFIG"):
        files.append(AuthFile(home / ".docker" / "config.json", "docker"))
    return tuple(files)
