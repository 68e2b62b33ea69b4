"""Which network an address is in, and which registry may lead there: all of it in one run."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.command import environment
from tests.support.network import Network, private_network
from tests.support.rawpeer import answer, raw_peer

PORT = 5000
NETWORKS = {
    "": "8.8.8.8 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1",
    "the loopback network of this machine": "127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1"
    " ::127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::",
    "a private network": "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1"
    " fc00::1 fdff::1 fec0::1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1:: 64:ff9b:1::808:808",
    "the link-local network": "169.254.0.1 fe80::1 febf::1 ::ffff:169.254.1.1",
    "the network of a cloud's metadata service": "169.254.169.254 ::ffff:169.254.169.254"
    " 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe:: 100.100.100.200 168.63.129.16 192.0.0.192"
    " fd00:ec2::254 fd20:ce::254",
    "a reserved network": "0.0.0.0 0.1.2.3 :: 192.0.0.1 192.0.2.1 224.0.0.1 240.0.0.1"
    " 255.255.255.255 ff02::1 2001:db8::1 2001::1 100::1 ::ffff:0.0.0.0 ::ffff:224.0.0.1 4000::1",
}
REGISTRIES = {
    "public": [["8.8.8.8"]],
    "private": [["10.0.0.1"]],
    "loopback": [["127.0.0.1"]],
    "link-local": [["169.254.0.1"]],
    "metadata": [["169.254.169.254"]],
    "reserved": [["0.0.0.0"]],  # (which leads to this machine)
    "moving": [["10.0.0.1"], ["8.8.8.8"]],
}
# A registry, where one of its URLs leads, and whether it is followed.
LEADS = [
    ("public", "9.9.9.9", True),
    ("public", "10.0.0.1", False),
    ("private", "9.9.9.9", True),
    ("private", "192.168.0.1", True),
    ("private", "127.0.0.1", False),
    ("loopback", "127.0.0.2", True),
    ("loopback", "::1", True),
    ("loopback", "10.0.0.1", False),
    ("link-local", "169.254.0.2", True),
    ("link-local", "169.254.169.254", False),
    ("metadata", "169.254.169.254", False),
    ("reserved", "0.0.0.0", False),
    ("moving", "10.0.0.2", False),
]
TOLD = [(each, told) for told, addresses in NETWORKS.items() for each in addresses.split()]
ASKED = [*(("public", address) for address, _ in TOLD), *((home, to) for home, to, _ in LEADS)]
UNASSIGNABLE = ("0.", "127.", "::", "22", "24", "25", "ff")


class Fate(NamedTuple):
    """What came of a URL, and how often it was followed."""

    code: str
    message: str
    visits: int


def name_of(address: str) -> str:
    return f"a{address.replace('.', '-').replace(':', 'x')}.test"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Every address above that a machine can have, and a name for each of them."""
    everything = {address for _, address in ASKED}
    everything |= {address for turns in REGISTRIES.values() for turn in turns for address in turn}
    names = {f"{home}.test": turns for home, turns in REGISTRIES.items()}
    names |= {name_of(address): [[address]] for address in everything}
    names |= {"private.direct.test": [["10.0.0.1"]], "public.direct.test": [["9.9.9.9"]]}
    addresses = [each for each in sorted(everything) if not each.startswith(UNASSIGNABLE)]
    with private_network(tmp_path_factory.mktemp("network"), addresses, names) as network:
        yield network


@pytest.fixture(scope="module")
def seen(network: Network) -> Iterator[list[str]]:
    """Serve every address: registries, which lead elsewhere, and what is there.

    Yields the registry that led there, and the host that it led to.
    """
    visited: list[str] = []

    def script(line: str, fields: dict[str, str]) -> Iterator[bytes]:
        target = line.partition("/v2/to/")[2].partition("/")[0]
        if not target:
            visited.append(line.rpartition("/")[2].partition("?")[0] + " " + fields["host"])
            return answer(b"", status="404 Not Found")
        location = f"Location: http://{target}:{PORT}/{fields['host']}?secret\r\n"
        # (So that a name is looked up for each request.)
        return answer(b"", f"{location}Connection: close\r\n", "307 Temporary Redirect")

    with network.entered():
        listener = socket.create_server(
            ("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
        )
    with listener, raw_peer(script, listener=listener):
        yield visited


def pull(
    network: Network, asked: list[tuple[str, str]], seen: list[str], *options: str, **env: str
) -> list[Fate]:
    """Pull an image by each of the URLs that a registry names."""
    del seen[:]
    images = [f"{home}:{PORT}/to/{target}:v1" for home, target in asked]
    plain = [
        f"--plain-http={host}" for host in sorted({image.partition("/")[0] for image in images})
    ]
    done = network.ocimirror(
        *("pull", *images, "/nonexistent/layout", *plain, *options),
        *("--dry-run", "--json", "--timeout=5", "--retries=0", "--jobs=8", "--no-progress"),
        env=environment(**env),
    )
    assert done.document.get("images"), done
    errors = [image["error"] for image in done.document["images"]]
    counts = [seen.count(f"{home}:{PORT} {target}:{PORT}") for home, target in asked]
    return [
        Fate(error["code"], error["message"], count)
        for error, count in zip(errors, counts, strict=True)
    ]


@pytest.fixture(scope="module")
def fates(network: Network, seen: list[str]) -> dict[tuple[str, str], Fate]:
    """Return what came of each registry and address."""
    asked = list(dict.fromkeys(ASKED))
    hosts = [(f"{home}.test", name_of(address)) for home, address in asked]
    return dict(zip(asked, pull(network, hosts, seen), strict=True))


@pytest.mark.parametrize(("address", "told"), TOLD)
@pytest.mark.bar("R38")
def test_each_address_is_in_the_network_that_it_leads_to(address, told, fates) -> None:
    code, message, visits = fates["public", address]
    if told:
        assert (code, visits) == ("url_refused", 0)
        assert f"{name_of(address)} is at {address}, in {told};" in message
        assert "secret" not in message
    else:
        assert code == "not_found"
        assert visits > 0


@pytest.mark.parametrize(("home", "address", "followed"), LEADS)
@pytest.mark.bar("R38")
def test_a_registry_leads_into_its_own_network_only(home, address, followed, fates) -> None:
    code, message, visits = fates[home, address]
    assert code == ("not_found" if followed else "url_refused")
    assert "secret" not in message
    # (A registry that moves leads to its neighbour until it is somewhere else too.)
    assert (visits > 0) is followed or home == "moving"


@pytest.mark.bar("R38")
def test_a_registry_behind_a_proxy_leads_into_no_private_network(network, seen) -> None:
    asked = [("behind.test", f"{target}.direct.test") for target in ("private", "public")]
    fates = pull(network, asked, seen, f"--proxy=http://8.8.8.8:{PORT}", NO_PROXY="direct.test")
    assert [fate.code for fate in fates] == ["url_refused", "not_found"]
    assert [bool(fate.visits) for fate in fates] == [False, True]
