"""How much a registry is asked at once and in a second, and what it says about that."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from ocimirror import (
    Interrupted,
    NetworkOptions,
    Options,
    RateLimited,
    Stored,
    copy_many,
    pull,
)
from tests.registry.conftest import Host
from tests.support import images
from tests.support.command import environment, ocimirror
from tests.support.faults import Call, Respond, Rule, SetHeader, Stall
from tests.support.proxy import Visit
from tests.support.stores import blob_of, failures, fill, memory, push_blob, request, root_of

pytestmark = pytest.mark.timeout(60)

BUSY = Respond(429)
CONTENT = images.noise("limits", 20_000)


NUMBERS = itertools.count()


def ask_once(host: Host) -> None:
    """Send one request, for a blob that nobody asked for before."""
    host.repository("app").exists(blob_of(b"%d" % next(NUMBERS)))


def ask(host: Host, times: int, threads: int = 1) -> None:
    """Send so many requests from so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        for answer in [pool.submit(ask_once, host) for _ in range(times)]:
            answer.result()


class Crowd:
    """A script for a canary: how many requests were there each time that one came.

    The first `refused` are answered together, once all of them are there.
    """

    def __init__(self, refused: int = 0, refusal: Respond = BUSY) -> None:
        self.levels: list[int] = []
        self.came: list[float] = []
        self._refused, self._refusal = refused, refusal
        self._inside = 0
        self._guard = threading.Lock()
        self._together = threading.Barrier(max(1, refused), timeout=5)

    def __call__(self, visit: Visit) -> Respond:
        with self._guard:
            self._inside += 1
            self.levels.append(self._inside)
            self.came.append(time.monotonic())
            first = len(self.levels) <= self._refused
        if first:
            self._together.wait()
        else:
            time.sleep(0.01)
        with self._guard:
            self._inside -= 1
        return self._refusal if first else Respond(200)


# --- at once -------------------------------------------------------------------------------------


def test_as_many_requests_are_under_way_as_there_are_jobs(canary, connect) -> None:
    crowd = Crowd()
    ask(connect(canary(crowd), jobs=3), 40, threads=8)
    assert max(crowd.levels) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_registry_gets_half_as_many_until_it_answers_well_again(
    status, canary, connect
) -> None:
    crowd = Crowd(8, Respond(status))
    ask(connect(canary(crowd), jobs=8), 400, threads=8)
    refused, halved, later = crowd.levels[:8], crowd.levels[8:50], crowd.levels[220:340]
    assert (max(refused), max(later)) == (8, 8)
    assert max(halved) <= 4  # (had each of the eight counted, it would be 1, and 7 later)


def test_at_least_one_request_is_always_under_way(canary, connect) -> None:
    answers = iter([BUSY] * 4)
    host = connect(canary(lambda _: next(answers, Respond(200))), jobs=2, retries=0)
    for _ in range(4):
        with pytest.raises(RateLimited):
            ask_once(host)
    ask(host, 2)


@pytest.mark.parametrize("status", [404, 501])
def test_a_refusal_is_an_answer_like_others(status, canary, connect) -> None:
    crowd = Crowd(4, Respond(status))
    host = connect(canary(crowd), jobs=4)

    def look(_: int) -> None:
        with suppress(Exception):
            ask_once(host)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(60)))
    assert max(crowd.levels[4:]) == 4


def test_a_download_does_not_hold_up_small_requests(
    filled, connect, proxy, repository, image
) -> None:
    front = proxy(filled, Rule("GET", "/blobs/", Stall(3600, when=10)))
    store = connect(front, jobs=1).repository(repository)
    blob = push_blob(connect(filled).repository(repository), CONTENT)
    with store.fetch(blob) as stream:
        assert stream.read(10)
        assert store.resolve("v1") == root_of(image)


def test_a_copy_within_one_registry_needs_no_second_turn(registry, connect, repository) -> None:
    registry.options.mount = False
    host = connect(registry, jobs=1)
    source, destination = host.repository(repository), host.repository(repository + "/copy")
    blob = push_blob(source, CONTENT)
    with source.fetch(blob) as stream:
        assert destination.push(blob, stream) is Stored.COPIED


# --- in a second ---------------------------------------------------------------------------------


@pytest.mark.bar("hub-request-rate")
def test_requests_come_no_faster_than_was_allowed(canary, connect) -> None:
    crowd = Crowd()
    server = canary(crowd)
    ask(connect(server, requests_per_second={server.host: 40.0}), 40, threads=4)
    came = crowd.came
    assert came[-1] - came[0] > 0.85
    assert all(later - first > 0.35 for first, later in zip(came, came[20:], strict=False))


