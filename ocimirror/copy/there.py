"""Whether there is nothing to do for an image: it is at its destination already."""

from __future__ import annotations

from dataclasses import replace

from ocimirror.copy.attachments import has_new_attachments
from ocimirror.copy.outcome import Options, Request
from ocimirror.copy.walk import walk
from ocimirror.errors import IntegrityError, NotFound
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.stores.index import platforms_of, sparse


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
