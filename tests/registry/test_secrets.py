"""No secret is printed, in whatever writing a peer quotes it; odd documents end as our errors."""

from __future__ import annotations

import base64
import gc
import itertools
import json
import threading
from urllib.parse import quote_plus

import pytest

from ocimirror import AuthFile, NetworkOptions, NotFound, OciMirrorError, Registry, UsageError
from tests.support.command import environment, ocimirror
from tests.support.rawpeer import answer, raw_peer

PASSWORD = "S3CRET canary/+'é"
QUICK = ("--timeout", "5", "--retries", "0", "--no-progress")


def auth_file(path, host, **entry):
    path.write_text(json.dumps({"auths": {host: entry}}))
    return ("--auth-file", path)


def login(password: str = PASSWORD) -> str:
    return base64.b64encode(f"ada:{password}".encode()).decode()


def writings(secret: str) -> list[str]:
    raw = secret.encode()
    return [
        secret,
        quote_plus(secret),
        quote_plus(secret).lower().replace("s3cret", "S3CRET"),
        base64.b64encode(raw).decode(),
        json.dumps(secret)[1:-1],
    ]


def refusal(text: str, headers: str = ""):
    body = json.dumps(
        {"errors": [{"code": "DENIED", "message": text}]}, ensure_ascii=False
    ).encode()
    headers += "Content-Type: application/json\r\n"
    return answer(body, headers, "403 Forbidden")


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("padding", [0, 485], ids=["short", "cut"])
def test_a_password_that_is_quoted_is_not_printed(number, padding, tmp_path) -> None:
    quoted = writings(PASSWORD)[number]
    warning = f'Warning: 299 - "login {login()}"\r\n'

    def script(_, fields):
        if "authorization" not in fields:
            return answer(b"", "WWW-Authenticate: Basic realm=x\r\n", "401 Unauthorized")
        return refusal("x" * padding + f" bad {quoted} {login()}", warning)

    with raw_peer(script) as host:
        file = auth_file(tmp_path / "a.json", host, auth=login())
        done = ocimirror("list", f"docker://{host}/a", *file, *QUICK, "-vv", "--json")
    assert done.code == 4, done
    for text in (done.stdout, done.stderr):
        assert "S3CRET" not in text
        assert base64.b64encode(PASSWORD.encode()).decode().rstrip("=") not in text
        assert login().rstrip("=") not in text


@pytest.mark.parametrize("key", ["token", "access_token", "refresh_token"])
def test_a_token_that_is_quoted_later_is_not_printed(key) -> None:
    document = {"token": "first-token", key: "T0KEN-canary"}

    def script(line, fields):
        if "/token" in line:
            return answer(json.dumps(document).encode())
        if "authorization" not in fields:
            challenge = 'WWW-Authenticate: Bearer realm="/token",service="s"\r\n'
            return answer(b"", challenge, "401 Unauthorized")
        return refusal("you said T0KEN-canary", "X: T0KEN-canary\r\n")

    with raw_peer(script) as host:
        done = ocimirror("list", f"docker://{host}/a", *QUICK, "-vv", "--json")
    assert done.code == 4, done
    assert "you said" in done.stderr
    assert "T0KEN" not in done.stdout + done.stderr


def code_of_list(host: str, *auth_files: AuthFile) -> int:
    """List the tags of a repository as a new run; return what a command would exit with.

    What is not an error of ours, or could not be printed, fails here.
    """
    options = NetworkOptions(timeout_s=5, retries=0, auth_files=auth_files)
    with Registry(host, options) as registry:
        try:
            registry["a:t"].place.names()
        except OciMirrorError as error:
            error.diagnostics().encode()
            return error.exit_code
    return 0


ODD = [None, True, -1, 0, 1.5, 10**400, [], {}, "", "\ud800", "a\r\nb", "x" * 70_000]