def test_the_limit_of_one_registry_is_not_that_of_another(canary, connect) -> None:
    began = time.monotonic()
    ask(connect(canary(), requests_per_second={"registry.example.com": 0.01}), 3)
    assert time.monotonic() - began < 100


@pytest.mark.bar("R25")
def test_retry_after_holds_all_threads_of_one_registry_only(canary, tmp_path) -> None:
    refused = threading.Event()
    crowd, others = Crowd(1, Respond(429, {"Retry-After": "3"})), Crowd()

    def held(visit: Visit) -> Respond:
        """Let the other registry, and the other threads of this one, come after the refusal."""
        refused.wait(20)
        return others(visit)

    def answered(visit: Visit) -> Respond:
        answer = crowd(visit)
        refused.set()
        return answer

    busy, other = canary(answered), canary(held)
    names = [f"{other.host}/app:v{number}" for number in range(3)]  # (three of four jobs)
    names += [f"{host}/app:v{number}" for number in (4, 5) for host in (busy.host, other.host)]
    network = NetworkOptions(plain_http=frozenset({busy.host, other.host}), jobs=4)
    outcomes = pull(names, str(tmp_path / "l"), Options(jobs=4), network=network)
    assert all(outcome.error for outcome in outcomes)
    assert max(others.came) < min(crowd.came[1:])
    assert min(crowd.came[1:]) - crowd.came[0] > 2.95


# --- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["pull", "push", "both"])
def test_four_jobs_share_one_rate(direction, registry, connect, repository) -> None:
    rate, (graph,) = 1_000_000, images.shared_layers(1, 4, 400_000, 0.0)
    host = connect(registry, bytes_per_second=rate if direction != "both" else 2 * rate)
    remote, local = host.repository(repository), memory({"v1": graph})
    ends = [local, remote]
    if direction != "push":
        fill(connect(registry).repository(repository), {"v1": graph})
        ends = [remote, memory({})]
    if direction == "both":
        registry.options.mount = False
        ends = [remote, host.repository(repository + "/copy")]
    began = time.monotonic()
    outcomes = copy_many([request(ends[0], "v1", ends[1])], Options(jobs=4))
    seconds = time.monotonic() - began
    assert failures(outcomes) == []
    assert outcomes[0].bytes_copied / seconds < 1.1 * rate
    assert outcomes[0].bytes_copied / seconds > 0.3 * rate


def test_a_document_is_sent_at_the_rate_too(registry, connect, repository, image) -> None:
    began = time.monotonic()
    fill(connect(registry, bytes_per_second=40_000).repository(repository), {"v1": image})
    size = sum(map(len, image.blobs.values())) + len(image.raw)
    assert time.monotonic() - began > 0.7 * size / 40_000
    assert registry.get_manifest(repository, "v1") == image.raw


# --- stopping ------------------------------------------------------------------------------------


def stopped_after(stop: threading.Event, work: Callable[[], object]) -> float:
    """Set `stop` while the work waits; return how long it took to end after that."""
    at: list[float] = []
    timer = threading.Timer(0.3, lambda: (at.append(time.monotonic()), stop.set()))
    timer.start()
    with pytest.raises(Interrupted):
        work()
    return time.monotonic() - at[0]


def test_a_stop_ends_the_wait_for_a_turn(filled, connect, proxy, repository) -> None:
    stop, asked = threading.Event(), threading.Event()
    front = proxy(filled, Rule("GET", "", Call(lambda _: asked.set())), Rule("GET", "", Stall()))
    host = connect(front, jobs=1, stop=stop, retries=0, timeout_s=30.0)

    def stall() -> None:
        with suppress(Exception):
            host.repository(repository).names()

    thread = threading.Thread(target=stall)
    thread.start()
    asked.wait(30)
    assert stopped_after(stop, lambda: host.repository(repository).resolve("v1")) < 20
    assert front.count("HEAD") == 0
    thread.join()


def test_a_stop_ends_the_wait_for_the_next_second(canary, connect) -> None:
    stop, server = threading.Event(), canary()
    host = connect(server, stop=stop, requests_per_second={server.host: 0.001})
    assert stopped_after(stop, lambda: ask(host, 2)) < 20
    assert len(server.visits) == 1


