"""Every kind of store, opened empty, behind one small handle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocimirror import (
    Archive,
    ArchiveWriter,
    Layout,
    MemoryStore,
    NetworkOptions,
    Registry,
    Source,
    Store,
)
from tests.support.registry import StrictRegistry
from tests.support.witness import Registry as Server

REGISTRIES = ["docker-registry", "strict-registry"]
KINDS = ["memory", "layout", "layout-without-fsync", "archive", *REGISTRIES]


@dataclass
class Place:
    """A store, and how another program would find what is in it.

    `reopened` returns a new object on the same place: what was written must be there for it.
    """

    kind: str
    store: Store
    reopened: Callable[[], Source]

    def name(self, tag: str) -> str:
        """Return the name of an image here: a tag in a registry, a full reference elsewhere."""
        return tag if self.kind in REGISTRIES else f"registry.example.com/team/app:{tag}"


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Open one store of each kind, empty."""
    kind: str = request.param
    with ExitStack() as stack:
        if kind == "memory":
            memory = MemoryStore()
            yield Place(kind, memory, lambda: memory)
        elif kind == "archive":
            yield _archive(stack, tmp_path)
        elif kind in REGISTRIES:
            yield _registry(stack, kind, request)
        else:
            path = str(tmp_path / "layout")
            store = stack.enter_context(Layout(path, write=True, durable=kind == "layout"))
            yield Place(kind, store, lambda: stack.enter_context(Layout(path)))


def _archive(stack: ExitStack, tmp_path: Path) -> Place:
    path = str(tmp_path / "archive.tar")
    writer = stack.enter_context(ArchiveWriter(path))

    def reopened() -> Source:
        writer.commit()
        return stack.enter_context(Archive(path))

    return Place("archive", writer, reopened)


def _registry(stack: ExitStack, kind: str, request: pytest.FixtureRequest) -> Place:
    server: Server | StrictRegistry
    server = request.getfixturevalue("docker_registry" if kind == "docker-registry" else "registry")
    repository: str = request.getfixturevalue("repository")

    def opened() -> Store:
        options = NetworkOptions(plain_http=frozenset({server.host}), retries=1, timeout_s=10)
        place = stack.enter_context(Registry(server.host, options))[repository].place
        assert isinstance(place, Store)
        return place

    return Place(kind, opened(), opened)
