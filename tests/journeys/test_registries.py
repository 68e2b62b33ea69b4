"""The command against registries that want TLS, passwords and tokens."""

from __future__ import annotations

import base64
import json
import re
import stat
from pathlib import Path

import pytest

from tests.support import images
from tests.support.command import environment, ocimirror
from tests.support.proxy import run_canary
from tests.support.tokenserver import TokenServer
from tests.support.witness import Registry

USER, PASSWORD = "ada", "pa:ss word"
AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def docker_config(home: Path, document: dict[str, object]) -> dict[str, str]:
    """Write a docker config.json below a home; return the environment that finds it."""
    (home / ".docker").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text(json.dumps(document))
    return environment(home)


def test_tls_with_an_own_ca_needs_the_ca_file(
    tls_registry: Registry, repository: str, tmp_path: Path
) -> None:
    images.push(tls_registry, repository, "1.0", images.multi())
    name = f"{tls_registry.host}/{repository}:1.0"

    untrusted = ocimirror("pull", name, tmp_path / "a", "--json")
    trusted = ocimirror("pull", name, tmp_path / "b", "--ca-file", str(tls_registry.ca_file))

    assert untrusted.code == 4
    assert untrusted.document["images"][0]["error"]["code"] == "untrusted_certificate"
    assert trusted.code == 0, trusted.stderr


@pytest.mark.parametrize("kind", ["auths", "credHelpers", "credsStore", "podman", "auth-file"])
def test_a_password_is_found_where_docker_and_podman_keep_it(
    kind: str, htpasswd_registry: Registry, repository: str, tmp_path: Path
) -> None:
    host, home = htpasswd_registry.host, tmp_path / "home"
    images.push(htpasswd_registry, repository, "1.0", images.single())
    options: tuple[str, ...] = ()
    if kind == "auths":
        env = docker_config(home, {"auths": {host: {"auth": AUTH}}})
    elif kind in ("credHelpers", "credsStore"):
        value: object = {host: "test"} if kind == "credHelpers" else "test"
        env = docker_config(home, {kind: value})
        helper = tmp_path / "bin" / "docker-credential-test"
        helper.parent.mkdir()
        secret = json.dumps({"ServerURL": host, "Username": USER, "Secret": PASSWORD})
        helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{secret}'\n")
        helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
        env["PATH"] = f"{helper.parent}:{env['PATH']}"
    else:
        file = tmp_path / "auth.json"
        scope = f"{host}/{repository.split('/')[0]}"
        file.write_text(json.dumps({"auths": {scope: {"auth": AUTH}, host: {"auth": "bm86bm8="}}}))
        env = environment(home)
        if kind == "podman":
            env["REGISTRY_AUTH_FILE"] = str(file)
        else:
            options = ("--auth-file", str(file))

    result = ocimirror("pull", f"{host}/{repository}:1.0", tmp_path / "layout", *options, env=env)

    assert result.code == 0, result.stderr


@pytest.mark.parametrize("given", [False, True])
def test_without_the_right_password_it_is_denied_and_nothing_is_tried_twice(
    given: bool, htpasswd_registry: Registry, repository: str, tmp_path: Path
) -> None:
    host = htpasswd_registry.host
    wrong = {"auths": {host: {"auth": base64.b64encode(b"ada:canary-secret").decode()}}}
    env = docker_config(tmp_path / "home", wrong if given else {})

    result = ocimirror("pull", f"{host}/{repository}:1.0", tmp_path / "l", "--json", "-vv", env=env)

    assert result.code == 4
    assert result.document["images"][0]["error"]["code"] == "authentication_failed"
    assert "canary-secret" not in result.stdout + result.stderr
    # (The name of the repository is random, and may hold these digits.)
    assert len(re.findall(r"(?<![\w-])401(?![\w-])", result.stderr)) <= 3


@pytest.mark.bar("R26", "gitlab-short-tokens")
def test_tokens_of_five_seconds_carry_pull_and_push(
    token_registry: Registry, token_server: TokenServer, repository: str, tmp_path: Path
) -> None:
    images.push(token_registry, repository, "1.0", images.multi())
    host = token_registry.host
    env = docker_config(tmp_path / "home", {"auths": {host: {"auth": AUTH}}})

    pulled = ocimirror("pull", f"{host}/{repository}:1.0", tmp_path / "layout", env=env)
    pushed = ocimirror("push", tmp_path / "layout", f"{host}/mirror", env=env)

    assert (pulled.code, pushed.code) == (0, 0), pulled.stderr + pushed.stderr
    assert token_registry.get_manifest(f"mirror/{repository}", "1.0") == images.multi().raw


@pytest.mark.bar("R27")
def test_a_token_service_that_is_down_is_named_and_worth_another_try(
    token_registry: Registry, token_server: TokenServer, repository: str, tmp_path: Path
) -> None:
    token_server.broken = "500"

    name = f"{token_registry.host}/{repository}:1.0"
    result = ocimirror("pull", name, tmp_path / "l", "--json", "--retries", "1")

    (image,) = result.document["images"]
    assert (result.code, image["error"]["code"]) == (3, "token_service_unavailable")
    assert "token service" in image["error"]["diagnostics"]


@pytest.mark.bar("R51")
def test_a_password_never_reaches_another_host(
    htpasswd_registry: Registry, repository: str, tmp_path: Path
) -> None:
    with run_canary() as canary:
        env = docker_config(tmp_path / "home", {"auths": {htpasswd_registry.host: {"auth": AUTH}}})
        ocimirror("pull", f"{canary.host}/{repository}:1.0", tmp_path / "l", env=env)
        assert canary.visits
        assert not canary.saw(AUTH)


def test_a_registry_that_is_not_there_is_exit_3_and_named(tmp_path: Path) -> None:
    result = ocimirror(
        "pull", "127.0.0.1:1/app:1.0", tmp_path / "layout", "--json", "--retries", "1"
    )

    (image,) = result.document["images"]
    assert (result.code, image["error"]["code"]) == (3, "registry_unavailable")
    assert image["error"]["retryable"] is True
    assert "127.0.0.1:1" in image["error"]["message"]
