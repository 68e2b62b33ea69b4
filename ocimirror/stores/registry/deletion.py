"""Takes a tag from a repository, with what referred to its image alone.

Only who made the tag should do so. A registry that deletes manifests by digest only, as
distribution up to 2.8 does, would take every other tag of the same manifest along, so those are
looked at first.

Spec: distribution-spec, deleting tags and manifests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ocimirror.errors import NotFound, PushRejected
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.reference import attachment_tag, is_attachment_tag
from ocimirror.stores.registry.uploads import rejection

if TYPE_CHECKING:
    from ocimirror.stores.registry.repository import RegistryRepository

_GONE = (200, 202, 404)
_UNSUPPORTED = (400, 405, 501)


def delete_tag(repository: RegistryRepository, tag: str, digest: Digest) -> bool:
    """Delete a tag that stands for a digest; return whether it was there.

    Its attachments go with it, as long as no other tag has the same manifest.

    Raises:
        PushRejected: it stands for something else now, another tag would go too, or the registry
            deletes nothing.
        RemoteError: it did not answer.
    """
    try:
        root = repository.resolve(tag)
    except NotFound:
        return False
    if root.digest != digest:
        raise PushRejected(f"{repository.location}:{tag} is {root.digest} now, and was {digest}")
    others = _others(repository, tag, digest)
    attachments = [] if others else _attachments(repository, root)
    response = repository.send("DELETE", f"manifests/{tag}")
    if response.status in _UNSUPPORTED:
        response.drain()
        if others:
            raise PushRejected(
                f"{repository.location} deletes by digest only, and {', '.join(others[:5])} has the"
                f" same manifest as {tag}"
            )
        response = repository.send("DELETE", f"manifests/{digest}")
    if response.status not in _GONE:
        raise rejection(response)
    response.drain()
    for name in attachments:
        repository.send("DELETE", f"manifests/{name}").drain()  # (of no use any more, and no harm)
    return True


def _others(repository: RegistryRepository, tag: str, digest: Digest) -> list[str]:
    """Return the other tags that stand for a manifest, those of attachments left out."""
    found = []
    for other in repository.names():
        if other == tag or is_attachment_tag(other):
            continue
        try:
            if repository.resolve(other).digest == digest:
                found.append(other)
        except NotFound:
            continue
    return found


def _attachments(repository: RegistryRepository, root: Descriptor) -> Sequence[str]:
    """Return the digests of what refers to an image, cosign's and the fallback tag's among them."""
    names = [str(referrer.descriptor.digest) for referrer in repository.referrers(root)]
    fallback = attachment_tag(root.digest)
    with contextlib.suppress(NotFound):
        names.append(str(repository.resolve(fallback).digest))
    return list(dict.fromkeys(names))