def test_a_stop_ends_the_wait_that_was_asked_for(canary, connect) -> None:
    stop = threading.Event()
    host = connect(canary(Respond(503, {"Retry-After": "500"})), stop=stop)
    assert stopped_after(stop, lambda: ask_once(host)) < 20


@pytest.mark.parametrize("direction", ["pull", "push"])
def test_a_stop_ends_the_wait_for_bytes(direction, registry, connect, repository) -> None:
    stop, blob = threading.Event(), blob_of(CONTENT)
    store = connect(registry, stop=stop, bytes_per_second=10).repository(repository)

    def pull() -> None:
        push_blob(connect(registry).repository(repository), CONTENT)
        with store.fetch(blob) as stream:
            while stream.read():
                pass

    work = pull if direction == "pull" else lambda: push_blob(store, CONTENT)
    assert stopped_after(stop, work) < 20


# --- what the registry says ----------------------------------------------------------------------


@pytest.mark.bar("hub-rate-headers")
def test_the_rate_limit_is_told_once_a_change_under_v(filled, proxy, repository, tmp_path) -> None:
    front = proxy(
        filled,
        Rule(".*", "", SetHeader("ratelimit-limit", "100;w=21600")),
        Rule(".*", "", SetHeader("ratelimit-remaining", "76;w=21600")),
        Rule("GET", "/blobs/", SetHeader("ratelimit-remaining", "75;w=21600")),
    )
    image = f"{front.host}/{repository}:v1"
    quiet = ocimirror("pull", image, tmp_path / "quiet", "-j1")
    told = ocimirror("pull", image, tmp_path / "told", "-j1", "-v", "--no-referrers")
    assert (quiet.code, told.code) == (0, 0)
    assert "rate limit" not in quiet.stderr
    lines = [line.partition("INFO ")[2] for line in told.stderr.splitlines() if "limit" in line]
    assert lines == [
        f"http://{front.host}: rate limit 100;w=21600, remaining {left};w=21600"
        for left in (76, 75)
    ]


def test_a_warning_is_told_once_and_cannot_paint_the_terminal(
    filled, proxy, repository, tmp_path
) -> None:
    first = '299 - "moved to \\"new\\"\x1b[31m"'
    text = f'{first}, 299 - "caf\xc3\xa9", 110 - "stale", {first}, 299 - "{"x" * 9000}"'
    front = proxy(filled, Rule(".*", "", SetHeader("Warning", text)))
    pulled = ocimirror("pull", f"{front.host}/{repository}:v1", tmp_path / "layout")
    assert pulled.code == 0
    assert len(front.requests) > 3
    told = [line.partition(" says: ")[2] for line in pulled.stderr.splitlines()]
    assert told[:2] == ['moved to "new"\\x1b[31m', "café"]
    assert len(told) == 3
    assert set(told[2]) == {"x"}
    assert len("".join(told).encode()) <= 4096


def test_a_flood_of_warnings_ends(canary, connect, caplog) -> None:
    numbers = iter(range(1000))
    server = canary(lambda _: Respond(200, {"Warning": f'299 - "number {next(numbers)}"'}))
    ask(connect(server), 150)
    assert len([record for record in caplog.records if "number" in record.message]) == 100


# --- the command line ----------------------------------------------------------------------------


def test_the_options_reach_the_registry(filled, repository, tmp_path) -> None:
    limits = [f"--max-requests-per-second={filled.host}=8", "--limit-rate=1m"]
    began = time.monotonic()
    pulled = ocimirror("pull", f"{filled.host}/{repository}:v1", tmp_path / "layout", *limits)
    assert pulled.code == 0, pulled.stderr
    assert time.monotonic() - began > (len(filled.requests) - 1) / 8 - 0.1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("limit-rate", text) for text in ("0", "1.5M", "10T", "1_000")),
        *(("max-requests-per-second", text) for text in ("5", "a=0", "a=1e3")),
        ("max-requests-per-second", "http://a=5"),
    ],
)
def test_a_limit_that_is_none_is_a_usage_error(option, value, tmp_path) -> None:
    refused = ocimirror("pull", "alpine", tmp_path / "layout", f"--{option}={value}")
    assert refused.code == 2, refused.stderr
    assert not (tmp_path / "layout").exists()


def test_the_limits_can_come_from_the_environment(tmp_path) -> None:
    env = environment(tmp_path, OCIMIRROR_MAX_REQUESTS_PER_SECOND="a=5 b=x")
    assert "b=x" in ocimirror("pull", "alpine", tmp_path / "layout", env=env).stderr
