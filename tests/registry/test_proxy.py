"""Forward proxies, from options and from nowhere else."""

from __future__ import annotations

import pytest

from ocimirror import NetworkOptions, NotFound, RegistryUnavailable
from tests.support.faults import Respond
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
