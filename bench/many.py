"""Copy every tag of a repository to another registry, in one process, with the library.

`ocimirror copy` copies one image; until there is a command for a whole repository, this is it.

    python -m bench.many HOST/REPOSITORY HOST/REPOSITORY
"""

from __future__ import annotations

import os
import sys

from ocimirror import Registry, copy_many, request


def main() -> int:
    (from_host, _, source), (to_host, _, target) = (text.partition("/") for text in sys.argv[1:])
    with Registry(from_host) as origin, Registry(to_host) as destination:
        tags = origin[source].place.names()
        outcomes = copy_many(
            request(origin[f"{source}:{tag}"], destination[f"{target}:{tag}"]) for tag in tags
        )
    errors = [str(outcome.error) for outcome in outcomes if outcome.error]
    print(f"{len(outcomes)} tags", *errors, sep="\n")
    return 1 if errors or not outcomes else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # as the command line ends
