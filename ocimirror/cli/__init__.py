"""The command line: arguments, environment, printing and exit codes, and nothing else.

`main` is the console script. Commands load when they are used, so that `--version` and a typo
cost nothing: `transfer` holds pull, push and copy, `look` verify, inspect and list, `care` tag,
remove, repair and gc, `engines` load and save, `login` login and logout; `sync`, `history`,
`serve`, `hosts` and `docker_refs` what they are called after, `sync_config` config, `lock` verify's
--lock. `options` are those that all of them share, `output` is every line and document that is
printed, `receipts` those of engines, `progress` the bars,
`streams` where it all goes.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import warnings

import click
from click.shell_completion import CompletionItem

from ocimirror.cli import streams
from ocimirror.shown import keep_for_good
from ocimirror.version import __version__

_COMMANDS = {
    "pull": "ocimirror.cli.transfer",
    "push": "ocimirror.cli.transfer",
    "copy": "ocimirror.cli.transfer",
    "sync": "ocimirror.cli.sync",
    "sync merge": "ocimirror.cli.sync_merge",
    "config": "ocimirror.cli.sync_config",
    "history": "ocimirror.cli.history",
    "verify": "ocimirror.cli.look",
    "inspect": "ocimirror.cli.look",
    "list": "ocimirror.cli.look",
    "tag": "ocimirror.cli.care",
    "remove": "ocimirror.cli.care",
    "repair": "ocimirror.cli.care",
    "gc": "ocimirror.cli.care",
    "load": "ocimirror.cli.engines",
    "save": "ocimirror.cli.engines",
    "serve": "ocimirror.cli.serve",
    "hosts": "ocimirror.cli.hosts",
    "docker-refs": "ocimirror.cli.docker_refs",
    "login": "ocimirror.cli.login",
    "logout": "ocimirror.cli.login",
    "completion": "ocimirror.cli.completion",
}
_OTHER_NAMES = {"sync-merge": "sync merge"}


class _Commands(click.Group):
    """Loads a command's module when the command is asked for.

    A name may have two words, which are the first two arguments: `sync` takes a file and is no
    group, and yet `sync merge` is what people write. (A file called so is `./merge`.)
    """

    def list_commands(self, _: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        known = _OTHER_NAMES.get(cmd_name, cmd_name)
        module = _COMMANDS.get(known)
        if module is None:
            return None
        name = f"{known.replace('-', '_').replace(' ', '_')}_command"
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = " ".join(args[:2])
        if args[1:] and name in _COMMANDS:
            return name, self.get_command(ctx, name), args[2:]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = super().shell_complete(ctx, incomplete)
        return [item for item in found if " " not in item.value]  # (a shell completes one word)


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 2 usage, 3 try again, 4 will not help, 5 integrity, 7 locked,"
    " 8 storage, 9 identity not kept. `ocimirror COMMAND --help` shows examples.",
)
@click.version_option(__version__, message="ocimirror %(version)s")
def commands() -> None:
    """Mirror OCI images without changing a byte.

    \b
    ocimirror pull docker.io/library/alpine:3.19 ./layout
    ocimirror verify oci:./layout
    ocimirror push ./layout registry.example.com:5000
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; the process ends here whatever threads still do."""
    # Looking for garbage is a twentieth of starting up, and finds none.
    gc.set_threshold(50_000)
    argv = sys.argv[1:] if arguments is None else arguments
    streams.prepare()
    keep_for_good()
    # (What failed or was stopped says so itself.)
    warnings.filterwarnings("ignore", ".* without commit", UserWarning)
    code = streams.finish(_run(argv))
    # A thread may hang in a read of a silent peer; a stopped run does not wait for it.
    os._exit(code)


def _run(argv: list[str]) -> int:
    try:
        result = commands.main(argv, prog_name="ocimirror", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the edge of the program
        from ocimirror.cli.output import report_failure

        return report_failure(error, argv)
    return result if isinstance(result, int) else 0
