"""Servers for all tests: the real ones once a session, our own fresh for each test.

Session registries are shared, so a test keeps to its own `repository`.
"""

from __future__ import annotations

import copy
import dataclasses
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.certificates import Certificates
from tests.support.faults import Rule
from tests.support.proxy import Canary, Proxy, Script, run_canary, run_proxy
from tests.support.registry import StrictRegistry, run_registry
from tests.support.servers import run_docker_registry
from tests.support.tokenserver import TokenServer, run_token_server
from tests.support.witness import Registry


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The real docker-registry, open to all, over plain HTTP."""
    with run_docker_registry(tmp_path_factory.mktemp("docker-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def tls_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The real docker-registry over TLS; `ca_file` is the CA to trust."""
    with run_docker_registry(tmp_path_factory.mktemp("tls-registry"), tls=True) as registry:
        yield registry


@pytest.fixture(scope="session")
def htpasswd_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The real docker-registry with Basic authentication for one user."""
    directory = tmp_path_factory.mktemp("htpasswd-registry")
    with run_docker_registry(directory, htpasswd=("ada", "pa:ss word")) as registry:
        yield registry


@pytest.fixture(scope="session")
def session_token_server() -> Iterator[TokenServer]:
    """The token server of `token_registry`; tests use `token_server`."""
    with run_token_server(users={"ada": "pa:ss word"}, lifetime_s=5) as tokens:
        yield tokens


@pytest.fixture(scope="session")
def token_registry(
    tmp_path_factory: pytest.TempPathFactory, session_token_server: TokenServer
) -> Iterator[Registry]:
    """The real docker-registry with tokens that live five seconds; ada may do everything."""
    directory = tmp_path_factory.mktemp("token-registry")
    with run_docker_registry(
        directory, token=session_token_server, token_user=("ada", "pa:ss word")
    ) as registry:
        yield registry


@pytest.fixture
def token_server(session_token_server: TokenServer) -> Iterator[TokenServer]:
    """The token server of `token_registry`: no requests yet, put back as it was afterwards."""
    tokens = session_token_server
    fields = [field.name for field in dataclasses.fields(tokens)]
    before = {name: copy.copy(getattr(tokens, name)) for name in fields}
    tokens.requests = []
    yield tokens
    for name, value in before.items():
        setattr(tokens, name, value)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[StrictRegistry]:
    """Our own strict registry, empty, its options open to change."""
    with run_registry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def repository() -> str:
    """Return the name of a repository that no other test uses."""
    return f"test/{uuid.uuid4().hex}"


@pytest.fixture
def proxy() -> Iterator[Callable[..., Proxy]]:
    """Start a proxy that ends with the test: `proxy(upstream, *rules, certificates=None)`."""
    with ExitStack() as stack:

        def start(
            upstream: Registry | str, *rules: Rule, certificates: Certificates | None = None
        ) -> Proxy:
            return stack.enter_context(run_proxy(upstream, *rules, certificates=certificates))

        yield start


@pytest.fixture
def canary() -> Iterator[Callable[..., Canary]]:
    """Start a canary that ends with the test: `canary(script=None, certificates=None)`."""
    with ExitStack() as stack:

        def start(script: Script | None = None, certificates: Certificates | None = None) -> Canary:
            return stack.enter_context(run_canary(script, certificates=certificates))

        yield start
