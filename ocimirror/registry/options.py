"""What a run says about the network; no environment is read below this."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from ocimirror.errors import UsageError


@dataclass(frozen=True, slots=True)
class AuthFile:
    """A credential file: docker's config.json names hosts, containers' auth.json also paths.

    Attributes:
        content: of DOCKER_AUTH_CONFIG in the environment, which is no file: it cannot be changed.
    """

    path: Path
    kind: Literal["docker", "containers"]
    content: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.path} (in the environment)" if self.content else str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """The network options of one run; UsageError for what is out of range.

    They stand instead of what the environment says, and nothing is added from there: credentials,
    certificates and the proxy are in `from_environment()`. To change one thing of that:
    `dataclasses.replace(from_environment(), retries=2)`.

    Attributes:
        plain_http: `host` or `host:port` of registries that are reached without TLS.
        ca_file: PEM certificates that are trusted besides the system's.
        client_cert: PEM certificate for servers that ask for one; `client_key` where its key is
            in another file.
        certs_dirs: directories of docker and containers with a directory of certificates a host.
        proxy: URL of an HTTP proxy for everything that is not loopback; may hold a password.
            Without a scheme it is `http://`.
        no_proxy: comma-separated hosts, domains, networks or `*` that are reached directly.
        retries: how often a request is sent again, at most.
        timeout_s: how long a peer may be silent, or send less than 1 KiB/s.
        jobs: threads that will use the connections, and requests under way to a host, at most.
        requests_per_second: to hosts, named as in `plain_http`; above 0, no limit for others.
        bytes_per_second: of all bodies of the run, down and up together; 0 is no limit.
        auth_files: credential files, the first that knows a registry wins; absent ones are fine.
        stop: set from outside to end waiting; what was asked for raises Interrupted.
    """

    plain_http: frozenset[str] = frozenset()
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    certs_dirs: tuple[Path, ...] = ()
    proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    retries: int = 5
    timeout_s: float = 60.0
    jobs: int = 4
    requests_per_second: Mapping[str, float] = field(default_factory=dict)
    bytes_per_second: int = 0
    auth_files: tuple[AuthFile, ...] = ()
    stop: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.retries < 0 or self.timeout_s <= 0 or self.bytes_per_second < 0:
            raise UsageError(
                "NetworkOptions: jobs is at least 1, timeout_s above 0, retries and"
                " bytes_per_second at least 0"
            )
        if isinstance(self.plain_http, str):
            raise UsageError("NetworkOptions: plain_http is a set of hosts, and not one text")
        object.__setattr__(self, "proxy", _proxy_url(self.proxy))

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nothing printed may show: the login to the proxy, and its password."""
        login = self.proxy.partition("://")[2].rpartition("@")[0]
        return login, unquote(login), unquote(login.partition(":")[2])


def _proxy_url(text: str) -> str:
    """Return the URL of a proxy, or nothing; it may hold a password, so it is not shown.

    Raises:
        UsageError: it is none.
    """
    url = text if "://" in text or not text else f"http://{text}"
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if text and not good:
        raise UsageError("--proxy, or HTTPS_PROXY in the environment, is not a URL of a proxy")
    return url
