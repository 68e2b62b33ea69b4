"""What the network does to a request, and what comes of it."""

from __future__ import annotations

import email.utils
import logging
import re
import socket
import threading
import time
import tracemalloc

import pytest

from ocimirror import (
    Interrupted,
    NotFound,
    RateLimited,
    RegistryRefused,
    RegistryUnavailable,
    UrlRefused,
)
from tests.support import images
from tests.support.faults import (
    Cut,
    Drip,
    Endless,
    Redirect,
    Reset,
    Respond,
    Rule,
    Stall,
)
from tests.support.stores import blob_of, fill, root_of, stream_of

pytestmark = pytest.mark.timeout(60)


def resolved(host, repository):
    return host.repository(repository).resolve("v1")


# --- trying again --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        *(pytest.param(Respond(status), id=str(status)) for status in (408, 500, 502, 503, 504)),
        pytest.param(Respond(429), id="429"),
        pytest.param(Cut(forward=False), id="cut"),
        pytest.param(Reset(forward=False), id="reset"),
    ],
)
@pytest.mark.bar("R24", "acr-429")
def test_a_burst_of_faults_is_survived(action, filled, connect, proxy, repository, image) -> None:
    front = proxy(filled, Rule("HEAD", "/manifests/", action, nth={1, 2}))
    assert resolved(connect(front, retries=2), repository) == root_of(image)
    # (500 to HEAD is left to GET: some registries cannot answer HEAD.)
    assert front.count("HEAD") == (1 if action == Respond(500) else 3)


@pytest.mark.parametrize(("status", "expected"), [(503, RegistryUnavailable), (429, RateLimited)])
@pytest.mark.bar("R24", "R25")
def test_a_fault_that_stays_ends_after_the_retries(
    status, expected, filled, connect, proxy, repository
) -> None:
    front = proxy(filled, Rule("HEAD", "", Respond(status)))
    with pytest.raises(expected, match=str(status)) as caught:
        resolved(connect(front, retries=2), repository)
    assert type(caught.value) is expected
    assert caught.value.exit_code == 3
    assert len(front.requests) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 501])
def test_an_answer_is_not_asked_for_twice(status, filled, connect, proxy, repository) -> None:
    front = proxy(filled, Rule("GET", "/blobs/", Respond(status)))
    store = connect(front, retries=3).repository(repository)
    with pytest.raises(RegistryRefused), store.fetch(blob_of(b"x")) as stream:
        stream.read()
    assert len(front.requests) == 1


def in_seconds(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("after", ["1", lambda: in_seconds(2)])
@pytest.mark.bar("R25")
def test_retry_after_is_waited_for(after, filled, connect, proxy, repository, image) -> None:
    value = after if isinstance(after, str) else after()
    front = proxy(filled, Rule("HEAD", "", Respond(429, {"Retry-After": value}), nth=1))
    host = connect(front)
    began = time.monotonic()
    assert resolved(host, repository) == root_of(image)
    assert 0.9 < time.monotonic() - began < 60


@pytest.mark.bar("R25")
def test_a_date_is_counted_from_the_servers_own_clock(
    filled, connect, proxy, repository, image
) -> None:
    headers = {"Retry-After": in_seconds(86401), "Date": in_seconds(86400)}
    front = proxy(filled, Rule("HEAD", "", Respond(503, headers), nth=1))
    assert resolved(connect(front), repository) == root_of(image)


@pytest.mark.parametrize("after", ["999999999", "1_000", "-5", "+5", "٣", "soon", ""])
@pytest.mark.bar("R25")
def test_an_absurd_retry_after_does_not_hold_a_stop(
    after, filled, connect, proxy, repository, caplog
) -> None:
    caplog.set_level(logging.INFO)
    stop = threading.Event()
    front = proxy(
        filled, Rule("HEAD", "", Respond(429, {"Retry-After": after.encode().decode("latin-1")}))
    )
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        resolved(connect(front, retries=1000, stop=stop), repository)
    assert time.monotonic() - began < 60
    waits = re.findall(r"trying again in ([0-9.]+) s", caplog.text)
    assert waits
    assert all(float(seconds) < 601 for seconds in waits)  # (ten minutes, and some jitter)


@pytest.mark.bar("R25", "hub-429-on-head")
def test_retry_after_holds_the_whole_registry(filled, connect, proxy, repository, image) -> None:
    front = proxy(filled, Rule("HEAD", "", Respond(429, {"Retry-After": "1"}), nth=1))
    host = connect(front)
    thread = threading.Thread(target=resolved, args=(host, repository))
    began = time.monotonic()
    thread.start()
    while not any(seen.status == 429 for seen in front.requests):
        time.sleep(0.001)
    time.sleep(0.1)
    host.repository(repository).exists(root_of(image))
    assert time.monotonic() - began > 0.95
    thread.join()


def test_what_was_stopped_asks_nothing_more(filled, connect, repository) -> None:
    stop = threading.Event()
    host = connect(filled, stop=stop)
    resolved(host, repository)
    stop.set()
    with pytest.raises(Interrupted) as caught:
        resolved(host, repository)
    assert caught.value.exit_code == 130
    assert len(filled.requests) == 1


# --- silence -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(Stall(when="request"), id="no-status-line"),
        pytest.param(Stall(when=0), id="no-body"),
        pytest.param(Stall(when=300_000), id="in-the-body"),
        pytest.param(Drip(piece_bytes=10, pause_s=0.05, after_bytes=300_000), id="drip"),
    ],
)
@pytest.mark.bar("R21", "R22", "quay-stall")
def test_a_server_that_falls_silent_or_trickles_is_left(
    action, registry, connect, proxy, repository
) -> None:
    content = images.noise("silence", 700_000)
    registry.put_blob(repository, content)
    front = proxy(registry, Rule("GET", "/blobs/", action))
    store = connect(front, timeout_s=0.5, retries=0).repository(repository)
    began = time.monotonic()
    with pytest.raises(RegistryUnavailable), store.fetch(blob_of(content)) as stream:
        stream.read_all(len(content))
    assert 0.4 < time.monotonic() - began < 50


