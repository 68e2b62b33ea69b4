"""Takes a tag from a repository, with what referred to its image alone.

Only who made the tag should do so. A registry that deletes manifests by digest only, as
distribution up to 2.8 does, would take every other tag of the same manifest along, and the
platform of an index that other tags lead to, so those are looked at first.

Spec: distribution-spec, deleting tags and manifests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ocimirror.errors import NotFound, PruneRefused, RegistryUnavailable
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.graph import Descent
from ocimirror.model.mediatype import INDEXES
from ocimirror.model.reference import attachment_tag, is_attachment_tag
from ocimirror.registry.uploads import rejection

if TYPE_CHECKING:
    from ocimirror.registry.repository import RegistryRepository

_GONE = (200, 202, 404)
_UNSUPPORTED = (400, 405, 501)


_NONE: Mapping[str, Digest] = {}
Needed = dict[Digest, set[str]]
"""Which tags of a repository lead to a manifest: by its name, or as a part of an index."""


def delete_tag(
    repository: RegistryRepository,
    tag: str,
    digest: Digest,
    needed: Needed,
    leaving: Mapping[str, Digest],
) -> list[str]:
    """Delete a tag that stands for a digest; it is no error where it is gone already.

    Its attachments go with it, as long as no other tag needs the same manifest.

    Args:
        repository: where.
        tag: to delete.
        digest: what it stands for, as far as the caller knows.
        needed: what `needed` returned of this repository; the tag is taken out of it.
        leaving: tags that this run deletes too, with what they stood for: they keep nothing.

    Returns:
        Nothing where it is gone now; the tags that keep it where the registry deletes by digest
        only.

    Raises:
        PruneRefused: it stands for something else now.
        PushRejected: the registry deletes nothing.
        RemoteError: it did not answer, or has the tag still although it said that it is deleted.
    """
    root = own_tag(repository, tag, digest)
    if root is None:
        _forget(tag, needed)
        return []
    others = other_tags(tag, digest, needed)
    attachments = [] if others else _attachments(repository, root)
    response = repository.send("DELETE", f"manifests/{tag}")
    if response.status in (404, *_UNSUPPORTED):
        response.drain()
        if response.status == 404 and own_tag(repository, tag, digest) is None:
            _forget(tag, needed)
            return []
        staying = other_tags(tag, digest, needed, leaving)
        if staying:
            return staying
        if others:
            attachments = _attachments(repository, root)
        response = repository.send("DELETE", f"manifests/{digest}")
    if response.status not in _GONE:
        raise rejection(response)
    response.drain()
    if own_tag(repository, tag, digest) is not None:
        raise RegistryUnavailable(
            f"{repository.location}:{tag} is still there, and DELETE was answered with"
            f" {response.status}",
            advice="The next run looks again, and deletes it if it is there then.",
        )
    _forget(tag, needed)
    for name in attachments:
        if not needed.get(name):  # (of no use any more, and no harm)
            repository.send("DELETE", f"manifests/{name}").drain()
    return []


def own_tag(repository: RegistryRepository, tag: str, digest: Digest) -> Descriptor | None:
    """Return what a tag stands for, None if it does not exist.

    Raises:
        PruneRefused: it stands for something else than this digest now.
    """
    try:
        root = repository.resolve(tag)
    except NotFound:
        return None
    if root.digest != digest:
        raise PruneRefused(
            f"{repository.location}:{tag} is {root.digest} now, and was {digest}: not deleted"
        )
    return root


def other_tags(
    tag: str, digest: Digest, needed: Needed, leaving: Mapping[str, Digest] = _NONE
) -> list[str]:
    """Return the other tags that need a manifest, sorted; those that are leaving do not.

    A tag that stands for something else than `leaving` says is not leaving: it was moved.
    """
    others = needed.get(digest, set()) - {tag}
    return sorted(
        other
        for other in others
        if other not in leaving or other not in needed.get(leaving[other], ())
    )


def _forget(tag: str, needed: Needed) -> None:
    for tags in needed.values():
        tags.discard(tag)


def needed(repository: RegistryRepository, more: Iterable[str] = ()) -> Needed:
    """Look at every tag, those of attachments left out: a HEAD each, and each index once.

    Args:
        repository: where.
        more: tags that may be there although its list does not have them (yet).

    Raises:
        RemoteError: the registry did not answer.
        IntegrityError: an index is malformed, or leads too far; who knows what it needs.
    """
    found: Needed = {}
    indexes: dict[Digest, Sequence[Descriptor]] = {}
    for tag in dict.fromkeys([*repository.names(), *more]):
        if is_attachment_tag(tag):
            continue
        with contextlib.suppress(NotFound):
            descent = Descent(repository.resolve(tag))
            for manifest in descent:
                found.setdefault(manifest.digest, set()).add(tag)
                if manifest.media_type in INDEXES:
                    if manifest.digest not in indexes:
                        indexes[manifest.digest] = ()
                        with contextlib.suppress(NotFound):
                            children = repository.read_manifest(manifest).manifests
                            indexes[manifest.digest] = children
                    descent.add(manifest, indexes[manifest.digest])
    return found


def _attachments(repository: RegistryRepository, root: Descriptor) -> Sequence[Digest]:
    """Return the digests of what refers to an image, cosign's and the fallback tag's among them."""
    found = [referrer.descriptor.digest for referrer in repository.referrers(root)]
    fallback = attachment_tag(root.digest)
    with contextlib.suppress(NotFound):
        found.append(repository.resolve(fallback).digest)
    return list(dict.fromkeys(found))
