"""load and save: into container engines and out of them, with a receipt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output, receipts
from ocimirror.cli.options import (
    Settings,
    dry_run,
    durable,
    layout_argument,
    option,
    settings_from,
    shared,
)
from ocimirror.errors import OciMirrorError

if TYPE_CHECKING:
    from ocimirror.engines.load import Loaded
    from ocimirror.engines.receipt import Part

_ENGINES = click.Choice(["docker", "containerd", "podman"])


@click.command(
    "load", short_help="Load images into an engine, with a receipt.", no_args_is_help=True
)
@click.argument("layout", required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@option("--into", "engine", type=_ENGINES, help="The engine.")
@receipts.engine_options
@option(
    "--route",
    type=click.Choice(["auto", "archive", "registry", "alias"]),
    default="auto",
    help="How: an archive, or docker pulls from this machine, from a registry or by an alias.",
)
@option("--undo", is_flag=True, help="Put back what a killed --route alias left changed.")
@option("--replace", is_flag=True, help="Move names that the engine has for other images.")
@dry_run
@shared
def load_command(
    layout: str | None,
    names: tuple[str, ...],
    engine: Any,
    host: str,
    namespace: str,
    platforms: tuple[str, ...],
    route: Any,
    undo: bool,
    replace: bool,
    require: tuple[Part, ...],
    **options: Any,
) -> int:
    """Load images of a layout into an engine, and say what it kept of their identity.

    All content is hashed before any of it is sent. Afterwards the engine is asked what it has;
    one line says what became of each identity. Without a NAME, every named image is loaded.

    Docker's older store learns no digest from an archive. With --route alias, dockerd on this
    machine pulls from the layout under the original names: for that moment a line in /etc/hosts, a
    CA in /etc/docker/certs.d, or for docker.io a mirror in daemon.json say so, and all of it is
    put back. With --route registry it pulls under a name of this machine.

    \b
    Examples:
      ocimirror load ./layout --into containerd --namespace k8s.io
      ocimirror load ./layout alpine:3.19 --into docker
      ocimirror load ./layout alpine:3.19 --into docker --route alias --require index
      ocimirror load ./layout alpine:3.19 --into podman --require index
    """
    from ocimirror.cli.progress import moving
    from ocimirror.copy.places import layout_location
    from ocimirror.engines.load import NO_ENGINE_TAKES, LoadOptions, chosen_entries, left_out, load
    from ocimirror.engines.opening import EngineOptions, open_engine
    from ocimirror.engines.routes import opened

    planned = options.pop("dry_run")
    settings = settings_from(options, writes=True)
    if undo and planned:
        raise click.UsageError("--undo has no --dry-run")
    if undo:
        return _undo(host, settings)
    if not layout:
        raise click.UsageError("Missing argument 'LAYOUT'.")
    if not engine:
        raise click.UsageError("Missing option '--into': docker, containerd or podman.")
    where = layout_location(layout)
    chosen = receipts.platforms_from(platforms)
    shown = settings.progress and not settings.quiet and not settings.json
    bar = moving("hashed and sent", shown=shown)
    how = LoadOptions(chosen, replace, planned, settings.jobs, settings.stop, bar.moved)

    def told(item: Loaded) -> None:
        if not settings.json:
            verbose = bool(settings.verbose)
            with bar.aside():
                receipts.print_loaded(item, require, verbose=verbose, quiet=settings.quiet)

    loaded: list[Loaded] = []
    failed: OciMirrorError | None = None
    with settings.places() as places, bar:
        try:
            source = places.indexed(where, NO_ENGINE_TAKES)
            entries = chosen_entries(source, where, names)
            target = open_engine(EngineOptions(engine, host, namespace), settings.stop)
            with opened(route, target, source, where, entries, how) as way:
                for item in load(source, entries, target, way, how):
                    loaded.append(item)
                    told(item)
            for item in left_out(source, where, names):
                loaded.append(item)
                told(item)
        except OciMirrorError as error:
            failed = error
    return receipts.finish("load", loaded, failed, require, settings)


def _undo(host: str, settings: Settings) -> int:
    """Put back what a killed `load --route alias` left changed."""
    from ocimirror.engines.docker.alias import undo
    from ocimirror.engines.opening import EngineOptions, open_engine

    undone = undo(lambda: open_engine(EngineOptions("docker", host), settings.stop))
    code = 4 if undone.left else 0
    if settings.json:
        found = {"undone": undone.found, "left": list(undone.left), "looked": list(undone.looked)}
        output.document("load", code, found)
    elif not undone.found:
        output.line(f"nothing to undo: no load left {' or '.join(undone.looked)}")
    else:
        output.line(f"everything {'else ' if undone.left else ''}is as it was")
        for what in undone.left:
            output.line(f"  not put back: {what}")
    return code


@click.command("save", short_help="Save images of an engine, with a receipt.", no_args_is_help=True)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.argument("layout")
@option("--from", "engine", type=_ENGINES, required=True, help="The engine.")
@receipts.engine_options
@option(
    "--with",
    "originals",
    metavar="LOCATION",
    help="Where the original manifest may be of what docker or podman has lost it of.",
)
@durable
@shared
def save_command(
    names: tuple[str, ...],
    layout: str,
    engine: Any,
    host: str,
    namespace: str,
    platforms: tuple[str, ...],
    originals: str | None,
    require: tuple[Part, ...],
    **options: Any,
) -> int:
    """Save images of an engine into a layout, and say what of their identity came out.

    containerd, and docker's containerd store, give every byte as it came: all platforms that they
    have. Docker's older store and podman keep no layer as it was: a manifest is made and marked as
    new, unless --with names a place where the original one is and can be proved.

    \b
    Examples:
      ocimirror save docker.io/library/alpine:3.19 ./layout --from containerd --namespace k8s.io
      ocimirror save app:1 ./layout --from docker --with docker://registry.example.com/app:1
    """
    from ocimirror.copy.outcome import Options
    from ocimirror.copy.places import parse_location
    from ocimirror.engines.opening import EngineOptions, open_engine
    from ocimirror.engines.save import save

    settings = settings_from(options, writes=True)
    layout = layout_argument(layout)
    copy_options = Options(
        jobs=settings.jobs, retries=settings.retries, referrers=False, stop=settings.stop
    )
    saved: list[Loaded] = []
    failed: OciMirrorError | None = None
    with settings.places() as places:
        place = parse_location(originals) if originals else None
        try:
            target = open_engine(EngineOptions(engine, host, namespace), settings.stop)
            for item in save(
                names,
                layout,
                target,
                places,
                copy_options,
                platforms=receipts.platforms_from(platforms),
                originals=place,
            ):
                saved.append(item)
                if not settings.json:
                    verbose = bool(settings.verbose)
                    receipts.print_loaded(item, require, verbose=verbose, quiet=settings.quiet)
        except OciMirrorError as error:
            failed = error
    return receipts.finish("save", saved, failed, require, settings)
