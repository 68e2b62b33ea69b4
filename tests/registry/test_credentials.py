"""Credential files of docker and podman, and the helpers they name: as whom a registry is asked."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import NamedTuple
from urllib.parse import parse_qs

import pytest

from ocimirror import AuthFile, UsageError
from tests.registry.conftest import reprs
from tests.support.faults import Respond
from tests.support.proxy import Visit
from tests.support.stores import blob_of

HUB = "https://index.docker.io/v1/"
BLOB = blob_of(b"credentials")
CHALLENGE = 'Bearer realm="/token",service="s"'


class Shown(NamedTuple):
    """Who a registry and its token service were told that we are."""

    username: str
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""


def entry(user: str, password: str = "secret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def challenging(visit: Visit) -> Respond:
    """Ask for a token, which anybody gets, but not by POST."""
    if "/token" in visit.path:
        return Respond(404) if visit.method == "POST" else Respond(200, {}, b'{"token": "good"}')
    if "authorization" in visit.headers:
        return Respond(404)
    return Respond(401, {"WWW-Authenticate": CHALLENGE})


def shown(visits) -> Shown | None:
    """Return who we were; None for nobody."""
    username = password = identity = registry = ""
    for visit in visits:
        scheme, _, value = visit.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            username, _, password = base64.b64decode(value).decode().partition(":")
        elif scheme == "Bearer" and not value.startswith("good"):
            registry = value
        identity += parse_qs(visit.body.decode()).get("refresh_token", [""])[0]
    # (Who does not take an identity token by POST gets it in the place of a password.)
    password = "" if password == identity else password
    found = Shown(username, password, identity, registry)
    return found if any(found) else None


@pytest.fixture
def find(tmp_path, canary, connect):
    """Say who we are to a repository whose registry asks, by one file with this document."""

    def look(document, kind="docker", registry="r.example.com", repository="a/b"):
        path = tmp_path / "file.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        server = canary(challenging)
        # (The server is the proxy to everywhere.)
        host = connect(registry, proxy=server.url, auth_files=(AuthFile(path, kind),))
        assert not host.repository(repository).exists(BLOB)
        return shown(server.visits)

    return look


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Put a credential helper on PATH; `$@` is its argument, stdin the server."""

    def install(name: str, script: str) -> None:
        program = tmp_path / "bin" / f"docker-credential-{name}"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return install


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("r.example.com", "r.example.com"),
        ("https://r.example.com", "r.example.com"),
        ("http://r.example.com", "r.example.com"),
        ("https://r.example.com/", "r.example.com"),
        ("https://r.example.com/v1/", "r.example.com"),
        ("https://r.example.com/v2/", "r.example.com"),
        ("r.example.com/v1/", "r.example.com"),
        ("https://r.example.com/path/", "r.example.com"),
        ("http://r.example.com/a/b", "r.example.com"),
        ("R.Example.com", "r.example.com"),
        ("r.example.com:5000", "r.example.com:5000"),
        ("https://r.example.com:5000/v2/", "r.example.com:5000"),
        ("registry:5000", "registry:5000"),
        (HUB, "docker.io"),
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("https://registry-1.docker.io/v2/", "docker.io"),
    ],
)
@pytest.mark.parametrize("kind", ["docker", "containers"])
def test_a_registry_is_found_under_every_form_of_its_key(key, registry, kind, find) -> None:
    found = find({"auths": {"other.example.com": entry("x"), key: entry("ada")}}, kind, registry)
    assert found == Shown("ada", "secret")


@pytest.mark.parametrize(
    "key",
    [
        "example.com",
        "r.example.com:443",
        "r.example.com.evil.example.com",
        "r.example.com/other",
    ],
)
def test_another_key_is_no_match(key, find) -> None:
    assert find({"auths": {key: entry("ada")}}) is None


def test_the_most_specific_path_wins_in_a_containers_file(find) -> None:
    keys = [
        "r.example.com",
        "r.example.com/ns",
        "r.example.com/ns/user",
        "r.example.com/ns/user/img",
    ]
    document = {"auths": {key: entry(f"user{number}") for number, key in enumerate(keys)}}
    for repository, number in [("x", 0), ("ns/x", 1), ("ns/user/x", 2), ("ns/user/img", 3)]:
        found = find(document, "containers", repository=repository)
        assert found == Shown(f"user{number}", "secret")
    assert find(document, "docker", repository="ns/user/img") == Shown("user0", "secret")


