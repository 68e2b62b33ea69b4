"""Forward proxies, from options and from nowhere else."""

from __future__ import annotations

import socket

import pytest

from ocimirror import NetworkOptions, NotFound, RegistryUnavailable
from tests.support.command import environment
from tests.support.faults import Respond
from tests.support.network import private_network
from tests.support.rawpeer import answer, raw_peer
from tests.support.stores import blob_of

BLOB = blob_of(b"through the proxy")


def test_requests_go_through_the_proxy(canary, connect) -> None:
    forward = canary(Respond(200, {"Content-Length": str(BLOB.size)}))
    host = connect("registry.test:5000", proxy=f"http://ada:secret@{forward.host}")
    assert host.repository("a/b").exists(BLOB)
    (visit,) = forward.visits
    assert visit.path == f"http://registry.test:5000/v2/a/b/blobs/{BLOB.digest}"
    assert visit.headers["host"] == "registry.test:5000"
    assert visit.headers["proxy-authorization"] == "Basic YWRhOnNlY3JldA=="


def test_a_proxy_is_asked_to_connect_for_tls(canary, connect) -> None:
    forward = canary()
    host = connect("registry.test:5000", plain_http=frozenset(), proxy=forward.url, retries=0)
    with pytest.raises(RegistryUnavailable, match=r"the proxy: .*501"):
        host.repository("a/b").exists(BLOB)


def test_loopback_and_no_proxy_are_reached_directly(canary, registry, connect, repository) -> None:
    forward = canary()
    with pytest.raises(NotFound):
        connect(registry, proxy=forward.url).repository(repository).resolve("v1")
    host = connect("registry.invalid:5000", proxy=forward.url, no_proxy="invalid", retries=0)
    with pytest.raises(RegistryUnavailable, match="does not resolve"):
        host.repository("a/b").resolve("v1")
    assert forward.visits == []


def test_a_proxy_that_is_not_there_is_said_to_be_the_proxy(connect) -> None:
    host = connect("registry.test:5000", proxy="http://ada:secret@127.0.0.1:9", retries=0)
    with pytest.raises(RegistryUnavailable, match="the proxy") as caught:
        host.repository("a/b").exists(BLOB)
    assert "secret" not in caught.value.message
    assert "secret" not in repr(NetworkOptions(proxy="http://ada:secret@127.0.0.1:9"))


# One run: each host is reached directly, or through the proxy.
NO_PROXY = "whole.test, .DOTTED.test , x,*.starred.test,ported.test:443,other.test:80,10.0.0.0/8,"
NO_PROXY += "172.30.1.2"
DIRECT = {
    "localhost:1": True,
    "127.0.0.9": True,
    "[::1]:1": True,
    "a.example.test": False,
    "whole.test": True,
    "a.whole.test": True,
    "awhole.test": False,
    "a.dotted.test": True,
    "a.starred.test": True,
    "a.ported.test": True,
    "a.other.test": False,
    "10.1.2.3": True,
    "11.1.2.3": False,
    "172.30.1.2": True,
    "172.30.1.3": False,
}


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return, for values of NO_PROXY, which hosts the proxy was asked to connect to.

    In a network where nothing else can be reached.
    """
    asked: dict[str, set[str]] = {}
    with private_network(tmp_path_factory.mktemp("network"), [], {}) as network:
        for no_proxy in (NO_PROXY, "*"):
            seen = asked[no_proxy] = set[str]()

            def script(line, _, seen=seen):
                seen.add(line)
                return answer(b"", status="403 Forbidden")

            with network.entered():
                listener = socket.create_server(("127.0.0.1", 3128))
            with raw_peer(script, listener=listener):
                done = network.ocimirror(
                    *("pull", *(f"{host}/a:v1" for host in DIRECT), "/nonexistent/layout"),
                    *("--dry-run", "--retries=0", "--timeout=5", "--jobs=8"),
                    env=environment(HTTPS_PROXY="http://127.0.0.1:3128", NO_PROXY=no_proxy),
                )
            assert done.code == 3, done
    return asked


@pytest.mark.parametrize(("host", "direct"), DIRECT.items())
def test_no_proxy_is_read_as_others_read_it(host, direct, proxied) -> None:
    assert (f"CONNECT {host}:443" not in proxied[NO_PROXY]) is direct


def test_with_a_star_everything_is_reached_directly(proxied) -> None:
    assert proxied["*"] == set()
