"""URLs that came from outside: what they may point at, and how they are shown."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import urljoin, urlsplit

from ocimirror.errors import UrlRefused
from ocimirror.registry.addresses import (
    Address,
    Network,
    address_of,
    is_loopback,
    network_of,
)

Use = Literal["redirect", "upload location", "next page", "token realm"]

_DEFAULT_PORTS = {"https": 443, "http": 80}
_MAX_SHOWN = 500
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CHARACTERS = re.compile(r"[\x21-\x5b\x5d-\x7e]+")  # no space, control, backslash, non-ASCII
_HOST = re.compile(r"[a-z0-9_][a-z0-9._-]*|[0-9a-f:.]*:[0-9a-f:.]*")

# What a registry that is there itself may lead to.
_SHARED: frozenset[Network] = frozenset({"loopback", "private", "link-local"})
_TOLD: dict[Network, str] = {
    "loopback": "the loopback network of this machine",
    "private": "a private network",
    "link-local": "the link-local network",
    "metadata": "the network of a cloud's metadata service",
    "reserved": "a reserved network",
}


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

    URLs are judged twice: as they are written, by `follow`, and by the addresses that their host
    has, by `gate`.

    Args:
        registry: the endpoint that all of them come from, directly or in turn.
        plain_http: what the user configured, as `host` or `host:port`.

    Attributes:
        homes: the networks in which the registry itself was reached.
    """

    registry: Origin
    plain_http: frozenset[str] = frozenset()
    homes: set[Network] = field(default_factory=set, init=False, repr=False, compare=False)

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
        configured = self.is_configured(origin)
        if origin.scheme == "http" and self.registry.scheme == "https" and not configured:
            return "it is plain HTTP"
        at_home = origin.host == self.registry.host and (
            use == "token realm" or origin.port == self.registry.port
        )
        if _internal(origin.host) and not configured and not at_home:
            return "it is an address in a private network"
        return ""

    def is_configured(self, origin: Origin) -> bool:
        """Whether the user named a host as one that may be reached without TLS."""
        return bool({origin.authority, f"{origin.host}:{origin.port}"} & self.plain_http)

    def gate(self, url: str) -> AddressGate:
        """Return the judge of the addresses that a URL leads to."""
        return AddressGate(self, Origin.of(url))


@dataclass(frozen=True, slots=True)
class AddressGate:
    """Which addresses of one host may be connected to.

    Public ones, and those in the network that the registry itself was reached in; all of the
    registry's own and of hosts that the user configured.
    """

    policy: UrlPolicy
    origin: Origin

    def admitted(self, addresses: Sequence[str]) -> list[str]:
        """Return those of the host's addresses that may be connected to, in their order.

        Raises:
            UrlRefused: there are some, and none of them may be connected to.
        """
        policy, origin = self.policy, self.origin
        if origin == policy.registry or policy.is_configured(origin):
            return list(addresses)
        networks = {each: _network(each) for each in addresses}
        shared = policy.homes & _SHARED if len(policy.homes) == 1 else frozenset()
        good = [each for each in addresses if networks[each] in {"public", *shared}]
        if addresses and not good:
            raise UrlRefused(
                f"{policy.registry}: a URL that it named is refused: {origin.host} is at"
                f" {addresses[0]}, in {_TOLD[networks[addresses[0]]]}; the registry is not",
                advice="A registry may not lead into a network that it is not in itself."
                f" --plain-http {origin.authority} allows this host, with TLS or without.",
            )
        return good

    def reached(self, address: str) -> None:
        """Take in where the registry itself is; if it is in several networks, none is its own."""
        if self.origin == self.policy.registry:
            self.policy.homes.add(_network(address))


def redact(url: str) -> str:
    """Return a URL as it is shown: without its query, fragment and user name, and not endless."""
    scheme, separator, rest = url.partition("://")
    end = re.search(r"[/?#]", rest)
    authority, path = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    shown = re.split(r"[?#]", path, maxsplit=1)[0]
    query = "?…" if len(shown) < len(path) else ""
    host = authority.rpartition("@")[2][:_MAX_SHOWN]
    more = "…" if len(shown) > _MAX_SHOWN else ""
    return f"{scheme}{separator}{host}{shown[:_MAX_SHOWN]}{more}{query}"


def _internal(host: str) -> bool:
    """Whether a host is an address, in any way of writing, that the public internet lacks."""
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = address_of(name)
    return address is not None and network_of(address) != "public"


def _network(address: str) -> Network:
    parsed = address_of(address)
    return "reserved" if parsed is None else network_of(parsed)


def bypasses_proxy(origin: Origin, no_proxy: str) -> bool:
    """Whether a host is reached directly: loopback always, else what `no_proxy` lists.

    Args:
        origin: where the request goes.
        no_proxy: comma-separated hosts (and what is below them), addresses, networks, `*`; each
            may end in a port.
    """
    address = address_of(origin.host)
    entries = (entry.strip().lower() for entry in no_proxy.split(","))
    return is_loopback(origin.host) or any(_lists(entry, origin, address) for entry in entries)


def _lists(entry: str, origin: Origin, address: Address | None) -> bool:
    if entry == "*":
        return True
    with suppress(ValueError):
        network = ipaddress.ip_network(entry, strict=False)
        return address is not None and address in network
    name, _, port = entry.partition(":")
    name = name.removeprefix("*").removeprefix(".")
    below = bool(name) and (origin.host == name or origin.host.endswith(f".{name}"))
    return below and port in ("", str(origin.port))
