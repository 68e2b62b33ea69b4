"""hosts: mirror settings for engines, printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import option, settings_from, shared
from ocimirror.errors import UsageError, storage_errors
from ocimirror.model.codec import to_document, to_json

if TYPE_CHECKING:
    from ocimirror.serve.hosts import HostsSettings, SettingsFile

_ENGINES = click.Choice(["containerd", "docker", "podman", "cri-o", "k3s", "rke2"])


@click.command(
    "hosts", short_help="Print settings that make an engine use a mirror.", no_args_is_help=True
)
@click.argument("mirror")
@click.argument("registries", metavar="[REGISTRY]...", nargs=-1)
@option("--for", "engines", type=_ENGINES, multiple=True, required=True, help="The engine.")
@option(
    "--layout",
    "layouts",
    metavar="LAYOUT",
    multiple=True,
    help="Take the registries of this layout's images, which `serve` serves (repeatable).",
)
@option(
    "--keep-host/--no-keep-host",
    default=None,
    help="The mirror has HOST/REPOSITORY, as push --keep-host fills it. (Default: for podman and"
    " CRI-O with --layout, unless MIRROR has a PREFIX.)",
)
@option(
    "--fallback",
    is_flag=True,
    help="Let the engine ask the registry itself for what the mirror does not give.",
)
@option(
    "--digest-only",
    is_flag=True,
    help="Ask the mirror by digest only, and the registry itself what a tag stands for.",
)
@option(
    "--write-to",
    metavar="DIRECTORY",
    default="",
    help="Write the files below this directory too, but those that are added to existing ones.",
)
@shared
def hosts_command(
    mirror: str,
    registries: tuple[str, ...],
    engines: tuple[Any, ...],
    layouts: tuple[str, ...],
    keep_host: bool | None,
    fallback: bool,
    digest_only: bool,
    write_to: str,
    **options: Any,
) -> int:
    """Print the settings that make an engine use a mirror by the original names.

    MIRROR is [https://|http://]HOST[:PORT][/PREFIX], as push has filled it. Without a REGISTRY and
    --layout the settings are for every registry, where an engine can be told so. --ca-file is a
    path on the engine's machine. Nothing is put in place: that is yours to do.

    \b
    Examples:
      ocimirror hosts https://mirror.example.com:5000 docker.io quay.io --for containerd
      ocimirror hosts http://10.0.0.5:5000 --layout ./layout --for k3s --for docker
      ocimirror hosts mirror.example.com docker.io --for podman --ca-file /etc/ssl/mirror.pem
      ocimirror hosts mirror.example.com --for containerd --write-to ./files; cp -r files/etc /
    """
    from ocimirror.model.reference import check_registry
    from ocimirror.serve.hosts import hosts
    from ocimirror.serve.mirrors import Wishes, parse_mirror, read_contents

    settings = settings_from(options, writes=False)
    where = parse_mirror(
        mirror,
        plain_http=settings.plain_http,
        keep_host=bool(keep_host),
        ca_file=settings.ca_file or "",
    )
    named = [check_registry(registry) for registry in registries]
    with settings.places() as places:
        contents = read_contents([path.removeprefix("oci:") for path in layouts], places)
    named += contents.registries
    wishes = Wishes(
        tuple(dict.fromkeys(named)),
        fallback,
        digest_only,
        host_in_path=bool(layouts) and keep_host is None and not where.prefix,
    )
    made = hosts(where, engines, wishes, contents)
    written = _write(made, Path(write_to)) if write_to else []
    if settings.json:
        known = {
            "clashes": [clash.document() for clash in contents.clashes],
            "sparse": to_json(contents.sparse),
        }
        output.document("hosts", 0, {**to_document(made), **known, "written": written})
    else:
        _lines(made)
        for path in written:
            output.line(f"# written: {path}")
    return 0


def _write(made: HostsSettings, directory: Path) -> list[str]:
    """Write whole files below a directory; return their paths."""
    if directory.resolve() == Path("/"):
        raise UsageError(
            "--write-to puts nothing in place: give a directory of your own",
            advice="Look at what is there, then copy it to where it goes.",
        )
    written = []
    for file in made.files:
        if not file.merge:
            path = directory / file.path.lstrip("/")
            with storage_errors(f"cannot write {path}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(file.content)
            written.append(str(path))
    return written


def _lines(made: HostsSettings) -> None:
    for file in made.files:
        _file_lines(file)
    for note in made.notes:
        output.line(f"# note: {note}")


def _file_lines(file: SettingsFile) -> None:
    output.line(f"# {'add to ' if file.merge else ''}{file.path}")
    output.line(f"#   {file.purpose}")
    output.line(f"#   then: {file.apply}" if file.apply else "#   read at each pull: no restart")
    for line in file.content.splitlines():
        output.line(line)
    output.line("")
