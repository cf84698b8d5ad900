"""What an io worker deletes: ended tasks past their retention, and objects that nothing leads to.

In a thread apart from `workers.housekeeping`: S3 may be slow or stand still, and leases must be looked at every second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis
from redis.exceptions import LockError, RedisError

from contract import store
from contract.batches import batch_key
from contract.blobs import BlobStore
from contract.errors import FleetError
from contract.logs import get_logger
from contract.metrics import QueueMetrics
from contract.redis_io import run, server_ms
from contract.scripting import REAP_S
from workers.sweep import sweep_orphans

log = get_logger(__name__)

#: Ended tasks purged in one pass; the rest waits for the next.
_PURGE_BATCH = 100

#: Seconds for which one io worker may purge alone.
_PURGE_LOCK_S = 60.0

#: Milliseconds after which a task whose webhooks, or whose batch, haven't all ended is looked at again.
_PURGE_LATER_MS = 60_000

#: Seconds without a step after which the process counts as dead. A step is a prefix of S3 at most: a listing and a
#: deletion per 1000 objects, each of which S3 may keep waiting for some 40 seconds.
_SILENT_S = 300.0


class _Closing(Exception):
    """A pass ends early."""


@dataclass
class Cleaner:
    """Deletes what is due, one pass at a time."""

    client: redis.Redis
    blobs: BlobStore
    metrics: QueueMetrics
    sweep_interval_s: float = 600.0
    orphan_age_s: float = 3600.0
    _closing: threading.Event = field(default_factory=threading.Event)
    _stepped_at: float = field(default_factory=time.monotonic)

    def keep_clean(self) -> None:
        """Pass after pass until ``close``; a pass that fails is logged and the next one tries again."""
        while not self._closing.wait(REAP_S):
            self.one_pass()

    def close(self) -> None:
        """End ``keep_clean`` after the step that goes on."""
        self._closing.set()

    def one_pass(self) -> None:
        """Purge, sweep."""
        try:
            self._step()
            self._alone("purge", _PURGE_LOCK_S, self._purge)
            self._sweep()
        except _Closing:
            return
        except (FleetError, RedisError):
            log.warning("cleaning_failed", exc_info=True)

    def alive(self) -> bool:
        """Whether the passes go on."""
        return time.monotonic() - self._stepped_at < _SILENT_S

    def _step(self) -> None:
        if self._closing.is_set():
            raise _Closing
        self._stepped_at = time.monotonic()

    def _alone(self, what: str, most_s: float, work: Callable[[], None]) -> None:
        """Do ``work`` unless another io worker is at it; its right ends after ``most_s`` seconds."""
        lock = self.client.lock(f"ovis:lock:{what}", timeout=most_s, blocking=False)
        if not lock.acquire():
            return
        try:
            work()
        finally:
            try:
                lock.release()
            except LockError:
                log.warning("lock_lost", what=what)

    def _purge(self) -> None:
        now_ms = server_ms(self.client)
        due = self.client.zrangebyscore(store.RETENTION_KEY, "-inf", now_ms, start=0, num=_PURGE_BATCH)
        for task_id in map(str, due):
            self._step()
            waited_for = self.client.hexists(store.task_key(task_id), "hooks")  # a record outlives its deliveries
            if waited_for or self._in_unended_batch(task_id):
                self.client.zadd(store.RETENTION_KEY, {task_id: now_ms + _PURGE_LATER_MS}, xx=True)
            else:
                self._purge_task(task_id)

    def _in_unended_batch(self, task_id: str) -> bool:
        """Whether the task is a line of a batch that has yet to write its answer."""
        batch = self.client.hget(store.task_key(task_id), "batch")
        if batch is None:
            return False
        tenant, ended_ms = self.client.hmget(batch_key(str(batch)), "tenant", "ended_ms")
        return tenant is not None and ended_ms is None

    def _purge_task(self, task_id: str) -> None:
        tenant = self.client.hget(store.task_key(task_id), "tenant")
        if isinstance(tenant, str):
            for room in ("inputs", "results"):
                self._step()
                self.blobs.delete_prefix(f"{room}/{tenant}/{task_id}/")
        run(self.client, store.purge(task_id))
        self.metrics.tasks_purged.inc()
        log.info("task_purged", task_id=task_id)

    def _sweep(self) -> None:
        """Once per interval over all io workers: whoever sets the mark does it."""
        mark_ms = max(1, round(self.sweep_interval_s * 1000))
        if self.client.set("ovis:swept", 1, nx=True, px=mark_ms):
            swept = sweep_orphans(self.client, self.blobs, min_age_s=self.orphan_age_s, step=self._step)
            self.metrics.orphans_swept.inc(swept)
