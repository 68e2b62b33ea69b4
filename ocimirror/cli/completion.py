"""completion: the script that a shell sources."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      source <(ocimirror completion bash)
      ocimirror completion fish > ~/.config/fish/completions/ocimirror.fish
    """
    from click.shell_completion import get_completion_class

    from ocimirror.cli import commands

    completion = get_completion_class(shell)
    if completion is None:  # pragma: no cover - the choice above names what click has
        raise click.UsageError(f"no completion for {shell}")
    click.echo(completion(commands, {}, "ocimirror", "_OCIMIRROR_COMPLETE").source())
