"""Opening registries, and the content they are filled with."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from ocimirror import AuthFile, NetworkOptions, Store
from ocimirror import Registry as PublicRegistry
from tests.support import images
from tests.support.images import Graph
from tests.support.proxy import Proxy
from tests.support.registry import StrictRegistry
from tests.support.witness import Registry

Server = Registry | Proxy


@dataclass(frozen=True)
class Host:
    """A registry as one run sees it, and its repositories as stores."""

    registry: PublicRegistry

    def repository(self, name: str) -> Store:
        """Return the store of one repository."""
        return self.registry[f"{name}:v1"].place


class Connect(Protocol):
    """`connect(server, retries=…)`: a registry as a new run sees it."""

    def __call__(self, server: Server | str, **options: Any) -> Host: ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open registries whose connections close with the test; few retries, short silence."""
    with ExitStack() as stack:

        def open_host(server: Server | str, **options: Any) -> Host:
            host = server if isinstance(server, str) else server.host
            settings: dict[str, Any] = {"retries": 1, "timeout_s": 5.0}
            if isinstance(server, str) or server.scheme == "http":
                settings["plain_http"] = frozenset({host})
            else:
                settings["ca_file"] = server.ca_file
            network = NetworkOptions(**{**settings, **options})
            return Host(stack.enter_context(PublicRegistry(host, network)))

        yield open_host


@pytest.fixture
def count_connections() -> Callable[[Server], Callable[[], int]]:
    """Count TCP connections as the kernel sees them: `opened = count_connections(server)`."""

    def start(server: Server) -> Callable[[], int]:
        before = client_ports(server.host)
        return lambda: len(client_ports(server.host) - before)

    return start


def client_ports(host: str) -> set[int]:
    """Return the ports that connections to a loopback server came from, the closed ones too."""
    server = int(host.rpartition(":")[2])
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote = (int(end.rpartition(":")[2], 16) for end in line.split()[1:3])
        ports |= {local} if remote == server else {remote} if local == server and remote else set()
    return ports


@pytest.fixture
def image() -> Graph:
    """One image of one platform."""
    return images.single()


@pytest.fixture
def filled(registry: StrictRegistry, repository: str, image: Graph) -> StrictRegistry:
    """The strict registry with `image` in `repository`, tagged v1."""
    images.push(registry, repository, "v1", image)
    registry.requests.clear()
    return registry


@pytest.fixture
def login(tmp_path: Path) -> Callable[..., tuple[AuthFile, ...]]:
    """Write a docker config.json: `auth_files=login(host, user, password)`."""

    def write(host: str, user: str, password: str, **entry: str) -> tuple[AuthFile, ...]:
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"auths": {host: entry or {"auth": auth}}}))
        return (AuthFile(path, "docker"),)

    return write


def reprs(whole: object) -> list[str]:
    """Return the repr of an object of ours, and of all of ours that it is made of."""
    found, left, seen = [], [whole], set()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            left += each.values()
        elif isinstance(each, list | tuple):
            left += each
        if type(each).__module__.startswith("ocimirror."):
            found.append(repr(each))
            left += getattr(each, "__dict__", {}).values()
    return found
