"""sync --every: one night after the other, on a configuration that may change meanwhile."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ocimirror.cli import output
from ocimirror.cli.options import Settings
from ocimirror.errors import Interrupted, OciMirrorError
from ocimirror.model.codec import to_document
from ocimirror.shown import forget_closed

if TYPE_CHECKING:
    from ocimirror.sync.config import Config

logger = logging.getLogger(__name__)
# How long a change of the configuration may go unnoticed.
_LOOK_S = 1.0


class Nights:
    """One sync after the other, until a signal; what is changed meanwhile is loaded again.

    The run in flight ends on the configuration that it began with. A new one that is invalid
    leaves the old one in force, and is said so at once and before each night.

    Args:
        path: of the configuration.
        config: as it was read at the start.
        settings: of the command.
        every_s: from the start of a run to that of the next; a run that is longer delays it.
    """

    def __init__(self, path: Path, config: Config, settings: Settings, every_s: float) -> None:
        self._path = path
        self._config = config
        self._settings = settings
        self._every_s = every_s
        self._asked = False  # (no Event: its lock may be held where a handler comes)
        self._bad = False
        self._version = _version(config.files)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def run(self, night: Callable[[Config], int]) -> int:
        """Run until SIGINT or SIGTERM; return the exit code for it."""
        while True:
            began = time.monotonic()
            self._night(night)
            forget_closed()  # (hundreds of tokens a night; all of it is printed)
            if self._settings.signal:
                return 128 + self._settings.signal
            self._settings.stop.clear()  # (the deadline of a run sets it too)
            while time.monotonic() - began < self._every_s:
                self._reload()
                left_s = self._every_s - (time.monotonic() - began)
                # (Not `stop.wait`: a handler that sets what its own thread waits for may hang.)
                time.sleep(max(0.0, min(_LOOK_S, left_s)))
                if self._settings.signal:  # (a signal just before the clearing is seen here too)
                    return 128 + self._settings.signal
            self._reload(night=True)

    def _night(self, night: Callable[[Config], int]) -> None:
        try:
            code = night(self._config)
        except Interrupted:
            return
        except OciMirrorError as error:
            output.complain(error, "this run")
            if self._settings.json:
                failed = {"error": to_document(error)}
                output.document("sync", error.exit_code, failed)
        else:
            logger.info("this run ended with exit code %d", code)

    def _reload(self, *, night: bool = False) -> None:
        """Load what changed; before a night what was invalid too: what it lacked may be there."""
        version = _version(self._config.files)
        if not (self._asked or version != self._version or (night and self._bad)):
            return
        self._asked = False
        from ocimirror.sync.config import load

        try:
            self._config = load(self._path, os.environ)
        except OciMirrorError as error:
            self._bad = True
            output.complain(error, "the configuration before stays in force")
        else:
            self._bad = False
            logger.info("%s was loaded again", self._path)
        # (As it was before it was read: who wrote meanwhile is seen the next time.)
        now = _version(self._config.files)
        self._version = {name: version.get(name, now[name]) for name in now}


def _version(files: Sequence[str]) -> dict[str, object]:
    """Return what tells whether files changed."""
    found: dict[str, object] = {}
    for name in files:
        try:
            status = Path(name).stat()
        except OSError:
            found[name] = None
        else:
            found[name] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found
