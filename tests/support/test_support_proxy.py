"""Each action of the proxy does what it says, over real sockets; the canary remembers."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.support import faults
from tests.support.certificates import write_certificates
from tests.support.faults import Action, Respond, Rule
from tests.support.proxy import Canary, Proxy, Visit
from tests.support.registry import StrictRegistry, run_registry
from tests.support.servers import run_docker_registry
from tests.support.witness import Registry

BODY = bytes(range(256)) * 40
SIZE = len(BODY)
StartProxy = Callable[..., Proxy]
StartCanary = Callable[..., Canary]


class Got:
    """What a plain client got: headers, the bytes that came, and how they ended."""

    def __init__(self, proxy: Proxy, path: str, headers: dict[str, str] | None = None) -> None:
        connection = http.client.HTTPConnection(proxy.host, timeout=5)
        self.body, self.end, self.status = b"", "", 0
        self.headers = http.client.HTTPMessage()
        try:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            self.status, self.headers = response.status, response.headers
            while piece := response.read1(65536):
                self.body += piece
                if len(self.body) > 10 * SIZE:
                    self.end = "too long"
                    return
            whole = response.length in (None, 0) or len(self.body) == response.length
            self.end = "whole" if whole else "short"
        except (http.client.RemoteDisconnected, http.client.IncompleteRead):
            self.end = "short"  # before the other: RemoteDisconnected is a ConnectionResetError
        except ConnectionResetError:
            self.end = "reset"
        except TimeoutError:
            self.end = "timeout"
        finally:
            connection.close()


@pytest.fixture
def blob(registry: StrictRegistry) -> str:
    """Return the path of a blob in the registry."""
    return f"/v2/a/b/blobs/{registry.put_blob('a/b', BODY)}"


@pytest.fixture
def got(registry: StrictRegistry, proxy: StartProxy, blob: str) -> Callable[..., Got]:
    """Get the blob through a proxy with one action."""

    def get(action: Action, **headers: str) -> Got:
        return Got(proxy(registry, Rule("GET", "/blobs/", action)), blob, headers)

    return get


def test_without_rules_everything_passes_and_is_recorded(
    registry: StrictRegistry, proxy: StartProxy
) -> None:
    registry.options.absolute_locations = True
    passing = proxy(registry)
    through = Registry(passing.host, "http", registry.directory)
    digest = through.put_blob("a/b", BODY)
    assert through.get_blob("a/b", digest) == registry.get_blob("a/b", digest) == BODY
    sent = requests.patch(passing.url + "/v2/", data=iter([b"ab", b"c"]))
    assert sent.status_code == 200
    put, get, patch = passing.requests[1:]
    assert (put.method, put.status, put.received_bytes, put.sent_bytes) == ("PUT", 201, SIZE, 0)
    assert (get.method, get.path, get.sent_bytes) == ("GET", f"/v2/a/b/blobs/{digest}", SIZE)
    assert (patch.received_bytes, passing.count("GET", "/blobs/")) == (3, 1)
    assert get.headers["user-agent"] == "witness"


def test_it_stands_before_docker_registry_and_between_two_kinds_of_tls(
    tmp_path: Path, proxy: StartProxy
) -> None:
    certificates = write_certificates(tmp_path / "front")
    with run_docker_registry(tmp_path / "registry", tls=True, htpasswd=("u", "p")) as upstream:
        front = proxy(upstream, certificates=certificates)
        through = Registry(front.host, "https", tmp_path, front.ca_file, "u", "p")
        digest = through.put_blob("a/b", BODY)
        assert through.get_blob("a/b", digest) == BODY
        assert front.count("PUT") == 1
        # The 416 of 2.8.2 announces the length of the whole blob, which never comes: it passes.
        past = {"Range": f"bytes={SIZE}-"}
        answer = through.request("GET", f"/v2/a/b/blobs/{digest}", headers=past)
        assert answer.status == 416
        assert answer.headers["Content-Length"] in (str(SIZE), "33")
        assert len(answer.body) < 100


def test_rules_count_what_they_match(registry: StrictRegistry, proxy: StartProxy) -> None:
    one = Rule("GET", "/tags/", Respond(500), nth=2)
    some = Rule("GET|HEAD", "/x/", Respond(503), nth=range(1, 3))
    ranged = Rule("GET", "^/v2/$", Respond(418), when=lambda request: bool(request.header("Range")))
    ruled = proxy(registry, one, some, ranged)

    def status(path: str, **headers: str) -> int:
        return requests.get(ruled.url + path, headers=headers).status_code

    assert [status("/v2/a/tags/list") for _ in range(3)] == [404, 500, 404]
    assert [status("/v2/x/y") for _ in range(3)] == [503, 503, 404]
    assert [status("/v2/"), status("/v2/", Range="bytes=1-")] == [200, 418]
    assert (one.seen, one.fired, some.fired) == (3, 1, 2)
    ruled.rules.clear()
    assert status("/v2/", Range="bytes=1-") == 200


def test_respond_and_redirect_answer_in_the_place_of_the_upstream(
    got: Callable[..., Got], registry: StrictRegistry
) -> None:
    answer = got(Respond(429, {"Retry-After": "3"}, b"slow down"))
    assert (answer.status, answer.headers["Retry-After"], answer.body) == (429, "3", b"slow down")
    assert got(Respond(200, body=lambda: [b"a", b"b"])).body == b"ab"
    signed = got(faults.Redirect(lambda request: f"http://storage.test{request.path}?sig=1"))
    assert (signed.status, signed.headers["Location"][:20]) == (307, "http://storage.test/")
    assert registry.requests == []


@pytest.mark.parametrize("after", [None, 0, 1, 5000, SIZE])
def test_cut_and_reset_deliver_exactly_so_many_bytes(
    got: Callable[..., Got], after: int | None
) -> None:
    cut, reset = got(faults.Cut(after)), got(faults.Reset(after))
    assert cut.body == reset.body == BODY[: after or 0]
    assert (cut.status, reset.status) == ((200, 200) if after is not None else (0, 0))
    assert cut.end == ("short" if after != SIZE else "whole")
    assert reset.end == ("reset" if after != SIZE else "whole")


def test_a_cut_upload_leaves_what_came_before(registry: StrictRegistry, proxy: StartProxy) -> None:
    cutting = proxy(registry, Rule("PATCH", "", faults.CutUpload(5000), nth=1))
    location = registry.request("POST", "/v2/a/b/blobs/uploads/").headers["Location"]
    with pytest.raises(requests.ConnectionError):
        requests.patch(cutting.url + location, data=BODY)
    deadline = time.monotonic() + 5
    while registry.request("GET", location).headers["Range"] != "0-4999":
        assert time.monotonic() < deadline


def test_lengths_lie_or_are_absent(got: Callable[..., Got]) -> None:
    long, short = got(faults.WrongLength(+7)), got(faults.WrongLength(-7))
    assert (long.headers["Content-Length"], long.body, long.end) == (f"{SIZE + 7}", BODY, "short")
    assert (short.headers["Content-Length"], short.body) == (f"{SIZE - 7}", BODY[:-7])
    absent, less = got(faults.NoLength()), got(faults.NoLength(9))
    assert ("Content-Length" in absent.headers, absent.body, absent.end) == (False, BODY, "whole")
    assert (less.body, less.end) == (BODY[:9], "whole")  # nothing tells the client
    chunked = got(faults.Chunked())
    assert (chunked.headers["Transfer-Encoding"], chunked.body) == ("chunked", BODY)


def test_flip_changes_one_byte(got: Callable[..., Got]) -> None:
    body = got(faults.Flip(5000)).body
    assert len(body) == SIZE
    assert [i for i in range(SIZE) if body[i] != BODY[i]] == [5000]


def test_drip_and_stall_take_their_time(got: Callable[..., Got]) -> None:
    def timed(action: Action) -> float:
        start = time.monotonic()
        assert got(action).body == BODY
        return time.monotonic() - start

    assert timed(faults.Drip(piece_bytes=100, pause_s=0.02, after_bytes=SIZE - 500)) >= 0.07
    for when in ("request", "reply", 0, 100):
        assert timed(faults.Stall(0.1, when)) >= 0.1


def test_a_stall_ends_with_the_proxy(registry: StrictRegistry, proxy: StartProxy) -> None:
    stalled = proxy(registry, Rule("GET", "", faults.Stall()))
    with pytest.raises(requests.ReadTimeout):
        requests.get(stalled.url + "/v2/", timeout=0.1)


def test_headers_and_status_are_changed(got: Callable[..., Got]) -> None:
    assert (
        "Docker-Content-Digest" not in got(faults.SetHeader("docker-content-digest", None)).headers
    )
    changed = got(faults.SetHeader("Content-Type", "text/html"))
    assert (changed.headers["Content-Type"], changed.body) == ("text/html", BODY)
    assert got(faults.SetStatus(203)).status == 203


def test_ranges_are_ignored_or_wrong(got: Callable[..., Got]) -> None:
    asked = {"Range": "bytes=100-199"}
    ignored = got(faults.IgnoreRange(), **asked)
    assert (ignored.status, ignored.body) == (200, BODY)
    lying = got(faults.WrongContentRange(f"bytes 0-99/{SIZE}"), **asked)
    assert (lying.status, lying.body) == (206, BODY[100:200])
    assert lying.headers["Content-Range"] == f"bytes 0-99/{SIZE}"
    other = got(faults.OtherRange(50), **asked)
    assert other.headers["Content-Range"] == f"bytes 150-199/{SIZE}"
    assert other.body == BODY[150:200]


def test_gzip_and_endless_bodies(got: Callable[..., Got]) -> None:
    zipped = got(faults.Gzip())
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == BODY
    for framing in ("chunked", "close", "length"):
        endless = got(faults.Endless(framing))
        assert (endless.end, endless.body[: SIZE + 1]) == ("too long", BODY + b"\0")


def test_a_call_comes_before_or_after_the_upstream(
    registry: StrictRegistry, proxy: StartProxy, blob: str
) -> None:
    digest = blob.rpartition("/")[2]

    def delete(_: object) -> None:
        registry.delete_blob("a/b", digest)

    late = proxy(registry, Rule("HEAD", "/blobs/", faults.Call(delete, answered=True), nth=1))
    assert requests.head(late.url + blob).status_code == 200
    assert requests.head(late.url + blob).status_code == 404
    registry.put_blob("a/b", BODY)
    early = proxy(registry, Rule("GET", "/blobs/", faults.Call(delete)))
    assert requests.get(early.url + blob).status_code == 404


def test_actions_of_several_rules_add_up(
    registry: StrictRegistry, proxy: StartProxy, blob: str
) -> None:
    both = proxy(
        registry, Rule("GET", "", faults.Flip(0)), Rule("GET", "", faults.NoLength(after_bytes=2))
    )
    assert Got(both, blob).body == b"\x01\x01"


def test_large_bodies_pass_both_ways(tmp_path: Path, proxy: StartProxy) -> None:
    data = bytes(20 << 20)
    with run_registry(tmp_path) as registry:
        through = Registry(proxy(registry).host, "http", tmp_path)
        digest = through.put_blob("a/b", data)
        assert through.get_blob("a/b", digest) == data


def test_the_canary_remembers_secrets_in_every_form(canary: StartCanary) -> None:
    challenge = Respond(401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/token"'})
    bird = canary(challenge)
    assert requests.get(f"{bird.url}/v2/").status_code == 401
    assert not bird.saw("s3cret")
    requests.get(bird.url, auth=("ada", "s3cret"))
    requests.post(bird.url, data={"password": "p w"})
    requests.get(f"{bird.url}/?token=tea%2Fpot")
    assert bird.saw("s3cret")
    assert bird.saw("tea/pot")
    assert bird.saw("p+w")
    assert [visit.method for visit in bird.visits] == ["GET", "GET", "POST", "GET"]


def test_the_canary_answers_by_script(canary: StartCanary) -> None:
    def page(visit: Visit) -> Respond:
        number = int(re.findall(r"\d+$", visit.path)[0])
        link = f'</tags?n={number + 1}>; rel="next"'
        return Respond(200, {"Link": link}, json.dumps({"tags": [str(number)]}).encode())

    bird = canary(page)
    assert requests.get(f"{bird.url}/tags?n=7").links["next"]["url"] == "/tags?n=8"
