"""A process that collects in a layout again and again, until its standard input ends.

python -m tests.support.gcloop LAYOUT

It prints `ready`, and at the end how often it collected, and how many blobs it put
aside and deleted.
"""

from __future__ import annotations

import select
import sys
import time

from ocimirror.care.gc import gc
from ocimirror.copy.places import Places
from ocimirror.registry import NetworkOptions


def main(layout: str) -> None:
    """Collect until told to stop; without a grace, and with the lock free for a moment between."""
    runs = put_aside = deleted = 0
    print("ready", flush=True)
    with Places(NetworkOptions, durable=False, wait=True) as places:
        while not select.select([sys.stdin], [], [], 0.001)[0]:
            collected = gc(layout, 0.0, places)
            runs += 1
            put_aside += len(collected.quarantined)
            deleted += len(collected.deleted)
            time.sleep(0.001)
    print(runs, put_aside, deleted, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
