"""The pool of a run, and how a signal ends the wait for it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from ocimirror.copy.tasks import patiently
from ocimirror.errors import Interrupted

pytestmark = pytest.mark.timeout(120)


def test_a_signal_that_comes_as_a_slice_ends_is_not_lost() -> None:
    stop, silent = threading.Event(), threading.Event()

    def handler(*_: object) -> None:
        time.sleep(0.3)  # (longer than a slice, as on a machine that is busy)
        stop.set()

    before = signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    began = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            patiently(lambda: silent.wait(90), stop)
        assert time.monotonic() - began < 45
    finally:
        silent.set()
        timer.join()
        signal.signal(signal.SIGUSR1, before)
