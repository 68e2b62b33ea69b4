"""Options that every command shares, and what they become."""

from __future__ import annotations

import _thread
import logging
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ocimirror.errors import Interrupted, UsageError
from ocimirror.model.readable import SPAN_ADVICE, seconds_of

if TYPE_CHECKING:
    from ocimirror.copy.places import Places
    from ocimirror.registry import NetworkOptions

_DECIMAL = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?", re.ASCII)
_BYTES = re.compile(r"([0-9]{1,12})([KMG]?)", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """The shared options of one invocation."""

    json: bool
    quiet: bool
    verbose: int
    progress: bool
    log_format: str
    jobs: int
    auth_file: str | None
    plain_http: tuple[str, ...]
    ca_file: str | None
    client_cert: str | None
    client_key: str | None
    proxy: str | None
    retries: int
    timeout: float
    max_requests_per_second: dict[str, float]
    limit_rate: int
    fsync: bool = True
    wait: bool = False
    link_from: tuple[str, ...] = ()
    stop: threading.Event = field(default_factory=threading.Event)
    signal: int = 0

    def network(self) -> NetworkOptions:
        """Return how registries are reached, from options and environment."""
        from ocimirror.model.reference import check_registry
        from ocimirror.registry import AuthFile, NetworkOptions
        from ocimirror.registry.environment import auth_files, certs_dirs, first_of

        for path in (self.ca_file, self.client_cert, self.client_key):
            if path and not (Path(path).is_file() and os.access(path, os.R_OK)):
                raise UsageError(f"{path} is not a file that can be read")
        environment = os.environ
        proxy = self.proxy or first_of(environment, "HTTPS_PROXY", "HTTP_PROXY")
        if self.auth_file and not Path(self.auth_file).is_file():
            raise UsageError(f"--auth-file {self.auth_file} is not a file")
        chosen = self.auth_file and (AuthFile(Path(self.auth_file), "containers"),)
        return NetworkOptions(
            plain_http=frozenset(check_registry(host) for host in self.plain_http),
            ca_file=_path(self.ca_file),
            client_cert=_path(self.client_cert),
            client_key=_path(self.client_key),
            certs_dirs=certs_dirs(environment),
            proxy=proxy,
            no_proxy=first_of(environment, "NO_PROXY"),
            retries=self.retries,
            timeout_s=self.timeout,
            jobs=self.jobs,
            requests_per_second=self.max_requests_per_second,
            bytes_per_second=self.limit_rate,
            auth_files=chosen or auth_files(environment),
            stop=self.stop,
        )

    def places(self) -> Places:
        """Return the stores of this run; the network library loads only where it is needed."""
        from ocimirror.copy.places import Places

        return Places(
            self.network,
            durable=self.fsync,
            wait=self.wait,
            link_from=[layout_argument(layout) for layout in self.link_from],
            stop=self.stop,
        )

    def install_signals(self, *, writes: bool) -> None:
        """Let SIGINT, SIGTERM and SIGHUP stop the run; a second one ends the process.

        A command that writes nothing has nothing to bring to an end: the first one ends it.
        """

        def handler(number: int, _: FrameType | None) -> None:
            if self.stop.is_set() or not writes:
                os._exit(128 + number)
            self.signal = number
            Interrupted.exit_code = 128 + number  # (who raises it does not know which signal came)
            # (Not from here, nor by a Thread: this thread may hold the lock of either just now.)
            try:
                _thread.start_new_thread(self.stop.set, ())
            except RuntimeError:  # (no thread to be had; what is written survives an end like this)
                os._exit(128 + number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # (nohup stays in force)
                signal.signal(number, handler)


class Seconds(click.FloatRange):
    """A number of seconds in a range; "nan", which every comparison lets through, is in none."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or end with a usage error."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """An option that can be set as OCIMIRROR_<OPTION> too."""
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = "OCIMIRROR_" + long.removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, **attributes)


def _requests_per_second(
    _: click.Context, __: click.Parameter, texts: tuple[str, ...]
) -> dict[str, float]:
    """Read HOST=N, N a decimal above 0."""
    from ocimirror.model.reference import check_registry

    rates = {}
    for text in texts:
        host, _separator, rate = text.partition("=")
        if not _DECIMAL.fullmatch(rate) or not float(rate):
            raise click.BadParameter(f"{text!r} is not HOST=N with a number above 0")
        rates[check_registry(host)] = float(rate)
    return rates


def _bytes_per_second(_: click.Context, __: click.Parameter, text: str | None) -> int:
    """Read BYTES[K|M|G]; 0 where nothing was said."""
    if text is None:
        return 0
    match = _BYTES.fullmatch(text)
    if match is None or not int(match[1]):
        raise click.BadParameter(f"{text!r} is not a number of bytes, as 500K, 20M or 1G")
    return int(match[1]) * _UNITS[match[2].upper()]


@contextmanager
def extra(command: str, name: str) -> Iterator[None]:
    """Say what is to be installed where something that is imported in here is not."""
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"{command} needs more than is installed ({error})",
            advice=f"pip install 'ocimirror[{name}]'",
        ) from error


def seconds(_: click.Context, __: click.Parameter, value: str) -> float:
    """Read a time span as people write it: 0, 90s, 1h30m, 7d, 2w."""
    try:
        return 0 if value == "0" else seconds_of(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}. {SPAN_ADVICE}") from error


_SHARED = (
    option("--json", is_flag=True, help="Print one JSON document on stdout, nothing else there."),
    option("-q", "--quiet", is_flag=True, help="Print nothing where all went well."),
    option("-v", "--verbose", count=True, help="Log what happens; twice: every request."),
    option("--no-progress", is_flag=True, help="Draw no progress bars on a terminal."),
    option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="How -v lines look on stderr.",
    ),
    option(
        "-j",
        "--jobs",
        type=click.IntRange(1, 64),
        default=4,
        show_default=True,
        help="Transfers at the same time.",
    ),
    option(
        "--auth-file", metavar="FILE", help="Credentials, as docker or podman login write them."
    ),
    option(
        "--plain-http",
        metavar="HOST",
        multiple=True,
        help="Reach this registry without TLS (repeatable).",
    ),
    option("--ca-file", metavar="FILE", help="Trust these PEM certificates too."),
    option("--client-cert", metavar="FILE", help="PEM certificate to present."),
    option("--client-key", metavar="FILE", help="Its key, where it is in another file."),
    option("--proxy", metavar="URL", help="HTTP proxy; else HTTPS_PROXY, HTTP_PROXY and NO_PROXY."),
    option(
        "--retries",
        type=click.IntRange(0, 100),
        default=5,
        show_default=True,
        help="Times that a transfer is tried again.",
    ),
    option(
        "--timeout",
        type=Seconds(0.1, 86400),
        default=60,
        show_default=True,
        metavar="SECONDS",
        help="Give up on a peer that is silent this long.",
    ),
    option(
        "--limit-rate",
        metavar="BYTES[K|M|G]",
        callback=_bytes_per_second,
        help="Transfer at most this much a second, down and up together; 1K is 1024.",
    ),
    option(
        "--max-requests-per-second",
        metavar="HOST=N",
        multiple=True,
        callback=_requests_per_second,
        help="Send this registry at most N requests a second (repeatable).",
    ),
)


def shared(command: F) -> F:
    """Add the options that every command takes."""
    for add in reversed(_SHARED):
        command = add(command)
    return command


waiting = option(
    "--wait", is_flag=True, help="Wait for the layout's lock, while gc or repair is at work there."
)
durable = option(
    "--fsync/--no-fsync",
    default=True,
    help="Survive power loss (default), or only a killed process.",
)
linking = option(
    "--link-from",
    metavar="LAYOUT",
    multiple=True,
    help="Hard-link blobs that this other layout has, instead of fetching them (repeatable).",
)
deep = option("--deep", is_flag=True, help="Believe neither names nor sizes: look and hash.")
dry_run = option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")


def layout_argument(text: str) -> str:
    """Return the directory that a LAYOUT argument names: a path, or oci:PATH."""
    path = text.removeprefix("oci:")
    if (":" in path or "@" in path) and not Path(path).exists():
        raise UsageError(
            f"{path} looks like an image, and there is no directory of that name",
            advice="LAYOUT is a whole directory, without the NAME of an image; it comes last in"
            " ocimirror pull IMAGE... LAYOUT.",
        )
    return path


def copying(command: F) -> F:
    """Add the options of commands that copy."""
    for add in (
        waiting,
        option(
            "--replace-signatures",
            is_flag=True,
            help="Overwrite a cosign tag at the destination that has signatures of its own.",
        ),
        option(
            "--referrers/--no-referrers",
            default=True,
            help="Carry signatures, SBOMs and attestations (default), or not.",
        ),
        option(
            "--allow-foreign",
            is_flag=True,
            help="Copy images without their foreign layers; the result says which.",
        ),
        durable,
        option(
            "--sparse",
            type=click.Choice(["fail", "full", "child"]),
            default="fail",
            show_default=True,
            help="Where a registry refuses an index without its other platforms: give up, copy"
            " them all, or name the one platform's manifest.",
        ),
        option(
            "--platform",
            metavar="OS/ARCH[/VARIANT]",
            multiple=True,
            help="Copy only this platform (repeatable); the index keeps its bytes.",
        ),
        deep,
        dry_run,
    ):
        command = add(command)
    return command


def settings_from(options: dict[str, Any], *, writes: bool) -> Settings:
    """Take the shared options out of a command's parameters, and set logging and signals up."""
    options["progress"] = not options.pop("no_progress")
    names = [n for n in Settings.__dataclass_fields__ if n in options]
    settings = Settings(**{name: options.pop(name) for name in names})
    _log(settings)
    settings.install_signals(writes=writes)
    return settings


def _log(settings: Settings) -> None:
    levels = {0: logging.ERROR if settings.quiet else logging.WARNING, 1: logging.INFO}
    handler = logging.StreamHandler(sys.stderr)
    from ocimirror.cli.output import JsonLog, TextLog

    if settings.log_format == "json":
        handler.setFormatter(JsonLog())
    else:
        handler.setFormatter(TextLog("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("ocimirror")
    root.handlers[:] = [handler]
    root.setLevel(levels.get(settings.verbose, logging.DEBUG))
    root.propagate = False
