"""copy, pull and push, as a program calls them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ocimirror.copy.fordocker import chosen_for_docker
from ocimirror.copy.naming import entry_of, new_name
from ocimirror.copy.outcome import Options, Outcome, Reporter, Request
from ocimirror.copy.pipeline import copy as copy_many
from ocimirror.copy.places import Places
from ocimirror.copy.pull import pull as add
from ocimirror.copy.push import push as push_all
from ocimirror.errors import DamagedLayout, UsageError
from ocimirror.model.platform import Platform, parsed
from ocimirror.model.reference import Reference
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
    platforms: Sequence[Platform | str] = (),
) -> Outcome:
    """Copy one image, byte for byte, with what refers to it; its name moves last.

    Args:
        source: an image, or a place that holds only one.
        destination: an image; in a layout without a name it keeps the source's.
        options: how the run copies.
        reporter: told of the progress.
        platforms: what is wanted of an index, as `linux/arm64`; all of it if there are none.

    Raises:
        UsageError: the image would have no name.
        OciMirrorError: it was not copied; what is at the destination is whole, or not named.
    """
    (outcome,) = copy_many([request(source, destination, platforms)], options, reporter)
    if outcome.error is not None:
        raise outcome.error
    return outcome


def request(
    source: Image | Source, destination: Image | Store, platforms: Sequence[Platform | str] = ()
) -> Request:
    """Return what `copy_many` is asked, for one image; the arguments are those of `copy`.

    Raises:
        UsageError: the image would have no name, or does not suit the destination.
        NotFound: the source layout has no such image.
        DamagedLayout: no image is named, and one of those that are there cannot be read.
    """
    origin = source if isinstance(source, Image) else source[""]
    if not origin.name and (unread := next(iter(origin.place.unreadable()), None)):
        raise DamagedLayout(f"{origin}: {unread.message}", advice="Name the image that is meant.")
    target = destination if isinstance(destination, Image) else destination[""]
    store = target.place
    if not isinstance(store, Store):
        raise UsageError(f"{target} is for reading only")
    entry = None if origin.reference else entry_of(origin)
    name = new_name(target, origin)
    asked = parsed(platforms)
    wanted = asked or (entry.platforms if entry else ())
    read_name = origin.name
    notes: tuple[str, ...] = ()
    if not store.takes_indexes:
        chosen = chosen_for_docker(origin.place, origin.name, name, asked)
        read_name, notes = chosen.read_name, chosen.notes
        wanted = () if chosen.of_index else wanted
    shown = store[name]
    if target.reference is not None:
        shown = replace(shown, reference=replace(target.reference, tag=name))
    return Request(
        origin.place,
        read_name,
        store,
        name,
        str(origin),
        str(shown),
        wanted,
        pinned=origin.reference if origin.reference and origin.reference.pinned else None,
        notes=notes,
    )


def pull(
    images: Iterable[str],
    layout: str | os.PathLike[str],
    options: Options | None = None,
    reporter: Reporter | None = None,
    *,
    platforms: Sequence[Platform | str] = (),
    network: NetworkOptions | None = None,
) -> list[Outcome]:
    """Add images of registries to a layout directory, each under its full reference.

    Args:
        images: references, as `alpine:3.19`.
        layout: the directory; it is made if it does not exist.
        options: how the run copies.
        reporter: told of the progress.
        platforms: what is wanted of indexes, all of them if there are none.
        network: how registries are reached, and as whom; else
            `from_environment()` with the jobs, retries and stop of the options.

    Returns:
        One outcome an image, in the order asked for; failures are in `Outcome.error`.

    Raises:
        UsageError: before any transfer: no reference, a directory that holds something else.
    """
    references = [Reference.parse(text) for text in _several(images)]
    wanted = parsed(platforms)
    options = options or Options()
    with _places(network, options) as places:
        path = os.fspath(layout)
        return add(references, path, places, options, reporter, platforms=wanted)


def push(
    layout: str | os.PathLike[str],
    target: str,
    options: Options | None = None,
    reporter: Reporter | None = None,
    *,
    images: Sequence[str] = (),
    keep_host: bool = False,
    platforms: Sequence[Platform | str] = (),
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
        network: how registries are reached, and as whom; else
            `from_environment()` with the jobs, retries and stop of the options.

    Returns:
        One outcome an image; failures are in `Outcome.error`.

    Raises:
        UsageError: before any transfer: two images on one destination name, no image to push.
    """
    names, wanted = _several(images), parsed(platforms)
    options = options or Options()
    with _places(network, options) as places:
        return push_all(
            os.fspath(layout),
            target,
            names,
            places,
            options,
            reporter,
            keep_host=keep_host,
            platforms=wanted,
        )


def _several(images: Iterable[str]) -> list[str]:
    if isinstance(images, str):
        raise UsageError(f"images are a list, as [{images!r}], and not one text")
    return list(images)


def _places(network: NetworkOptions | None, options: Options) -> Places:
    def reached() -> NetworkOptions:
        from ocimirror.registry.environment import from_environment

        if network is not None:
            return network
        jobs, retries, stop = options.jobs, options.retries, options.stop
        return replace(from_environment(), jobs=jobs, retries=retries, stop=stop)

    return Places(reached)
