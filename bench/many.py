"""Copy every tag of a repository to another registry, in one process, with the library.

`ocimirror copy` copies one image; until there is a command for a whole repository, this is it.

    python -m bench.many HOST/REPOSITORY HOST/REPOSITORY
"""

from __future__ import annotations

import os
import sys

from ocimirror.copy.outcome import Request
from ocimirror.copy.pipeline import copy
from ocimirror.copy.places import Places
from ocimirror.model.reference import Reference
from ocimirror.registry import NetworkOptions


def main() -> int:
    with Places(NetworkOptions) as places:
        source, destination = (places.repository(Reference.parse(text)) for text in sys.argv[1:])
        outcomes = copy(
            Request(source, tag, destination, tag, f"{source.location}:{tag}", destination.location)
            for tag in source.names()
        )
    errors = [str(outcome.error) for outcome in outcomes if outcome.error]
    print(f"{len(outcomes)} tags", *errors, sep="\n")
    return 1 if errors or not outcomes else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # as the command line ends
