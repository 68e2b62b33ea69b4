"""A process that copies slowly from one layout into another, for tests to kill or to crowd.

python -m tests.support.slowcopy SOURCE DESTINATION PAUSE_S NAME...

It prints `ready`, waits for a line on standard input, then copies, with a pause before each piece
of 1000 bytes. Each name is printed once it was reported finished. Exit code 1 if an image failed.
"""

from __future__ import annotations

import sys
import time

from ocimirror import Descriptor, Layout, Options, Outcome, Plan, Request, copy_many
from tests.support.stores import Reader, request


class _Slow:
    def __init__(self, reader: Reader, pause_s: float) -> None:
        self._reader, self._pause_s = reader, pause_s

    def read(self, amount: int, /) -> bytes:
        time.sleep(self._pause_s)
        return self._reader.read(min(1000, amount))

    def close(self) -> None:
        self._reader.close()


class SlowLayout(Layout):
    """A layout on a slow disk."""

    pause_s = 0.0

    def _open(self, descriptor: Descriptor, position: int) -> Reader:
        return _Slow(super()._open(descriptor, position), self.pause_s)


class _Announcing:
    def planned(self, request: Request, plan: Plan) -> None:
        pass

    def moved(self, request: Request, count: int) -> None:
        pass

    def finished(self, outcome: Outcome) -> None:
        if outcome.error is None:
            print(outcome.request.new_name, flush=True)
        else:
            print(outcome.error.diagnostics(), file=sys.stderr, flush=True)


def main(source: str, destination: str, pause_s: str, *names: str) -> int:
    """Copy the images under their own names."""
    print("ready", flush=True)
    sys.stdin.readline()
    with SlowLayout(source) as slow, Layout(destination, write=True) as layout:
        slow.pause_s = float(pause_s)
        requests = [request(slow, name, layout) for name in names]
        outcomes = copy_many(requests, Options(jobs=2), _Announcing())
    return int(any(outcome.error is not None for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
