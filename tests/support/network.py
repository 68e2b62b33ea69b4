"""A network of its own: any address on its loopback, and names that a real resolver looks up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import cycle
from pathlib import Path

from tests.support.command import PROGRAM, Result, environment
from tests.support.engines import require_root
from tests.support.programs import require_program

_NEWNET = 0x40000000
_TYPES = {4: 1, 6: 28}  # A and AAAA (RFC 1035, RFC 3596)


class Network:
    """A network and mount namespace; see `private_network`.

    Attributes:
        asked: the names that were looked up, in order.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.asked: list[str] = []

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread make its sockets in there; they stay there after the block."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self._pid}/ns/net") as theirs:
            assert libc.setns(theirs.fileno(), _NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(ours.fileno(), _NEWNET) == 0

    def ocimirror(
        self, *arguments: str | Path, env: dict[str, str] | None = None, timeout_s: float = 60
    ) -> Result:
        """Run the command in there to its end."""
        done = subprocess.run(
            ["nsenter", f"--target={self._pid}", "--net", "--mount", PROGRAM, *arguments],
            env=env or environment(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr.decode())


@contextmanager
def private_network(
    directory: Path, addresses: Sequence[str], names: Mapping[str, Sequence[Sequence[str]]]
) -> Iterator[Network]:
    """Make a network until the block ends; skipped, loudly, without root.

    Args:
        addresses: those that its loopback has, besides its own.
        names: for each name the addresses of the first answer, of the next one, and so on, again
            from the first after the last.
    """
    require_root()
    ip = require_program("ip", "iproute2")
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    lines = [f"{ip} link set lo up", f"mount --bind {directory}/resolv.conf /etc/resolv.conf"]
    for address in map(ip_address, addresses):
        lines.append(f"{ip} addr add {address}/{address.max_prefixlen} dev lo noprefixroute")
    script = " && ".join([*lines, "echo ready", "exec cat"])
    with subprocess.Popen(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        network = Network(holder.pid)
        with network.entered():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
        stopping = threading.Event()
        resolver = threading.Thread(target=_resolve, args=(server, names, network.asked, stopping))
        resolver.start()
        try:
            yield network
        finally:
            stopping.set()
            resolver.join()
            server.close()
            holder.stdin.close()


def _resolve(
    server: socket.socket,
    names: Mapping[str, Sequence[Sequence[str]]],
    asked: list[str],
    stopping: threading.Event,
) -> None:
    server.settimeout(0.2)
    answers = {(name, kind): cycle(names[name]) for name in names for kind in _TYPES.values()}
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            request, client = server.recvfrom(4096)
            labels, at = [], 12
            while length := request[at]:
                labels.append(request[at + 1 : at + 1 + length].decode("ascii"))
                at += 1 + length
            (kind,) = struct.unpack(">H", request[at + 1 : at + 3])
            name = ".".join(labels)
            asked.append(name)
            found = [ip_address(each) for each in next(answers.get((name, kind), cycle([[]])))]
            records = [
                struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(address.packed)) + address.packed
                for address in found
                if _TYPES[address.version] == kind
            ]
            flags = 0x8180 if name in names else 0x8183  # (no such name)
            head = request[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
            server.sendto(head + request[12 : at + 5] + b"".join(records), client)
