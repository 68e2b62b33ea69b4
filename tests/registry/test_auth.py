"""Challenges, tokens, and who gets to see a secret."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from ocimirror import (
    AuthenticationFailed,
    DigestMismatch,
    DigestNotPreserved,
    RateLimited,
    RegistryUnavailable,
    Stored,
    TokenServiceUnavailable,
    UntrustedCertificate,
    UrlRefused,
)
from tests.registry.conftest import reprs
from tests.support import images
from tests.support.certificates import write_certificates
from tests.support.faults import Redirect, Respond, Rule, SetHeader, Stall
from tests.support.stores import blob_of, push_blob, root_of, stream_of
from tests.support.tokenserver import run_token_server

USER, PASSWORD = "ada", "pa:ss word"
CONTENT = images.noise("registry auth", 200_000)
BLOB = blob_of(CONTENT)


def pushed(store) -> Stored:
    return store.push(BLOB, stream_of(BLOB, CONTENT))


def scopes(tokens) -> list[list[str]]:
    return [request.scopes for request in tokens.requests]


# --- Basic ---------------------------------------------------------------------------------------


def test_a_password_is_sent_once_it_was_asked_for(
    htpasswd_registry, connect, login, proxy, repository
) -> None:
    front = proxy(htpasswd_registry)
    host = connect(front, auth_files=login(front.host, USER, PASSWORD))
    assert pushed(host.repository(repository)) is Stored.COPIED
    with host.repository(repository).fetch(BLOB) as stream:
        assert stream.read_all(BLOB.size) == CONTENT
    assert [seen.status for seen in front.requests].count(401) == 1
    assert "authorization" not in front.requests[0].headers


@pytest.mark.parametrize("credentials", [(USER, "wrong"), None])
def test_a_wrong_or_missing_password_is_tried_once(
    credentials, htpasswd_registry, connect, login, proxy, repository
) -> None:
    front = proxy(htpasswd_registry)
    files = login(front.host, *credentials) if credentials else ()
    store = connect(front, auth_files=files, retries=3).repository(repository)
    for _ in range(5):
        with pytest.raises(AuthenticationFailed) as caught:
            store.resolve("v1")
    assert caught.value.exit_code == 4
    assert sum("authorization" in seen.headers for seen in front.requests) <= 1
    if not credentials:
        assert f"no credentials for {front.host}" in caught.value.advice


# --- tokens --------------------------------------------------------------------------------------


def test_a_token_is_got_with_the_password_and_used_again(
    token_registry, token_server, connect, login, repository
) -> None:
    host = connect(token_registry, auth_files=login(token_registry.host, USER, PASSWORD))
    store = host.repository(repository)
    assert pushed(store) is Stored.COPIED
    with store.fetch(BLOB) as stream:
        assert stream.read_all(BLOB.size) == CONTENT
    assert scopes(token_server) == [[f"repository:{repository}:pull,push"]]
    assert [(seen.method, seen.user) for seen in token_server.requests] == [("GET", USER)]


def test_nobody_gets_a_token_too(token_registry, token_server, connect, repository) -> None:
    token_registry.put_blob(repository, CONTENT)
    token_server.requests.clear()
    token_server.anonymous = True
    assert connect(token_registry).repository(repository).exists(BLOB)
    assert [(seen.authorized, seen.user) for seen in token_server.requests] == [(False, None)]


def test_an_identity_token_is_exchanged_by_post(
    token_registry, token_server, connect, login, repository
) -> None:
    identity = token_server.identity_token(USER)
    files = login(token_registry.host, "", "", identitytoken=identity)
    host = connect(token_registry, auth_files=files)
    assert pushed(host.repository(repository)) is Stored.COPIED
    (request,) = token_server.requests
    assert (request.method, request.user) == ("POST", USER)
    assert request.form["scope"] == [f"repository:{repository}:pull,push"]
    assert request.form["grant_type"] == ["refresh_token"]


@pytest.mark.parametrize("status", [400, 401, 404, 405])
@pytest.mark.bar("artifactory-scope")
def test_a_service_without_post_is_asked_by_get(
    status, token_registry, token_server, connect, login, repository
) -> None:
    token_server.refuse_post = status
    token_server.users["bot"] = "identity"
    files = login(token_registry.host, "", "", username="bot", identitytoken="identity")
    host = connect(token_registry, auth_files=files)
    assert pushed(host.repository(repository)) is Stored.COPIED
    assert [seen.method for seen in token_server.requests] == ["POST", "GET"]


def test_several_scopes_are_repeated_in_get(
    token_registry, token_server, connect, login, repository
) -> None:
    host = connect(token_registry, auth_files=login(token_registry.host, USER, PASSWORD))
    push_blob(host.repository(f"{repository}/from"), CONTENT)
    assert pushed(host.repository(repository)) is Stored.MOUNTED
    assert token_server.requests[-1].parameters["scope"] == [
        f"repository:{repository}:pull,push",
        f"repository:{repository}/from:pull",
    ]


@pytest.mark.bar("R26", "gitlab-short-tokens")
def test_a_token_is_renewed_before_it_ends(
    token_registry, token_server, connect, login, proxy, repository
) -> None:
    front = proxy(token_registry)
    host = connect(front, auth_files=login(front.host, USER, PASSWORD))
    store = host.repository(repository)
    pushed(store)
    time.sleep(0.85 * token_server.lifetime_s)
    front.requests.clear()
    with store.fetch(BLOB) as stream:
        stream.read_all(BLOB.size)
    assert [seen.status for seen in front.requests] == [200]
    assert len(token_server.requests) == 2


@pytest.mark.bar("R26")
def test_a_token_that_was_revoked_is_replaced_once(
    token_registry, token_server, connect, login, proxy, repository
) -> None:
    token_server.lifetime_s = 300
    challenge = {"WWW-Authenticate": f'Bearer realm="{token_server.realm}",service="registry.test"'}
    rule = Rule("HEAD", "/blobs/", Respond(401, challenge), nth=3)
    front = proxy(token_registry, rule)
    host = connect(front, auth_files=login(front.host, USER, PASSWORD))
    store = host.repository(repository)
    store.exists(BLOB)
    assert not store.exists(blob_of(b"other"))
    assert len(token_server.requests) == 2


def test_a_scope_that_is_not_granted_ends_after_one_fresh_token(
    token_registry, token_server, connect, login, proxy, repository
) -> None:
    token_server.actions[USER] = frozenset()
    front = proxy(token_registry)
    host = connect(front, auth_files=login(front.host, USER, PASSWORD), retries=3)
    for _ in range(5):
        with pytest.raises(AuthenticationFailed):
            host.repository(repository).exists(BLOB)
    assert len(token_server.requests) == 1
    assert len(front.requests) == 2


@pytest.mark.bar("R28")
def test_credentials_revoked_in_the_middle_are_tried_twice_at_most(
    token_registry, token_server, connect, login, repository
) -> None:
    host = connect(token_registry, auth_files=login(token_registry.host, USER, PASSWORD))
    store = host.repository(repository)
    pushed(store)
    del token_server.users[USER]
    time.sleep(token_server.lifetime_s + 1.1)
    token_server.requests.clear()
    for number in range(5):
        with pytest.raises(AuthenticationFailed):
            store.exists(blob_of(b"%d" % number))
    assert len(token_server.requests) <= 2


@pytest.mark.bar("R26")
def test_no_lifetime_means_a_minute(
    token_registry, token_server, connect, login, repository
) -> None:
    token_server.announce_lifetime = False
    token_server.lifetime_s = 300
    host = connect(token_registry, auth_files=login(token_registry.host, USER, PASSWORD))
    for number in range(3):
        host.repository(repository).exists(blob_of(b"%d" % number))
    assert len(token_server.requests) == 1


@pytest.mark.bar("artifactory-scope")
def test_a_challenge_without_scope_gets_ours(
    token_registry, token_server, connect, login, proxy, repository
) -> None:
    value = f'Bearer realm="{token_server.realm}",service="registry.test"'
    bare = SetHeader("WWW-Authenticate", value)
    front = proxy(token_registry, Rule(".*", "", bare, nth=1))
    host = connect(front, auth_files=login(front.host, USER, PASSWORD))
    assert pushed(host.repository(repository)) is Stored.COPIED
    assert scopes(token_server) == [[f"repository:{repository}:pull,push"]]


def test_a_second_repository_needs_no_second_challenge(
    token_registry, token_server, connect, login, proxy, repository
) -> None:
    front = proxy(token_registry)
    host = connect(front, auth_files=login(front.host, USER, PASSWORD))
    for number in range(3):
        host.repository(f"{repository}/{number}").exists(BLOB)
    assert [seen.status for seen in front.requests].count(401) == 1
    assert scopes(token_server) == [[f"repository:{repository}/{n}:pull"] for n in range(3)]


def test_threads_share_one_token_request(
    token_registry, token_server, connect, login, proxy, repository
) -> None:
    barrier = threading.Barrier(8)
    front = proxy(token_registry)
    host = connect(front, auth_files=login(front.host, USER, PASSWORD), jobs=8)
    store = host.repository(repository)
    failures = []

    def work(number: int) -> None:
        barrier.wait()
        try:
            store.exists(blob_of(b"%d" % number))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(token_server.requests) == 1


@pytest.mark.bar("R26", "gitlab-short-tokens")
def test_an_upload_whose_token_ended_can_be_tried_again(
    token_registry, token_server, connect, login, proxy, repository
) -> None:
    front = proxy(token_registry, Rule("PUT", "/uploads/", Respond(401), nth=1))
    store = connect(front, auth_files=login(front.host, USER, PASSWORD)).repository(repository)
    with pytest.raises(RegistryUnavailable, match="token expired"):
        pushed(store)
    assert pushed(store) is Stored.COPIED
    assert len(token_server.requests) == 2


@pytest.mark.bar("quay-delete-scope")
def test_cancelling_an_upload_costs_no_rights(
    token_registry, token_server, connect, login, repository
) -> None:
    host = connect(token_registry, auth_files=login(token_registry.host, USER, PASSWORD))
    token_server.actions[USER] = frozenset({"pull", "push"})
    store = host.repository(repository)
    with pytest.raises(DigestMismatch):
        store.push(BLOB, stream_of(BLOB, bytes(BLOB.size)))
    assert pushed(store) is Stored.COPIED
    assert len(token_server.requests) == 1


# --- a token service that does not work ----------------------------------------------------------


@pytest.mark.parametrize("broken", ["500", "html"])
@pytest.mark.bar("R27")
def test_a_broken_token_service_is_said_to_be_that(
    broken, token_registry, token_server, connect, login, repository
) -> None:
    token_server.broken = broken
    host = connect(token_registry, auth_files=login(token_registry.host, USER, PASSWORD))
    with pytest.raises(TokenServiceUnavailable, match="token service") as caught:
        host.repository(repository).exists(BLOB)
    assert caught.value.exit_code == 3
    assert token_server.realm in caught.value.message


def challenging(realm: str, **more: str) -> Respond:
    """Answer 401 with a Bearer challenge for the realm."""
    parameters = "".join(f',{name}="{value}"' for name, value in more.items())
    return Respond(401, {"WWW-Authenticate": f'Bearer realm="{realm}"{parameters}'})


def asking(realm: str, **more: str):
    """Ask with a Bearer challenge for the realm until a request is authorised."""

    def script(visit):
        known = visit.headers.get("authorization", "").startswith("Bearer good")
        return Respond(404) if known else challenging(realm, **more)

    return script


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Respond(200, {}, b""), TokenServiceUnavailable),
        (Respond(200, {}, b"[]"), TokenServiceUnavailable),
        (Respond(200, {}, b"{}"), TokenServiceUnavailable),
        (Respond(200, {}, b'{"token": ""}'), TokenServiceUnavailable),
        (Respond(200, {}, b'{"token": 7}'), TokenServiceUnavailable),
        (Respond(200, {}, b'{"token": "a b"}'), TokenServiceUnavailable),
        (Respond(200, {}, rb'{"token": "a\r\nX-Evil: 1"}'), TokenServiceUnavailable),
        (Respond(200, {}, b'{"token": "' + b"x" * (1 << 20) + b'"}'), TokenServiceUnavailable),
        (Respond(200, {}, lambda: iter(lambda: b" " * 65536, None)), TokenServiceUnavailable),
        (Respond(200, {}, b"[" * 100_000), TokenServiceUnavailable),
        (Respond(404), TokenServiceUnavailable),
        (Respond(302), TokenServiceUnavailable),
        (Respond(503), TokenServiceUnavailable),
        (Respond(429), RateLimited),
        (Respond(401), AuthenticationFailed),
        (Respond(403), AuthenticationFailed),
        (Respond(400), AuthenticationFailed),
    ],
)
@pytest.mark.bar("acr-429")
def test_whatever_a_token_service_answers_is_one_of_our_errors(
    answer, expected, canary, connect, repository
) -> None:
    service = canary(answer)
    server = canary(asking(f"{service.url}/token"))
    store = connect(server.host).repository(repository)
    with pytest.raises(expected) as caught:
        store.exists(BLOB)
    assert type(caught.value) is expected
    assert service.host in caught.value.message


@pytest.mark.parametrize("life", ["300", '"300"', "null", "true", "-1", "0", "1e400", "1.5"])
def test_an_odd_lifetime_is_a_minute(life, canary, connect, repository) -> None:
    document = f'{{"access_token": "good", "expires_in": {life}}}'
    service = canary(Respond(200, {}, document.encode()))
    server = canary(asking(f"{service.url}/token"))
    store = connect(server.host).repository(repository)
    for number in range(3):
        assert not store.exists(blob_of(b"%d" % number))
    assert len(service.visits) == 1


def test_a_silent_token_service_is_unavailable(canary, connect, proxy, repository) -> None:
    service = proxy(canary().url, Rule("GET", "", Stall()))
    server = canary(asking(f"{service.url}/token"))
    with pytest.raises(TokenServiceUnavailable):
        connect(server.host, timeout_s=0.5, retries=0).repository(repository).exists(BLOB)


@pytest.mark.parametrize("header", [None, "Negotiate", "Digest realm=x", 'Bearer service="x"', "?"])
def test_a_challenge_that_cannot_be_answered_is_a_failure(
    header, canary, connect, repository
) -> None:
    headers = {"WWW-Authenticate": header} if header else {}
    server = canary(Respond(401, headers))
    with pytest.raises(AuthenticationFailed):
        connect(server.host).repository(repository).exists(BLOB)
    assert len(server.visits) == 1


def test_a_challenge_among_others_is_found(canary, connect, repository) -> None:
    service = canary(Respond(200, {}, b'{"token": "good"}'))

    def script(visit):
        if visit.headers.get("authorization") == "Bearer good":
            return Respond(404)
        bearer = f'BEARER Realm="{service.url}/t?x=y,z",Service="s,t"'
        return Respond(401, {"WWW-Authenticate": f'Negotiate, Basic realm="a, b", {bearer}'})

    assert not connect(canary(script).host).repository(repository).exists(BLOB)
    assert service.visits[0].path.startswith("/t?x=y,z&service=s%2Ct&scope=")


def test_a_realm_is_never_reached_without_tls_verification(
    tmp_path, tls_registry, proxy, connect, login, repository
) -> None:
    ours = write_certificates(tmp_path / "ours")
    theirs = write_certificates(tmp_path / "theirs")
    with run_token_server(users={USER: PASSWORD}, certificates=theirs) as tokens:
        front = proxy(tls_registry, Rule(".*", "", challenging(tokens.realm)), certificates=ours)
        host = connect(front, auth_files=login(front.host, USER, PASSWORD))
        with pytest.raises(UntrustedCertificate):
            host.repository(repository).exists(BLOB)
        assert tokens.requests == []


# --- who sees a secret ---------------------------------------------------------------------------


@pytest.mark.bar("R37", "ecr-blob-redirect")
def test_a_redirect_elsewhere_carries_no_authorization(
    registry, connect, login, proxy, canary, repository
) -> None:
    registry.options.basic = (USER, PASSWORD)
    registry.username, registry.password = USER, PASSWORD
    registry.put_blob(repository, CONTENT)
    storage = canary(Respond(200, {}, CONTENT))
    front = proxy(registry)
    front.rules.append(
        Rule(
            "GET|HEAD",
            "/blobs/",
            Redirect(f"{storage.url}/bucket?X-Amz-Signature=s%2fs"),
            when=lambda request: bool(request.header("Authorization")),
        )
    )
    host = connect(
        front,
        auth_files=login(front.host, USER, PASSWORD),
        plain_http=frozenset({front.host, storage.host}),
    )
    with host.repository(repository).fetch(BLOB) as stream:
        assert stream.read_all(BLOB.size) == CONTENT
    assert not storage.saw(PASSWORD)
    assert "authorization" not in storage.visits[0].headers
    assert "cookie" not in storage.visits[0].headers


@pytest.mark.bar("R37")
def test_a_challenge_from_elsewhere_gets_no_secret(
    registry, connect, login, proxy, canary, repository
) -> None:
    registry.options.basic = (USER, PASSWORD)
    registry.username, registry.password = USER, PASSWORD
    registry.put_blob(repository, CONTENT)
    storage = canary(Respond(401, {"WWW-Authenticate": 'Basic realm="give me"'}))
    front = proxy(registry, Rule("GET", "/blobs/", Redirect(f"{storage.url}/x")))
    host = connect(
        front,
        auth_files=login(front.host, USER, PASSWORD),
        plain_http=frozenset({front.host, storage.host}),
    )
    store = host.repository(repository)
    assert store.exists(BLOB)
    with pytest.raises(RegistryUnavailable), store.fetch(BLOB) as stream:
        stream.read()
    assert len(storage.visits) == 1
    assert not storage.saw(PASSWORD)


def test_an_upload_elsewhere_carries_no_authorization(
    registry, connect, login, proxy, canary, repository
) -> None:
    registry.options.basic = (USER, PASSWORD)
    storage = canary(Respond(201))
    location = SetHeader("Location", f"{storage.url}/upload?id=1")
    front = proxy(registry, Rule("POST", "/uploads/", location))
    host = connect(
        front,
        auth_files=login(front.host, USER, PASSWORD),
        plain_http=frozenset({front.host, storage.host}),
    )
    with pytest.raises(DigestNotPreserved):  # (the canary keeps nothing)
        pushed(host.repository(repository))
    assert storage.visits[0].body == CONTENT
    assert not storage.saw(PASSWORD)


@pytest.mark.bar("R37")
def test_a_refused_upload_elsewhere_gets_no_secret(
    registry, connect, login, proxy, canary, repository
) -> None:
    registry.options.basic = (USER, PASSWORD)
    storage = canary(Respond(401, {"WWW-Authenticate": 'Basic realm="give me"'}))
    location = SetHeader("Location", f"{storage.url}/upload?id=1")
    front = proxy(registry, Rule("POST", "/uploads/", location))
    host = connect(
        front,
        auth_files=login(front.host, USER, PASSWORD),
        plain_http=frozenset({front.host, storage.host}),
    )
    with pytest.raises(RegistryUnavailable):
        pushed(host.repository(repository))
    assert not storage.saw(PASSWORD)


SOURCES = {
    "redirect of a manifest": lambda url: Rule("GET|HEAD", "/manifests/", Redirect(url)),
    "redirect of a blob": lambda url: Rule("GET|HEAD", "/blobs/", Redirect(url)),
    "upload location": lambda url: Rule("POST", "", SetHeader("Location", url)),
    "next page": lambda url: Rule("GET", "tags", SetHeader("Link", f'<{url}>; rel="next"')),
    "realm": lambda url: Rule(".*", "", challenging(url)),
}
ACTS = {
    "redirect of a manifest": lambda store: store.resolve("v1"),
    "redirect of a blob": lambda store: store.exists(BLOB),
    "upload location": pushed,
    "next page": lambda store: store.names(),
    "realm": lambda store: store.resolve("v1"),
}


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.bar("R38")
def test_a_hostile_registry_leads_nobody_elsewhere(
    source, host, registry, connect, login, proxy, canary, repository, image
) -> None:
    images.push(registry, repository, "v1", image)
    trap = canary(Respond(200, {}, b'{"token": "x"}'))
    front = proxy(registry, SOURCES[source](f"http://{host}:{trap.host.split(':')[1]}/x?y"))
    store = connect(front, auth_files=login(front.host, USER, PASSWORD)).repository(repository)
    with pytest.raises(UrlRefused, match=r"private|registry itself") as caught:
        ACTS[source](store)
    assert caught.value.exit_code == 4
    assert host in caught.value.message
    assert trap.visits == []


def test_a_realm_that_redirects_takes_no_password_along(canary, connect, login, repository) -> None:
    thief = canary(Respond(200, {}, b'{"token": "good"}'))
    service = canary(Respond(302, {"Location": f"{thief.url}/token"}))
    server = canary(asking(f"{service.url}/token"))
    host = connect(server.host, auth_files=login(server.host, USER, PASSWORD))
    assert not host.repository(repository).exists(BLOB)
    assert service.saw(PASSWORD)
    assert not thief.saw(PASSWORD)


def test_netrc_and_the_environment_are_not_read(
    tmp_path, monkeypatch, htpasswd_registry, canary, connect, proxy, repository
) -> None:
    trap = canary()
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login ada password netrc-secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, trap.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    monkeypatch.setenv("ORAS_USER", "x")
    monkeypatch.setenv("ORAS_PASS", "y")
    front = proxy(htpasswd_registry)
    with pytest.raises(AuthenticationFailed):
        connect(front).repository(repository).exists(BLOB)
    assert all("authorization" not in seen.headers for seen in front.requests)
    assert trap.visits == []


@pytest.mark.bar("artifactory-cookies")
def test_no_cookie_is_kept(filled, connect, proxy, repository, image) -> None:
    front = proxy(filled, Rule("HEAD", "", SetHeader("Set-Cookie", "session=1; Path=/")))
    store = connect(front).repository(repository)
    store.resolve("v1")
    store.read_manifest(root_of(image))
    assert all("cookie" not in seen.headers for seen in front.requests)


@pytest.mark.bar("R51")
def test_secrets_are_in_no_message_no_log_and_no_repr(
    caplog, canary, connect, login, repository
) -> None:
    caplog.set_level("DEBUG")
    secrets = [PASSWORD, "c2VjcmV0", "YWRhOnBhOnNzIHdvcmQ=", "good-token", "signature-secret"]
    service = canary(Respond(200, {}, b'{"token": "good-token"}'))

    def script(visit):
        sent = visit.headers.get("authorization", "")
        if not sent:
            return challenging(f"{service.url}/token")
        if visit.method == "HEAD":
            return Respond(302, {"Location": f"/elsewhere?sig=signature-secret&a={sent[7:]}"})
        message = f"bad {sent} at http://h/?sig=signature-secret"
        body = json.dumps({"errors": [{"code": "DENIED", "message": message}]}).encode()
        return Respond(403, {"Content-Type": "application/json"}, body)

    server = canary(script)
    host = connect(server.host, auth_files=login(server.host, USER, PASSWORD), retries=0)
    store = host.repository(repository)
    texts = []
    for act in (lambda: store.resolve("v1"), lambda: pushed(store)):
        with pytest.raises(Exception) as caught:
            act()
        texts += [str(caught.value), repr(caught.value), caught.value.diagnostics()]
    told = reprs(host.registry)
    assert any("CredentialFiles" in text for text in told)
    texts += told
    texts += [record.getMessage() for record in caplog.records]
    for secret in secrets:
        assert not [text for text in texts if secret in text]
    assert service.saw(PASSWORD)


def test_a_registry_without_auth_needs_no_oras(docker_registry) -> None:
    program = f"""
import sys
from ocimirror import NotFound, Registry
with Registry({docker_registry.host!r}) as registry:
    image = registry["absent/x:v1"]
    try:
        image.place.resolve(image.name)
    except NotFound:
        pass
assert "oras" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
