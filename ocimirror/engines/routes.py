"""How images come into an engine: by an archive, or by letting docker pull from this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from ocimirror.engines.docker.engine import Docker, DockerGraphdriver
from ocimirror.engines.engine import Engine
from ocimirror.engines.load import LoadOptions, Route, by_archive
from ocimirror.engines.receipt import PARTS
from ocimirror.engines.wanted import Wanted
from ocimirror.errors import Unsupported, UsageError
from ocimirror.model.reference import Location
from ocimirror.stores.entry import Entry
from ocimirror.stores.store import Source

if TYPE_CHECKING:
    from ocimirror.serve.server import Server

_READS_ZSTD = 23

RouteName = Literal["auto", "archive", "registry", "alias"]


@contextlib.contextmanager
def opened(
    name: RouteName,
    engine: Engine,
    source: Source,
    location: Location,
    entries: Sequence[Entry],
    options: LoadOptions,
) -> Iterator[Route]:
    """Open a route for some images, and take everything back afterwards.

    `auto` is the archive: it touches no file outside the layout and the engine.

    Raises:
        UsageError: the engine does not have this route, or it cannot be opened here.
    """
    if name in ("auto", "archive"):
        yield by_archive(engine, source, options)
        return
    if not isinstance(engine, DockerGraphdriver):
        raise UsageError(
            f"--route {name} is for docker's older store; an archive keeps everything in this one"
        )
    if location.scheme != "oci":
        raise UsageError(f"--route {name} serves a layout directory, not {location}")
    if len(options.platforms) > 1:
        raise UsageError(f"--route {name}: docker pulls one platform")
    platform = str(options.platforms[0]) if options.platforms else ""
    try:
        if name == "alias":
            from ocimirror.engines.docker.alias import Alias

            named = [entry.reference() for entry in entries]  # (else it fails on its own)
            registries = [reference.registry for reference in named if reference is not None]
            if os.geteuid():
                raise UsageError(
                    "--route alias changes files of this machine and signals dockerd: it needs root"
                )
            if options.dry_run:
                Alias(engine, location.path, registries).check()
                yield Route(name, frozenset(PARTS), lambda _: ())
                return
            with Alias(engine, location.path, registries) as alias:
                yield Route(name, frozenset(PARTS), _pulling(engine, alias.pull, platform))
            return
        from ocimirror.serve.server import Options, Server
        from ocimirror.serve.shelf import Shelf
    except ImportError as error:
        raise UsageError(
            f"--route {name} needs the server ({error})", advice="pip install 'ocimirror[serve]'"
        ) from error
    with Server(Shelf([location.path]), Options()) as server:
        yield Route(
            name,
            engine.keeps,
            _pulling(engine, partial(_pull_and_name, engine, server), platform),
        )


def _pulling(
    docker: Docker, pull: Callable[[Wanted, str], Sequence[str]], platform: str
) -> Callable[[Wanted], Sequence[str]]:
    """Return what has docker pull an image, if it is able to."""

    def send(wanted: Wanted) -> Sequence[str]:
        layers = docker.chosen(wanted).manifest.blobs[1:]
        major = docker.version.partition(".")[0]
        if major.isdigit() and int(major) < _READS_ZSTD:
            for layer in layers:
                if "zstd" in layer.media_type:
                    raise Unsupported(
                        f"image {wanted.name}: docker {docker.version} pulls no zstd layers, as"
                        f" {layer.digest} is one",
                        advice="--route archive decompresses them; docker reads them since 23.0.",
                    )
        return pull(wanted, platform)

    return send


def _pull_and_name(docker: Docker, server: Server, wanted: Wanted, platform: str) -> list[str]:
    """Have docker pull under a name of this machine, and give the image its own one too.

    The digests stay with the name of this machine: docker forgets them when it tags.
    """
    reference = wanted.reference
    mirror = f"{server.address}/{reference.registry.replace(':', '_')}/{reference.repository}"
    tag = f":{reference.tag}" if reference.tag else f"@{wanted.root.digest}"
    options = docker.pull_options(docker.chosen(wanted), platform)
    docker.client.run("pull", "--quiet", *options, mirror + tag)
    if reference.tag:
        own = str(replace(reference, digest=None))
        docker.client.ask("tag", mirror + tag, own)
    return [f"its digests are known under a name of this machine: {mirror}@{wanted.root.digest}"]
