"""Programs that tests need but the package does not: missing ones are said out loud."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def require_program(name: str, package: str) -> str:
    """Return the path of a program, or skip the test and name the Debian package that has it.

    With `CI` set in the environment a missing program fails the test: there, nothing may be
    skipped unseen.
    """
    # (Servers are where an ordinary user's PATH does not lead.)
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is not None:
        return path
    message = f"{name} is not installed (Debian package: {package})"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def require_strace() -> str:
    """Return the path of strace, or skip if it is absent or may not trace here."""
    strace = require_program("strace", "strace")
    tried = subprocess.run([strace, "-qq", "-o", os.devnull, "true"], capture_output=True)
    if tried.returncode:
        pytest.skip(f"strace may not trace here: {tried.stderr.decode()[:200]}")
    return strace
