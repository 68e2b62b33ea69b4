"""What dockerd has to be told for a moment, so that it pulls from this machine by original names.

A hosts line and a CA in certs.d make a name of another registry lead here, and dockerd reads both
at each pull. docker.io is reached by its mirrors instead, which dockerd reloads on SIGHUP. Both
work on a dockerd that runs and stays running (identity that no archive can bring, moby#22011).
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ocimirror.engines.docker.borrowed import MAX_SIZE_BYTES, Change, read_file
from ocimirror.engines.docker.process import HOSTS_FILE, LocalDockerd
from ocimirror.errors import IntegrityError, UsageError
from ocimirror.model import strictjson
from ocimirror.model.reference import DOCKER_HUB

CERTIFICATES = "/etc/docker/certs.d"
JOURNAL = "ocimirror-undo.json"
_MARK = "# ocimirror load, for a moment"
_MIRRORS = "registry-mirrors"

Way = Literal["mirror", "loopback", "alias"]


def way_to(registry: str) -> Way:
    """Return how dockerd is brought to ask this machine instead of a registry.

    Raises:
        UsageError: an address of another machine, which no name leads away from.
    """
    if registry == DOCKER_HUB:
        return "mirror"
    host, _ = split(registry)
    if host == "localhost":
        return "loopback"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "alias"
    if address.is_loopback:
        return "loopback"
    raise UsageError(f"{registry} is an address; only a name can be made to lead here")


def split(registry: str, usual_port: int = 443) -> tuple[str, int]:
    """Return host and port of a registry that may name none."""
    host, colon, port = registry.rpartition(":")
    if not colon or registry.endswith("]"):
        return registry.strip("[]"), usual_port
    return host.strip("[]"), int(port)


def refuse_two_in_one_place(registries: Iterable[str]) -> None:
    """Refuse registries with one host and port: dockerd would ask one server for both.

    Raises:
        UsageError: `reg.example.com` and `reg.example.com:443`.
    """
    places: dict[tuple[str, int], str] = {}
    for registry in registries:
        other = places.setdefault(split(registry), registry)
        if other != registry:
            raise UsageError(
                f"{other} and {registry} are the same place",
                advice="Name the images of one of them, and then those of the other.",
            )


def hosts_change(names: Mapping[str, str], path: str = HOSTS_FILE) -> Change:
    """Return the hosts file with a line for each name.

    Args:
        names: host by address.

    Raises:
        UsageError: the file names one of them already; which line wins is not ours to say.
    """
    path = os.path.realpath(path)  # (some systems have a link there)
    before = read_file(path, MAX_SIZE_BYTES)
    content = before or b""
    known = {
        word.lower()
        for line in content.decode("utf-8", "replace").splitlines()
        for word in line.partition("#")[0].split()[1:]
    }
    for name in names:
        if name in known:
            raise UsageError(f"{path} names {name} already", advice="Take that line out first.")
    lines = "".join(f"{address} {name} {_MARK}\n" for name, address in names.items()).encode()
    newline = b"" if not content or content.endswith(b"\n") else b"\n"
    return Change(path, before, content + newline + lines, added=lines)


def certificate_change(registry: str, ca_pem: bytes) -> Change:
    """Return the file that makes dockerd trust a CA for one registry."""
    # (A name of its own: dockerd reads every *.crt there, and those that are there stay.)
    path = os.path.join(CERTIFICATES, registry, f"ocimirror-{os.getpid()}.crt")
    return Change(path, read_file(path, MAX_SIZE_BYTES), ca_pem)


def mirror_change(dockerd: LocalDockerd, mirror: str) -> Change:
    """Return dockerd's configuration with a mirror of docker.io before those that it has.

    Every other key stays as it is. Taking the mirror away needs a list, be it an empty one: of a
    key that is absent, dockerd keeps the last value until it is started again.

    Raises:
        UsageError: the mirrors are arguments of dockerd, or its file is not what it should be.
    """
    path = dockerd.config_file
    if dockerd.sets_mirrors:
        raise UsageError("dockerd was started with --registry-mirror; its file cannot add one")
    before = read_file(path, MAX_SIZE_BYTES)
    settings: dict[str, Any] = {}
    if before and before.strip():
        try:
            settings = dict(strictjson.loads(before, path))
        except IntegrityError as error:
            raise UsageError(error.message) from error
    mirrors = settings.get(_MIRRORS) or []
    if not isinstance(mirrors, list):
        raise UsageError(f"{path}: {_MIRRORS} is not a list")
    return Change(
        path,
        before,
        _configuration({**settings, _MIRRORS: [mirror, *mirrors]}),
        between=_configuration({**settings, _MIRRORS: mirrors}),
    )


def _configuration(settings: Mapping[str, Any]) -> bytes:
    return json.dumps(settings, indent=2).encode() + b"\n"


def mirrors_in(path: str) -> Sequence[str]:
    """Return the mirrors that a configuration file names."""
    raw = read_file(path, MAX_SIZE_BYTES)
    mirrors = strictjson.loads(raw, path).get(_MIRRORS) if raw and raw.strip() else None
    return [str(mirror).rstrip("/") for mirror in mirrors] if isinstance(mirrors, list) else []


def mirrors_in_force(info: Mapping[str, Any]) -> Sequence[str]:
    """Return the mirrors of docker.io that `docker info` names, without slashes at their ends."""
    registries = info.get("RegistryConfig")
    mirrors = registries.get("Mirrors") if isinstance(registries, dict) else None
    return [str(mirror).rstrip("/") for mirror in mirrors or []]


def proxy_in_the_way(info: Mapping[str, Any], registry: str) -> str:
    """Return the proxy that dockerd would ask for a registry, empty where it goes there itself."""
    proxy = str(info.get("HttpsProxy") or "")
    host, _ = split(registry)
    words = [word.strip() for word in str(info.get("NoProxy") or "").split(",")]
    direct = [word.lstrip(".*") for word in words]
    if "*" in words or any(word and (host == word or host.endswith(f".{word}")) for word in direct):
        return ""
    return proxy if way_to(registry) == "alias" else ""
