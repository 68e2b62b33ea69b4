"""TLS: whom we trust, and how plain HTTP is found out."""

from __future__ import annotations

import datetime
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from ocimirror import (
    NetworkOptions,
    NotFound,
    Registry,
    RegistryRefused,
    RegistryUnavailable,
    UntrustedCertificate,
    UsageError,
)
from tests.support.certificates import Certificates, write_certificates
from tests.support.command import environment, ocimirror
from tests.support.faults import Respond
from tests.support.internet import run_internet
from tests.support.rawpeer import answer, raw_peer
from tests.support.registry import run_registry
from tests.support.stores import fill


def test_a_registry_with_our_ca_is_trusted(tls_registry, connect, repository, image) -> None:
    fill(connect(tls_registry).repository(repository), {"v1": image})
    store = connect(tls_registry).repository(repository)
    assert store.read_manifest(store.resolve("v1")).raw == image.raw
    with pytest.raises(NotFound, match="https://127"):
        store.resolve("absent")


@pytest.mark.bar("R23")
def test_an_untrusted_certificate_is_an_error_and_no_fallback(tls_registry, connect) -> None:
    host = connect(tls_registry, ca_file=None, retries=5)
    with pytest.raises(UntrustedCertificate, match=r"self-signed|issuer") as caught:
        host.repository("a/b").resolve("v1")
    assert caught.value.exit_code == 4
    assert f"https://{tls_registry.host}" in caught.value.message


@pytest.mark.parametrize("fault", ["expired", "other name"])
@pytest.mark.bar("R23")
def test_a_wrong_certificate_is_an_error(fault, tmp_path, connect) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    certificates = write_certificates(
        tmp_path / "tls",
        names=("other.example.com",) if fault == "other name" else ("127.0.0.1",),
        not_after=past if fault == "expired" else None,
    )
    with run_registry(tmp_path / "registry", certificates=certificates) as registry:
        with pytest.raises(UntrustedCertificate):
            connect(registry).repository("a/b").resolve("v1")


def test_a_registry_configured_as_plain_is_not_asked_for_tls(tls_registry, connect) -> None:
    host = connect(tls_registry, plain_http=frozenset({tls_registry.host}), retries=0)
    with pytest.raises(RegistryRefused, match=f"http://{tls_registry.host}.* 400 "):
        host.repository("a/b").resolve("v1")


@pytest.mark.bar("hub-names")
def test_only_loopback_falls_back_and_docker_hub_is_reached_at_its_endpoint(
    connect, tmp_path
) -> None:
    hub = "registry-1.docker.io"
    endpoints = {
        "registry.example.com": "registry.example.com",
        "10.0.0.1:5000": "10.0.0.1:5000",
        **dict.fromkeys(("docker.io", "index.docker.io", hub), hub),
    }
    names = ("registry.example.com", "10.0.0.1", hub)
    with run_internet(write_certificates(tmp_path / "tls", names=names)) as internet:
        for registry, endpoint in endpoints.items():
            options = {"proxy": internet.url, "ca_file": internet.ca_file}
            host = connect(registry, plain_http=frozenset(), **options)
            del internet.seen[:]
            with pytest.raises(NotFound):
                host.repository("a/b").resolve("v1")
            asked = f"https://{endpoint}/v2/a/b/manifests/v1"
            assert internet.seen == [("HEAD", asked), ("GET", asked)]
            assert host.registry["a/b:v1"].reference.registry in (registry, "docker.io")


def scheme_of(connect, server, **options) -> str:
    """Return the scheme that a server on loopback is found to speak."""
    host = server if isinstance(server, str) else server.host
    options = {"plain_http": frozenset(), "retries": 0, **options}
    with pytest.raises((NotFound, RegistryUnavailable)) as caught:
        connect(host, **options).repository("a/b").resolve("absent")
    return caught.value.message.partition("://")[0].rpartition(" ")[2]


def test_plain_servers_of_every_kind_are_found_out_at_once(
    docker_registry, registry, canary, connect
) -> None:
    for server in (docker_registry, registry, canary(Respond(404))):
        assert scheme_of(connect, server) == "http"


def test_a_server_that_hangs_up_at_the_hello_does_not_speak_tls(connect) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(1) as pool,
    ):
        found = pool.submit(scheme_of, connect, f"127.0.0.1:{listener.getsockname()[1]}")
        listener.accept()[0].close()
        with raw_peer(lambda *_: answer(status="404 Not Found"), listener=listener):
            assert found.result() == "http"


def test_a_silent_or_absent_server_is_no_reason_for_plain_http(connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        assert scheme_of(connect, host, timeout_s=0.5) == "https"
    assert scheme_of(connect, host) == "https"


@pytest.mark.parametrize("option", ["ca_file", "client_cert"])
def test_a_certificate_file_that_cannot_be_used_is_a_usage_error(option, tmp_path) -> None:
    path = tmp_path / "file.pem"
    for content in (None, b"", b"not a certificate"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UsageError, match=r"file\.pem") as caught:
            Registry("r.example.com", NetworkOptions(**{option: path}))
        assert caught.value.exit_code == 2


class Demanding(Certificates):
    """The certificates of a server that wants to see one of the same CA."""

    def server_context(self) -> ssl.SSLContext:
        context = super().server_context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.ca_file)
        return context


def test_a_client_certificate_is_shown_to_who_asks(tmp_path, connect, image) -> None:
    ours = write_certificates(tmp_path / "ours")
    certificates = Demanding(ours.ca_file, ours.certificate_file, ours.key_file)
    with run_registry(tmp_path / "registry", certificates=certificates) as registry:
        shown = {"client_cert": ours.certificate_file, "client_key": ours.key_file}
        fill(connect(registry, **shown).repository("a/b"), {"v1": image})
        with pytest.raises(RegistryUnavailable, match="TLS"):
            connect(registry, retries=0).repository("a/b").resolve("v1")


@pytest.mark.parametrize("how", ["certs.d", "SSL_CERT_FILE", "nothing"])
def test_the_ca_of_a_host_is_found_where_docker_and_containers_keep_it(
    tls_registry, connect, repository, image, tmp_path, how
) -> None:
    fill(connect(tls_registry).repository(repository), {"v1": image})
    directory = tmp_path / ".config" / "containers" / "certs.d" / tls_registry.host
    directory.mkdir(parents=True)
    more = {}
    if how == "certs.d":
        (directory / "ca.crt").write_bytes(tls_registry.ca_file.read_bytes())
    elif how == "SSL_CERT_FILE":
        more = {"SSL_CERT_FILE": str(tls_registry.ca_file)}

    name = f"docker://{tls_registry.host}/{repository}:v1"
    result = ocimirror("inspect", name, env=environment(tmp_path, **more))

    assert result.code == (4 if how == "nothing" else 0), result.stderr


def test_a_certificate_of_a_host_that_cannot_be_read_is_named(tls_registry, tmp_path) -> None:
    directory = tmp_path / ".config" / "containers" / "certs.d" / tls_registry.host
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_text("none")

    result = ocimirror("inspect", f"docker://{tls_registry.host}/a:1", env=environment(tmp_path))

    assert result.code == 2
    assert f"{directory}/ca.crt" in result.stderr
