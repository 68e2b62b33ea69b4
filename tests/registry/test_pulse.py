"""A dead host costs a few requests their retries, and the others nothing."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from ocimirror import NotFound, RateLimited, RegistryUnavailable
from tests.support.faults import Cut, Respond, Rule, Stall

pytestmark = pytest.mark.timeout(60)


def failures(host, repository: str, count: int) -> list[str]:
    """Ask for so many tags, one after the other; return how each failed."""
    found = []
    for number in range(count):
        with pytest.raises(RegistryUnavailable) as caught:
            host.repository(repository).resolve(f"v{number}")
        found.append(caught.value.message)
    return found


@contextmanager
def deaf():
    """Yield the port of a host that hangs up on everybody, and the list of who came."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, address = listener.accept()
                except OSError:
                    return
                came.append(address)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], came
        listener.shutdown(socket.SHUT_RDWR)


def test_a_host_that_answers_nothing_is_left_alone_after_three_requests(
    connect, repository
) -> None:
    with deaf() as (port, came):
        authority = f"127.0.0.1:{port}"
        host = connect(authority, retries=1, plain_http=frozenset({authority}))
        told = failures(host, repository, 8)
        assert len(came) == 3 * 2 + 1
    assert all("not sent" not in message for message in told[:3])
    assert all("not sent" in message and "/v2/: " in message for message in told[3:])


def test_a_name_that_does_not_resolve_is_asked_for_four_times(connect, repository) -> None:
    told = failures(connect("registry.invalid:5000", retries=5), repository, 5)
    assert ["not sent" in message for message in told] == [False, False, False, True, True]


@pytest.mark.parametrize(
    "action", [Cut(forward=False), Respond(503), Stall(3600)], ids=["cut", "503", "stall"]
)
def test_one_broken_repository_is_no_dead_host(
    action, filled, connect, proxy, repository, image
) -> None:
    front = proxy(filled, Rule(".*", "/bad/", action))
    host = connect(front, retries=0, timeout_s=0.5)
    assert not any("not sent" in message for message in failures(host, "bad/app", 7))
    assert host.repository(repository).resolve("v1").digest


@pytest.mark.parametrize("status", [500, 503])
def test_a_gateway_without_a_registry_behind_it_is_a_dead_host(
    status, canary, connect, repository
) -> None:
    server = canary(lambda _: Respond(status))
    told = failures(connect(server, retries=0), repository, 6)
    assert [f"{status}" in message for message in told] == [True] * 6
    assert len(server.visits) == 4


def test_a_limit_is_no_death(canary, connect, repository) -> None:
    server = canary(lambda _: Respond(429, {"Retry-After": "0"}))
    host = connect(server, retries=0)
    for number in range(6):
        with pytest.raises(RateLimited):
            host.repository(repository).resolve(f"v{number}")
    assert len(server.visits) == 6


def test_an_answer_in_between_is_a_sign_of_life(filled, connect, proxy, repository) -> None:
    front = proxy(filled, Rule(".*", "/manifests/v", Cut(forward=False)))
    host = connect(front, retries=0)
    for _ in range(3):
        failures(host, repository, 2)
        with pytest.raises(NotFound):
            host.repository(repository).resolve("absent")
    assert front.count("GET", "/v2/") == front.count("GET", "/manifests/")


def test_after_a_minute_one_request_is_sent_and_an_answer_ends_it(
    canary, connect, repository, monkeypatch
) -> None:
    """With a clock that jumps over the minute."""
    server = canary(Respond(503))
    host = connect(server, retries=0)
    assert len(failures(host, repository, 3)) == 3
    assert len(server.visits) == 4  # (with the one that looked for life)

    def later() -> None:
        now = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: now() + 61)
        del server.visits[:]

    later()
    arrived, answering = threading.Event(), threading.Event()

    def slow(_: object) -> Respond:
        arrived.set()
        answering.wait(30)
        return Respond(503)

    server.script = slow
    with ThreadPoolExecutor(1) as pool:
        tried = pool.submit(failures, host, repository, 1)
        assert arrived.wait(30)
        assert "not sent" in failures(host, repository, 1)[0]  # (while one is under way)
        answering.set()
        assert "not sent" not in tried.result()[0]
    assert "not sent" in failures(host, repository, 1)[0]  # (it was in vain)
    assert len(server.visits) == 1

    later()
    server.script = Respond(404)
    for number in range(3):
        with pytest.raises(NotFound):
            host.repository(repository).resolve(f"v{number}")
    assert len(server.visits) == 6
