"""load --route alias: dockerd pulls from a layout here, by the original names and digests.

It is the one way in which an unmodified, running Docker learns a digest that no archive can tell
it. What has to be changed on the machine is written to a journal first and put back in the end,
or by `undo` after a crash.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from ocimirror.engines.docker.borrowed import Borrowed, Change
from ocimirror.engines.docker.engine import Docker
from ocimirror.engines.docker.process import HOSTS_FILE, LocalDockerd, running_dockerds
from ocimirror.engines.docker.redirect import (
    CERTIFICATES,
    JOURNAL,
    Way,
    certificate_change,
    hosts_change,
    mirror_change,
    mirrors_in,
    mirrors_in_force,
    proxy_in_the_way,
    refuse_two_in_one_place,
    split,
    way_to,
)
from ocimirror.engines.docker.socket import Reader, dockerd_behind, reload_recorded, socket_of
from ocimirror.engines.engine import Engine
from ocimirror.engines.wanted import Wanted
from ocimirror.errors import EngineFailed, EngineUnavailable, OciMirrorError, UsageError
from ocimirror.model.reference import DOCKER_HUB
from ocimirror.serve.certificates import generate_certificate
from ocimirror.serve.server import Options, Server
from ocimirror.serve.shelf import Shelf

# (Go keeps what it read of the hosts file for five seconds.)
_PATIENCE_S = 8.0
_RELOAD_S = 10.0
_UNSEEN_RELOAD_S = 1.0
_LOOPBACK = "127.0.0.1"
# (dockerd asks loopback registries over HTTP too.)
_PLAIN_PORT = 80


class Alias:
    """A context in which dockerd finds the images of a layout under their original names.

    Args:
        docker: whose dockerd runs on this machine.
        layout: the directory.
        registries: the registries of the images.

    Raises:
        UsageError: dockerd cannot be brought here: another machine, a proxy, a port in use.
        Locked: another run has the journal.
    """

    def __init__(self, docker: Docker, layout: str, registries: Iterable[str]) -> None:
        self._docker = docker
        self._shelf = Shelf([layout])
        path = socket_of(docker.client)
        self._dockerd = dockerd_behind(path)
        self._reader = Reader.of(path, self._dockerd)
        self._ways: dict[str, Way] = {registry: way_to(registry) for registry in registries}
        refuse_two_in_one_place(self._ways)
        self._reached: set[str] = set()
        self._stack = contextlib.ExitStack()
        for registry in self._ways:
            proxy = proxy_in_the_way(docker.info, registry)
            if proxy:
                raise UsageError(
                    f"dockerd would ask its proxy {proxy} for {registry}",
                    advice=f"Add {registry} to the NO_PROXY of dockerd.",
                )

    def check(self) -> None:
        """Find out what would be refused, and change nothing; for a dry run.

        Raises:
            UsageError: as entering it.
        """
        if DOCKER_HUB in self._ways:
            mirror_change(self._dockerd, f"http://{_LOOPBACK}")
        ports = self._ports_by_name()
        if ports:
            hosts_change({name: _free_address(list(found)) for name, found in ports.items()})
        for registry, way in self._ways.items():
            host, port = split(registry, _PLAIN_PORT)
            host = _LOOPBACK if host == "localhost" else host
            if way == "loopback" and not _is_free(host, port):
                raise UsageError(f"cannot listen on {host}:{port}: in use")

    def __enter__(self) -> Alias:
        with self._stack:
            borrowed = Borrowed(journal_of(self._dockerd))
            self._stack.callback(borrowed.close)
            # (What a killed run left, maybe with another dockerd.)
            reader = Reader.parse(borrowed.reader)
            borrowed.undo(partial(reload, reader=reader, docker=self._docker))
            changes = [*self._mirror(), *self._aliases()]
            self._loopbacks()
            self._stack.callback(self._put_back, borrowed)
            borrowed.apply(changes, self._reader.document())
            if DOCKER_HUB in self._ways:
                self._reload(self._dockerd.config_file)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _put_back(self, borrowed: Borrowed) -> None:
        left = borrowed.undo(self._reload)
        if left:
            raise EngineFailed(f"not put back: {'; '.join(left)}")

    def _mirror(self) -> Iterable[Change]:
        if DOCKER_HUB in self._ways:
            server = self._served(Options(_LOOPBACK, only=DOCKER_HUB))
            yield mirror_change(self._dockerd, server.url)

    def _ports_by_name(self) -> dict[str, dict[int, str]]:
        """Return the registry at each port of each name that is to lead here.

        Raises:
            UsageError: dockerd does not read the files of this process.
        """
        found: dict[str, dict[int, str]] = {}
        for registry, way in self._ways.items():
            if way == "alias":
                name, port = split(registry)
                found.setdefault(name, {})[port] = registry
        for path in (HOSTS_FILE, _present(CERTIFICATES)) if found else ():
            if not self._dockerd.sees(path):
                raise UsageError(
                    f"dockerd has another {path} than this process",
                    advice=f"Enter its namespace: nsenter --mount --target {self._dockerd.pid} …",
                )
        return found

    def _aliases(self) -> Iterable[Change]:
        ports = self._ports_by_name()
        if not ports:
            return
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ocimirror-"))
        files = generate_certificate(directory, list(ports))
        addresses = {name: _free_address(list(found)) for name, found in ports.items()}
        for name, found in ports.items():
            for port, registry in found.items():
                self._served(Options(addresses[name], port, files, only=registry))
        yield hosts_change(addresses)
        with open(files.ca, "rb") as file:
            ca_pem = file.read(1 << 20)
        for found in ports.values():
            for registry in found.values():
                yield certificate_change(registry, ca_pem)

    def _loopbacks(self) -> None:
        for registry, way in self._ways.items():
            if way == "loopback":
                host, port = split(registry, _PLAIN_PORT)
                host = _LOOPBACK if host == "localhost" else host
                self._served(Options(host, port, only=registry))

    def _served(self, options: Options) -> Server:
        return self._stack.enter_context(Server(self._shelf, options))

    def _reload(self, path: str) -> None:
        """Make dockerd read its file again, and wait until what it says is in force."""
        reload(path, self._reader, self._docker)

    def pull(self, wanted: Wanted, platform: str = "") -> list[str]:
        """Have dockerd pull an image by its tag, by its digest and by its manifest's.

        Raises:
            EngineFailed: it did not find it here.
        """
        image = self._docker.chosen(wanted)
        names = [wanted.name, wanted.by_digest(wanted.root.digest)]
        names.append(wanted.by_digest(image.manifest.digest))
        options = self._docker.pull_options(image, platform)
        registry = wanted.reference.registry
        for name in dict.fromkeys(names):
            patience_s = 0 if registry in self._reached else _PATIENCE_S
            self._pull(["pull", "--quiet", *options, name], patience_s)
            self._reached.add(registry)
        return []

    def _pull(self, arguments: Sequence[str], patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._docker.client.run(*arguments)
                return
            except (EngineFailed, EngineUnavailable):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)


def journal_of(dockerd: LocalDockerd | None) -> str:
    """Return where the journal is: beside what dockerd is configured with."""
    directory = os.path.dirname(dockerd.config_file) if dockerd else "/etc/docker"
    return os.path.join(directory, JOURNAL)


def reload(path: str, reader: Reader | None, docker: Docker | None) -> None:
    """Make the one dockerd that was made to read a file read it again.

    If docker can be asked, and is that one, this returns once the mirrors of the file are in force.

    Raises:
        EngineUnavailable: it has ended.
        EngineFailed: it did not take the file, or which one it is cannot be told.
    """
    dockerd = reload_recorded(reader, path)
    if docker is None or _behind(docker) != dockerd:
        time.sleep(_UNSEEN_RELOAD_S)
        return
    deadline = time.monotonic() + _RELOAD_S
    while mirrors_in_force(docker.current_info()) != mirrors_in(path):
        if time.monotonic() > deadline:
            raise EngineFailed(f"dockerd did not take {path} into force in {_RELOAD_S:.0f} s")
        time.sleep(0.05)


def _behind(docker: Docker) -> LocalDockerd | None:
    """Return the dockerd that docker talks to, None if that cannot be told from here."""
    try:
        return dockerd_behind(socket_of(docker.unstopped()))
    except OciMirrorError:
        return None


@dataclass(frozen=True, slots=True)
class Undone:
    """What `undo` found.

    Attributes:
        looked: where a journal would be.
        found: whether there was one, of a run that ended before its time.
        left: what could not be put back, and why.
    """

    looked: Sequence[str]
    found: bool
    left: Sequence[str]


def undo(open_docker: Callable[[], Engine]) -> Undone:
    """Put back what a killed run left changed.

    Args:
        open_docker: asks docker; where it does not answer, files are put back all the same.

    Raises:
        Locked: a run is at work, and puts everything back itself.
    """
    try:
        engine: Engine | None = open_docker()
    except EngineUnavailable:
        engine = None
    docker = engine if isinstance(engine, Docker) else None
    behind = _behind(docker) if docker is not None else None
    dockerds = running_dockerds() if behind is None else [behind]
    looked = sorted({journal_of(dockerd) for dockerd in [*dockerds, None]})
    found, left = False, []
    for journal in filter(os.path.exists, looked):
        borrowed = Borrowed(journal)
        try:
            if borrowed.changes:
                found = True
                reader = Reader.parse(borrowed.reader)
                left += borrowed.undo(partial(reload, reader=reader, docker=docker))
        finally:
            borrowed.close()
    return Undone(looked, found, left)


def _present(path: str) -> str:
    """Return a directory, or the one above it that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _free_address(ports: Sequence[int]) -> str:
    """Return a loopback address where these ports are free: the usual one, else any other."""
    for attempt in range(8):
        address = _LOOPBACK if attempt == 0 else f"127.{_byte()}.{_byte()}.{_byte()}"
        if all(_is_free(address, port) for port in ports):
            return address
    raise UsageError(
        f"no loopback address has port {' and '.join(map(str, ports))} free",
        advice="Something listens on all addresses: `ss -ltnp` shows what.",
    )


def _byte() -> int:
    return 2 + secrets.randbelow(250)


def _is_free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise UsageError(f"no permission to listen on port {port}: run as root") from error
            return False
    return True
