"""docker-refs: the digests that Docker lost, shown and put back from what a layout proves.

Docker with a graphdriver knows an image by its config and keeps no manifest, so an image that was
loaded from an archive has no RepoDigests (moby#22011), though nothing about it is different.
What it needs are names in repositories.json, and a start: dockerd reads that file at no other time
(moby#49386).
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ocimirror.copy.places import Places
from ocimirror.engines.docker.daemon import Daemon, DockerInfo
from ocimirror.engines.docker.references import DockerName, DockerReferences
from ocimirror.engines.docker.root import DockerRoot
from ocimirror.engines.docker.use import DEFAULT_PID_FILE, evidence_of_use
from ocimirror.errors import (
    EngineUnavailable,
    NotFound,
    OciMirrorError,
    Unsupported,
    UsageError,
)
from ocimirror.model.chain import Chain
from ocimirror.model.digest import Digest
from ocimirror.model.graph import refuse
from ocimirror.model.reference import Reference
from ocimirror.stores.entry import Entry
from ocimirror.stores.layout.source import LayoutSource
from ocimirror.stores.reach import chains


@dataclass(frozen=True, slots=True)
class Where:
    """How Docker and its files are found.

    Attributes:
        host: what `docker -H` takes; empty for the client's own choice.
        data_root: its directory, for when the daemon is down; else the daemon is asked.
        driver: its storage driver, where the data root has several.
        pid_file: where the daemon's process id is.
    """

    host: str = ""
    data_root: str = ""
    driver: str = ""
    pid_file: str = ""

    @property
    def pid_files(self) -> tuple[str, ...]:
        """Every place where a process id may be."""
        return tuple(dict.fromkeys(filter(None, (self.pid_file, DEFAULT_PID_FILE))))


@dataclass(frozen=True, slots=True)
class Found:
    """Docker's files, and the daemon where it answered."""

    root: DockerRoot
    info: DockerInfo | None
    in_use: str
    """What shows that a dockerd has the data root in use; empty where nothing does."""


def find(where: Where) -> Found:
    """Find Docker's reference store.

    Raises:
        Unsupported: the daemon has the containerd store.
        EngineUnavailable: no data root was given and no daemon answers, or it runs elsewhere.
    """
    info = None
    try:
        info = Daemon(where.host).info()
    except EngineUnavailable as error:
        if not where.data_root:
            raise EngineUnavailable(
                error.message, advice="Where Docker is stopped, name its --data-root."
            ) from error
    if info is not None and where.data_root and not same_path(info.data_root, where.data_root):
        info = None  # (a daemon that has nothing to do with it)
    if info is not None and info.containerd_store:
        raise Unsupported(
            f"Docker {info.version} keeps its images in containerd, where digests are not lost",
            advice="It does not read repositories.json. Load the image again: ocimirror load.",
        )
    root = DockerRoot(where.data_root, where.driver) if info is None else _root_of(info)
    in_use = evidence_of_use(root.data_root, where.pid_files)
    if info is not None and not in_use:
        raise EngineUnavailable(
            f"no dockerd here uses {root.data_root}: the one that answers is on another machine",
            advice="Run this on the machine of the daemon, as root.",
        )
    return Found(root, info, in_use)


def same_path(one: str, other: str) -> bool:
    """Whether two paths lead to one directory."""
    return os.path.realpath(one) == os.path.realpath(other)


def _root_of(info: DockerInfo) -> DockerRoot:
    try:
        return DockerRoot(info.data_root, info.driver)
    except NotFound as error:
        raise NotFound(
            error.message, advice="Run this on the machine of the daemon, as root."
        ) from error


# --- show ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lost:
    """A name by digest that an image in Docker does not have, and a layout says is its own."""

    name: DockerName
    layout: str


@dataclass(slots=True)
class ShownImage:
    """An image in Docker with its names. `present` is false where only names are left of it."""

    image_id: Digest
    present: bool
    names: list[DockerName] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Shown:
    """The reference store, by image; its keys that Docker itself does not read; and remarks."""

    found: Found
    images: list[ShownImage]
    unread: tuple[str, ...]
    notes: list[str]


def show(where: Where, layouts: Sequence[str], places: Places) -> Shown:
    """Read Docker's reference store, and compare it with what layouts know.

    What a layout says is believed here as far as its manifests hash; `restore` proves the rest.

    Raises:
        DamagedEngineStore: the store is not what dockerd writes.
    """
    found = find(where)
    references = found.root.references()
    images = {image_id: ShownImage(image_id, True) for image_id in found.root.image_ids()}
    for name in references.names:
        absent = ShownImage(name.image_id, False)
        images.setdefault(name.image_id, absent).names.append(name)
    notes: list[str] = []
    for path in layouts:
        layout = places.layout(path)
        for entry in named_entries(layout, ()):
            try:
                wanted, _ = wanted_names(
                    entry, list(chains(layout, entry.descriptor, refuse)), found.root, references
                )
            except OciMirrorError as error:
                notes.append(f"{path}: {entry.name}: {error.message}")
                continue
            for name in wanted:
                lost = images[name.image_id].lost
                new = name not in [other.name for other in lost]
                if new and references.image_of(name.reference) is None:
                    lost.append(Lost(name, path))
    order = sorted(images.values(), key=lambda i: (sorted(map(str, i.names)) or ["~"], i.image_id))
    return Shown(found, order, references.unread, notes)


def named_entries(layout: LayoutSource, names: Sequence[str]) -> list[Entry]:
    """Return the entries that name an image of a repository; those asked for, or all."""
    if not names:
        return [e for e in layout.images() if e.reference()]
    entries = [layout.index().find(name) for name in names]
    for entry in entries:
        if entry.reference() is None:
            raise UsageError(
                f"the entry {entry.name!r} names no repository, and Docker's digests do",
                advice="ocimirror tag gives the image a full name first.",
            )
    return entries


def wanted_names(
    entry: Entry, known: Sequence[Chain], root: DockerRoot, references: DockerReferences
) -> tuple[dict[DockerName, Chain], list[str]]:
    """Return the names by digest that an entry's images should have in Docker, and remarks.

    A manifest has one config, so its name is clear. An index has several images, and in Docker its
    digest can stand for one: what it stands for already, or else what has the tag, or else the only
    one that is there.
    """
    named = entry.reference()
    assert named is not None  # noqa: S101 - as `named_entries` chose them
    held = [chain for chain in known if root.has(chain.image_id)]
    bare = replace(named, tag="", digest=None)
    wanted: dict[DockerName, Chain] = {}
    notes = []
    by_root = replace(bare, digest=entry.descriptor.digest)
    at_root = _image_for_index(by_root, named, known, held, references)
    for chain in held:
        by_manifest = replace(bare, digest=chain.manifest.digest)
        if chain.image_id == at_root:
            wanted.setdefault(DockerName(by_root, chain.image_id), chain)
        wanted.setdefault(DockerName(by_manifest, chain.image_id), chain)
    if at_root is None and held:
        notes.append(
            f"{len(held)} platforms of {entry.name} are in Docker and none has its tag, so"
            f" {by_root.digest} is given to none"
        )
    return wanted, notes


def _image_for_index(
    by_root: Reference,
    named: Reference,
    known: Sequence[Chain],
    held: Sequence[Chain],
    references: DockerReferences,
) -> Digest | None:
    ids = list(dict.fromkeys(chain.image_id for chain in held))
    there = references.image_of(by_root)
    if there in [chain.image_id for chain in known]:
        return there
    tagged = references.image_of(replace(named, digest=None)) if named.tag else None
    if tagged in ids:
        return tagged
    return ids[0] if len(ids) == 1 else None
