"""How a signal ends the wait for what is silent."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from ocimirror import Interrupted, MemoryStore
from tests.support import images
from tests.support.stores import Failing, Reader, copy_all, fill

pytestmark = pytest.mark.timeout(120)


def test_a_signal_that_comes_as_a_slice_of_the_wait_ends_is_not_lost() -> None:
    stop, silent = threading.Event(), threading.Event()
    graph = images.single()
    source = Failing()
    fill(source, {"v1": graph})

    def hang(reader: Reader) -> Reader:
        silent.wait(90)
        return reader

    def handler(*_: object) -> None:
        time.sleep(0.3)  # (longer than a slice, as on a machine that is busy)
        stop.set()

    source.faults[graph.root].append(hang)
    before = signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    began = time.monotonic()
    try:
        (outcome,) = copy_all(source, MemoryStore(), ["v1"], stop=stop)
        assert isinstance(outcome.error, Interrupted)
        assert time.monotonic() - began < 45
    finally:
        silent.set()
        timer.join()
        signal.signal(signal.SIGUSR1, before)
