"""A bounded pool whose results come back to one thread, which alone decides what is next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Empty, Queue
from typing import TypeVar

from ocimirror.errors import Interrupted, OciMirrorError, OutOfResources, unexpected

_SLICE_S = 0.2
_STOP_WAIT_S = 0.6  # (a run ends within a second of a signal)
T = TypeVar("T")


class Tasks:
    """Work runs in the pool, what follows runs in the thread that calls `step`.

    No task waits for another, so there is no deadlock to reason about, and what `then` touches
    needs no lock.

    Args:
        jobs: threads.
        stop: once set, no task starts any more, and `step` waits less than a second.
    """

    def __init__(self, jobs: int, stop: threading.Event) -> None:
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="ocimirror")
        self._stop = stop
        # (No SimpleQueue: its `get` forgets the timeout when a signal comes as the time is over.)
        self._finished: Queue[Callable[[], None]] = Queue()
        self._started = False
        self._begun = 0
        self._counting = threading.Lock()
        self._taken = 0
        self._dropped = False
        self.outstanding = 0

    def submit(
        self,
        work: Callable[[], T],
        then: Callable[[T], None],
        failed: Callable[[OciMirrorError], None],
    ) -> None:
        """Run `work` in the pool, later `then(result)` or `failed(error)` in `step`."""
        try:
            self._pool.submit(self._run, work, then, failed)
        except RuntimeError as error:
            # (No thread to be had: then the work is in the queue of those that there are, if any.)
            translated = unexpected(error)
            if self._dropped:
                raise Interrupted("stopped") from error
            if not (self._started and isinstance(translated, OutOfResources)):
                raise translated from error
        self._started = True
        self.outstanding += 1

    def _run(
        self,
        work: Callable[[], T],
        then: Callable[[T], None],
        failed: Callable[[OciMirrorError], None],
    ) -> None:
        with self._counting:
            self._begun += 1
        try:
            if self._stop.is_set():
                raise Interrupted("stopped")
            result = work()
        except OciMirrorError as error:
            self._finished.put(lambda error=error: failed(error))  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - the pool edge: a bug fails one image
            translated = unexpected(error)
            translated.__cause__ = error
            self._finished.put(lambda: failed(translated))
        else:
            self._finished.put(lambda: then(result))

    def step(self, timeout_s: float | None) -> bool:
        """Take in one finished task; return whether one came within the time.

        Raises:
            Interrupted: the run was stopped, and a task did not end in time.
        """
        if self._stop.is_set() and not self._drop_queued():
            return False
        waited_s = stopped_s = 0.0
        while timeout_s is None or waited_s <= timeout_s:
            # In slices, since a signal handler that sets `stop` does not end the wait.
            slice_s = _SLICE_S if timeout_s is None else min(_SLICE_S, timeout_s - waited_s)
            try:
                advance = self._finished.get(timeout=slice_s)
            except Empty:
                waited_s += max(slice_s, 1e-3)
                stopped_s += slice_s if self._stop.is_set() else 0.0
                if stopped_s >= _STOP_WAIT_S:
                    raise Interrupted("a task did not stop in time") from None
                continue
            self.outstanding -= 1
            self._taken += 1
            advance()
            return True
        return False

    def _drop_queued(self) -> bool:
        """Forget the tasks that no thread has begun; whether any others are outstanding.

        (There may be a hundred thousand, and to take each of them in takes seconds.)
        """
        if not self._dropped:
            self._dropped = True
            self._pool.shutdown(wait=False, cancel_futures=True)
        with self._counting:
            self.outstanding = self._begun - self._taken
        return bool(self.outstanding)

    def close(self) -> None:
        """End the pool; tasks that ignore a stop are left behind, not waited for."""
        self._pool.shutdown(wait=not self.outstanding, cancel_futures=True)


def together(works: Sequence[Callable[[], T]], jobs: int, stop: threading.Event) -> list[T]:
    """Run works side by side, and return their results in the order of the works.

    Args:
        works: each touches nothing that another one does.
        jobs: threads.
        stop: once set, what is silent is waited for less than a second, and is left behind.

    Raises:
        Interrupted: the run was stopped.
        OciMirrorError: as the first work to fail raises it; the others are ended.
    """
    results: dict[int, T] = {}
    tasks = Tasks(jobs, stop)

    def failed(error: OciMirrorError) -> None:
        raise error

    try:
        for number, work in enumerate(works):
            tasks.submit(work, partial(results.__setitem__, number), failed)
        while tasks.outstanding:
            tasks.step(None)
    finally:
        tasks.close()
    if len(results) < len(works):
        raise Interrupted("stopped")
    return [results[number] for number in range(len(works))]


def patiently(work: Callable[[], T], stop: threading.Event) -> T:
    """Do one thing that may hang, and leave it behind once the run is stopped; see `together`."""
    return together([work], 1, stop)[0]
