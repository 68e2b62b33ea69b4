"""Whether there is nothing to do for an image: it is at its destination already."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ocimirror.copy.attachments import has_new_attachments
from ocimirror.copy.outcome import Options, Request
from ocimirror.copy.walk import walk
from ocimirror.errors import IntegrityError, NotFound, OciMirrorError, blamed_on
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.stores.index import platforms_of, sparse


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


def begin(request: Request, options: Options) -> Begun:
    """Resolve a request, and find out whether there is anything to do.

    Raises:
        NotFound, SourceMoved: as `Request.resolve`.
    """
    with blamed_on("source"):
        root = request.resolve()
        notes = _notes_on_tag(request)
    with blamed_on("destination"):
        if not options.deep and is_there(of_what_is_held(request, root), root, options):
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


def is_there(request: Request, root: Descriptor, options: Options) -> bool:
    """Whether the name stands for this root, and all of it is there as far as a look tells."""
    destination = request.destination
    wanted = sparse(root, request.platforms)
    # (No registry looks at what content of unknown type names: its name proves nothing.)
    if not mediatype.known(root.media_type):
        return False
    if not request.new_name or not destination.named(request.new_name, wanted):
        return False
    if not destination.name_vouches:
        try:
            plan = walk(destination, root, request.platforms)
        except (NotFound, IntegrityError):
            return False
        if plan.opaque:  # (what it names may be at the source only)
            return False
        if not all(destination.exists(blob) for blob in plan.blobs):
            return False
    return not options.referrers or not has_new_attachments(request, root)


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
