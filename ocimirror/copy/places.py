"""Opens what a location names."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ocimirror.errors import Interrupted, LocalStorageError, UsageError, storage_errors
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location, Reference
from ocimirror.stores.layout.layout import Layout
from ocimirror.stores.layout.links import LinkingLayout
from ocimirror.stores.layout.source import LayoutSource
from ocimirror.stores.layout.writable import (
    is_layout_to_write,
    refuse_unwritable_archive,
    refuse_unwritable_layout,
)
from ocimirror.stores.memory import MemoryStore
from ocimirror.stores.store import Source, Store

# (Archives, exclusive layouts and registries are imported where they are opened: most runs open
# few of them, and what stays on this machine needs no network library.)
if TYPE_CHECKING:
    from ocimirror.registry import (
        NetworkOptions,
        RegistryHost,
        RegistryRepository,
        Transport,
    )
    from ocimirror.registry.credentials import Credential
    from ocimirror.stores.archive.archive import Archive
    from ocimirror.stores.dockerarchive.read import DockerArchive
    from ocimirror.stores.layout.exclusive import ExclusiveLayout
    from ocimirror.stores.profiles import Profile

logger = logging.getLogger(__name__)


def parse_location(text: str) -> Location:
    """Parse a location; a bare path of a file is an archive, of anything else a layout.

    Of a file with both, an image layout and what docker loads, the layout counts, unless it was
    made up by docker.
    """
    location = Location.parse(text)
    is_file = os.path.exists(location.path) and not os.path.isdir(location.path)
    if not text.startswith("oci:") and location.scheme == "oci" and is_file:
        from ocimirror.stores.dockerarchive.read import is_docker_archive

        docker = is_docker_archive(location.path)
        return replace(location, scheme="docker-archive" if docker else "oci-archive")
    return location


def layout_location(text: str) -> Location:
    """Parse a LAYOUT argument: a location with its scheme, or any path."""
    schemes = ("oci", "oci-archive", "docker-archive", "docker")
    stated = any(text.startswith(f"{scheme}:") for scheme in schemes)
    # (A bare name is a path here; elsewhere a path says so.)
    return parse_location(text if stated or text.startswith(("/", ".")) else f"./{text}")


class OwnWay(NamedTuple):
    """How one registry is reached where the run's options are not its own.

    Attributes:
        options: makes its options of the run's.
        credential: who we are there; None where the credential files say it.
    """

    options: Callable[[NetworkOptions], NetworkOptions]
    credential: Credential | None = None


class Places:
    """The stores of one run. Each is opened once and closed at the end of the context.

    Args:
        network: says how registries are reached; asked when the first one is.
        durable: layouts and archives survive power loss.
        wait: wait for a lock instead of failing.
        link_from: directories of layouts; what they have is linked into those that are written.
        stop: set to end the opening of an archive whose layers are decompressed then.
        own: how single registries are reached in another way, and as whom.
    """

    def __init__(
        self,
        network: Callable[[], NetworkOptions],
        *,
        durable: bool = True,
        wait: bool = False,
        link_from: Sequence[str] = (),
        stop: threading.Event | None = None,
        own: Mapping[str, OwnWay] | None = None,
    ) -> None:
        self._network = network
        self._own = own or {}
        self._stop = stop
        self._durable = durable
        self.wait = wait
        self._link_from = link_from
        self._shared: Transport | None = None
        self._hosts: dict[str, RegistryHost] = {}
        self._repositories: dict[tuple[str, str], RegistryRepository] = {}
        self._archives: dict[tuple[str, str], LayoutSource] = {}
        self._stack = contextlib.ExitStack()
        self._directories: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def repository(self, reference: Reference) -> RegistryRepository:
        """Return the repository of a reference; one host object a registry, shared by all."""
        key = reference.registry, reference.repository
        if key not in self._repositories:
            host = self._host(reference.registry)
            self._repositories[key] = host.repository(reference.repository)
        return self._repositories[key]

    def repositories(self, registry: str) -> list[str]:
        """Return the repositories that a registry's catalogue names.

        Raises:
            NotFound: it has none.
        """
        from ocimirror.registry.listing import list_repositories

        return list_repositories(self._host(registry))

    def _host(self, registry: str) -> RegistryHost:
        if registry not in self._hosts:
            # (Imported here: what stays on this machine needs no network library.)
            from ocimirror.registry import RegistryHost

            own = self._own.get(registry)
            transport = self._transport(own)
            self._hosts[registry] = RegistryHost(registry, transport, own and own.credential)
        return self._hosts[registry]

    def _transport(self, own: OwnWay | None) -> Transport:
        from ocimirror.registry import Transport

        if own is not None:
            return self._stack.enter_context(Transport(own.options(self._network())))
        if self._shared is None:
            self._shared = self._stack.enter_context(Transport(self._network()))
        return self._shared

    def layout(self, path: str) -> Layout:
        """Return a layout directory for reading."""
        return self._stack.enter_context(Layout(path, wait=self.wait))

    def layout_to_write(self, path: str, *, dry_run: bool = False) -> Store:
        """Return a layout directory; a dry run into one that is not there gets an empty store.

        A dry run is refused what a run would be refused, as far as a look tells.
        """
        if not dry_run:
            return self._written(path)
        present = is_layout_to_write(path)
        refuse_unwritable_layout(path)
        if not present:
            return MemoryStore(f"oci:{path}")
        return self._looked_at(path)

    def _looked_at(self, path: str) -> Layout:
        layout = self.layout(path)
        self.remember(path)
        _warn_of_unreadable(layout)
        return layout

    def _written(self, path: str) -> Layout:
        self._refuse_another(path)
        layout = LinkingLayout(path, self._link_from, durable=self._durable, wait=self.wait)
        self._stack.enter_context(layout)
        self.remember(path)
        _warn_of_unreadable(layout)
        # (A run that failed leaves no empty layout that could be taken for a mirror.)
        self._stack.callback(layout.remove_if_unused)
        return layout

    def present_layout(self, path: str, *, dry_run: bool = False) -> Layout:
        """Return a layout for writing that is there already; none is made.

        Raises:
            NotFound, DamagedLayout: there is none.
        """
        self.remember(path)
        Layout(path, wait=self.wait).close()
        if not dry_run:
            return self._written(path)
        refuse_unwritable_layout(path)
        return self._looked_at(path)

    def exclusive_layout(self, path: str, *, writes: bool = True) -> ExclusiveLayout:
        """Return a layout that nobody else, and nothing else of this run, may use meanwhile.

        The caller closes it.
        """
        from ocimirror.stores.layout.exclusive import ExclusiveLayout

        self._refuse_another(path)
        layout = ExclusiveLayout(path, write=writes, durable=self._durable, wait=self.wait)
        with contextlib.ExitStack() as stack:
            stack.enter_context(layout)
            self.remember(path)
            stack.pop_all()
        return layout

    def remember(self, path: str) -> None:
        """Write into no other directory of that path from now on, whatever replaces it.

        Raises:
            LocalStorageError: it is another one already.
        """
        self._refuse_another(path)
        with contextlib.suppress(OSError):
            self._directories.setdefault(path, _identity(path))

    def _refuse_another(self, path: str) -> None:
        known = self._directories.get(path)
        if known is None:
            return
        with storage_errors(f"cannot read {path}"):
            if _identity(path) != known:
                raise LocalStorageError(
                    f"{path} is not the directory that it was when this run began",
                    advice="Put the directory back and run again.",
                )

    def source(self, location: Location) -> Source:
        """Open a location for reading; an archive once, since opening it may decompress it."""
        if location.reference is not None:
            return self.repository(location.reference)
        return self.indexed(location, "")

    def indexed(self, location: Location, refusal: str) -> LayoutSource:
        """Open a layout or an archive for reading; UsageError with this text for a registry."""
        if location.reference is not None:
            raise UsageError(f"{location}{refusal}")
        if not location.is_archive:
            return self.layout(location.path)
        key = location.scheme, location.path
        if key not in self._archives:
            self._archives[key] = self._stack.enter_context(self._archive(location))
        return self._archives[key]

    def _archive(self, location: Location) -> Archive | DockerArchive:
        from ocimirror.stores.archive.archive import Archive
        from ocimirror.stores.dockerarchive.read import DockerArchive

        if location.scheme == "oci-archive":
            return Archive(location.path, self._watch)
        archive = DockerArchive(location.path, self._watch)
        for said in archive.misnamed.values():
            logger.warning("%s; it is taken as it is", said)
        return archive

    def _watch(self, _: int) -> None:
        if self._stop is not None and self._stop.is_set():
            raise Interrupted("stopped while an archive was opened")

    def destination(
        self,
        location: Location,
        *,
        dry_run: bool = False,
        profile: Profile | None = None,
        platforms: Sequence[Platform] = (),
    ) -> Store:
        """Open a location for writing; an archive appears when it is committed.

        `profile` and `platforms` are an OCI archive's, as ArchiveWriter takes them.
        """
        if location.reference is not None:
            return self.repository(location.reference)
        if location.is_archive and dry_run:
            if location.path != "-":
                refuse_unwritable_archive(location.path)
            return MemoryStore(f"{location.scheme}:{location.path}")
        if location.is_archive:
            from ocimirror.stores.archive.archive import ArchiveWriter
            from ocimirror.stores.dockerarchive.write import DockerArchiveWriter
        if location.scheme == "docker-archive":
            return self._stack.enter_context(
                DockerArchiveWriter(location.path, durable=self._durable)
            )
        if location.scheme == "oci-archive":
            return self._stack.enter_context(
                ArchiveWriter(
                    location.path, durable=self._durable, profile=profile, platforms=platforms
                )
            )
        return self.layout_to_write(location.path, dry_run=dry_run)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _warn_of_unreadable(layout: Layout) -> None:
    for row in layout.index().unreadable:
        logger.warning(
            "%s; it stays as it is, and `ocimirror repair %s` mends it if it can",
            row.message,
            layout.path,
        )
