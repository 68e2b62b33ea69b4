"""docker-refs restore: lost digests are proved from a layout, and written while dockerd is down."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from ocimirror.copy.places import Places
from ocimirror.engines.docker.chains import prove
from ocimirror.engines.docker.daemon import Daemon, Service
from ocimirror.engines.docker.references import DockerName, DockerReferences, taken
from ocimirror.engines.docker.refs import (
    Found,
    Where,
    find,
    named_entries,
    same_path,
    wanted_names,
)
from ocimirror.engines.docker.root import DockerRoot
from ocimirror.engines.docker.use import evidence_of_use, running
from ocimirror.errors import (
    DigestNotPreserved,
    EngineFailed,
    EngineUnavailable,
    Interrupted,
    NotFound,
    OciMirrorError,
)
from ocimirror.model.chain import Chain
from ocimirror.model.graph import refuse
from ocimirror.stores.entry import Entry
from ocimirror.stores.reach import chains
from ocimirror.stores.store import Source

logger = logging.getLogger(__name__)

UNSUPPORTED_UPSTREAM = (
    "Docker calls repositories.json an internal file (moby#49386): this works with the versions"
    " that were tested, and dockerd reads it only when it starts"
)


@dataclass(slots=True)
class RestoredImage:
    """What became of one entry of the layout.

    `absent`: Docker has no image of it. `unchanged`: it has all its digests.
    """

    name: str
    status: Literal["restored", "planned", "unchanged", "absent", "failed"]
    added: tuple[DockerName, ...] = ()
    notes: list[str] = field(default_factory=list)
    error: OciMirrorError | None = None


@dataclass(slots=True)
class Restoration:
    """The whole run. `backup` is the path of the old file, empty where nothing was written."""

    root: DockerRoot
    images: list[RestoredImage]
    backup: str = ""
    restarted: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class How:
    """How a restoration is done.

    Attributes:
        service: stops and starts the daemon; None where it has to be stopped already.
        dry_run: prove, and write nothing.
        patience_s: how long the daemon may take to stop, and to start.
        stop: set from outside before the daemon is stopped, it ends the run.
    """

    service: Service | None = None
    dry_run: bool = False
    patience_s: float = 60.0
    stop: threading.Event = field(default_factory=threading.Event)


def restore(
    layout_path: str, names: Sequence[str], where: Where, how: How, places: Places
) -> Restoration:
    """Put back the names by digest that a layout proves to be an image's own.

    Killed at any moment it leaves the old file or the new one, and nothing between them; run
    again, it goes on. (A daemon that was stopped stays so until somebody starts it.)

    Args:
        layout_path: the layout's directory.
        names: images of it; none means all that have a full name.
        where: Docker.
        how: whether it is restarted, or nothing is written.
        places: the stores of this run.

    Raises:
        EngineRunning: dockerd runs, and is not to be restarted. Nothing was written.
        DamagedEngineStore: the reference store is damaged. Nothing was written.
        EngineFailed: the daemon did not start with the new file, and has the old one again.
    """
    found = find(where)
    if found.in_use and not (how.service or how.dry_run):
        raise running(found.root.data_root, found.in_use)
    layout = places.layout(layout_path)
    references = found.root.references()
    entries = named_entries(layout, names)
    images = [_prove(entry, layout, found.root, references, how) for entry in entries]
    done = Restoration(found.root, images)
    for image in images:
        if names and image.status == "absent":
            image.status = "failed"
            image.error = NotFound(f"Docker has no image of {image.name}: load it first")
    stopping = found.info and not found.info.live_restore and found.info.containers_running
    if stopping and how.dry_run:
        done.notes.append(f"stopping Docker would stop {stopping} containers")
    elif stopping and any(image.added for image in images):
        logger.warning("stopping Docker stops %d containers", stopping)
    if any(image.added for image in images) and not how.dry_run:
        _write(done, found, where, how)
    return done


def _prove(
    entry: Entry, layout: Source, root: DockerRoot, references: DockerReferences, how: How
) -> RestoredImage:
    image = RestoredImage(entry.name, "absent")

    def watch(_: int) -> None:
        if how.stop.is_set():
            raise Interrupted("stopped; nothing was written")

    try:
        wanted, notes = wanted_names(
            entry, list(chains(layout, entry.descriptor, refuse)), root, references
        )
        image.notes += notes
        missing: dict[DockerName, Chain] = {}
        for name, chain in wanted.items():
            there = references.image_of(name.reference)
            if there is None:
                missing[name] = chain
            elif there != name.image_id:
                raise taken(name, str(there), root.path)
        for chain in _distinct(missing.values()):
            prove(layout, chain, root, watch)
        image.added = tuple(missing)
        image.status = "planned" if missing else "unchanged" if wanted else "absent"
    except Interrupted:
        raise
    except OciMirrorError as error:
        image.status, image.error = "failed", error
    return image


def _distinct(proofs: Iterable[Chain]) -> list[Chain]:
    return list({chain.manifest.digest: chain for chain in proofs}.values())


def _write(done: Restoration, found: Found, where: Where, how: How) -> None:
    root = done.root
    additions = [name for image in done.images for name in image.added]

    def in_use() -> str:
        return evidence_of_use(root.data_root, where.pid_files)

    if how.stop.is_set():
        raise Interrupted("stopped; nothing was written")
    try:
        if how.service and found.in_use:
            how.service.stop(in_use, how.patience_s)
        done.backup = root.edit(
            lambda references: _edited(references, additions, root),
            where.pid_files,
            datetime.now(UTC),
        )
    finally:
        # (Whatever came of the file: the old one is there, or the new one.)
        if how.service:
            _start(done, where, how, how.service, in_use)
    for image in done.images:
        if image.added:
            image.status = "restored"
    if how.service:
        _check(done, where)
    else:
        done.notes.append("start Docker now: it reads the file only then")


def _edited(
    references: DockerReferences, additions: Sequence[DockerName], root: DockerRoot
) -> bytes:
    """Add names to the store as dockerd left it; what it has may have changed since the proof."""
    for name in additions:
        if not root.has(name.image_id):
            raise NotFound(f"the image {name.image_id} was removed from Docker meanwhile")
    return references.with_digests(additions)


def _start(
    done: Restoration, where: Where, how: How, service: Service, in_use: Callable[[], str]
) -> None:
    """Start the daemon; where it does not come up with the new file, put the old one back."""
    daemon = Daemon(where.host)
    written = done.root.raw() if done.backup else b""
    try:
        service.start()
        daemon.wait(how.patience_s)
    except OciMirrorError as error:
        if not done.backup:
            raise EngineFailed(f"Docker was stopped and does not start: {error.message}") from error
        with contextlib.suppress(OciMirrorError):  # (it may hang half started)
            service.stop(in_use, how.patience_s)
        done.root.put_back(done.backup, written)
        try:
            service.start()
            daemon.wait(how.patience_s)
        except OciMirrorError as again:
            raise EngineFailed(
                f"Docker did not start with the new {done.root.path}; the old one was put back,"
                f" and it does not start with that: {again.message}",
                advice=f"The old file is {done.backup} too. See dockerd's log.",
            ) from error
        raise EngineFailed(
            f"Docker did not start with the new {done.root.path}; the old one was put back, and"
            f" it runs again: {error.message}"
        ) from error
    done.restarted = True


def _check(done: Restoration, where: Where) -> None:
    """Ask the daemon what it has now."""
    daemon = Daemon(where.host)
    there = daemon.info().data_root
    if not same_path(there, done.root.data_root):
        raise EngineUnavailable(
            f"{done.root.path} was written, and the daemon that answers has the data root {there}",
            advice="So nothing was checked. Name the right one with --host.",
        )
    for image in done.images:
        lacking = [
            name
            for name in image.added
            if str(name.reference) not in daemon.repo_digests(str(name.image_id))
        ]
        if lacking:
            image.status = "failed"
            image.error = DigestNotPreserved(
                f"Docker does not report {', '.join(map(str, lacking))} after its start"
            )
