"""Start one command, wait for it, and write down what it used.

A process of its own, with as few modules as can be: the kernel counts into a child's peak memory
what its parent had when it forked. So no peak below this interpreter's 9 MiB can be seen.

    python -I -S launch.py RESULT COMMAND [ARGUMENT...]
"""

import json
import os
import sys
import time


def main() -> None:
    result, *command = sys.argv[1:]
    began = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - began
    with open(result, "w") as file:
        json.dump(
            {
                "wall_s": wall,
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "peak_mib": usage.ru_maxrss / 1024,
                "code": os.waitstatus_to_exitcode(status),
            },
            file,
        )


if __name__ == "__main__":
    main()
