"""The policy for URLs that came from outside."""

from __future__ import annotations

import pytest

from ocimirror.errors import UrlRefused
from ocimirror.stores.registry.addresses import address_of, network_of
from ocimirror.stores.registry.url import Origin, UrlPolicy, bypasses_proxy, redact

USES = ["redirect", "upload location", "next page", "token realm"]
BASE = "https://registry.example.com/v2/a/blobs/x?b=c"
POLICY = UrlPolicy(Origin.of(BASE), frozenset({"configured.example.com:8080", "10.1.2.3"}))

PRIVATE = [
    "https://127.0.0.1/x",
    "https://127.1/x",
    "https://2130706433/x",
    "https://0x7f000001/x",
    "https://0x7f.1/x",
    "https://0177.0.0.1/x",
    "https://127.0.0.1./x",
    "https://localhost/x",
    "https://LOCALHOST./x",
    "https://a.localhost/x",
    "https://0.0.0.0/x",
    "https://0/x",
    "https://10.0.0.1/x",
    "https://172.16.0.1/x",
    "https://192.168.1.1/x",
    "https://169.254.169.254/latest/meta-data",
    "https://2852039166/latest/meta-data",
    "https://100.64.0.1/x",
    "https://224.0.0.1/x",
    "https://[::1]/x",
    "https://[::]/x",
    "https://[fe80::1]/x",
    "https://[fd00::1]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[::ffff:a9fe:a9fe]/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://[2002:7f00:1::]/x",
    "https://10.1.2.3:444/x",
]
MALFORMED = [
    "file:///etc/passwd",
    "ftp://files.example.com/x",
    "gopher://x.example.com/1",
    "javascript:alert(1)",
    "https://",
    "https:///x",
    "https:/x.example.com/y",
    "https://user@x.example.com/",
    "https://user:secret@x.example.com/",
    "https://registry.example.com@evil.example.com/",
    "https://@x.example.com/",
    "https://x.example.com/#fragment",
    "https://x.example.com\\@registry.example.com/",
    "https://x.example.com/a b",
    "https://x.example.com/\r\nHost: evil",
    "https://x.example.com/\u00e9",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://x.example.com:99999/",
    "https://x.example.com:port/",
    "https://[::1/",
    "https://[fe80::1%25eth0]/",
    "https://x%2eexample.com/",
    "https://-x.example.com/",
    "",
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("url", PRIVATE)
@pytest.mark.bar("R38")
def test_nothing_leads_into_a_private_network(url, use) -> None:
    with pytest.raises(UrlRefused) as caught:
        POLICY.follow(BASE, url, use)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("url", [url for url in MALFORMED if url])
@pytest.mark.bar("R38")
def test_what_is_no_plain_url_is_refused(url, use) -> None:
    with pytest.raises(UrlRefused) as caught:
        POLICY.follow(BASE, url, use)
    assert "secret" not in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("url", ["http://registry.example.com/x", "http://cdn.example.com/x"])
@pytest.mark.bar("R38")
def test_tls_is_not_dropped(url, use) -> None:
    with pytest.raises(UrlRefused):
        POLICY.follow(BASE, url, use)


@pytest.mark.parametrize("use", ["redirect", "upload location", "token realm"])
@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example.com/x?sig=a%2fb&e=",
        "https://8.8.8.8:8443/x",
        "https://[2606:4700::1111]/x",
        "http://configured.example.com:8080/x",
        "http://10.1.2.3/x",
    ],
)
def test_other_hosts_and_configured_ones_are_followed_as_they_are_written(url, use) -> None:
    assert POLICY.follow(BASE, url, use) == url


@pytest.mark.parametrize("url", ["https://cdn.example.com/x", "https://registry.example.com:444/"])
@pytest.mark.bar("R38")
def test_pages_stay_on_the_registry_or_where_the_page_before_came_from(url) -> None:
    with pytest.raises(UrlRefused, match="not on the registry"):
        POLICY.follow(BASE, url, "next page")
    assert POLICY.follow(url, "/p?n=2", "next page").startswith(url[:20])


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/x?_state=a%3d&b", "https://registry.example.com/v2/x?_state=a%3d&b"),
        ("y", "https://registry.example.com/v2/a/blobs/y"),
        ("?n=1", "https://registry.example.com/v2/a/blobs/x?n=1"),
        ("//registry.example.com/z", "https://registry.example.com/z"),
        ("https://registry.example.com:443/z", "https://registry.example.com:443/z"),
    ],
)
def test_relative_targets_stay_on_the_registry(target, expected, use) -> None:
    assert POLICY.follow(BASE, target, use) == expected


@pytest.mark.parametrize("target", ["//evil.example.com/x", "//127.0.0.1/x"])
def test_a_network_path_is_another_host(target) -> None:
    with pytest.raises(UrlRefused):
        POLICY.follow(BASE, target, "next page")