@pytest.mark.parametrize("kind", ["docker", "containers"])
def test_a_path_is_for_the_repositories_below_it(kind, find) -> None:
    document = {"auths": {"r.example.com/ns/": entry("ada")}}
    assert find(document, kind, repository="ns/img") == Shown("ada", "secret")
    assert find(document, kind, repository="ns2/img") is None


def test_docker_keeps_more_than_the_login_to_its_hub(find) -> None:
    keys = [f"{HUB}access-token", HUB, f"{HUB}refresh-token"]
    document = {"auths": {key: entry(f"user{number}") for number, key in enumerate(keys)}}
    assert find(document, registry="docker.io") == Shown("user1", "secret")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"auth": base64.b64encode(b"ada:pa:ss").decode()}, Shown("ada", "pa:ss")),
        ({"auth": base64.b64encode(b"ada:x\0\0").decode()}, Shown("ada", "x")),
        ({"username": "ada", "password": "x"}, Shown("ada", "x")),
        ({"identitytoken": "t"}, Shown("", "", "t")),
        ({**entry("ada"), "identitytoken": "t"}, Shown("ada", "", "t")),
        ({"auth": base64.b64encode(b"<token>:t").decode()}, Shown("", "", "t")),
        ({"auth": base64.b64encode("ådå:ßecret".encode()).decode()}, Shown("ådå", "ßecret")),
        (
            {"auth": base64.b64encode(b"ada:long").decode().rstrip("=")},
            Shown("ada", "long"),
        ),
        ({"auth": base64.b64encode(b"token:").decode()}, Shown("token", "")),
        ({"registrytoken": "t"}, Shown("", "", "", "t")),
        (None, None),
        ({}, None),
        ({"auth": ""}, None),
        ({"email": "ada@example.com"}, None),
    ],
)
def test_an_entry_is_read_in_all_its_forms(document, expected, find) -> None:
    assert find({"auths": {"r.example.com": document}}) == expected


@pytest.mark.parametrize(
    "document", ["", " \n", "{}", '{"auths": {}}', '{"auths": null}', '{"x": 1}']
)
def test_an_empty_file_knows_nobody(document, find) -> None:
    assert find(document) is None


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        "null",
        '"secret"',
        '{"auths": []}',
        '{"auths": {"r.example.com": {"auth": "!!!"}}}',
        '{"auths": {"r.example.com": {"auth": 7}}}',
        '{"auths": {"r.example.com": {"auth": "/////w=="}}}',
        '{"auths": {"r.example.com": {"auth": "c2VjcmV0"}}}',
        '{"auths": {"r.example.com": "secret"}}',
        '{"credHelpers": "secret"}',
        '{"credHelpers": {"r.example.com": ["secret"]}}',
        '{"credsStore": ["secret"]}',
        "[" * 100_000,
        '{"auths": "' + "x" * (5 << 20) + '"}',
    ],
)
def test_a_broken_file_is_named_and_not_quoted(document, find) -> None:
    with pytest.raises(UsageError, match=r"file\.json") as caught:
        find(document)
    assert caught.value.exit_code == 2
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is None


def test_an_absent_file_is_fine_and_an_unreadable_one_is_not(tmp_path, canary, connect) -> None:
    server = canary(challenging)
    for path in (tmp_path / "absent", tmp_path / "absent" / "deeper"):
        host = connect(server.host, auth_files=(AuthFile(path, "docker"),))
        assert not host.repository("a").exists(BLOB)
    assert shown(server.visits) is None
    host = connect(server.host, auth_files=(AuthFile(tmp_path, "docker"),))
    with pytest.raises(UsageError, match=str(tmp_path)):
        host.repository("a").exists(BLOB)


def test_the_first_file_that_knows_a_registry_wins(tmp_path, canary, connect) -> None:
    server = canary(challenging)
    files = []
    for name, auths in [
        ("1", {}),
        ("2", {server.host: entry("two")}),
        ("3", {server.host: entry("three")}),
    ]:
        (tmp_path / name).write_text(json.dumps({"auths": auths}))
        files.append(AuthFile(tmp_path / name, "docker"))
    connect(server.host, auth_files=tuple(files)).repository("a").exists(BLOB)
    assert shown(server.visits) == Shown("two", "secret")


