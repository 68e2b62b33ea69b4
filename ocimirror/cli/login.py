"""login and logout."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import Settings, option, settings_from, shared

if TYPE_CHECKING:
    from ocimirror.registry import AuthFile, NetworkOptions

_MAX_PASSWORD_BYTES = 64 * 1024


@click.command("login", short_help="Store credentials for a registry.", no_args_is_help=True)
@click.argument("registry")
@option("-u", "--username", metavar="NAME", help="Who you are there; else it is asked for.")
@option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@shared
def login_command(registry: str, username: str | None, password_stdin: bool, **options: Any) -> int:
    """Check a user name and a password with a registry, and store them.

    They go where docker and podman find them too: to the credential helper that the credential
    file names, else into the file: --auth-file, REGISTRY_AUTH_FILE, DOCKER_CONFIG/config.json or
    ~/.docker/config.json, unless a file that is read before it knows the registry already.

    \b
    Examples:
      ocimirror login registry.example.com
      ocimirror login docker.io -u ada --password-stdin < password.txt
      ocimirror login 127.0.0.1:5000 -u ada --auth-file ./auth.json
    """
    from ocimirror.registry.login import login, parse_registry

    host = parse_registry(registry)
    # (Before signals are ours: a terminal gets its echo back when asking is interrupted.)
    username, password = _asked(username, password_stdin=password_stdin)
    settings = settings_from(options, writes=False)
    network, preferred = _network(settings)
    place = login(host, username, password, network, preferred)
    if settings.json:
        output.document(
            "login",
            0,
            {
                "registry": host,
                "status": "logged_in" if place else "not_needed",
                "username": username if place else None,
                "stored_in": place or None,
            },
        )
    elif not settings.quiet:
        openly = " (not encrypted)" if "/" in place else ""
        stored = f"logged in  {host} as {username}, stored in {place}{openly}"
        output.line(stored if place else f"not needed  {host} asks for no login; nothing is stored")
    return 0


@click.command("logout", short_help="Erase credentials for a registry.", no_args_is_help=True)
@click.argument("registry")
@shared
def logout_command(registry: str, **options: Any) -> int:
    """Erase the credentials for a registry that the next pull would use.

    \b
    Examples:
      ocimirror logout registry.example.com
      ocimirror logout docker.io --auth-file ./auth.json
    """
    from ocimirror.registry.login import logout, parse_registry

    host = parse_registry(registry)
    settings = settings_from(options, writes=False)
    done = logout(host, _network(settings)[0])
    if settings.json:
        status = "logged_out" if done.erased_from else "not_logged_in"
        places = {"erased_from": done.erased_from or None, "still_in": done.still_in or None}
        output.document("logout", 0, {"registry": host, "status": status, **places})
    elif not settings.quiet:
        erased = f"logged out  {host}, erased from {done.erased_from}"
        output.line(erased if done.erased_from else f"not logged in  {host}")
        if done.still_in:
            output.line(f"  note: {done.still_in} has credentials for it too")
    return 0


def _asked(username: str | None, *, password_stdin: bool) -> tuple[str, str]:
    """Return user name and password, what is missing from the terminal, the password unseen."""
    if password_stdin:
        if not username:
            raise click.UsageError("--password-stdin needs --username")
        return username, _password_from_stdin()
    if not sys.stdin.isatty():
        raise click.UsageError(
            "there is no terminal to ask for a password:"
            " give --username NAME --password-stdin, and the password on standard input"
        )
    username = username or click.prompt("Username", err=True)
    password: str = click.prompt("Password", hide_input=True, err=True)
    return username, password


def _password_from_stdin() -> str:
    """Return standard input without its last line end; a JSON key has several lines."""
    raw = sys.stdin.buffer.read(_MAX_PASSWORD_BYTES + 1)
    if len(raw) > _MAX_PASSWORD_BYTES:
        raise click.UsageError(f"the password is longer than {_MAX_PASSWORD_BYTES} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        # Without its cause, which quotes the password.
        raise click.UsageError("the password is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def _network(settings: Settings) -> tuple[NetworkOptions, AuthFile]:
    """Return how registries are reached, and the credential file that the user prefers.

    Unlike where it is only read, the file of --auth-file may be absent.
    """
    from dataclasses import replace

    from ocimirror.registry import AuthFile

    chosen, settings.auth_file = settings.auth_file, None
    network = settings.network()
    if chosen:
        network = replace(network, auth_files=(AuthFile(Path(chosen), "containers"),))
    named = chosen or os.environ.get("REGISTRY_AUTH_FILE") or os.environ.get("DOCKER_CONFIG")
    files = [file for file in network.auth_files if not file.content]
    return network, files[0 if named else -1]
