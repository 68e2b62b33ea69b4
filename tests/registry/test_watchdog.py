"""Every exchange ends in time, whatever a peer keeps sending below the body."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading

import pytest

from tests.support import images
from tests.support.command import PROGRAM, environment, ocimirror
from tests.support.exchange import Rule
from tests.support.faults import Stall
from tests.support.rawpeer import answer, forever, raw_peer

QUICK = ("--timeout", "1", "--retries", "0", "--no-progress")
DRIPS = {
    "status line": (b"HT", b"T", 0.1),
    "header field": (b"HTTP/1.1 200 OK\r\nX-A: ", b"a", 0.1),
    "many header fields": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.1),
    "slow 100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.1),
    "fast 100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
    "fast 103": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0.0),
    "chunk size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"e", 0.1),
    "fast trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        b"X-T: y\r\n",
        0.0,
    ),
}


def challenge(url: str) -> str:
    return f'WWW-Authenticate: Bearer realm="{url}",service="s"\r\n'


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
@pytest.mark.parametrize(
    "command",
    [("list", "docker://{}/a"), ("inspect", "docker://{}/a:t")],
    ids=["pages", "manifest"],
)
def test_a_drip_below_the_body_is_an_unavailable_registry(drip, command) -> None:
    with raw_peer(lambda *_: forever(*drip)) as host:
        done = ocimirror(*(word.format(host) for word in command), *QUICK, "--json", timeout_s=60)
    assert done.code == 3, done
    assert json.loads(done.stdout)["error"]["code"] == "registry_unavailable"


def test_a_token_service_that_drips_is_unavailable() -> None:
    def script(line, _):
        if "/token" in line:
            return forever(b"HTTP/1.1 200 OK\r\nX-A: ", b"a", 0.1)
        return answer(b"", challenge("/token"), "401 Unauthorized")

    with raw_peer(script) as host:
        done = ocimirror("list", f"docker://{host}/a", *QUICK, timeout_s=60)
    assert done.code == 3
    assert "token service" in done.stderr


def test_a_proxy_that_drips_its_answer_to_connect_is_left() -> None:
    with raw_peer(lambda *_: forever(b"HTTP/1.1 200 OK\r\nX-A: ", b"a", 0.1)) as proxy:
        options = ("--proxy", f"http://{proxy}")
        done = ocimirror("list", "docker://r.example.com/a", *options, *QUICK, timeout_s=60)
    assert done.code == 3


def test_a_redirect_that_leads_to_a_drip_is_left() -> None:
    def script(line, _):
        if "/drip" in line:
            return forever(*DRIPS["header field"])
        return answer(b"", "Location: /drip\r\n", "307 Temporary Redirect")

    with raw_peer(script) as host:
        done = ocimirror("list", f"docker://{host}/a", *QUICK)
    assert done.code == 3, done


class _Drips:
    """Stands in for a TLS context: its handshake never ends."""

    def wrap_socket(self, connection, **_):
        for piece in forever(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb", b"\x03", 0.1):
            connection.sendall(piece)


def test_a_handshake_that_drips_is_left() -> None:
    with raw_peer(lambda *_: answer(), _Drips()) as host:
        done = ocimirror("list", f"docker://{host}/a", *QUICK)
    assert done.code == 3, done
    assert "does not speak TLS" not in done.stderr


def test_interim_answers_of_any_kind_are_passed_over() -> None:
    before = (
        b"HTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </s>; rel=preload\r\n\r\n"
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n"
    )
    tags = b'{"name":"a","tags":["t"]}'
    with raw_peer(lambda *_: answer(tags, before=before)) as host:
        done = ocimirror("list", f"docker://{host}/a", *QUICK)
    assert done.code == 0, done
    assert done.stdout.split() == ["t"]


def test_a_registry_that_thinks_long_about_the_end_of_an_upload_is_waited_for(
    registry, proxy, repository, tmp_path
) -> None:
    images.push(registry, repository, "v1", images.single())
    assert ocimirror("pull", f"{registry.host}/{repository}:v1", tmp_path / "l").code == 0
    front = proxy(registry, Rule("PUT", "/blobs/uploads/", Stall(2.5)))
    target = f"docker://{front.host}/{repository}-copy"
    name = f"{registry.host}/{repository}:v1"
    done = ocimirror("copy", f"oci:{tmp_path / 'l'}:{name}", target + ":v1", *QUICK)
    assert done.code == 0, done


def test_a_signal_ends_an_exchange_that_drips(tmp_path) -> None:
    asked = threading.Event()

    def script(*_):
        asked.set()
        return forever(*DRIPS["header field"])

    with raw_peer(script) as host:
        run = subprocess.Popen(
            [PROGRAM, "pull", f"{host}/a:t", str(tmp_path / "l"), "--no-progress"],
            env=environment(),
            stderr=subprocess.PIPE,
        )
        assert asked.wait(60)
        os.kill(run.pid, signal.SIGTERM)
        run.communicate(timeout=30)  # (the watchdog would end it after a minute)
    assert run.returncode == 143


@pytest.mark.parametrize("quiet", [False, True])
def test_waiting_for_a_limit_is_told_unless_quiet(quiet) -> None:
    asked: list[str] = []

    def script(line, _):
        asked.append(line)
        if "tags" in line and len(asked) < 3:
            return answer(b"", "Retry-After: 1\r\n", "429 Too Many Requests")
        return answer(b'{"name":"a","tags":["t"]}')

    with raw_peer(script) as host:
        options = ("--retries", "2", *(["-q"] if quiet else []))
        done = ocimirror("list", f"docker://{host}/a", *options)
    assert done.code == 0, done
    assert ("429" in done.stderr and "trying again in" in done.stderr) is not quiet
