"""What changes on the disk is served at once; what is torn is not."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serve.conftest import Command, Serve, eventually
from tests.support.command import ocimirror
from tests.support.images import (
    blob_path,
    docker_schema2,
    multi,
    noise,
    single,
    write_layout,
)

NAME = "registry.example.com/app"
ONE, TWO = multi(), single()


def test_a_new_tag_is_served_by_the_very_next_request(tmp_path: Path, serve: Serve) -> None:
    layout = write_layout(tmp_path / "layout", {f"{NAME}:v1": ONE})
    client = serve(layout)
    for number in range(2, 12):
        write_layout(layout, {f"{NAME}:v1": ONE, f"{NAME}:v{number}": TWO})
        assert client.get_manifest("app", f"v{number}") == TWO.raw


def test_a_tag_that_moved_is_served_by_the_very_next_request(tmp_path: Path, serve: Serve) -> None:
    layout = write_layout(tmp_path / "layout", {f"{NAME}:v1": ONE})
    client = serve(layout)
    for graph in (TWO, ONE, docker_schema2(), TWO):
        write_layout(layout, {f"{NAME}:v1": graph})
        assert client.get_manifest("app", "v1") == graph.raw


def test_a_tag_that_is_gone_is_not_served_any_more(tmp_path: Path, serve: Serve) -> None:
    layout = write_layout(tmp_path / "layout", {f"{NAME}:v1": ONE, f"{NAME}:v2": TWO})
    client = serve(layout)
    assert ocimirror("remove", layout, f"{NAME}:v2").code == 0
    assert client.tags("app") == ["v1"]
    assert not client.has_manifest("app", "v2")


def test_a_new_layout_in_a_tree_is_served_by_the_very_next_request(
    tmp_path: Path, serve: Serve
) -> None:
    tree = tmp_path / "tree"
    write_layout(tree / "one", {f"{NAME}:v1": ONE})
    client = serve(tree)
    write_layout(tree / "more/two", {"quay.io/two:v1": TWO})
    assert client.get_manifest("two", "v1") == TWO.raw
    shutil.rmtree(tree / "one")
    assert eventually(lambda: not client.has_manifest("app", "v1"))


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b"\0" * 500, None])
def test_a_torn_index_leaves_the_old_state_in_force(
    tmp_path: Path, serve_command: Callable[..., Command], torn: bytes | None
) -> None:
    layout = write_layout(tmp_path / "layout", {f"{NAME}:v1": ONE})
    command = serve_command(layout)
    client = command.client
    index = layout / "index.json"
    whole = index.read_bytes()
    if torn is None:
        index.unlink()
    else:
        index.write_bytes(torn)
    for _ in range(5):
        assert client.get_manifest("app", "v1") == ONE.raw
        assert client.tags("app") == ["v1"]
        assert client.request("GET", f"/v2/app/referrers/{ONE.root}").status == 200
        time.sleep(0.1)
    said = [line for line in command.said().splitlines() if "is served" in line]
    assert len(said) == 1, said
    index.write_bytes(whole.replace(b"app:v1", b"app:v2"))
    assert client.get_manifest("app", "v2") == ONE.raw


def test_no_request_is_lost_while_the_index_is_replaced(tmp_path: Path, serve: Serve) -> None:
    images = {f"{NAME}:v1": ONE, f"{NAME}:moving": ONE, f"{NAME}:other": TWO}
    layout = write_layout(tmp_path / "layout", images)
    client = serve(layout)
    stop = threading.Event()
    wrong: list[object] = []
    count = 0

    def read() -> None:
        nonlocal count
        digest, content = max(ONE.blobs.items(), key=lambda item: len(item[1]))
        while not stop.is_set():
            seen = (
                client.get_manifest("app", "v1") == ONE.raw,
                client.get_manifest("app", "moving") in (ONE.raw, TWO.raw),
                client.get_blob("app", digest) == content,
            )
            count += 1
            if not all(seen):
                wrong.append(seen)

    def safe_read() -> None:
        try:
            read()
        except Exception as error:
            wrong.append(error)

    readers = [threading.Thread(target=safe_read) for _ in range(8)]
    for reader in readers:
        reader.start()
    for number in range(60):
        moving = TWO if number % 2 else ONE
        images = {f"{NAME}:v1": ONE, f"{NAME}:moving": moving, f"{NAME}:n{number}": TWO}
        write_layout(tmp_path / "new", images)
        os.replace(tmp_path / "new/index.json", layout / "index.json")
        time.sleep(0.02)
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert count > 50


def test_a_download_in_flight_survives_the_replacement_of_its_layout(
    tmp_path: Path, serve: Serve
) -> None:
    layout = write_layout(tmp_path / "layout", {f"{NAME}:v1": ONE})
    content = noise("large", 40 << 20)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blob_path(layout, digest).write_bytes(content)
    client = serve(layout)
    host, _, port = client.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        asked = f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connection.sendall(asked.encode())
        received = connection.recv(65536)
        layout.rename(tmp_path / "old")
        write_layout(layout, {f"{NAME}:v2": TWO})
        shutil.rmtree(tmp_path / "old")
        assert client.get_manifest("app", "v2") == TWO.raw
        assert not client.has_blob("app", digest)
        while chunk := connection.recv(1 << 20):
            received += chunk
    assert received.partition(b"\r\n\r\n")[2] == content


def test_gc_works_while_a_layout_is_served(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    layout = write_layout(tmp_path / "layout", {f"{NAME}:v1": ONE})
    assert ocimirror("gc", layout).code == 0  # (from now on there is a lock to be held)
    command = serve_command(layout)
    assert command.client.get_manifest("app", "v1") == ONE.raw
    assert ocimirror("gc", layout).code == 0
    assert command.client.get_manifest("app", "v1") == ONE.raw


def test_no_file_stays_open_for_a_layout(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    numbers = range(40)
    for number in numbers:
        write_layout(tmp_path / f"tree/app{number}", {f"quay.io/app{number}:v1": TWO})
    command = serve_command(tmp_path / "tree")
    opened = Path(f"/proc/{command.process.pid}/fd")
    for number in numbers:
        assert command.client.get_manifest(f"app{number}", "v1") == TWO.raw
        for digest in TWO.blobs:
            assert command.client.has_blob(f"app{number}", digest)
    assert eventually(lambda: len(list(opened.iterdir())) < len(numbers))


def test_a_hangup_signal_looks_again_and_ends_nothing(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    layout = write_layout(tmp_path / "layout", {f"{NAME}:v1": ONE})
    command = serve_command(layout)
    os.kill(command.process.pid, signal.SIGHUP)
    write_layout(layout, {f"{NAME}:v2": TWO})
    assert command.client.get_manifest("app", "v2") == TWO.raw
    assert command.stop()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_finished_before_the_end(
    tmp_path: Path, serve_command: Callable[..., Command], number: int
) -> None:
    layout = write_layout(tmp_path / "layout", {f"{NAME}:v1": ONE})
    content = noise("large", 40 << 20)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blob_path(layout, digest).write_bytes(content)
    command = serve_command(layout)
    host, _, port = command.client.host.partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as idle,
        socket.create_connection((host, int(port)), timeout=20) as connection,
    ):
        connection.sendall(f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = connection.recv(65536)
        os.kill(command.process.pid, number)
        time.sleep(0.3)
        with pytest.raises(OSError):
            socket.create_connection((host, int(port)), timeout=5)
        while chunk := connection.recv(1 << 20):
            received += chunk
        assert received.partition(b"\r\n\r\n")[2] == content
        assert idle.recv(1) == b""
    assert command.process.wait(10) == 0


def test_a_reader_that_takes_nothing_does_not_keep_the_server_from_ending(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    layout = write_layout(tmp_path / "layout", {f"{NAME}:v1": ONE})
    content = noise("large", 40 << 20)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blob_path(layout, digest).write_bytes(content)
    command = serve_command(layout)
    host, _, port = command.client.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connection.recv(1024)
        assert command.stop(signal.SIGTERM) == (0, "")


def test_clients_that_hang_up_leave_nothing_in_the_log(
    tmp_path: Path, serve_command: Callable[..., Command]
) -> None:
    command = serve_command(write_layout(tmp_path / "layout", {f"{NAME}:v1": ONE}))
    host, _, port = command.client.host.partition(":")
    for digest in [*ONE.blobs, *ONE.manifests] * 5:
        kind = "blobs" if digest in ONE.blobs else "manifests"
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(f"GET /v2/app/{kind}/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            connection.shutdown(socket.SHUT_WR)
    assert command.client.request("GET", "/v2/").status == 200
    assert command.stop() == (0, "")