@pytest.mark.bar("slow-other-end")
def test_a_slow_destination_is_not_a_slow_source(registry, connect, repository) -> None:
    content = images.noise("slow destination", 700_000)
    registry.put_blob(repository, content)
    store = connect(registry, timeout_s=0.2).repository(repository)
    with store.fetch(blob_of(content)) as stream:
        while stream.read(100_000):
            time.sleep(0.1)
    assert stream.verified


@pytest.mark.bar("R22")
def test_a_host_that_never_accepts_is_left(connect, repository) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        host = connect(f"127.0.0.1:{port}", timeout_s=1, retries=0)
        with pytest.raises(RegistryUnavailable, match=r"in time|too long"):
            resolved(host, repository)
        for each in waiting:
            each.close()


@pytest.mark.bar("R23")
def test_a_refused_connection_is_one_clear_line(connect, repository) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RegistryUnavailable, match="refused") as caught:
        resolved(connect(f"127.0.0.1:{port}", retries=0), repository)
    assert "\n" not in caught.value.message
    assert "urllib3" not in caught.value.message


@pytest.mark.bar("R23")
def test_a_name_that_does_not_resolve_is_not_tried_again(connect, repository, caplog) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(RegistryUnavailable, match="does not resolve") as caught:
        resolved(connect("registry.invalid:5000", retries=5), repository)
    assert caught.value.exit_code == 3
    assert "trying again" not in caplog.text


@pytest.mark.parametrize(
    "reply", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 100, b"", b"HTTP/1.1 banana\r\n"]
)
def test_what_is_no_http_is_unavailable(reply, connect, repository) -> None:
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        host = connect(f"127.0.0.1:{listener.getsockname()[1]}", retries=0)
        with pytest.raises(RegistryUnavailable):
            resolved(host, repository)


# --- limits --------------------------------------------------------------------------------------


def test_an_endless_error_document_is_cut(filled, connect, proxy, repository) -> None:
    endless = Respond(404, {"Content-Type": "text/plain"}, lambda: iter(lambda: b"x" * 65536, None))
    front = proxy(filled, Rule("GET", "/blobs/", endless))
    store = connect(front).repository(repository)
    with pytest.raises(NotFound) as caught, store.fetch(blob_of(b"x")) as stream:
        stream.read()
    assert len(caught.value.message) < 1000
    assert front.requests[-1].sent_bytes < 64 << 20


@pytest.mark.bar("R46")
def test_memory_does_not_grow_with_a_blob(registry, connect, repository) -> None:
    content = bytes(96 << 20)
    registry.put_blob(repository, content)
    blob = blob_of(content)
    # (A registry that seems slow would be read in parts, which are held in memory.)
    source = connect(registry, jobs=1).repository(repository)
    destination = connect(registry).repository(f"{repository}/copy")
    registry.options.mount = False
    del content
    tracemalloc.start()
    with source.fetch(blob) as stream:
        destination.push(blob, stream)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20


def test_a_length_of_10_to_the_15_reserves_nothing(registry, connect, proxy, repository) -> None:
    registry.put_blob(repository, b"x" * 100_000)
    front = proxy(registry, Rule("GET", "tags/list", Endless("length")))
    tracemalloc.start()
    with pytest.raises(Exception, match="longer than"):
        connect(front).repository(repository).names()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.bar("R38")
def test_redirects_end_after_five(filled, connect, proxy, repository) -> None:
    circle = Redirect(lambda request: request.path)
    front = proxy(filled, Rule("HEAD", "", circle))
    with pytest.raises(UrlRefused, match="more than 5 redirects"):
        resolved(connect(front), repository)
    assert len(front.requests) == 6


def test_threads_share_a_host(registry, connect, repository) -> None:
    store = connect(registry, jobs=8).repository(repository)
    contents = [images.noise(("thread", number), 50_000) for number in range(40)]
    failures = []

    def work(part: list[bytes]) -> None:
        try:
            for content in part:
                blob = blob_of(content)
                store.push(blob, stream_of(blob, content))
                with store.fetch(blob) as stream:
                    assert stream.read_all(blob.size) == content
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(contents[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_eight_threads_use_eight_connections(
    registry, connect, repository, count_connections, image
) -> None:
    fill(connect(registry).repository(repository), {"v1": image})
    opened = count_connections(registry)
    host = connect(registry, jobs=8)

    def work() -> None:
        for _ in range(20):
            host.repository(repository).resolve("v1")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened() <= 8