def test_a_private_registry_may_name_itself_and_its_own_realm() -> None:
    policy = UrlPolicy(Origin.of("https://10.0.0.1:5000/"))
    base = "https://10.0.0.1:5000/v2/"
    assert policy.follow(base, "https://10.0.0.1:5000/x", "redirect")
    assert policy.follow(base, "https://10.0.0.1:5001/token", "token realm")
    for use, url in [("redirect", "https://10.0.0.1:5001/"), ("token realm", "https://10.0.0.2/")]:
        with pytest.raises(UrlRefused):
            policy.follow(base, url, use)


def test_a_plain_registry_may_name_plain_hosts() -> None:
    policy = UrlPolicy(Origin.of("http://registry.example.com:5000/"))
    url = "http://cdn.example.com/x"
    assert policy.follow("http://registry.example.com:5000/v2/", url, "redirect") == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h.example.com/x?sig=s#f", "https://h.example.com/x?…"),
        ("https://h.example.com", "https://h.example.com"),
        ("https://h.example.com?sig=s", "https://h.example.com?…"),
        ("https://h.example.com/#s", "https://h.example.com/?…"),
        ("https://h.example.com/a@b", "https://h.example.com/a@b"),
        ("https://h/" + "a" * 9000, "https://h/" + "a" * 499 + "…"),
    ],
)
def test_what_may_be_secret_in_a_url_is_not_shown(url, shown) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        ("http://localhost:5000/", "", True),
        ("http://127.0.0.9/", "", True),
        ("https://[::1]/", "", True),
        ("https://a.example.com/", "", False),
        ("https://a.example.com/", "*", True),
        ("https://a.example.com/", "example.com", True),
        ("https://a.example.com/", " .EXAMPLE.com , x", True),
        ("https://a.example.com/", "*.example.com", True),
        ("https://aexample.com/", "example.com", False),
        ("https://a.example.com/", "example.com:443", True),
        ("https://a.example.com/", "example.com:80", False),
        ("https://10.1.2.3/", "10.0.0.0/8", True),
        ("https://11.1.2.3/", "10.0.0.0/8", False),
        ("https://10.1.2.3/", "10.1.2.3", True),
    ],
)
def test_no_proxy_is_read_as_others_read_it(url, no_proxy, direct) -> None:
    assert bypasses_proxy(Origin.of(url), no_proxy) is direct


NETWORKS = {
    "public": "8.8.8.8 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1",
    "loopback": "127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::7f00:1"
    " 2002:7f00:1::",
    "private": "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 fc00::1"
    " fdff::1 fec0::1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1:: 64:ff9b:1::808:808",
    "link-local": "169.254.0.1 fe80::1 fe80::1%eth0 febf::1 ::ffff:169.254.1.1",
    "metadata": "169.254.169.254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::"
    " 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254",
    "reserved": "0.0.0.0 0.1.2.3 :: 192.0.0.1 192.0.2.1 224.0.0.1 240.0.0.1 255.255.255.255 ff02::1"
    " 2001:db8::1 2001::1 100::1 ::ffff:0.0.0.0 ::ffff:224.0.0.1 4000::1",
}


@pytest.mark.parametrize(
    ("address", "network"),
    [(each, network) for network, addresses in NETWORKS.items() for each in addresses.split()],
)
@pytest.mark.bar("R38")
def test_each_address_is_in_the_network_that_it_leads_to(address, network) -> None:
    parsed = address_of(address)
    assert parsed is not None
    assert network_of(parsed) == network


@pytest.mark.parametrize(
    ("homes", "addresses", "admitted"),
    [
        (["8.8.8.8"], ["9.9.9.9", "10.0.0.1"], ["9.9.9.9"]),
        (["10.0.0.1"], ["9.9.9.9", "192.168.0.1", "127.0.0.1"], ["9.9.9.9", "192.168.0.1"]),
        (["127.0.0.1"], ["127.0.0.2", "::1", "10.0.0.1"], ["127.0.0.2", "::1"]),
        (["169.254.0.1"], ["169.254.0.2", "169.254.169.254"], ["169.254.0.2"]),
        (["169.254.169.254"], ["169.254.169.254"], []),
        (["0.0.0.0"], ["0.0.0.0"], []),
        (["10.0.0.1", "8.8.8.8"], ["10.0.0.2"], []),
        ([], ["10.0.0.1"], []),
        ([], ["9.9.9.9"], ["9.9.9.9"]),
    ],
)
@pytest.mark.bar("R38")
def test_a_registry_leads_into_its_own_network_only(homes, addresses, admitted) -> None:
    policy = UrlPolicy(Origin.of(BASE))
    for address in homes:
        policy.gate(BASE).reached(address)
        policy.gate("https://cdn.example.com/").reached("10.9.9.9")
    gate = policy.gate("https://cdn.example.com/x?secret")
    if admitted:
        assert gate.admitted(addresses) == admitted
    else:
        with pytest.raises(UrlRefused) as caught:
            gate.admitted(addresses)
        assert caught.value.exit_code == 4
        assert "secret" not in caught.value.message
    assert policy.gate(BASE).admitted(["10.0.0.1"]) == ["10.0.0.1"]
