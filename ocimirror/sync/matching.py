"""Which tags a regular expression matches, however long that would take.

A tag can be made for an expression that has many ways to match it, as `(a+)+`: then Python's `re`
ends after years, and no signal, deadline or other thread gets a turn meanwhile. So an expression
that may be such is matched in a process of its own, which can be ended.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence

from ocimirror.errors import LocalStorageError, Unsupported, storage_error

LIMIT_S = 5.0
_CHOICE = re.compile(r"\\.|\(\?|([*+?{|])", re.DOTALL)
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
_MAX_CHOICES = 3
# (The alarm ends it where whoever started it was killed.)
_PROGRAM = """
import re, signal, sys
signal.alarm(60)
first, *tags = sys.stdin.read().split()
pattern = re.compile(bytes.fromhex(first).decode("utf-8", "surrogatepass"), re.ASCII)
print("".join("y" if pattern.fullmatch(tag) else "n" for tag in tags))
"""


def matching(regex: str, tags: Sequence[str], limit_s: float = LIMIT_S) -> set[str]:
    """Return the tags that an expression matches as a whole.

    Args:
        regex: as `filters.parse_regex` took it.
        tags: as `reference.is_tag` takes them, so at most 128 characters each.
        limit_s: for all of them, where the expression may take long.

    Raises:
        Unsupported: it takes longer.
        LocalStorageError: no process could be started, or it was killed.
    """
    if _is_quick(regex):
        pattern = re.compile(regex, re.ASCII)
        return {tag for tag in tags if pattern.fullmatch(tag)}
    first = regex.encode("utf-8", "surrogatepass").hex()
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "ignore", "-c", _PROGRAM],
            input=" ".join([first, *tags]).encode("ascii"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unsupported(
            f"the regular expression {regex!r} takes more than {limit_s:g} s for {len(tags)} tags",
            advice="Let nothing match in two ways: (a+)+ and .*.*.* do.",
        ) from error
    except OSError as error:
        raise storage_error(error, "cannot start Python for a regular expression") from error
    answers = done.stdout.decode("ascii").strip()
    if done.returncode or len(answers) != len(tags):
        raise LocalStorageError(f"matching {regex!r} ended with code {done.returncode}")
    return {tag for tag, answer in zip(tags, answers, strict=True) if answer == "y"}


def _is_quick(regex: str) -> bool:
    """Whether an expression surely has few ways to match a tag: some hundred thousand at most."""
    choices = sum(match[1] is not None for match in _CHOICE.finditer(regex))
    return choices <= _MAX_CHOICES and not _REPEATED_GROUP.search(regex)
