"""serve."""

from __future__ import annotations

from typing import Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import option, settings_from, shared
from ocimirror.errors import UsageError


def _address(_: click.Context, __: click.Parameter, text: str) -> tuple[str, int]:
    """Read HOST:PORT; an IPv6 address in brackets."""
    host, _colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not HOST:PORT, as 127.0.0.1:5050 or [::1]:5050")
    return host, int(port)


@click.command("serve", no_args_is_help=True)
@click.argument("layouts", metavar="LAYOUT...", nargs=-1, required=True)
@option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:5050",
    show_default=True,
    callback=_address,
    help="Where clients find it; port 0 takes a free one.",
)
@shared
def serve_command(layouts: tuple[str, ...], listen: tuple[str, int], **options: Any) -> int:
    """Serve layouts as a read-only registry, with a page for people.

    LAYOUT is an image layout, or a directory with layouts somewhere below.

    \b
    Examples:
      ocimirror serve ./layout
      ocimirror serve /srv/mirror --listen 0.0.0.0:5050
    """
    settings = settings_from(options, writes=False)
    try:
        from ocimirror.serve.server import Options, Server
    except ImportError as error:
        raise UsageError(
            f"serve needs aiohttp ({error})", advice="pip install 'ocimirror[serve]'"
        ) from error
    from ocimirror.serve.shelf import Shelf

    shelf = Shelf([path.removeprefix("oci:") for path in layouts])
    server = Server(shelf, Options(*listen))
    if settings.json:
        output.document("serve", 0, {"url": server.url})
    elif not settings.quiet:
        output.line(f"serving {len(shelf.snapshot.layouts)} layouts on {server.url}", aside=True)
    return 128 + server.run()
