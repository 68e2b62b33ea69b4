"""Where content is in the API of a repository, and what is accepted as an answer."""

from __future__ import annotations

from ocimirror.errors import MalformedManifest
from ocimirror.model import mediatype
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.manifest import sniff_media_type
from ocimirror.model.reference import is_tag

# Without the right Accept registries answer 404 or schema 1; the last is for types unknown to us.
ACCEPT = ", ".join((*mediatype.ACCEPTED, "*/*"))
_GENERIC = frozenset(
    {
        "",
        "application/json",
        "text/json",
        mediatype.OCTET_STREAM,
        "binary/octet-stream",
        "text/plain",
    }
)


def checked_name(name: str) -> Digest | None:
    """Return the digest that a name is, or None for a tag; nothing else becomes part of a URL."""
    if is_tag(name):
        return None
    digest = Digest.parse(name)
    digest.hasher()  # what cannot be verified is not asked for
    return digest


def may_be_a_blob(descriptor: Descriptor) -> bool:
    """Whether registries keep it among blobs or among manifests: a child of unknown type.

    distribution-spec has clients push children to /manifests/; docker-registry refuses types it
    does not know there and is content with a blob, which is where containerd pushes them.
    """
    return descriptor.kind == "manifest" and not mediatype.known(descriptor.media_type)


def path_of(descriptor: Descriptor) -> tuple[str, str]:
    """Return the path below the repository, and what to accept."""
    if descriptor.kind == "manifest":
        return f"manifests/{descriptor.digest}", f"{descriptor.header}, {ACCEPT}"
    return f"blobs/{descriptor.digest}", "*/*"


def type_of(raw: bytes, announced: str, what: str) -> str:
    """Return the type of content that was announced with an unknown one: what it says it is.

    If it says nothing known, a generic announcement tells less than the shape does.
    """
    try:
        sniffed = sniff_media_type(raw, what)
    except MalformedManifest:
        return announced or mediatype.OCTET_STREAM
    if mediatype.known(sniffed):
        return sniffed
    return announced if announced not in _GENERIC else sniffed or mediatype.OCTET_STREAM
