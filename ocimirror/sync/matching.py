"""Which tags a regular expression matches, however long that would take.

A tag can be made for an expression that has many ways to match it, as `(a+)+`: then Python's `re`
ends after years, and no signal, deadline or other thread gets a turn meanwhile. So an expression
that may be such is matched in a process of its own, which can be ended.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from ocimirror.errors import Interrupted, LocalStorageError, Unsupported, storage_error

LIMIT_S = 5.0
_SLICE_S = 0.1
NEVER = threading.Event()
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


def matching(
    regex: str, tags: Sequence[str], limit_s: float = LIMIT_S, stop: threading.Event = NEVER
) -> set[str]:
    """Return the tags that an expression matches as a whole.

    Args:
        regex: as `filters.parse_regex` took it.
        tags: as `reference.is_tag` takes them, so at most 128 characters each.
        limit_s: for all of them, where the expression may take long.
        stop: once set, matching ends.

    Raises:
        Unsupported: it takes longer.
        Interrupted: `stop` was set.
        LocalStorageError: no process could be started, or it was killed.
    """
    if _is_quick(regex):
        pattern = re.compile(regex, re.ASCII)
        found = set()
        for tag in tags:
            end_if(stop)
            if pattern.fullmatch(tag):
                found.add(tag)
        return found
    first = regex.encode("utf-8", "surrogatepass").hex()
    words = " ".join([first, *tags]).encode("ascii")
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-W", "ignore", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise storage_error(error, "cannot start Python for a regular expression") from error
    with process:
        try:
            output = _output(process, words, time.monotonic() + limit_s, stop)
        except subprocess.TimeoutExpired as error:
            raise Unsupported(
                f"the regular expression {regex!r} takes more than {limit_s:g} s for {len(tags)}"
                " tags",
                advice="Let nothing match in two ways: (a+)+ and .*.*.* do.",
            ) from error
        finally:
            process.kill()
    end_if(stop)  # (Ctrl-C at a terminal ends the process, too)
    answers = output.decode("ascii").strip()
    if process.returncode or len(answers) != len(tags):
        raise LocalStorageError(f"matching {regex!r} ended with code {process.returncode}")
    return {tag for tag, answer in zip(tags, answers, strict=True) if answer == "y"}


def end_if(stop: threading.Event) -> None:
    """Raise Interrupted once the run is stopped."""
    if stop.is_set():
        raise Interrupted("stopped while tags were filtered")


def _output(
    process: subprocess.Popen[bytes], words: bytes, until: float, stop: threading.Event
) -> bytes:
    """Return what a process answers; in slices, since nothing else ends the wait for it.

    Raises:
        TimeoutExpired: it did not end in time.
        Interrupted: `stop` was set.
    """
    left: bytes | None = words
    while True:
        end_if(stop)
        try:
            return process.communicate(left, timeout=_SLICE_S)[0]
        except subprocess.TimeoutExpired:
            left = None  # (`communicate` keeps what was not read yet)
            if time.monotonic() >= until:
                raise


def _is_quick(regex: str) -> bool:
    """Whether an expression surely has few ways to match a tag: some hundred thousand at most."""
    choices = sum(match[1] is not None for match in _CHOICE.finditer(regex))
    return choices <= _MAX_CHOICES and not _REPEATED_GROUP.search(regex)
