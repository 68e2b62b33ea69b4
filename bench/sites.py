"""The registries of a run, and the images in them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from bench import content
from bench.delay import slow_network
from bench.measure import say
from tests.support.servers import run_docker_registry
from tests.support.witness import Registry

ROUND_TRIP_MS = 50
QUICK_PART = 8
MIB = content.MIB


class Site(NamedTuple):
    """A registry: `host:port`, its storage, its process, and its CA where it speaks TLS."""

    host: str
    data: Path
    pid: int
    ca_file: Path | None = None


class Image(NamedTuple):
    """What is copied: in `repository` of the source registries, and in an OCI layout."""

    repository: str
    layout: Path
    blobs: dict[str, int]

    @property
    def size_bytes(self) -> int:
        return sum(self.blobs.values())

    @property
    def layers(self) -> list[str]:
        """The digests of what is no small document."""
        return [f"sha256:{name}" for name, size in self.blobs.items() if size > MIB // 4]


@dataclass
class Sites:
    """The source registries, all with the same content, and the images; each made when needed.

    Attributes:
        scratch: a directory that is removed afterwards.
        runs: how often each tool does each piece of work.
        quick: everything an eighth of its size.
        stack: ends the registries.
    """

    scratch: Path
    runs: int
    quick: bool
    stack: contextlib.ExitStack

    @cached_property
    def source(self) -> Site:
        return self.stack.enter_context(self._registry("source"))

    @cached_property
    def over_tls(self) -> Site:
        return self.stack.enter_context(self._registry("source-tls", tls=True))

    @cached_property
    def far_away(self) -> Site:
        """The source, behind a network of its own."""
        host = self.stack.enter_context(slow_network(self.source.host, ROUND_TRIP_MS))
        return self.source._replace(host=host)

    @cached_property
    def platforms(self) -> Image:
        """416 MiB: 3 platforms of 5 layers."""
        sizes = [self.part(size) for size in (80 * MIB, 36 * MIB, 16 * MIB, 6 * MIB, 2 * MIB // 3)]
        return self._made("bench/platforms", content.write_image, [sizes] * 3)

    @cached_property
    def layers(self) -> Image:
        """4 layers of 256 MiB."""
        return self._made("bench/layers", content.write_image, [[self.part(256 * MIB)] * 4])

    @cached_property
    def one(self) -> Image:
        """One layer of 1 GiB."""
        return self._made("bench/one", content.write_image, [[self.part(1024 * MIB)]])

    @cached_property
    def tags(self) -> Image:
        """200 tags of small layers."""
        return self._made("bench/tags", content.write_tags, self.part(200))

    @cached_property
    def sparse(self) -> Image:
        """One layer of 10 GiB of zeros."""
        return self._made("bench/sparse", content.write_sparse_image, self.part(10240 * MIB))

    def part(self, size: int) -> int:
        """Return a size, or with `quick` a part of it."""
        return size // QUICK_PART if self.quick else size

    def _made(self, repository: str, write: Callable[..., Path], what: object) -> Image:
        say(f"making {repository}")
        layout = write(self.scratch / repository, repository, what)
        content.place(layout, self.scratch / "data", repository)
        return Image(repository, layout, content.blobs_of(layout))

    @contextlib.contextmanager
    def _registry(self, name: str, *, tls: bool = False) -> Iterator[Site]:
        with self.logged(name, tls=tls, access_log=False) as (site, _):
            yield site

    @contextlib.contextmanager
    def logged(
        self, name: str, *, tls: bool = False, access_log: bool = True
    ) -> Iterator[tuple[Site, Registry]]:
        """Run one more registry with the content of the source, with an access log."""
        data = self.scratch / "data"
        where = {"storage": {"filesystem": {"rootdirectory": str(data)}}}
        with run_docker_registry(
            self.scratch / name, options=where, tls=tls, access_log=access_log
        ) as registry:
            yield _site(registry, data), registry

    @contextlib.contextmanager
    def empty(
        self, directory: Path, *, access_log: bool = False
    ) -> Iterator[tuple[Site, Registry]]:
        """Run a registry without content in a directory."""
        with run_docker_registry(directory, access_log=access_log) as registry:
            yield _site(registry, directory / "data"), registry


def _site(registry: Registry, data: Path) -> Site:
    assert registry.pid is not None
    return Site(registry.host, data, registry.pid, registry.ca_file)
