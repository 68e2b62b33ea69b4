"""What an image is called where it goes."""

from __future__ import annotations

from dataclasses import replace

from ocimirror.errors import UsageError
from ocimirror.model.digest import digest_or_none
from ocimirror.model.reference import Location, Reference, is_tag
from ocimirror.stores.entry import Entry
from ocimirror.stores.store import Image


def name_in_a_layout(reference: Reference) -> str:
    """Return the full reference under which a layout keeps an image from a registry.

    With tag and digest the tag is what is written.
    """
    return str(reference.readable().unpinned())


def entry_of(image: Image, *, by_digest: bool = True) -> Entry | None:
    """Return the entry of a layout or archive that is meant.

    None in a registry, and for a digest that has not exactly one name; without `by_digest`, text
    that is a digest means the first name of it.

    Raises:
        NotFound: a layout without that image.
        UsageError: it has several.
    """
    digest = digest_or_none(image.name)
    if digest is None or not by_digest:
        return image.place.find(image.name)
    named = [e for e in image.place.entries() if e.name and e.descriptor.digest == digest]
    return named[0] if len({entry.name for entry in named}) == 1 else None


def new_name(target: Image | Location, source: Image, *, by_digest: bool = True) -> str:
    """Return what the image will be called at the destination: a tag there, or a full reference.

    Raises:
        NotFound: the source layout has no such image, or several and no name was given.
        UsageError: a layout needs a name, and neither end gives one.
    """
    digest = target.digest if isinstance(target, Location) else digest_or_none(target.name)
    if digest or (target.reference and target.reference.digest):
        raise UsageError(
            f"{target}: a destination is named by a tag; its digest is the content's own"
        )
    entry = None if source.reference else entry_of(source, by_digest=by_digest)
    known = source.reference and source.reference.readable()
    if entry is not None:
        known = entry.reference()
    if target.reference is not None:
        return target.reference.tag or (known.tag if known else "")
    name = target.name
    if str(target).startswith("docker-archive:"):
        return _name_for_docker(name, known)
    if name and (":" in name or "/" in name):
        return name_in_a_layout(Reference.parse(name))
    if name and not is_tag(name):
        raise UsageError(f"not a name for an image: {name!r}")
    if name:
        return str(replace(known, tag=name, digest=None)) if known else name
    if known:
        return name_in_a_layout(known)
    if entry and entry.tag:
        return entry.tag
    raise UsageError(
        f"{target}: the source does not say what the image is called",
        advice=f"Add a name: {target}:HOST/REPOSITORY:TAG",
    )


def _name_for_docker(name: str, known: Reference | None) -> str:
    """Return a full reference with a tag, or nothing: an image may be known by its ID only."""
    reference = Reference.parse(name).readable() if name else known
    if name and reference is not None and not reference.tag:
        raise UsageError(f"docker loads tags, and no digests: {name}")
    return name_in_a_layout(reference) if reference is not None and reference.tag else ""
