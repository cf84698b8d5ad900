"""Asks the lines of a canceled batch to end."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from contract import store
from contract.batch_changes import lines_stopped
from contract.batches import line_task_id
from contract.redis_io import run
from workers.batches.lease import BatchLease, StepEnded

#: Lines after which the place reached is kept.
_STRIDE = 100


@dataclass(frozen=True)
class Stopper:
    """Cancels lines. Thread-safe."""

    client: redis.Redis

    def stop(self, lease: BatchLease) -> None:
        """Cancel every line that was fed, from where an earlier step came to; those that have ended stay as they are.

        Raises:
            StepEnded: The lease is lost, or the worker is going away.
            StoreUnavailable: Redis is away.
        """
        held = lease.held
        for number in range(held.record.stopped, held.record.fed):
            lease.check()
            run(self.client, store.cancel(line_task_id(held.record.id, number), held.record.tenant))
            if (number + 1) % _STRIDE and number + 1 < held.record.fed:
                continue
            if run(self.client, lines_stopped(held.record.id, held.token, number + 1)) == "stale":
                raise StepEnded
