"""A blob whose answer breaks off is read on from there."""

from __future__ import annotations

import threading
import time

import pytest

from ocimirror import DigestMismatch, Interrupted, NotFound, RegistryUnavailable, Stored
from tests.support import images
from tests.support.faults import (
    Chunked,
    Cut,
    Flip,
    Gzip,
    IgnoreRange,
    NoLength,
    OtherRange,
    Redirect,
    Reset,
    Respond,
    Rule,
    Stall,
    WrongContentRange,
)
from tests.support.stores import blob_of

CONTENT = images.noise("registry resume", 3_000_000)
BLOB = blob_of(CONTENT)
HALF = 1_500_000


def read(store) -> bytes:
    with store.fetch(BLOB) as stream:
        return stream.read_all(BLOB.size)


def ranges(front) -> list[str]:
    return [seen.headers.get("range", "") for seen in front.requests if seen.method == "GET"]


@pytest.fixture
def behind(registry, connect, proxy, repository):
    """Open the repository behind a proxy whose first answer has this fault, the others those."""
    registry.put_blob(repository, CONTENT)

    def start(first, *others, **options):
        rules = [Rule("GET", "/blobs/", first, nth=1)]
        rules += [Rule("GET", "/blobs/", each, when=has_range) for each in others]
        front = proxy(registry, *rules)
        return front, connect(front, **options).repository(repository)

    return start


def has_range(request) -> bool:
    return request.header("Range") is not None


@pytest.mark.parametrize("at", [0, 1, HALF, BLOB.size - 1])
@pytest.mark.parametrize("cut", [Cut, Reset])
@pytest.mark.bar("R14", "R17")
def test_the_rest_is_asked_for_from_where_it_broke_off(cut, at, behind) -> None:
    front, store = behind(cut(at))
    assert read(store) == CONTENT
    asked = ranges(front)
    assert len(asked) == 2
    position = int(asked[1][6:-1]) if asked[1] else 0
    # (What a reset destroyed in the socket's buffer comes again.)
    assert position == at if cut is Cut else position <= at


@pytest.mark.parametrize("fault", [NoLength(HALF), Stall(when=HALF)])
@pytest.mark.bar("R14")
def test_an_end_without_length_and_a_silence_are_resumed_too(fault, behind) -> None:
    front, store = behind(fault, timeout_s=0.5)
    assert read(store) == CONTENT
    assert ranges(front) == ["", f"bytes={HALF}-"]


@pytest.mark.bar("R14")
def test_docker_registry_resumes(docker_registry, connect, proxy, repository) -> None:
    docker_registry.put_blob(repository, CONTENT)
    front = proxy(docker_registry, Rule("GET", "/blobs/", Cut(HALF), nth=1))
    assert read(connect(front).repository(repository)) == CONTENT
    assert ranges(front) == ["", f"bytes={HALF}-"]


def test_progress_earns_new_attempts(behind) -> None:
    front, store = behind(Cut(1_100_000), Cut(1_100_000), retries=1)
    assert read(store) == CONTENT
    assert len(ranges(front)) == 3


def test_no_progress_ends_after_the_retries(behind) -> None:
    front, store = behind(Cut(1000), Cut(1000), retries=2)
    with pytest.raises(RegistryUnavailable):
        read(store)
    assert len(ranges(front)) == 3


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(IgnoreRange(), id="200"),
        pytest.param(OtherRange(1000), id="another-range"),
        pytest.param(OtherRange(-1000), id="an-earlier-range"),
        pytest.param(WrongContentRange(None), id="no-content-range"),
        pytest.param(WrongContentRange("bytes 0-9/10"), id="nonsense"),
        pytest.param(WrongContentRange("bytes */3000000"), id="unsatisfied"),
        pytest.param(Respond(400), id="registry.k8s.io-400"),
        pytest.param(Respond(416, {"Content-Length": "3000000"}, b"short"), id="416"),
        pytest.param(Gzip(), id="encoded"),
    ],
)
@pytest.mark.bar("R18", "R19", "R20", "k8s-range-400")
def test_what_is_not_the_rest_makes_it_begin_again(fault, behind) -> None:
    front, store = behind(Cut(HALF), fault)
    assert read(store) == CONTENT
    assert ranges(front)[1] == f"bytes={HALF}-"


@pytest.mark.bar("R18", "k8s-range-400")
def test_beginning_again_is_done_twice_at_most(behind) -> None:
    front, store = behind(Cut(1_100_000), Respond(400), retries=9)
    rule = Rule("GET", "/blobs/", Cut(2_200_000), when=lambda request: not has_range(request))
    front.rules.append(rule)
    with pytest.raises(RegistryUnavailable):
        read(store)
    assert len(ranges(front)) < 12


def test_a_rest_that_is_not_the_same_blob_is_an_integrity_error(behind) -> None:
    _, store = behind(Cut(HALF), Flip(at=10))
    with pytest.raises(DigestMismatch):
        read(store)


@pytest.mark.parametrize("framing", [Chunked(), NoLength()])
def test_the_framing_of_the_rest_does_not_matter(framing, behind) -> None:
    _, store = behind(Cut(HALF), framing)
    assert read(store) == CONTENT


def test_a_blob_deleted_meanwhile_is_not_found(behind) -> None:
    front, store = behind(Cut(HALF))
    front.rules.append(Rule("GET", "/blobs/", Respond(404), nth={2, 3}))
    with pytest.raises(NotFound):
        read(store)


@pytest.mark.bar("R36", "signed-url-ends")
def test_a_signed_url_that_ended_is_replaced_by_a_new_one(
    registry, connect, proxy, canary, repository
) -> None:
    registry.put_blob(repository, CONTENT)
    storage = proxy(
        registry,
        Rule("GET", "signature=1", Cut(HALF), nth=1),
        Rule("GET", "signature=1", Respond(403), nth=range(2, 9)),
    )
    given = iter(range(1, 9))
    sign = Redirect(lambda request: f"{storage.url}{request.path}?signature={next(given)}")
    front = proxy(registry, Rule("GET", "/blobs/", sign))
    host = connect(front, plain_http=frozenset({front.host, storage.host}))
    assert read(host.repository(repository)) == CONTENT
    assert [seen.path.rpartition("=")[2] for seen in storage.requests] == ["1", "2"]


def test_an_upload_goes_on_while_its_source_is_resumed(
    registry, connect, proxy, repository
) -> None:
    registry.put_blob(repository, CONTENT)
    front = proxy(registry, Rule("GET", "/blobs/", Cut(HALF), nth=1))
    host = connect(front)
    store, target = host.repository(repository), host.repository(f"{repository}/copy")
    registry.options.mount = False
    with store.fetch(BLOB) as stream:
        assert target.push(BLOB, stream) is Stored.COPIED
    assert registry.get_blob(f"{repository}/copy", str(BLOB.digest)) == CONTENT
    assert front.count("PUT") == 1


def test_a_stop_ends_the_wait_before_resuming(behind) -> None:
    stop = threading.Event()
    _, store = behind(Cut(1000), Cut(1000), retries=1000, stop=stop)
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        read(store)
    assert time.monotonic() - began < 60
