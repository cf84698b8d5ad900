"""What an io worker does every second: takes back leases, ends what is late, tops up wake-ups.

Nothing here waits for S3: where passes are further apart than a lease lasts, no lease would ever run out.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import redis
from redis.exceptions import RedisError

from contract import store
from contract.errors import FleetError
from contract.logs import get_logger
from contract.metrics import QueueMetrics
from contract.redis_io import run
from contract.scripting import REAP_S

log = get_logger(__name__)

#: Seconds without a pass after which the process counts as dead. A pass waits for a Redis that is away.
_SILENT_S = 90.0


@dataclass
class Housekeeper:
    """The periodic work, one pass at a time."""

    client: redis.Redis
    metrics: QueueMetrics
    _closing: threading.Event = field(default_factory=threading.Event)
    _passed_at: float = field(default_factory=time.monotonic)

    def keep_house(self) -> None:
        """Pass after pass until ``close``; a pass that fails is logged and the next one tries again."""
        while not self._closing.wait(REAP_S):
            self.one_pass()

    def close(self) -> None:
        """End ``keep_house`` soon."""
        self._closing.set()

    def one_pass(self) -> None:
        """Reap, end what is late, top up, count."""
        self._passed_at = time.monotonic()
        try:
            self._reap()
            run(self.client, store.expire_deadlines())
            for queue in sorted(map(str, self.client.smembers(store.QUEUES_KEY))):
                self._top_up(queue)
        except (FleetError, RedisError):
            log.warning("housekeeping_failed", exc_info=True)

    def alive(self) -> bool:
        """Whether the passes go on."""
        return time.monotonic() - self._passed_at < _SILENT_S

    def _reap(self) -> None:
        expired = run(self.client, store.expire_leases())
        self.metrics.reaps.inc()
        for outcome in ("extended", "requeued", "exhausted"):
            count = getattr(expired, outcome)
            if count:
                self.metrics.leases_expired.labels(outcome).inc(count)
                log.warning("leases_expired", outcome=outcome, count=count)

    def _top_up(self, queue: str) -> None:
        pushed, forgotten = run(self.client, store.top_up(queue))
        self.metrics.wakeups_pushed.labels(queue).inc(pushed)
        if forgotten:
            log.warning("workers_gone", queue=queue, count=forgotten)
        stats = self.client.hgetall(store.queue_stats_key(queue))
        self.metrics.waiting.labels(queue).set(int(stats.get("waiting", 0)))
        self.metrics.running.labels(queue).set(int(stats.get("running", 0)))
        self.metrics.slots.labels(queue).set(int(stats.get("slots", 0)))
        self.metrics.workers.labels(queue).set(int(stats.get("workers", 0)))
