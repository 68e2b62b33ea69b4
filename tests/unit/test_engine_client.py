"""The client of an engine: what its last words mean, and that it can always be stopped."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ocimirror.engines.client import Client, Output
from ocimirror.errors import (
    DamagedEngineStore,
    EngineFailed,
    EngineUnavailable,
    Interrupted,
    NoSpace,
    OciMirrorError,
)
from ocimirror.stores.stream import CHUNK_BYTES

SAID: list[tuple[str, type[OciMirrorError]]] = [
    ("Cannot connect to the Docker daemon at unix:///x. Is it running?", EngineUnavailable),
    ("permission denied while trying to connect to the Docker daemon socket", EngineUnavailable),
    ('ctr: failed to dial "/x": context deadline exceeded', EngineUnavailable),
    ("rpc error: code = Unavailable desc = error reading from server: EOF", EngineUnavailable),
    ("Error response from daemon: open /x/blobs/json: no such file or directory", EngineFailed),
    ("Error response from daemon: dial tcp: connect: connection refused", EngineFailed),
    ("Error: lchown /x: permission denied", EngineFailed),
    ('Error response from daemon: file integrity checksum failed for "a"', DamagedEngineStore),
    ("write /dev/stdout: no space left on device", NoSpace),
    ("Error: writing blob: write /var/tmp/x: no space left on device", NoSpace),
]


@pytest.mark.parametrize(("words", "kind"), SAID)
def test_last_words(words: str, kind: type[OciMirrorError]) -> None:
    client = Client(["sh", "-c", 'echo "$1" >&2; exit 1', "sh", words], "there")
    with pytest.raises(kind) as failed:
        client.ask()
    assert type(failed.value) is kind


def test_what_a_client_logs_of_its_progress_is_no_reason() -> None:
    said = 'time="2026" level=info msg="unpacking"'
    client = Client(
        ["sh", "-c", 'printf "%s\\n" "$1" "no such thing" >&2; exit 1', "sh", said], "x"
    )
    with pytest.raises(EngineFailed, match=r"\(x\): no such thing$"):
        client.ask()


def test_a_client_that_reads_nothing_can_be_stopped() -> None:
    stop = threading.Event()
    client = Client(["sleep", "600"], "there", stop=stop)
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        client.feed(lambda send: send(b"x" * 4_000_000))
    assert time.monotonic() - began < 100


def test_a_client_that_prints_without_end_can_be_stopped() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted), Output(Client(["yes"], "there", stop=stop)) as output:
        while output.read(CHUNK_BYTES):
            pass


def test_a_client_that_ends_early_is_asked_why() -> None:
    client = Client(["sh", "-c", "echo no >&2; exit 3"], "there")
    with pytest.raises(EngineFailed, match="no"):
        client.feed(lambda send: send(b"x" * 4_000_000))


def test_every_byte_arrives(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    pieces = [content[i : i + 70_001] for i in range(0, len(content), 70_001)]

    def write(send: object) -> None:
        for piece in pieces:
            send(piece)  # type: ignore[operator]

    client = Client(["sh", "-c", f"sleep 0.2; cat > {tmp_path}/it"], "there")
    client.feed(write)
    assert (tmp_path / "it").read_bytes() == content
