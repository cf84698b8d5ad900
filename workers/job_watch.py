"""Whether the jobs of an io worker get on: one that stands still while others go on is seen, too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from workers.liveness import Look


class JobWatch:
    """Knows which job has gone longest without a step. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: dict[int, float] = {}
        self._numbers = count()
        self._lock = threading.Lock()

    @contextmanager
    def job(self) -> Iterator[Callable[[], None]]:
        """Watch one job inside the block; what is given is to be called at each of its steps.

        Outside the block it does nothing: a thread of the job may outlive it.
        """
        with self._lock:
            number = next(self._numbers)
            self._steps[number] = self._clock()

        def step() -> None:
            with self._lock:
                if number in self._steps:
                    self._steps[number] = self._clock()

        try:
            yield step
        finally:
            with self._lock:
                del self._steps[number]

    def look(self) -> Look:
        """For `workers.liveness.watch_progress`: the progress of the job that is furthest behind."""
        with self._lock:
            behind = min(((stepped_at, number) for number, stepped_at in self._steps.items()), default=None)
        return Look(behind is not None, behind)