@pytest.mark.parametrize("key", ["token", "access_token", "expires_in", "issued_at"])
def test_no_token_answer_is_a_bug_of_ours(key) -> None:
    values = itertools.cycle(ODD)

    def script(line, fields):
        if "/token" in line:
            return answer(json.dumps({"token": "ok", key: next(values)}).encode())
        if "authorization" not in fields:
            challenge = 'WWW-Authenticate: Bearer realm="/token",service="s"\r\n'
            return answer(b"", challenge, "401 Unauthorized")
        return answer(b'{"name":"a","tags":["t"]}')

    with raw_peer(script) as host:
        for value in ODD:
            assert code_of_list(host) in (0, 3, 4), value


@pytest.mark.parametrize("key", ["auth", "username", "password", "identitytoken", "registrytoken"])
def test_no_credential_file_is_a_bug_of_ours(key, tmp_path) -> None:
    def script(_, fields):
        if "authorization" not in fields:
            return answer(b"", "WWW-Authenticate: Basic realm=x\r\n", "401 Unauthorized")
        return answer(b'{"name":"a","tags":["t"]}')

    with raw_peer(script) as host:
        for value in ODD:
            _, file = auth_file(
                tmp_path / "a.json", host, **{"username": "u", "password": "p", key: value}
            )
            assert code_of_list(host, AuthFile(file, "docker")) in (0, 2, 4), value


@pytest.mark.parametrize(
    "script",
    ['setsid sleep 40 & echo \'{"Username":"ada","Secret":"x"}\'', "exec 1>&-; sleep 300"],
    ids=["grandchild keeps the pipe", "closes its output and stays"],
)
def test_a_helper_ends_at_its_limit(script, tmp_path) -> None:
    program = tmp_path / "docker-credential-odd"
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)
    (tmp_path / "a.json").write_text('{"credsStore": "odd"}')

    def serve(_, fields):
        if "authorization" not in fields:
            return answer(b"", "WWW-Authenticate: Basic realm=x\r\n", "401 Unauthorized")
        return answer(b'{"name":"a","tags":["t"]}')

    env = environment()
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    with raw_peer(serve) as host:
        file = ("--auth-file", tmp_path / "a.json")
        done = ocimirror("list", f"docker://{host}/a", *file, *QUICK, env=env, timeout_s=38)
    assert done.code == (0 if "setsid" in script else 2), done
    if done.code:
        assert "did not end in 30 s" in done.stderr


def test_an_empty_helper_means_the_file_itself(tmp_path) -> None:
    def serve(_, fields):
        if fields.get("authorization") != f"Basic {login('p')}":
            return answer(b"", "WWW-Authenticate: Basic realm=x\r\n", "401 Unauthorized")
        return answer(b'{"name":"a","tags":["t"]}')

    broken = "\r\n".join((login("p")[:4], login("p")[4:])) + "\n"
    with raw_peer(serve) as host:
        (tmp_path / "a.json").write_text(
            json.dumps(
                {
                    "credsStore": "absent",
                    "credHelpers": {host: ""},
                    "auths": {host: {"auth": broken}},
                }
            )
        )
        file = ("--auth-file", tmp_path / "a.json")
        done = ocimirror("list", f"docker://{host}/a", *file, *QUICK)
    assert done.code == 0, done


def asking_for(authorization: str, challenge: str):
    """Serve a list of tags to who sends exactly this."""

    def script(line, fields):
        if "/token" in line:
            return answer(b"{}", status="500 Oops")
        if fields.get("authorization") != authorization:
            return answer(b"", f"WWW-Authenticate: {challenge}\r\n", "401 Unauthorized")
        return answer(b'{"name":"a","tags":["t"]}')

    return script


def test_the_environment_may_hold_the_credentials_themselves(tmp_path) -> None:
    with raw_peer(asking_for(f"Basic {login()}", "Basic realm=x")) as host:
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": login("no")}}}))
        good = json.dumps({"auths": {host: {"auth": login()}}})
        env = environment(DOCKER_CONFIG=str(tmp_path), DOCKER_AUTH_CONFIG=good)
        done = ocimirror("list", f"docker://{host}/a", *QUICK, env=env)
        assert done.code == 0, done
        secret = ("-u", "ada", "--password-stdin")
        stored = ocimirror("login", host, *secret, *QUICK, env=env, stdin=PASSWORD)
        env["DOCKER_AUTH_CONFIG"] = f'{{"auths": "{PASSWORD}'
        broken = ocimirror("list", f"docker://{host}/a", *QUICK, env=env)
    assert stored.code == broken.code == 2
    assert "DOCKER_AUTH_CONFIG (in the environment) has credentials" in stored.stderr
    assert "DOCKER_AUTH_CONFIG (in the environment) is not a JSON object" in broken.stderr
    assert PASSWORD not in broken.stderr


