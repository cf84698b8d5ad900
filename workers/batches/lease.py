"""A batch under a lease, renewed while a step lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import redis

from contract.batch_changes import HeldBatch, renew_batch
from contract.batches import BatchStatus
from contract.errors import FleetError
from contract.logs import get_logger
from contract.redis_io import run
from contract.scripting import RENEWAL_S

log = get_logger(__name__)


class StepEnded(Exception):
    """The step can't go on: the lease was lost, or the worker is going away. Nothing is wrong with the batch."""


class BatchLease:
    """Renews one batch's lease from a thread of its own, between ``__enter__`` and ``__exit__``.

    Args:
        client: Thread-safe.
        held: The batch.
        leaving: Whether the worker is going away.
        renewal_s: Seconds between renewals.
    """

    def __init__(
        self, client: redis.Redis, held: HeldBatch, leaving: Callable[[], bool], renewal_s: float = RENEWAL_S
    ) -> None:
        self._client = client
        self.held = held
        self._leaving = leaving
        self._renewal_s = renewal_s
        self._status: BatchStatus = held.record.status
        self._lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="batch-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> BatchStatus:
        """The batch's status at the last renewal.

        Raises:
            StepEnded: The step is to end.
        """
        if self._lost or self._leaving():
            raise StepEnded
        return self._status

    def _renew(self) -> None:
        while not self._over.wait(self._renewal_s):
            try:
                status = run(self._client, renew_batch(self.held.record.id, self.held.token))
            except FleetError as exc:  # the lease outlives some renewals
                log.warning("batch_renewal_failed", batch_id=self.held.record.id, code=exc.code)
                continue
            if status == "lost":
                log.warning("batch_lease_lost", batch_id=self.held.record.id)
                self._lost = True
                return
            self._status = status
