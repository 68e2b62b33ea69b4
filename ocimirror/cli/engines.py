"""load: into container engines, with a receipt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output, receipts
from ocimirror.cli.options import dry_run, option, settings_from, shared

if TYPE_CHECKING:
    from ocimirror.engines.receipt import Part

_ENGINES = click.Choice(["docker", "containerd", "podman"])


@click.command(
    "load", short_help="Load images into an engine, with a receipt.", no_args_is_help=True
)
@click.argument("layout")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@option("--into", "engine", type=_ENGINES, required=True, help="The engine.")
@receipts.engine_options
@option(
    "--route",
    type=click.Choice(["auto", "archive", "registry", "alias"]),
    default="auto",
    help="How: by an archive, or by letting docker pull from this machine.",
)
@option("--replace", is_flag=True, help="Move names that the engine has for other images.")
@dry_run
@shared
def load_command(
    layout: str,
    names: tuple[str, ...],
    engine: Any,
    host: str,
    namespace: str,
    platforms: tuple[str, ...],
    route: Any,
    replace: bool,
    require: tuple[Part, ...],
    **options: Any,
) -> int:
    """Load images of a layout into an engine, and say what it kept of their identity.

    All content is hashed before any of it is sent. Afterwards the engine is asked what it has;
    one line says what became of each identity. Without a NAME, every named image is loaded.

    \b
    Examples:
      ocimirror load ./layout --into containerd --namespace k8s.io
      ocimirror load ./layout alpine:3.19 --into docker
      ocimirror load ./layout alpine:3.19 --into podman --require index
    """
    from ocimirror.workflows.engines import EngineOptions, open_engine
    from ocimirror.workflows.load import LoadOptions, chosen_entries, load
    from ocimirror.workflows.places import layout_location

    planned = options.pop("dry_run")
    settings = settings_from(options, writes=True)
    where = layout_location(layout)
    how = LoadOptions(
        receipts.platforms_from(platforms), route, replace, planned, settings.jobs, settings.stop
    )
    with settings.places() as places:
        source = places.source(where)
        entries = chosen_entries(source, where, names)
        target = open_engine(EngineOptions(engine, host, namespace), settings.stop)
        loaded = load(
            source,
            entries,
            target,
            how,
            lambda item: (
                None
                if settings.json
                else receipts.print_loaded(
                    item, require, verbose=bool(settings.verbose), quiet=settings.quiet
                )
            ),
        )
    code = receipts.exit_code(loaded, require)
    if settings.json:
        output.document("load", code, receipts.documents(loaded))
    return code