def test_a_registry_token_goes_to_the_registry_as_it_is(tmp_path) -> None:
    script = asking_for("Bearer T0KEN", 'Bearer realm="/token",service="s"')
    with raw_peer(script) as host:
        file = auth_file(tmp_path / "a.json", host, registrytoken="T0KEN")
        done = ocimirror("list", f"docker://{host}/a", *file, *QUICK)
        assert done.code == 0, done
        file = auth_file(tmp_path / "a.json", host, registrytoken="T0KEN-of-yesterday")
        done = ocimirror("list", f"docker://{host}/a", *file, *QUICK)
    assert done.code == 4, done
    assert "T0KEN" not in done.stderr


def told(text: str) -> str:
    """Return a text as a message of the library shows it."""
    return NotFound(text).message


def test_a_word_is_shown_again_once_no_open_registry_has_it_for_a_password(tmp_path) -> None:
    with raw_peer(asking_for(f"Basic {login('dog')}", "Basic realm=x")) as host:
        _, file = auth_file(tmp_path / "a.json", host, auth=login("dog"))
        options = NetworkOptions(timeout_s=5, retries=0, auth_files=(AuthFile(file, "docker"),))
        first, second = Registry(host, options), Registry(host, options)
        assert first["a:t"].place.names() == second["a:t"].place.names() == ["t"]
        assert told("the dog barks") == "the … barks"
        first.close()
        first.close()
        assert told("the dog barks") == "the … barks"
        second.close()
        assert told(f"the dog barks {login('dog')}") == f"the dog barks {login('dog')}"
        with pytest.raises(UsageError, match="is closed"):
            second["a:t"]


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "dropped"])
def test_the_password_of_a_proxy_is_hidden_as_long_as_a_registry_is_open(closed) -> None:
    options = NetworkOptions(proxy="http://ada:d%6Fg@127.0.0.1:9")
    assert told("the dog barks") == "the dog barks"
    registry = Registry("registry.example.com", options)
    assert told("the dog barks at ada:d%6Fg") == "the … barks at …"
    if closed:
        registry.close()
    del registry
    gc.collect()
    assert told("the dog barks at ada:d%6Fg") == "the dog barks at ada:d%6Fg"


def test_what_a_thread_is_told_after_the_close_is_not_printed(tmp_path) -> None:
    asked, closed = threading.Event(), threading.Event()

    def script(_, fields):
        if "authorization" not in fields:
            return answer(b"", "WWW-Authenticate: Basic realm=x\r\n", "401 Unauthorized")
        asked.set()
        closed.wait(30)
        return refusal(f"you said {PASSWORD}")

    errors: list[OciMirrorError] = []

    def read() -> None:
        try:
            image.place.names()
        except OciMirrorError as error:
            errors.append(error)

    with raw_peer(script) as host:
        _, file = auth_file(tmp_path / "a.json", host, auth=login())
        options = NetworkOptions(timeout_s=60, retries=0, auth_files=(AuthFile(file, "docker"),))
        with Registry(host, options) as registry:
            image = registry["a:t"]
            thread = threading.Thread(target=read)
            thread.start()
            assert asked.wait(30)
        assert PASSWORD not in told(f"it is {PASSWORD}")
        closed.set()
        thread.join(30)
    assert "you said …" in errors[0].message
    errors.clear()
    gc.collect()
    assert told(f"it is {PASSWORD}") == f"it is {PASSWORD}"


def test_threads_that_share_a_password_forget_it_together() -> None:
    options = NetworkOptions(proxy="http://ada:dog@127.0.0.1:9")
    shown = []

    def work() -> None:
        for _ in range(50):
            with Registry("registry.example.com", options):
                shown.append(told("the dog barks"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert shown == ["the … barks"] * 200
    assert told("the dog barks") == "the dog barks"
