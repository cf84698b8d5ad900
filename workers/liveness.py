"""Liveness is progress: a worker that has work and doesn't get on with it ends, so that another may.

Two things must go on: the engine steps or encodes while it holds requests, and wake-ups are taken while there are some
and slots are free. A process that only exists would renew its leases for ever and hide the work from the others.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Never

import redis
from redis.exceptions import RedisError

from contract.logs import get_logger

log = get_logger(__name__)

#: Exit status of a worker that ended itself because it had stalled (EX_TEMPFAIL).
STALLED_STATUS = 75

#: Seconds between looks.
_LOOK_S = 1.0


@dataclass(frozen=True)
class Look:
    """What one look at something saw.

    Attributes:
        has_work: Whether it ought to get on.
        progress: Anything that changes when it does.
    """

    has_work: bool
    progress: Hashable


class StallWatch:
    """Tells when something has had work for too long without progress. One thread."""

    def __init__(self, stall_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s = stall_s
        self._clock = clock
        self._since = clock()
        self._last: Hashable = None

    def stalled(self, look: Look) -> bool:
        """Take in a look; reply whether work has stood still for ``stall_s`` seconds."""
        if not look.has_work or look.progress != self._last:
            self._last = look.progress
            self._since = self._clock()
        return self._clock() - self._since >= self._stall_s


def look_at_wakeups(client: redis.Redis, queue: str, *, has_room: bool, taken: int) -> Look | None:
    """Whether wake-ups wait although there is room for them, and how many were taken; None where Redis is away."""
    try:
        listed = has_room and bool(client.llen(queue))
    except RedisError:
        return None
    return Look(listed, taken)


def end_stalled(_what: str) -> Never:
    """End the process: one that stands still can't be trusted to stop in order. Its leases run out."""
    os._exit(STALLED_STATUS)


def watch_progress(
    looks: dict[str, Callable[[], Look | None]],
    *,
    stall_s: float,
    on_stall: Callable[[str], None],
    closing: threading.Event,
) -> threading.Thread:
    """Look at everything every second, from a thread, until ``closing``.

    Args:
        looks: By name. A look of None says that nothing could be seen, as does one that raises: the clock goes on.
        stall_s: How long work may stand still.
        on_stall: Called with the name of what has stalled.
        closing: Ends the watch.
    """
    watches = {name: StallWatch(stall_s) for name in looks}

    def run() -> None:
        last: dict[str, Look] = dict.fromkeys(looks, Look(has_work=False, progress=None))
        while not closing.wait(_LOOK_S):
            for name, look in looks.items():
                try:
                    last[name] = look() or last[name]
                except Exception:
                    log.exception("look_failed", what=name)  # the watch must outlive what it watches
                if watches[name].stalled(last[name]):
                    log.critical("stalled", what=name, stall_s=stall_s)
                    on_stall(name)

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    return thread
