"""Whether there is nothing to do for an image: it is at its destination already."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import NamedTuple

from ocimirror.copy.attachments import has_new_attachments
from ocimirror.copy.lone import refuse_other_platform
from ocimirror.copy.outcome import Options, Request
from ocimirror.copy.walk import walk
from ocimirror.errors import (
    IntegrityError,
    NotFound,
    OciMirrorError,
    RegistryRefused,
    blamed_on,
)
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Descent, children_for
from ocimirror.stores.entry import platforms_of, sparse
from ocimirror.stores.store import Store


class Whole:
    """Whether the indexes of registries have the children that are wanted, as one run sees it.

    The name of an index does not tell: a sparse copy has the same one. Asking for each child would
    be most requests of a run in which nothing changed. So children are asked for if only some
    platforms are wanted; otherwise for the first index of each repository, and for all of a
    repository in which one lacked some.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: dict[Store, threading.Lock] = {}
        self._sparse: dict[Store, bool] = {}

    def holds(self, request: Request, root: Descriptor) -> bool:
        """Whether the children of a root are there, or the repository is believed that."""
        if not mediatype.is_index(root.media_type) or request.whole == root.digest:
            return True
        destination = request.destination
        if request.platforms:
            return _holds_children(request, root)
        with self._lock:
            look = self._looks.setdefault(destination, threading.Lock())
        with look:
            if destination not in self._sparse:
                self._sparse[destination] = not _holds_children(request, root)
                return not self._sparse[destination]
        return not self._sparse[destination] or _holds_children(request, root)


class Begun(NamedTuple):
    """What is known of a request before anything is read.

    Attributes:
        root: what the source's name stands for.
        complete: nothing is to be done.
        previous: what the new name stands for at the destination, if that was asked.
        notes: what the user should know of the name.
    """

    root: Descriptor
    complete: bool
    previous: Digest | None
    notes: list[str]


def begin(request: Request, options: Options, whole: Whole) -> Begun:
    """Resolve a request, and find out whether there is anything to do.

    Raises:
        NotFound, SourceMoved: as `Request.resolve`.
        NotFound: it is all there, and for none of the platforms that are asked for.
    """
    with blamed_on("source"):
        root = request.resolve()
        notes = _notes_on_tag(request)
    with blamed_on("destination"):
        asked = of_what_is_held(request, root)
        if not options.deep and is_there(asked, root, options, whole):
            _refuse_other_platform(asked, root)
            return Begun(root, True, root.digest, notes)
        return Begun(root, False, previous(request) if options.previous else None, notes)


def _notes_on_tag(request: Request) -> list[str]:
    """Say if the tag that was named beside a digest stands for something else at the source.

    The digest is what is read, as docker, podman and crane do, which never ask for the tag; but
    the tag is what is written, so whoever reads it should know.
    """
    pinned = request.pinned
    if pinned is None:
        return []
    try:
        found = request.source.resolve(pinned.tag)
    except NotFound:
        return [f"tag {pinned.tag} does not exist at the source; {pinned.digest} was read"]
    except OciMirrorError as error:
        return [f"tag {pinned.tag} at the source was not compared: {error.message}"]
    if found.digest == pinned.digest:
        return []
    return [f"tag {pinned.tag} is {found.digest} at the source now; {pinned.digest} was read"]


def is_there(request: Request, root: Descriptor, options: Options, whole: Whole) -> bool:
    """Whether the name stands for this root, and all of it is there as far as a look tells."""
    destination = request.destination
    wanted = sparse(root, request.platforms)
    # (No registry looks at what content of unknown type names: its name proves nothing.)
    if not mediatype.known(root.media_type):
        return False
    if not request.new_name or not destination.named(request.new_name, wanted):
        return False
    if not destination.names_prove_closure:
        try:
            plan = walk(destination, root, request.platforms)
        except (NotFound, IntegrityError):
            return False
        if plan.opaque:  # (what it names may be at the source only)
            return False
        if not all(destination.exists(blob) for blob in plan.blobs):
            return False
    elif not whole.holds(request, root):
        return False
    return not options.referrers or not has_new_attachments(request, root)


def _refuse_other_platform(request: Request, root: Descriptor) -> None:
    """Refuse an image without an index that is there, and for other platforms than are asked for.

    (An earlier run that asked for others, or for none, brought it.)
    """
    if not request.platforms or request.whole == root.digest or mediatype.is_index(root.media_type):
        return
    source = request.source
    reader = source if source.local else request.destination
    refuse_other_platform(request, reader.read_manifest(root), reader)


def _holds_children(request: Request, root: Descriptor) -> bool:
    """Whether a registry has the children of an index that are wanted, at any depth.

    Their blobs are there too, since manifests are pushed after them.
    """
    destination, source = request.destination, request.source
    reader = source if source.local else destination  # (without requests)
    descent = Descent(root)
    try:
        for named in descent:
            if named is not root and not destination.exists(named):
                return False
            if mediatype.is_index(mediatype.known(named.media_type)):
                index = reader.read_manifest(named)
                descent.add(named, children_for(index, request.platforms))
    except (NotFound, IntegrityError, RegistryRefused):
        return False
    return True


def previous(request: Request) -> Digest | None:
    """Return what the new name stands for at the destination now, None if it does not exist."""
    if not request.new_name:
        return None
    try:
        return request.destination.resolve(request.new_name).digest
    except NotFound:
        return None


def of_what_is_held(request: Request, root: Descriptor) -> Request:
    """Return a request for everything as one for the platforms that a sparse source holds."""
    platforms = request.platforms or platforms_of(root)
    return request if platforms == request.platforms else replace(request, platforms=platforms)
