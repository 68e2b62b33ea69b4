"""Who may read, and over which connection."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.client
import json
import shutil
import ssl
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from tests.serve.conftest import Command, Serve, cpu_s, eventually
from tests.support.certificates import Certificates, write_certificates
from tests.support.command import ocimirror
from tests.support.images import single, write_layout
from tests.support.programs import require_program
from tests.support.witness import Registry

GRAPH = single()
TOKEN = "not-a-secret-0123456789"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", {"registry.example.com/app:v1": GRAPH})


def write_users(path: Path, cost: int = 5, **passwords: str) -> Path:
    """Write an htpasswd file as Apache's program does."""
    program = require_program("htpasswd", "apache2-utils")
    lines = [
        subprocess.run(
            [program, "-Bbn", "-C", str(cost), user, password], check=True, capture_output=True
        ).stdout.strip()
        for user, password in passwords.items()
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def as_user(client: Registry, name: str, password: str) -> Registry:
    return replace(client, username=name, password=password)


def status(client: Registry, **headers: str) -> int:
    return client.request("GET", "/v2/app/manifests/v1", headers=headers).status


def test_only_users_of_the_htpasswd_file_may_read(
    tmp_path: Path, layout: Path, serve: Serve
) -> None:
    long = "long" * 30
    users = write_users(tmp_path / "users", ada="pa:ss wörd", bob="second", eve=long)
    client = serve(layout, "--htpasswd", users)
    for path in ("/v2/", "/v2/app/manifests/v1", "/v2/_catalog", "/", "/v2/app/blobs/x"):
        answer = client.request("GET", path)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert json.loads(answer.body)["errors"][0]["code"] == "UNAUTHORIZED"
    for _ in range(2):
        assert status(as_user(client, "ada", "pa:ss wörd")) == 200
        assert status(as_user(client, "bob", "second")) == 200
        assert status(as_user(client, "eve", long)) == 200
        assert status(as_user(client, "ada", "second")) == 401
        assert status(as_user(client, "ada", "")) == 401
        assert status(as_user(client, "nobody", "second")) == 401
    for odd in ("Basic", "Basic !", "Basic eA==", "Bearer x", "Digest x", "Basic " + "A" * 4000):
        assert status(client, Authorization=odd) == 401


def test_a_wrong_password_costs_as_much_for_an_unknown_user(
    tmp_path: Path, layout: Path, serve_command: Callable[..., Command]
) -> None:
    """Of the lowest cost, the highest, and of nobody: time does not tell who exists."""
    low = write_users(tmp_path / "low", cost=5, ada="first").read_bytes()
    users = write_users(tmp_path / "users", cost=11, bob="second")
    users.write_bytes(low + users.read_bytes())
    client = serve_command(layout, "--htpasswd", users).client
    took = {}
    for name in ("ada", "bob", "nobody", "ada"):
        began_s = cpu_s(client.pid)
        for number in range(8):
            assert status(as_user(client, name, f"wrong{number}")) == 401
        took[name] = cpu_s(client.pid) - began_s
    assert min(took.values()) > 0.2
    assert max(took.values()) < 1.7 * min(took.values())


def guess(client: Registry, source: str, name: str, password: str) -> tuple[int, str | None]:
    """Ask from an address of its own; return the status and how long to wait."""
    host, _, port = client.host.partition(":")
    connection = http.client.HTTPConnection(host, int(port), 60, source_address=(source, 0))
    basic = base64.b64encode(f"{name}:{password}".encode()).decode()
    connection.request("GET", "/v2/app/manifests/v1", headers={"Authorization": f"Basic {basic}"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers["Retry-After"]


@pytest.mark.parametrize(
    ("source", "guessed"), [("127.0.0.3", "ada"), ("127.0.0.2", "nobody")], ids=["client", "name"]
)
def test_wrong_guesses_delay_nobody_else(
    tmp_path: Path, layout: Path, serve_command: Callable[..., Command], source: str, guessed: str
) -> None:
    users = write_users(tmp_path / "users", cost=11, ada="first")
    client = serve_command(layout, "--htpasswd", users).client
    with ThreadPoolExecutor(16) as pool:
        guesses = [
            pool.submit(guess, client, "127.0.0.2", guessed, f"wrong{number}")
            for number in range(16)
        ]
        assert eventually(lambda: any(done.done() for done in guesses))
        assert guess(client, source, "ada", "first") == (200, None)
        assert sum(not done.done() for done in guesses) >= 6
        assert {done.result() for done in guesses} == {(401, None)}


def test_guesses_that_wait_are_bounded(
    tmp_path: Path, layout: Path, serve_command: Callable[..., Command]
) -> None:
    users = write_users(tmp_path / "users", cost=9, ada="first")
    client = serve_command(layout, "--htpasswd", users).client
    assert guess(client, "127.0.0.2", "ada", "first") == (200, None)
    with ThreadPoolExecutor(64) as pool:
        guesses = [
            pool.submit(guess, client, "127.0.0.2", "ada", f"wrong{number}") for number in range(64)
        ]
        assert guess(client, "127.0.0.2", "ada", "first") == (200, None)  # (known already)
        answers = [done.result() for done in guesses]
    assert set(answers) == {(401, None), (429, "1")}
    assert answers.count((401, None)) >= 32


def test_only_who_has_a_token_may_read(tmp_path: Path, layout: Path, serve: Serve) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"# CI\n{TOKEN}\n\nanother-{TOKEN}\n")
    client = serve(layout, "--token-file", tokens)
    assert status(client, Authorization=f"Bearer {TOKEN}") == 200
    assert status(client, Authorization=f"Bearer another-{TOKEN}") == 200
    assert status(as_user(client, "whoever", TOKEN)) == 200
    assert status(client, Authorization=f"Bearer {TOKEN}x") == 401
    assert status(client, Authorization="Bearer # CI") == 401
    assert status(client) == 401


def test_a_changed_user_file_is_in_force_at_once(
    tmp_path: Path, layout: Path, serve_command: Callable[..., Command]
) -> None:
    users = write_users(tmp_path / "users", ada="first")
    command = serve_command(layout, "--htpasswd", users)
    client = command.client
    assert status(as_user(client, "ada", "first")) == 200
    write_users(users, ada="second")
    assert eventually(lambda: status(as_user(client, "ada", "second")) == 200)
    assert status(as_user(client, "ada", "first")) == 401
    for number, torn in enumerate(("# nobody", "ada", "ada:$apr1$x$y\n"), 1):
        users.write_text(torn)
        assert eventually(lambda n=number: command.said().count("stays") == n)
        assert status(as_user(client, "ada", "second")) == 200
        assert status(client) == 401
    assert command.said().count("what was in force before stays") == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "lists nobody"),
        ("# nobody\n", "lists nobody"),
        ("ada:plain\n", "line 1 is not NAME:BCRYPT"),
        ("ada:$apr1$abcdefgh$x\n", "line 1 is not NAME:BCRYPT"),
        ("ada:{SHA}x\n", "line 1 is not NAME:BCRYPT"),
        (":\n", "line 1 is not NAME:BCRYPT"),
    ],
)
def test_a_user_file_without_bcrypt_is_an_error(
    tmp_path: Path, layout: Path, content: str, told: str
) -> None:
    users = tmp_path / "users"
    users.write_text(content)
    refused = ocimirror("serve", layout, "--htpasswd", users)
    assert (refused.code, told in refused.stderr) == (2, True), refused.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "lists nobody"),
        ("short\n", "line 1 is no token"),
        ("with spaces in the middle\n", "line 1 is no token"),
    ],
)
def test_a_bad_token_file_is_an_error(
    tmp_path: Path, layout: Path, content: str, told: str
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(content)
    refused = ocimirror("serve", layout, "--token-file", tokens)
    assert (refused.code, told in refused.stderr) == (2, True), refused.stderr


def test_skopeo_and_podman_log_in(
    tmp_path: Path, layout: Path, serve_command: Callable[..., Command]
) -> None:
    users = write_users(tmp_path / "users", ada="pa:ss word")
    host = serve_command(layout, "--htpasswd", users).client.host
    auth = tmp_path / "auth.json"
    for program in ("skopeo", "podman"):
        login = [require_program(program, program), "login", "--tls-verify=false", host]
        login += ["--authfile", str(auth), "-u", "ada", "--password-stdin"]
        wrong = subprocess.run(login, input=b"wrong", capture_output=True, check=False)
        assert wrong.returncode != 0
        subprocess.run(login, input=b"pa:ss word", check=True, capture_output=True)
        auth_file = json.loads(auth.read_bytes())
        assert host in auth_file["auths"]
    inspect = ["skopeo", "inspect", "--tls-verify=false", "--raw", "--authfile", str(auth)]
    raw = subprocess.run([*inspect, f"docker://{host}/app:v1"], check=True, capture_output=True)
    assert raw.stdout == GRAPH.raw


# --- TLS ------------------------------------------------------------------------------------------


def files_of(certificates: Certificates) -> tuple[str | Path, ...]:
    return ("--tls-cert", certificates.certificate_file, "--tls-key", certificates.key_file)


def test_a_given_certificate_is_used(tmp_path: Path, layout: Path, serve: Serve) -> None:
    certificates = write_certificates(tmp_path / "tls")
    client = serve(layout, *files_of(certificates))
    assert client.url.startswith("https://")
    client.ca_file = certificates.ca_file
    assert client.get_manifest("app", "v1") == GRAPH.raw
    for digest, content in GRAPH.blobs.items():
        assert client.get_blob("app", digest) == content


def test_a_new_certificate_is_used_without_a_restart(
    tmp_path: Path, layout: Path, serve_command: Callable[..., Command]
) -> None:
    old, new = write_certificates(tmp_path / "old"), write_certificates(tmp_path / "new")
    command = serve_command(layout, *files_of(old))
    client = command.client
    client.ca_file = old.ca_file
    assert client.get_manifest("app", "v1") == GRAPH.raw
    # (1) A certificate without its key leaves the old one in force.
    shutil.copy(new.certificate_file, old.certificate_file)
    assert eventually(lambda: "are not a certificate with its key" in command.said())
    assert client.get_manifest("app", "v1") == GRAPH.raw
    # (2) With its key it is in force, without a restart.
    shutil.copy(new.key_file, old.key_file)
    client.ca_file = new.ca_file

    def new_one_is_used() -> bool:
        with contextlib.suppress(ssl.SSLError):
            return client.get_manifest("app", "v1") == GRAPH.raw
        return False

    assert eventually(new_one_is_used)
    client.ca_file = old.ca_file
    with pytest.raises(ssl.SSLError):
        client.get_manifest("app", "v1")


def test_a_generated_certificate_is_trusted_by_its_ca(
    tmp_path: Path, layout: Path, serve_command: Callable[..., Command]
) -> None:
    made = tmp_path / "made"
    names = ("--tls-generate", "localhost", "--tls-generate", "127.0.0.1")
    command = serve_command(layout, *names, "--tls-directory", made)
    client = command.client
    client.ca_file = Path(command.document["ca_file"])
    assert client.get_manifest("app", "v1") == GRAPH.raw
    assert (made / "server.key").stat().st_mode & 0o777 == 0o600
    first = (made / "server.pem").read_bytes()
    command.stop()
    serve_command(layout, *names, "--tls-directory", made)
    assert (made / "server.pem").read_bytes() == first
    serve_command(layout, "--tls-generate", "mirror.example.com", "--tls-directory", made)
    assert (made / "server.pem").read_bytes() != first


def test_openssl_finds_the_generated_certificate_good(
    tmp_path: Path, layout: Path, serve_command: Callable[..., Command]
) -> None:
    names = ("--tls-generate", "reg.example.com", "--tls-generate", "::1")
    made = serve_command(layout, *names, "--tls-directory", tmp_path / "tls")
    ca_file, certificate = made.document["ca_file"], tmp_path / "tls/server.pem"
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca_file]
    for name in (["-verify_hostname", "reg.example.com"], ["-verify_ip", "::1"]):
        done = subprocess.run(
            [*command, *name, certificate], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
    left = leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert 360 < left.days <= 365
    assert [path.name for path in sorted((tmp_path / "tls").iterdir())] == [
        "ca.pem",
        "server.key",
        "server.pem",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tls-cert", "x"),
        ("--tls-key", "x"),
        ("--tls-cert", "x", "--tls-key", "y", "--tls-generate", "z"),
        ("--tls-cert", "/dev/null", "--tls-key", "/dev/null"),
        ("--htpasswd", "/dev/null"),
        ("--token-file", "/nonexistent"),
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1:99999"),
        ("--listen", "192.0.2.1:5050"),
    ],
)
def test_a_wrong_option_ends_it_at_once(
    layout: Path, serve_command: Callable[..., Command], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(AssertionError):
        serve_command(layout, *arguments)


def test_an_open_address_without_tls_is_warned_of(
    layout: Path, serve_command: Callable[..., Command]
) -> None:
    command = serve_command(layout, "--listen", "0.0.0.0:0")
    assert "without TLS" in command.stop()[1]
