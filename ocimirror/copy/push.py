"""push: every named image of a layout to a registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ocimirror.copy.outcome import Options, Outcome, Reporter, Request
from ocimirror.copy.pipeline import copy
from ocimirror.copy.places import Places
from ocimirror.copy.unread import failures, warn_of_unnamed
from ocimirror.errors import UsageError
from ocimirror.model.platform import Platform
from ocimirror.model.reference import (
    Location,
    Reference,
    check_registry,
    check_repository,
)
from ocimirror.stores.entry import Entry


def push(
    layout: str,
    target: str,
    images: Sequence[str],
    places: Places,
    options: Options,
    reporter: Reporter | None = None,
    *,
    keep_host: bool = False,
    platforms: tuple[Platform, ...] = (),
) -> list[Outcome]:
    """Push images to `REGISTRY[/PREFIX]/<repository>:<tag>`.

    An image known by digest only is pushed by digest.

    Args:
        layout: the directory.
        target: `HOST[:PORT][/PREFIX]`.
        images: names to push; none means every named image.
        platforms: what to push of each index; else all that the layout was asked to hold.
        keep_host: put the source host before the repository, `host:5000` as `host_5000`.

    Raises:
        UsageError: before any transfer: two images on one destination name, or an entry that
            names no repository.
    """
    registry, prefix = parse_target(target)
    source = places.layout(layout)
    index = source.index()
    # (Attachments follow what they refer to; only asked for by name they are images.)
    entries = [index.find(name) for name in images] or source.images()
    if entries and not images:
        warn_of_unnamed(source)
    if not entries and not index.unreadable:
        raise UsageError(
            f"{layout} has no named image to push",
            advice="`ocimirror list` shows what it holds. With a name of your choice:"
            f" ocimirror copy oci:{layout}:@DIGEST docker://{target}/REPOSITORY:TAG",
        )
    taken: dict[str, Entry] = {}
    requests = []
    for entry in entries:
        reference = _destination(entry, registry, prefix, keep_host, layout)
        other = taken.setdefault(str(reference), entry)
        if other.descriptor.digest != entry.descriptor.digest:
            raise UsageError(
                f"{other.name} and {entry.name} would both become {reference}",
                advice="Add --keep-host, or push them apart with --image and another PREFIX.",
            )
        if other is not entry:
            continue
        requests.append(
            Request(
                source,
                str(entry.descriptor.digest),
                places.repository(reference),
                reference.tag,
                str(Location("oci", layout, entry.name)),
                str(Location("docker", reference=reference)),
                platforms or entry.platforms,
            )
        )
    outcomes = copy(requests, options, reporter)
    if not images:
        outcomes += failures(source, Location("oci", layout), f"docker://{target}", reporter)
    return outcomes


def parse_target(text: str) -> tuple[str, str]:
    """Split `HOST[:PORT][/PREFIX]`; InvalidReference where a part is none."""
    host, _, prefix = text.partition("/")
    return check_registry(host), check_repository(prefix) if prefix else ""


def pushed(named: Reference, registry: str, prefix: str, *, keep_host: bool) -> Reference:
    """Return what an image that is called `named` becomes at a registry, below a prefix.

    Raises:
        InvalidReference: the repository's name is too long there.
    """
    parts = [prefix, named.registry.replace(":", "_") if keep_host else "", named.repository]
    repository = check_repository("/".join(part for part in parts if part))
    return Reference(registry, repository, named.tag)


def _destination(
    entry: Entry, registry: str, prefix: str, keep_host: bool, layout: str
) -> Reference:
    named = entry.reference()
    if named is None:
        raise UsageError(
            f"{layout}: the entry {entry.name!r} names no repository to push to",
            advice=f"ocimirror copy oci:{layout}:{entry.name} docker://{registry}/REPOSITORY:TAG",
        )
    reference = pushed(named, registry, prefix, keep_host=keep_host)
    return reference if named.tag else replace(reference, digest=entry.descriptor.digest)
