"""The real docker-registry of Debian, started for tests on a free loopback port.

It has no referrers API, ignores `n` and `last` on tags/list, and answers 404 to an OCI manifest
asked for without its media type in Accept: that is what makes it worth testing against.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.certificates import Certificates, write_certificates
from tests.support.programs import require_program
from tests.support.witness import Registry

if TYPE_CHECKING:
    from tests.support.tokenserver import TokenServer

READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
# Below the range the kernel takes ports from by itself, so that nobody takes one between our
# look and the registry's bind.
PORTS = range(20000, 32000)

_running: set[subprocess.Popen[bytes]] = set()


@contextmanager
def run_docker_registry(
    directory: Path | None = None,
    *,
    certificates: Certificates | None = None,
    tls: bool = False,
    htpasswd: tuple[str, str] | None = None,
    token: TokenServer | None = None,
    token_user: tuple[str, str] | None = None,
    access_log: bool = False,
    port: int | None = None,
    options: dict[str, Any] | None = None,
) -> Iterator[Registry]:
    """Run docker-registry until the block ends; skip the test where it is not installed.

    Args:
        directory: Where it keeps its files; a temporary directory when None. A directory and a
            port used before give the same registry again (but its open uploads are lost).
        certificates: Serve TLS with these; `tls=True` makes a CA and a certificate.
        htpasswd: The one user and password that it lets in.
        token: Ask for tokens from this server; `token_user` is then what the witness uses.
        access_log: Write `Registry.access_log`; off by default because it costs time.
        options: More of its configuration, merged over ours one level deep.
    """
    program = require_program("docker-registry", "docker-registry")
    if htpasswd is not None:
        require_program("htpasswd", "apache2-utils")
    made = directory is None
    directory = directory or Path(tempfile.mkdtemp(prefix="docker-registry-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        if tls and certificates is None:
            certificates = write_certificates(directory / "tls")
        configuration = _configuration(directory, certificates, htpasswd, token, access_log)
        for name, value in (options or {}).items():
            old = configuration.get(name)
            configuration[name] = {**old, **value} if isinstance(old, dict) else value
        process, host = _start(program, directory, configuration, port)
        username, password = htpasswd or token_user or (None, None)
        try:
            yield Registry(
                host=host,
                scheme="https" if certificates else "http",
                directory=directory,
                ca_file=certificates.ca_file if certificates else None,
                username=username,
                password=password,
                access_log=directory / "access.log" if access_log else None,
                pid=process.pid,
            )
        finally:
            stop(process)
    finally:
        if made:
            shutil.rmtree(directory, ignore_errors=True)


def _configuration(
    directory: Path,
    certificates: Certificates | None,
    htpasswd: tuple[str, str] | None,
    token: TokenServer | None,
    access_log: bool,
) -> dict[str, Any]:
    http: dict[str, Any] = {}
    if certificates is not None:
        http["tls"] = {
            "certificate": str(certificates.certificate_file),
            "key": str(certificates.key_file),
        }
    configuration: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": not access_log}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "data")},
            "delete": {"enabled": True},
        },
        "http": http,
    }
    if htpasswd is not None:
        user, password = htpasswd
        line = subprocess.run(
            ["htpasswd", "-Bbn", user, password], check=True, capture_output=True
        ).stdout
        (directory / "htpasswd").write_bytes(line)
        configuration["auth"] = {"htpasswd": {"realm": "r", "path": str(directory / "htpasswd")}}
    if token is not None:
        bundle = directory / "token.pem"
        bundle.write_bytes(token.certificate_pem)
        configuration["auth"] = {
            "token": {
                "realm": token.realm,
                "service": token.service,
                "issuer": token.issuer,
                "rootcertbundle": str(bundle),
            }
        }
    return configuration


def _start(
    program: str, directory: Path, configuration: dict[str, Any], port: int | None
) -> tuple[subprocess.Popen[bytes], str]:
    """Start the registry; on a port that somebody took meanwhile, try another."""
    for attempt in range(3):
        chosen = port or free_port()
        configuration["http"]["addr"] = host = f"127.0.0.1:{chosen}"
        file = directory / "config.yml"
        file.write_text(json.dumps(configuration))  # JSON is YAML
        process = launch([program, "serve", str(file)], directory, chosen)
        if process is not None:
            return process, host
        if port is not None or attempt == 2:
            break
    errors = (directory / "error.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"docker-registry did not start on {host}: {errors}")


def launch(command: list[str], directory: Path, port: int) -> subprocess.Popen[bytes] | None:
    """Start a server, its output in access.log and error.log; None where it ends at once."""
    setpriv = shutil.which("setpriv")
    if setpriv and threading.current_thread() is threading.main_thread():
        # Even where atexit does not come to it, the server ends with the interpreter.
        command = [setpriv, "--pdeathsig", "KILL", *command]
    with (
        (directory / "access.log").open("ab") as out,
        (directory / "error.log").open("ab") as err,
    ):
        process = subprocess.Popen(
            command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env={"PATH": os.defpath}
        )
    _running.add(process)
    if _wait_until_ready(process, port):
        return process
    stop(process)
    return None


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the port accepts connections; False when the process ended instead."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.005)
            continue
        time.sleep(0.005)  # a process that lost the port to another needs a moment to end
        return process.poll() is None
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server that was launched."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _running.discard(process)


def free_port() -> int:
    """Return a loopback port that nobody listens on just now."""
    for port in random.SystemRandom().sample(PORTS, 200):  # not the generator that tests seed
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port found")


@atexit.register
def _stop_all() -> None:
    for process in list(_running):
        process.kill()
