"""Turns between the vision tower and the decode loop where both compute on the same processor."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that is handed on in order of arrival: two threads that both want it alternate.

    On a CPU, tower and decode loop gain nothing from running at once: each slows the other down, and steps run with
    half-empty batches while pictures wait. Taking turns, micro-batch by step, fills the batches sooner and bounds how
    long a step waits for the tower.
    """

    def __init__(self) -> None:
        """Starts with nobody's turn."""
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for the calling thread's turn and holds it inside the block. Not reentrant."""
        mine = threading.Event()
        with self._lock:
            self._queue.append(mine)
            if len(self._queue) == 1:
                mine.set()
        mine.wait()
        try:
            yield
        finally:
            with self._lock:
                self._queue.popleft()
                if self._queue:
                    self._queue[0].set()


class FreeTurns(Turns):
    """No turns at all, for devices that run both at once."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Does not wait."""
        yield
