"""Addresses: how they are written, and which network one is in."""

from __future__ import annotations

import ipaddress
import socket
from typing import Literal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = Literal["public", "loopback", "private", "link-local", "metadata", "reserved"]

# Told apart here, since what `ipaddress` takes for private differs between versions of Python.
_NETWORKS: dict[Network, tuple[str, ...]] = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    # Where clouds tell a machine its credentials: most of them, Alibaba, Azure, Oracle; AWS, GCP.
    "metadata": (
        "169.254.169.254/32",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
    ),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "private": (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # RFC 6598: shared by customers of a carrier; Tailscale
        "198.18.0.0/15",  # RFC 2544: benchmarks; resolvers that answer with addresses they made up
        "fc00::/7",
        "fec0::/10",
        "64:ff9b:1::/48",  # RFC 8215: a translator's own; what is behind it is not known
    ),
}
_PARSED = [
    (name, ipaddress.ip_network(network))
    for name, networks in _NETWORKS.items()
    for network in networks
]
# IPv6 addresses whose last four bytes are an IPv4 address: mapped, compatible, NAT64.
_EMBEDDING = [ipaddress.IPv6Network(each) for each in ("::ffff:0:0/96", "::/96", "64:ff9b::/96")]


def address_of(host: str) -> Address | None:
    """Return the address that a host is, in any way of writing it; None if it is a name.

    An IPv6 address that only carries an IPv4 address (mapped, 6to4, NAT64) is that IPv4 address.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            # What a resolver takes too: decimal, hexadecimal, octal and shortened forms.
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv4Address) or int(address) <= 1:  # (`::` and `::1`)
        return address
    if any(address in network for network in _EMBEDDING):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or address


def network_of(address: Address) -> Network:
    """Return the network that an address is in; "reserved" is where no server should be."""
    for name, network in _PARSED:
        if address in network:
            return name
    ordinary = address.is_global and not address.is_multicast and not address.is_reserved
    return "public" if ordinary else "reserved"


def is_loopback(host: str) -> bool:
    """Whether a host is localhost, in 127.0.0.0/8, or ::1."""
    address = address_of(host)
    return host == "localhost" or (address is not None and network_of(address) == "loopback")