# --- helpers -------------------------------------------------------------------------------------

ANSWER = """read server; printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}'"""


def test_helpers_come_before_the_store_and_the_store_before_entries(find, helper) -> None:
    helper("one", f'{ANSWER} "$server" "one-$1" "$server"')
    helper("all", f'{ANSWER} "$server" "all-$1" "$server"')
    document = {
        "credHelpers": {"r.example.com": "one"},
        "credsStore": "all",
        "auths": {"r.example.com": entry("ada"), "other.example.com": entry("ada")},
    }
    assert find(document) == Shown("one-get", "r.example.com")
    assert find(document, registry="other.example.com") == Shown("all-get", "other.example.com")


def test_docker_hub_has_its_own_name_for_helpers(find, helper) -> None:
    helper("one", f'{ANSWER} "$server" ada "$server"')
    assert find({"credHelpers": {HUB: "one"}}, registry="docker.io") == Shown("ada", HUB)
    assert find({"credsStore": "one"}, registry="docker.io") == Shown("ada", HUB)


def test_a_helper_gives_identity_tokens_too(find, helper) -> None:
    helper("one", f"{ANSWER} x '<token>' identity")
    assert find({"credsStore": "one"}) == Shown("", "", "identity")


def test_a_helper_that_knows_nobody_leaves_the_entry(find, helper) -> None:
    helper("one", "echo 'credentials not found in native keychain'; exit 1")
    document = {"credsStore": "one", "auths": {"r.example.com": entry("ada")}}
    assert find(document) == Shown("ada", "secret")
    assert find({"credsStore": "one"}) is None


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "echo secret; echo secret >&2; exit 3",
        "echo secret",
        "echo '[]'",
        'echo \'{"Username": 7, "Secret": "secret"}\'',
        "yes secret",
        "kill -9 $$",
    ],
)
def test_a_helper_that_fails_is_named_and_not_quoted(script, find, helper) -> None:
    helper("one", script)
    with pytest.raises(UsageError, match="docker-credential-one") as caught:
        find({"credsStore": "one"})
    assert "secret" not in caught.value.diagnostics()
    assert "file.json" in caught.value.message


def test_an_absent_helper_is_an_error_that_speaks_of_path(find) -> None:
    with pytest.raises(UsageError, match="docker-credential-nowhere") as caught:
        find({"credsStore": "nowhere"})
    assert "PATH" in caught.value.advice


@pytest.mark.parametrize("name", ["../evil", "/bin/sh", "a b", "a;b", "$(x)", "UPPER", "é", "a\n"])
def test_a_helper_with_another_name_is_not_run(name, find) -> None:
    with pytest.raises(UsageError, match="helper"):
        find({"credsStore": name})


@pytest.mark.bar("ecr-helper")
def test_a_helper_is_run_once_a_server_until_what_it_gave_is_refused(
    tmp_path, helper, canary, connect
) -> None:
    refused: list[str] = []

    def script(visit) -> Respond:
        if visit.path.startswith("/token"):
            number = len(refused)
            return Respond(200, {}, json.dumps({"token": f"good{number}"}).encode())
        if visit.headers.get("authorization", "") in ("", *refused):
            return Respond(401, {"WWW-Authenticate": CHALLENGE})
        return Respond(404)

    helper("one", f"echo >> {tmp_path}/runs; {ANSWER} x ada secret")
    (tmp_path / "f").write_text('{"credsStore": "one"}')
    server = canary(script)
    host = connect(server.host, auth_files=(AuthFile(tmp_path / "f", "docker"),))
    for number, repository in enumerate(("a", "b", "a")):
        host.repository(repository).exists(blob_of(b"%d" % number))
    assert (tmp_path / "runs").read_text() == "\n"
    assert shown(server.visits) == Shown("ada", "secret")
    refused.append("Bearer good0")
    host.repository("a").exists(blob_of(b"another"))
    assert (tmp_path / "runs").read_text() == "\n\n"
    assert "Credential(" in "".join(reprs(host.registry))
    assert "secret" not in "".join(reprs(host.registry))


def test_a_child_that_keeps_the_helpers_pipe_is_ended(tmp_path, helper, find) -> None:
    helper("one", "yes & sleep 600 & yes")
    began = time.monotonic()
    with pytest.raises(UsageError):
        find({"credsStore": "one"})
    assert time.monotonic() - began < 100
