"""serve."""

from __future__ import annotations

import ipaddress
import logging
import os
from pathlib import Path
from typing import Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import option, settings_from, shared
from ocimirror.errors import UsageError
from ocimirror.model.reference import DOCKER_HUB, check_registry

logger = logging.getLogger(__name__)


def _address(_: click.Context, __: click.Parameter, text: str) -> tuple[str, int]:
    """Read HOST:PORT; an IPv6 address in brackets."""
    host, _colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not HOST:PORT, as 127.0.0.1:5050 or [::1]:5050")
    return host, int(port)


def _registry(_: click.Context, __: click.Parameter, text: str) -> str:
    return check_registry(text) if text else ""


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
@option("--tls-cert", metavar="FILE", help="Serve TLS with this certificate (PEM, with its chain).")
@option("--tls-key", metavar="FILE", help="The private key of --tls-cert, without a password.")
@option(
    "--tls-generate",
    metavar="NAME",
    multiple=True,
    help="Serve TLS with a certificate made here for this host name or address (repeatable).",
)
@option(
    "--tls-directory",
    metavar="DIRECTORY",
    default=lambda: str(_state() / "serve"),
    show_default="~/.local/state/ocimirror/serve",
    help="Where --tls-generate keeps it; clients have to trust ca.pem there.",
)
@option(
    "--only",
    metavar="HOST",
    default="",
    callback=_registry,
    help="Serve as this registry: its repositories, and no others.",
)
@option(
    "--prefer",
    metavar="HOST",
    default=DOCKER_HUB,
    show_default=True,
    callback=_registry,
    help="Whose repository a path without a registry means, if several have it.",
)
@option("--htpasswd", metavar="FILE", help="Let in only these users (written by `htpasswd -B`).")
@option("--token-file", metavar="FILE", help="Let in only who has one of these tokens, one a line.")
@shared
def serve_command(layouts: tuple[str, ...], listen: tuple[str, int], **options: Any) -> int:
    """Serve layouts as a read-only registry, with a page for people.

    LAYOUT is an image layout, or a directory with layouts somewhere below. An image is found under
    its repository, with and without its host in front; without it, of several registries that have
    that repository, docker.io's is meant, or none. What changes in the layouts, in the
    certificate and in the files of users is served at once; SIGHUP forces it.

    \b
    Examples:
      ocimirror serve ./layout
      ocimirror serve /srv/mirror --listen 0.0.0.0:5050 --tls-generate mirror.example.com
      ocimirror serve /srv/mirror --htpasswd users --tls-cert cert.pem --tls-key key.pem
    """
    only, prefer = options.pop("only"), options.pop("prefer")
    names = options.pop("tls_generate")
    directory = options.pop("tls_directory")
    certificate, key = options.pop("tls_cert"), options.pop("tls_key")
    htpasswd, tokens = options.pop("htpasswd") or "", options.pop("token_file") or ""
    if bool(certificate) != bool(key) or (certificate and names):
        raise UsageError("--tls-cert and --tls-key belong together, or --tls-generate alone")
    settings = settings_from(options, writes=False)
    try:
        from ocimirror.serve.access import AccessFiles
        from ocimirror.serve.certificates import CertificateFiles, generate_certificate
        from ocimirror.serve.server import Options, Server
    except ImportError as error:
        raise UsageError(
            f"serve needs more than is installed ({error})", advice="pip install 'ocimirror[serve]'"
        ) from error
    from ocimirror.serve.shelf import Shelf

    files = CertificateFiles(certificate, key) if certificate else None
    if names:
        files = generate_certificate(directory, names)
    shelf = Shelf([path.removeprefix("oci:") for path in layouts])
    server = Server(
        shelf,
        Options(
            *listen,
            certificate=files,
            access=AccessFiles(htpasswd, tokens),
            only=only,
            prefer=prefer,
        ),
    )
    if files is None and not _is_loopback(listen[0]):
        logger.warning("%s is served without TLS: anybody on the way may read along", server.url)

    def started() -> None:
        ca = files.ca if files else ""
        count = len(shelf.snapshot.layouts)
        if settings.json:
            snapshot = shelf.snapshot
            served = {
                "layouts": count,
                "repositories": len(snapshot.repositories),
                "clashes": [clash.document(prefer) for clash in snapshot.clashes if not only],
                "sparse": {n: [*map(str, held)] for n, held in snapshot.sparse.items()},
            }
            output.document("serve", 0, {"url": server.url, "ca_file": ca or None, **served})
        elif not settings.quiet:
            output.line(
                f"serving {count} {'layout' if count == 1 else 'layouts'} on {server.url}",
                aside=True,
            )
            if ca:
                output.line(f"  clients have to trust {ca}", aside=True)

    server.run(started)
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _state() -> Path:
    """Return where this user's programs keep what lasts (XDG base directories)."""
    home = Path(os.environ.get("HOME") or "/")
    return Path(os.environ.get("XDG_STATE_HOME") or home / ".local/state") / "ocimirror"
