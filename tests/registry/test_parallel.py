"""A large blob over several connections: faster where each is slow, and right whatever happens."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc

import pytest

from ocimirror import DigestMismatch, Interrupted, RegistryUnavailable
from tests.support import images
from tests.support.command import ocimirror, weighed
from tests.support.faults import (
    Call,
    Cut,
    Drip,
    Flip,
    Gzip,
    IgnoreRange,
    OtherRange,
    Respond,
    Rule,
    WrongContentRange,
)
from tests.support.stores import blob_of, stream_of

pytestmark = pytest.mark.timeout(120)

MIB = 1024 * 1024
PART_BYTES, CONNECTIONS = 8 * MIB, 4
_NOISE = images.noise("parallel", MIB - 8)
CONTENT = b"".join(number.to_bytes(8) + _NOISE for number in range(80))
BLOB = blob_of(CONTENT)
SLOW = Drip(400_000, 0.01)
SLOWER = Drip(200_000, 0.02)  # (that costs little, also on a machine that is busy)


@pytest.fixture
def behind(registry, connect, proxy, repository):
    """Open the repository behind a proxy whose first connection is slow, and the others faulty."""
    registry.put_blob(repository, CONTENT)

    def start(*others, **options):
        rules = [Rule("GET", "/blobs/", SLOW, nth=1)]
        rules += [Rule("GET", "/blobs/", each, when=is_part) for each in others]
        front = proxy(registry, *rules)
        return front, connect(front, **options).repository(repository)

    return start


def is_part(request) -> bool:
    return not (request.header("Range") or "-").endswith("-")


def is_range(seen) -> bool:
    return not seen.headers.get("range", "-").endswith("-")


def ranges(front) -> list[tuple[int, int]]:
    """Return the first and last position of each part that was asked for."""
    asked = [seen.headers.get("range", "-") for seen in front.requests]
    return [tuple(map(int, each[6:].split("-"))) for each in asked if not each.endswith("-")]  # type: ignore[misc]


def is_read_in_parts(front, store) -> bool:
    """Whether the next blob is: that is so for one at a time, and none may be left over."""
    front.rules[:] = [Rule("GET", "/blobs/", SLOW)]
    front.requests.clear()
    with store.fetch(BLOB) as stream:
        while not ranges(front) and stream.read():
            pass
    return bool(ranges(front))


def read(store) -> bytes:
    with store.fetch(BLOB) as stream:
        return stream.read_all(BLOB.size)


@pytest.mark.bar("R46")
def test_four_jobs_ask_for_four_parts_at_once(registry, proxy, repository, tmp_path) -> None:
    """The whole command; each connection has a rate of its own."""
    builder = images.Builder()
    layer = builder.blob(CONTENT, images.OCI_LAYER_GZIP)
    config = builder.blob(b"{}", images.OCI_CONFIG)
    manifest = images.compact({"schemaVersion": 2, "config": config, "layers": [layer]})
    images.push(
        registry, repository, "v1", builder.graph(builder.manifest(manifest, images.OCI_MANIFEST))
    )
    waiting, four, guard = [], threading.Event(), threading.Lock()

    def together(_) -> None:
        """Hold parts back until four are asked for (the first connection reads the beginning)."""
        with guard:
            waiting.append(1)
            if len(waiting) == 3:
                four.set()
        if not four.wait(40):
            waiting.pop()

    part = Rule("GET", "/blobs/", Call(together), when=is_part)
    front = proxy(registry, part, Rule("GET", "/blobs/", SLOWER))
    for jobs in (1, 4):
        code, peak_bytes = weighed(
            *("pull", f"{front.host}/{repository}:v1", tmp_path / f"{jobs}", "-j", f"{jobs}"),
            output=tmp_path / "output",
        )
        assert code == 0
        assert peak_bytes < 100 * MIB
        assert bool(ranges(front)) is (jobs == 4)
        assert ocimirror("verify", tmp_path / f"{jobs}").code == 0
    assert four.is_set()


def test_every_byte_is_asked_for_once_and_in_parts_that_fit(behind) -> None:
    front, store = behind()
    assert read(store) == CONTENT
    parts = sorted(ranges(front))
    assert parts[0][0] >= 8 * MIB
    assert all(first <= last and last - first < PART_BYTES for first, last in parts)
    assert all(one[1] + 1 == two[0] for one, two in itertools.pairwise(parts))
    assert parts[-1][1] == BLOB.size - 1


def test_what_is_fast_enough_stays_one_connection(registry, connect, repository) -> None:
    registry.put_blob(repository, CONTENT)
    counts = []
    for _ in range(3):
        registry.requests.clear()
        assert read(connect(registry).repository(repository)) == CONTENT
        counts.append(len(registry.requests))
    assert min(counts) == 1  # (a machine that is busy may look like a slow connection)


def test_a_server_that_does_not_offer_ranges_is_not_asked_for_any(
    registry, proxy, connect, repository
) -> None:
    registry.put_blob(repository, CONTENT)
    registry.options.ranges = False
    front = proxy(registry, Rule("GET", "/blobs/", SLOW))
    assert read(connect(front).repository(repository)) == CONTENT
    assert ranges(front) == []


def test_memory_holds_the_parts_that_are_under_way(behind) -> None:
    _, store = behind()
    tracemalloc.start()
    with store.fetch(BLOB) as stream:
        while stream.read():
            time.sleep(0.001)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (CONNECTIONS + 2) * PART_BYTES


@pytest.mark.parametrize("options", [{"jobs": 1}, {"bytes_per_second": 1 << 30}])
def test_who_wants_little_gets_one_connection(options, behind) -> None:
    front, store = behind(**options)
    assert read(store) == CONTENT
    assert ranges(front) == []


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Respond(400), id="400"),
        pytest.param(Respond(403), id="403"),
        pytest.param(IgnoreRange(), id="200"),
        pytest.param(OtherRange(1000), id="another-range"),
        pytest.param(WrongContentRange(None), id="no-content-range"),
        pytest.param(WrongContentRange("bytes 0-9/10"), id="nonsense"),
        pytest.param(Gzip(), id="encoded"),
        pytest.param(Cut(1000), id="cut"),
        pytest.param(Cut(0), id="cut-at-0"),
    ],
)
def test_parts_that_cannot_be_had_end_the_parts(fault, behind) -> None:
    front, store = behind(fault)
    assert read(store) == CONTENT
    count = len(ranges(front))
    assert 1 <= count <= 2 * CONNECTIONS  # (each is tried again once at most)
    assert is_read_in_parts(front, store)


def test_a_part_that_is_cut_late_costs_no_byte_that_was_read(behind) -> None:
    front, store = behind()
    front.rules.append(Rule("GET", "/blobs/", Cut(MIB), nth=3, when=is_part))
    assert read(store) == CONTENT
    (last,) = [
        seen for seen in front.requests if seen.headers.get("range", "").endswith("-")
    ]  # (what is left, over one connection)
    third = ranges(front)[2][0]
    assert third <= int(last.headers["range"][6:-1]) <= third + MIB


def test_parts_come_again_where_they_brought_something(behind) -> None:
    front, store = behind()
    front.rules.append(Rule("GET", "/blobs/", Cut(MIB), nth=6, when=is_part))
    front.rules.append(Rule("GET", "/blobs/", SLOW, nth={1, 2}, when=lambda r: not is_part(r)))
    larger = CONTENT + CONTENT[::-1]
    front_blob = blob_of(larger)
    store.push(front_blob, stream_of(front_blob, larger))
    front.requests.clear()
    with store.fetch(front_blob) as stream:
        assert stream.read_all(front_blob.size) == larger
    whole = [seen for seen in front.requests if seen.method == "GET" and not is_range(seen)]
    assert len(whole) == 2
    assert len(ranges(front)) > 8


def test_a_part_that_is_something_else_is_an_integrity_error(behind) -> None:
    front, store = behind(Flip(at=100))
    with pytest.raises(DigestMismatch):
        read(store)
    assert is_read_in_parts(front, store)


def test_closing_early_ends_the_parts(behind) -> None:
    front, store = behind(Drip(10_000, 0.05))
    with store.fetch(BLOB) as stream:
        for _ in range(30):
            stream.read()
    began = time.monotonic()
    while any(t.name.startswith("ocimirror-part") for t in threading.enumerate()):
        assert time.monotonic() - began < 60
        time.sleep(0.01)
    assert is_read_in_parts(front, store)


def test_a_stop_comes_through(behind) -> None:
    front, store = behind()
    seen = 0

    def watch(count: int) -> None:
        nonlocal seen
        seen += count
        if seen > 30 * MIB:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted), store.fetch(BLOB, watch) as stream:
        while stream.read():
            pass
    assert is_read_in_parts(front, store)


def test_a_registry_that_goes_away_is_unavailable(behind) -> None:
    front, store = behind()
    front.rules.append(Rule("GET", "/blobs/", Cut(0), nth=range(6, 1000)))
    with pytest.raises(RegistryUnavailable):
        read(store)
    assert is_read_in_parts(front, store)
