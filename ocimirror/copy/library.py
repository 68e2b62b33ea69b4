"""copy, pull and push, as a program calls them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ocimirror.copy.outcome import Options, Outcome, Reporter, Request
from ocimirror.copy.pipeline import copy as copy_many
from ocimirror.copy.places import Places, name_in_a_layout
from ocimirror.copy.pull import pull as add
from ocimirror.copy.push import push as push_all
from ocimirror.errors import UsageError
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference, is_tag
from ocimirror.stores.store import Image, Source, Store

if TYPE_CHECKING:
    from ocimirror.registry import NetworkOptions

__all__ = ["copy", "copy_many", "pull", "push", "request"]


def copy(
    source: Image | Source,
    destination: Image | Store,
    options: Options | None = None,
    reporter: Reporter | None = None,
    *,
    platforms: Sequence[Platform] = (),
) -> Outcome:
    """Copy one image, byte for byte, with what refers to it; its name moves last.

    Args:
        source: an image, or a place that holds only one.
        destination: an image; in a layout without a name it keeps the source's.
        options: how the run copies.
        reporter: told of the progress.
        platforms: what is wanted of an index, all of it if there are none.

    Raises:
        UsageError: the image would have no name.
        OciMirrorError: it was not copied; what is at the destination is whole, or not named.
    """
    (outcome,) = copy_many([request(source, destination, platforms)], options, reporter)
    if outcome.error is not None:
        raise outcome.error
    return outcome


def request(
    source: Image | Source, destination: Image | Store, platforms: Sequence[Platform] = ()
) -> Request:
    """Return what `copy_many` is asked, for one image; the arguments are those of `copy`.

    Raises:
        UsageError: the image would have no name.
        NotFound: the source layout has no such image.
    """
    origin = source if isinstance(source, Image) else source[""]
    target = destination if isinstance(destination, Image) else destination[""]
    store = target.place
    if not isinstance(store, Store):
        raise UsageError(f"{target} is for reading only")
    entry = None if _digest_of(origin) else origin.place.find(origin.name)
    known = entry.reference() if entry else origin.reference and origin.reference.readable()
    name = _new_name(target, known)
    shown = target if target.reference is not None else store[name]
    return Request(
        origin.place,
        origin.name,
        store,
        name,
        str(origin),
        str(shown),
        tuple(platforms) or (entry.platforms if entry else ()),
        pinned=origin.reference if origin.reference and origin.reference.pinned else None,
    )


def _digest_of(image: Image) -> bool:
    return str(image).endswith(f":@{image.name}")


def _new_name(target: Image, known: Reference | None) -> str:
    """Return the tag or the full reference that an image gets."""
    if _digest_of(target) or (target.reference and target.reference.digest):
        raise UsageError(f"{target}: a destination is named by a tag; its digest is the content's")
    if target.reference is not None:
        return target.reference.tag or (known.tag if known else "")
    name = target.name
    if name and (":" in name or "/" in name):
        return name_in_a_layout(Reference.parse(name))
    if name and not is_tag(name):
        raise UsageError(f"not a name for an image: {name!r}")
    if name:
        return str(replace(known, tag=name, digest=None)) if known else name
    if known is None:
        raise UsageError(f"{target}: the source does not say what the image is called")
    return name_in_a_layout(known)


def pull(
    images: Iterable[str],
    layout: str,
    options: Options | None = None,
    reporter: Reporter | None = None,
    *,
    platforms: Sequence[Platform] = (),
    network: NetworkOptions | None = None,
) -> list[Outcome]:
    """Add images of registries to a layout directory, each under its full reference.

    Args:
        images: references, as `alpine:3.19`.
        layout: the directory; it is made if it does not exist.
        options: how the run copies.
        reporter: told of the progress.
        platforms: what is wanted of indexes, all of them if there are none.
        network: how registries are reached, and as whom; else as the environment says.

    Returns:
        One outcome an image, in the order asked for; failures are in `Outcome.error`.

    Raises:
        UsageError: before any transfer: no reference, a directory that holds something else.
    """
    references = [Reference.parse(text) for text in images]
    with _places(network) as places:
        return add(
            references, layout, places, options or Options(), reporter, platforms=tuple(platforms)
        )


def push(
    layout: str,
    target: str,
    options: Options | None = None,
    reporter: Reporter | None = None,
    *,
    images: Sequence[str] = (),
    keep_host: bool = False,
    platforms: Sequence[Platform] = (),
    network: NetworkOptions | None = None,
) -> list[Outcome]:
    """Push images of a layout directory to `REGISTRY[/PREFIX]/<repository>:<tag>`.

    Args:
        layout: the directory.
        target: `HOST[:PORT][/PREFIX]`.
        options: how the run copies.
        reporter: told of the progress.
        images: names to push; none means every named image.
        keep_host: put the source host before the repository.
        platforms: what to push of each index; else all that the layout was asked to hold.
        network: how registries are reached, and as whom; else as the environment says.

    Returns:
        One outcome an image; failures are in `Outcome.error`.

    Raises:
        UsageError: before any transfer: two images on one destination name, no image to push.
    """
    with _places(network) as places:
        return push_all(
            layout,
            target,
            images,
            places,
            options or Options(),
            reporter,
            keep_host=keep_host,
            platforms=tuple(platforms),
        )


def _places(network: NetworkOptions | None) -> Places:
    def options() -> NetworkOptions:
        from ocimirror.registry.environment import from_environment

        return from_environment() if network is None else network

    return Places(options)
