"""A slow network: a TCP relay that adds half of a round trip in each direction.

`tc netem` would need root, a network namespace and a kernel that has it; this needs none of them.
A connection's first bytes wait for the handshake too. What is under way is bounded, so that one
connection carries at most 16 MiB in each half of a round trip.

    python -m bench.delay TARGET_PORT ROUND_TRIP_MS     prints its port, ends with its stdin
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Queue

CHUNK_BYTES = 256 * 1024
CHUNKS = 64

Parcel = tuple[float, bytes]


@contextmanager
def slow_network(host: str, round_trip_ms: int) -> Iterator[str]:
    """Return `host:port` behind which a registry on loopback is that much farther away."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.delay", host.rpartition(":")[2], str(round_trip_ms)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def main() -> None:
    target, half_s = ("127.0.0.1", int(sys.argv[1])), int(sys.argv[2]) / 2000
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    threading.Thread(target=_serve, args=(listener, target, half_s), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


def _serve(listener: socket.socket, target: tuple[str, int], half_s: float) -> None:
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(target)
        connected_at = time.monotonic() + 2 * half_s
        for source, destination, not_before in (
            (client, server, connected_at),
            (server, client, 0),
        ):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            parcels: Queue[Parcel] = Queue(CHUNKS)
            for work in (
                lambda s=source, p=parcels, n=not_before: _receive(s, p, n, half_s),
                lambda d=destination, p=parcels: _deliver(d, p),
            ):
                threading.Thread(target=work, daemon=True).start()


def _receive(
    source: socket.socket, parcels: Queue[Parcel], not_before: float, half_s: float
) -> None:
    data = b"-"
    while data:
        try:
            data = source.recv(CHUNK_BYTES)
        except OSError:
            data = b""
        parcels.put((max(time.monotonic(), not_before) + half_s, data))


def _deliver(destination: socket.socket, parcels: Queue[Parcel]) -> None:
    data = b"-"
    while data:
        due, data = parcels.get()
        time.sleep(max(0.0, due - time.monotonic()))
        with suppress(OSError):  # whoever went away is told by the other direction
            destination.sendall(data) if data else destination.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
