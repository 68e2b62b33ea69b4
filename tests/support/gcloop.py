"""A process that collects in a layout again and again, until its standard input ends.

python -m tests.support.gcloop LAYOUT

It runs the command in this process: a start from nothing would take twenty times as long as to
collect. It prints `ready`, and at the end how often it collected, and
how many blobs it put aside and deleted.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import sys
import tempfile
import time
from typing import Any


def collect(layout: str) -> Any:
    """Run `ocimirror gc` as `python -m ocimirror` does; return its document."""
    sys.argv = ["ocimirror", "gc", layout, "--grace", "0", "--wait", "--json"]
    code: object = None
    ours = os.dup(1)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 1)
        try:
            runpy.run_module("ocimirror", run_name="__main__")
        except SystemExit as end:
            code = end.code
        os.dup2(ours, 1)
        os.close(ours)
        said.seek(0)
        printed = said.read()
    if code:
        sys.exit(f"gc ended with {code}: {printed!r}")
    return json.loads(printed)


def main(layout: str) -> None:
    """Collect until told to stop; without a grace, and with the lock free for a moment between."""
    os._exit = sys.exit  # (the command ends its process)
    collect(layout)
    runs = put_aside = deleted = 0
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        collected = collect(layout)
        runs += 1
        put_aside += collected["quarantined"]["blobs"]
        deleted += collected["deleted"]["blobs"]
        time.sleep(0.001)
    print(runs, put_aside, deleted, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
