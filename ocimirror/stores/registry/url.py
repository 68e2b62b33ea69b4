"""URLs that came from outside: what they may point at, and how they are shown."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import urljoin, urlsplit

from ocimirror.errors import UrlRefused

Use = Literal["redirect", "upload location", "next page", "token realm"]

_DEFAULT_PORTS = {"https": 443, "http": 80}
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CHARACTERS = re.compile(r"[\x21-\x5b\x5d-\x7e]+")  # no space, control, backslash, non-ASCII
_HOST = re.compile(r"[a-z0-9_][a-z0-9._-]*|[0-9a-f:.]*:[0-9a-f:.]*")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Origin(NamedTuple):
    """Scheme, host and port: what a credential is bound to (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of an absolute http or https URL; ValueError for another."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host):
            raise ValueError("not an http or https URL")
        return cls(parts.scheme, host, parts.port or _DEFAULT_PORTS[parts.scheme])

    @property
    def authority(self) -> str:
        """`host:port`, or `host` where the port is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """The one judge of redirects, upload locations, next pages and token realms of a registry.

    Args:
        registry: the endpoint that all of them come from, directly or in turn.
        plain_http: what the user configured, as `host` or `host:port`.
    """

    registry: Origin
    plain_http: frozenset[str] = frozenset()

    def follow(self, base: str, target: str, use: Use) -> str:
        """Return the absolute URL of a target, byte for byte where it is absolute already.

        Args:
            base: the URL whose answer named the target.
            target: an absolute or relative URL.
            use: what it is for.

        Raises:
            UrlRefused: it is no plain http(s) URL, drops TLS, leads into a private network, or
                leaves the registry where it must not.
        """
        url = target if _ABSOLUTE.match(target) else urljoin(base, target)
        fault = self._fault(url, use, base)
        if fault:
            raise UrlRefused(f"{self.registry}: {use} to {redact(url)} refused: {fault}")
        return url

    def _fault(self, url: str, use: Use, base: str) -> str:
        if not _CHARACTERS.fullmatch(url):
            return "it holds characters that no URL has"
        try:
            origin = Origin.of(url)
        except ValueError:
            return "it is not an http or https URL of a host"
        if "@" in urlsplit(url).netloc:
            return "it holds a user name"
        if "#" in url:
            return "it has a fragment"
        if origin == self.registry:
            return ""
        if use == "next page" and origin != Origin.of(base):
            return "it is not on the registry itself, nor where this page came from"
        configured = bool({origin.authority, f"{origin.host}:{origin.port}"} & self.plain_http)
        if origin.scheme == "http" and self.registry.scheme == "https" and not configured:
            return "it is plain HTTP"
        at_home = origin.host == self.registry.host and (
            use == "token realm" or origin.port == self.registry.port
        )
        if _internal(origin.host) and not configured and not at_home:
            return "it is an address in a private network"
        return ""


def redact(url: str) -> str:
    """Return a URL without what may be secret: its query, its fragment, its user name."""
    scheme, separator, rest = url.partition("://")
    end = re.search(r"[/?#]", rest)
    authority, path = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    shown = re.split(r"[?#]", path, maxsplit=1)[0]
    query = "?…" if len(shown) < len(path) else ""
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{shown}{query}"


def is_loopback(host: str) -> bool:
    """Whether a host is localhost, in 127.0.0.0/8, or ::1."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _internal(host: str) -> bool:
    """Whether a host is an address, in any way of writing, that the public internet lacks."""
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (not address.is_global or address.is_multicast)


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            # What a resolver takes too: decimal, hexadecimal, octal and shortened forms.
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and address in _NAT64:
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return embedded or address


def bypasses_proxy(origin: Origin, no_proxy: str) -> bool:
    """Whether a host is reached directly: loopback always, else what `no_proxy` lists.

    Args:
        origin: where the request goes.
        no_proxy: comma-separated hosts (and what is below them), addresses, networks, `*`; each
            may end in a port.
    """
    address = _address(origin.host)
    entries = (entry.strip().lower() for entry in no_proxy.split(","))
    return is_loopback(origin.host) or any(_lists(entry, origin, address) for entry in entries)


def _lists(entry: str, origin: Origin, address: _Address | None) -> bool:
    if entry == "*":
        return True
    with suppress(ValueError):
        network = ipaddress.ip_network(entry, strict=False)
        return address is not None and address in network
    name, _, port = entry.partition(":")
    name = name.removeprefix("*").removeprefix(".")
    below = bool(name) and (origin.host == name or origin.host.endswith(f".{name}"))
    return below and port in ("", str(origin.port))
