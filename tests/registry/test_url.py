"""Where a registry may lead: redirects, upload locations, next pages and token realms.

The registry is behind a forward proxy that is every other host too, and that sees who is asked.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ocimirror import NotFound, UrlRefused
from tests.support.certificates import write_certificates
from tests.support.faults import Respond
from tests.support.internet import Internet, run_internet
from tests.support.stores import blob_of, push_blob

REGISTRY = "registry.example.com"
USES = ["redirect", "upload location", "next page", "token realm"]
CONFIGURED = frozenset({"configured.example.com:8080", "10.1.2.3"})
CONTENT = b"url"
BLOB = blob_of(CONTENT)

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
    "https://x.example.com/\r\n Host: evil",
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


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """Be every host of these tests."""
    names = (REGISTRY, "cdn.example.com", "8.8.8.8", "2606:4700::1111", "10.0.0.1")
    certificates = write_certificates(tmp_path_factory.mktemp("tls"), names=names)
    with run_internet(certificates) as internet:
        yield internet


@pytest.fixture
def lead(everywhere, connect):
    """Let a registry lead a run to a URL; return the URLs that were asked for after that.

    Every page but the first is the last one, what was uploaded is there, and every token is good.
    """

    def run(url: str, use: str, registry: str = REGISTRY, *, plain: bool = False) -> list[str]:
        everywhere.script = leading(url, use, everywhere)
        del everywhere.seen[:]
        options = {"plain_http": CONFIGURED | {registry} if plain else CONFIGURED}
        if not plain:
            options["ca_file"] = everywhere.ca_file
        ACTS[use](connect(registry, proxy=everywhere.url, retries=0, **options).repository("app"))
        # (urllib3 writes the hexadecimal digits of %2f in capitals, which means the same.)
        return [seen.replace("%2F", "%2f").replace("%3D", "%3d") for _, seen in everywhere.seen]

    return run


def leading(target: str, use: str, internet: Internet):
    """Serve what leads to the target, once; then what ends the journey there."""
    sent = target.encode().decode("latin-1")
    quoted = sent.replace("\\", "\\\\")
    first = {
        "redirect": Respond(307, {"Location": sent}),
        "upload location": Respond(202, {"Location": sent}),
        "next page": Respond(200, {"Link": f'<{sent}>; rel="next"'}, b'{"tags": ["a"]}'),
        "token realm": Respond(401, {"WWW-Authenticate": f'Bearer realm="{quoted}"'}),
    }[use]

    def script(method: str, url: str, fields: dict[str, str]) -> Respond:
        if use == "token realm":
            there = Respond(404) if "authorization" in fields else first
            return Respond(200, {}, b'{"token": "good"}') if "scope=" in url else there
        if use == "upload location":
            stored = Respond(201, {"Docker-Content-Digest": str(BLOB.digest)})
            return {"POST": first, "PUT": stored}.get(method, Respond(404))
        if len(internet.seen) == 1:
            return first
        return Respond(200, {}, b'{"tags": ["b"]}') if use == "next page" else Respond(404)

    return script


def resolve(store) -> None:
    with pytest.raises(NotFound):
        store.resolve("v1")


ACTS = {
    "redirect": resolve,
    "upload location": lambda store: push_blob(store, CONTENT),
    "next page": lambda store: store.names(),
    "token realm": lambda store: store.exists(BLOB),
}


def refused(lead, url: str, use: str, *others: str, **options) -> str:
    """Return how a URL was refused; nobody but the registry was asked for anything."""
    with pytest.raises(UrlRefused) as caught:
        lead(url, use, *others, **options)
    assert caught.value.exit_code == 4
    return caught.value.message


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("url", PRIVATE)
@pytest.mark.bar("R38")
def test_nothing_leads_into_a_private_network(url, use, lead, everywhere) -> None:
    refused(lead, url, use, plain=True)
    assert len(everywhere.asked(REGISTRY)) == len(everywhere.seen)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("url", [url for url in MALFORMED if url])
@pytest.mark.bar("R38")
def test_what_is_no_plain_url_is_refused(url, use, lead, everywhere) -> None:
    message = refused(lead, url, use, plain=True)
    assert "secret" not in message
    assert "\n" not in message
    assert len(everywhere.asked(REGISTRY)) == len(everywhere.seen)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("url", ["http://registry.example.com/x", "http://cdn.example.com/x"])
@pytest.mark.bar("R38")
def test_tls_is_not_dropped(url, use, lead, everywhere) -> None:
    refused(lead, url, use)
    assert all(seen.startswith(f"https://{REGISTRY}/v2/") for _, seen in everywhere.seen)


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
def test_other_hosts_and_configured_ones_are_followed_as_they_are_written(url, use, lead) -> None:
    assert any(seen.startswith(url) for seen in lead(url, use))


@pytest.mark.parametrize("url", ["https://cdn.example.com/x", "https://registry.example.com:444/"])
@pytest.mark.bar("R38")
def test_pages_stay_on_the_registry(url, lead) -> None:
    assert "not on the registry" in refused(lead, url, "next page")


def test_pages_stay_where_the_page_before_came_from(lead, everywhere, connect) -> None:
    pages = [
        Respond(307, {"Location": "https://cdn.example.com/p"}),
        Respond(200, {"Link": "</p?n=2>; rel=next"}, b'{"tags": ["a"]}'),
        Respond(200, {"Link": "<https://8.8.8.8/p>; rel=next"}, b'{"tags": ["b"]}'),
    ]
    del everywhere.seen[:]
    everywhere.script = lambda *_: pages[len(everywhere.seen) - 1]
    options = {"proxy": everywhere.url, "ca_file": everywhere.ca_file}
    store = connect(REGISTRY, plain_http=frozenset(), **options).repository("app")
    with pytest.raises(UrlRefused, match="not on the registry"):
        store.names()
    assert everywhere.seen[2:] == [("GET", "https://cdn.example.com/p?n=2")]


BASES = {
    "redirect": "https://registry.example.com/v2/app/manifests/v1",
    "upload location": "https://registry.example.com/v2/app/blobs/uploads/",
    "next page": "https://registry.example.com/v2/app/tags/list",
    "token realm": "https://registry.example.com",
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/x?_state=a%3d&b", "https://registry.example.com/v2/x?_state=a%3d&b"),
        ("y", "{directory}/y"),
        ("?n=1", "{base}?n=1"),
        ("//registry.example.com/z", "https://registry.example.com/z"),
        ("https://registry.example.com:443/z", "https://registry.example.com/z"),
    ],
)
def test_relative_targets_stay_on_the_registry(target, expected, use, lead) -> None:
    base = BASES[use]
    directory = base.rpartition("/")[0] if "/v2/" in base else base
    url = expected.format(base=base, directory=directory)
    if use == "token realm":
        url = url.replace(".com?", ".com/?")
    assert any(seen.startswith(url) for seen in lead(target, use)[1:])


@pytest.mark.parametrize("target", ["//evil.example.com/x", "//127.0.0.1/x"])
def test_a_network_path_is_another_host(target, lead) -> None:
    refused(lead, target, "next page")


def test_a_private_registry_may_name_itself_and_its_own_realm(lead) -> None:
    registry = "10.0.0.1:5000"
    for url, use in [
        ("https://10.0.0.1:5000/x", "redirect"),
        ("https://10.0.0.1:5001/token", "token realm"),
    ]:
        assert any(seen.startswith(url) for seen in lead(url, use, registry))
    for use, url in [("redirect", "https://10.0.0.1:5001/"), ("token realm", "https://10.0.0.2/")]:
        refused(lead, url, use, registry)


def test_a_plain_registry_may_name_plain_hosts(lead) -> None:
    url = "http://cdn.example.com/x"
    assert url in lead(url, "redirect", f"{REGISTRY}:5000", plain=True)


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
def test_what_may_be_secret_in_a_url_is_not_shown(url, shown, lead) -> None:
    assert f"next page to {shown} refused" in refused(lead, url, "next page", plain=True)


ADDRESSES = {
    "followed": "8.8.8.8 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1",
    "refused": "127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::"
    " 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 fc00::1"
    " fdff::1 fec0::1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1:: 64:ff9b:1::808:808"
    " 169.254.0.1 fe80::1 fe80::1%eth0 febf::1 ::ffff:169.254.1.1"
    " 169.254.169.254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::"
    " 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254"
    " 0.0.0.0 0.1.2.3 :: 192.0.0.1 192.0.2.1 224.0.0.1 240.0.0.1 255.255.255.255 ff02::1"
    " 2001:db8::1 2001::1 100::1 ::ffff:0.0.0.0 ::ffff:224.0.0.1 4000::1",
}


@pytest.mark.parametrize(
    ("address", "fate"),
    [(each, fate) for fate, addresses in ADDRESSES.items() for each in addresses.split()],
)
@pytest.mark.bar("R38")
def test_an_address_in_a_url_is_judged_by_the_network_it_leads_to(address, fate, lead) -> None:
    url = f"http://[{address}]/x" if ":" in address else f"http://{address}/x"
    if fate == "followed":
        assert url in lead(url, "redirect", plain=True)
    else:
        refused(lead, url, "redirect", plain=True)
