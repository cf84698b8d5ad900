"""The ``io`` role: plans, assembles, runs batches; takes back expired leases, tops up wake-ups, purges, sends webhooks.

Any number may run: the scripts are atomic, so several reapers only look more often. A wake-up on the queue ``io`` says
that a plan or an assembly waits there.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis
from prometheus_client import CollectorRegistry
from redis.exceptions import LockError, RedisError

from contract import planned, store
from contract.blobs import BlobStore
from contract.errors import FleetError, StoreUnavailable
from contract.logs import get_logger
from contract.metrics import JobMetrics, QueueMetrics, WebhookMetrics
from contract.planned import IO_QUEUE
from contract.redis_io import connect, run
from contract.scripting import REAP_S
from contract.spans import Spans, open_spans
from contract.webhook_secrets import SecretBox
from workers.assembler import Assembler
from workers.batches import batch_keeper
from workers.celery_role import run_celery
from workers.drain import Drain
from workers.estimate_desk import EstimateDesk
from workers.io_jobs import JobRunner
from workers.leases import LeaseKeeper
from workers.media.pool import MediaPool
from workers.observe import serve_observability
from workers.part_documents import PartDocuments
from workers.planner import Planner
from workers.settings import WorkerSettings
from workers.settling import Settler
from workers.sweep import sweep_orphans
from workers.webhooks.deliverer import Deliverer
from workers.webhooks.sender import Sender

log = get_logger(__name__)

#: Ended tasks purged in one pass; the rest waits for the next.
_PURGE_BATCH = 100

#: Seconds for which one io worker may purge alone.
_PURGE_LOCK_S = 60.0

#: Milliseconds after which a task whose webhooks haven't all ended is looked at again.
_PURGE_LATER_MS = 60_000

#: Seconds without a pass after which the process counts as dead. A pass waits for a Redis or S3 that is away.
_SILENT_S = 90.0


@dataclass
class Housekeeper:
    """The periodic work, one pass at a time."""

    client: redis.Redis
    blobs: BlobStore
    metrics: QueueMetrics
    sweep_interval_s: float = 600.0
    orphan_age_s: float = 3600.0
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
        """Reap, end what is late, top up, count, purge, sweep."""
        self._passed_at = time.monotonic()
        try:
            self._reap()
            run(self.client, store.expire_deadlines())
            for queue in sorted(map(str, self.client.smembers(store.QUEUES_KEY))):
                self._top_up(queue)
            self._alone("purge", _PURGE_LOCK_S, self._purge)
            self._sweep()
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
        seconds, micros = self.client.time()
        now_ms = seconds * 1000 + micros // 1000
        due = self.client.zrangebyscore(store.RETENTION_KEY, "-inf", now_ms, start=0, num=_PURGE_BATCH)
        for task_id in map(str, due):
            if self.client.hexists(store.task_key(task_id), "hooks"):  # a record outlives its deliveries
                self.client.zadd(store.RETENTION_KEY, {task_id: now_ms + _PURGE_LATER_MS}, xx=True)
            else:
                self._purge_task(task_id)

    def _sweep(self) -> None:
        """Once per interval over all io workers: whoever sets the mark does it."""
        mark_ms = max(1, round(self.sweep_interval_s * 1000))
        if self.client.set("ovis:swept", 1, nx=True, px=mark_ms):
            self.metrics.orphans_swept.inc(sweep_orphans(self.client, self.blobs, min_age_s=self.orphan_age_s))

    def _purge_task(self, task_id: str) -> None:
        tenant = self.client.hget(store.task_key(task_id), "tenant")
        if isinstance(tenant, str):
            for room in ("inputs", "results"):
                self.blobs.delete_prefix(f"{room}/{tenant}/{task_id}/")
        run(self.client, store.purge(task_id))
        self.metrics.tasks_purged.inc()
        log.info("task_purged", task_id=task_id)


class IoServer:
    """Plans and assembles; in other threads keeps house, answers estimates, runs batches and sends webhooks."""

    def __init__(self, worker: str, registry: CollectorRegistry, settings: WorkerSettings) -> None:
        """Starts the media processes and opens clients; ``worker`` is the name for Celery."""
        self._worker = worker
        self._settings = settings
        self._broker_url = settings.redis_url.get_secret_value()
        metrics, client, blobs = JobMetrics(registry), connect(self._broker_url), BlobStore(settings)
        self._media = MediaPool(settings, on_death=lambda why: metrics.media_deaths.labels(why).inc())
        identity = f"{worker}@{socket.gethostname()}"
        self._leases = LeaseKeeper(client, IO_QUEUE, identity, settings.io_jobs)
        self._drain = Drain(settings.drain_grace_s, self._leases, self._media)
        self.keeper = Housekeeper(
            client,
            blobs,
            QueueMetrics(registry),
            sweep_interval_s=settings.sweep_interval_s,
            orphan_age_s=settings.orphan_age_s,
        )
        # Its own client: a desk waits in a blocking call.
        self._desk = EstimateDesk(connect(self._broker_url), blobs, self._media)
        self._spans = open_spans(settings.otlp_endpoint, "ovis-worker-io")
        self._jobs = JobRunner(
            client=client,
            planner=Planner(self._media, blobs, settings.plan_max_parts),
            assembler=Assembler(PartDocuments(client, blobs), blobs, settings.inline_result_bytes),
            leases=self._leases,
            settler=Settler(client, planned.finish_job),
            metrics=metrics,
            worker=identity,
            spans=self._spans,
        )
        self._deliverer = _deliverer(settings, registry, self._spans)
        self._batches = batch_keeper(settings, registry, connect(self._broker_url), blobs)

    def serve(self, serving: threading.Event) -> None:
        """Consume wake-ups until SIGTERM; ``serving`` is set meanwhile.

        Raises:
            StoreUnavailable: Redis is away at the start.
        """
        self._leases.start()
        threads = self._start_threads()

        def on_ready() -> None:
            serving.set()
            log.info("worker_ready")

        def on_shutdown() -> None:
            serving.clear()
            self._drain.run()

        try:
            run_celery(
                broker_url=self._broker_url,
                queue=IO_QUEUE,
                name=self._worker,
                concurrency=self._settings.io_jobs,
                wake=self._wake,
                on_ready=on_ready,
                on_shutdown=on_shutdown,
                on_second_signal=self._drain.cut_short,
            )
        finally:
            self._drain.cut_short()
            for part in (self.keeper, self._desk, self._deliverer, self._batches):
                part.close()
            for thread in threads:
                thread.join()
            self._leases.close()

    def close(self) -> None:
        """End the media processes, tell what is left to tell."""
        self._media.close()
        self._spans.close()

    def _start_threads(self) -> list[threading.Thread]:
        """What goes on beside the jobs."""
        work = {
            "housekeeping": self.keeper.keep_house,
            "estimates": self._desk.serve,
            "batches": self._batches.keep,
        }
        if self._deliverer.box.usable:
            work["webhooks"] = self._deliverer.deliver
        else:
            log.warning("webhooks_off", reason="OVIS_WEBHOOK_KEYS is not set")
        threads = [threading.Thread(target=target, name=name, daemon=True) for name, target in work.items()]
        for thread in threads:
            thread.start()
        return threads

    def _wake(self) -> str:
        return "draining" if self._drain.begun else self._jobs.run_next()


def run_io_role(worker: str, settings: WorkerSettings, *, metrics_host: str, metrics_port: int) -> None:
    """Serve until SIGTERM.

    Raises:
        SystemExit: Status 1, with the reason in the log, where Redis or the port isn't as it must be.
    """
    registry = CollectorRegistry()
    server = IoServer(worker, registry, settings)
    serving = threading.Event()
    try:
        close_observability = serve_observability(
            registry, host=metrics_host, port=metrics_port, ready=serving.is_set, alive=server.keeper.alive
        )
        try:
            server.serve(serving)
        finally:
            close_observability()
    except (StoreUnavailable, OSError) as exc:
        log.critical("start_failed", error=f"{type(exc).__name__}: {exc}")
        raise SystemExit(1) from exc
    finally:
        server.close()
    log.info("worker_stopped")


def _deliverer(settings: WorkerSettings, registry: CollectorRegistry, spans: Spans) -> Deliverer:
    """The sender of webhooks, with a client of its own: its tries must not wait for housekeeping."""
    return Deliverer(
        connect(settings.redis_url.get_secret_value()),
        Sender(settings.egress, settings.webhook_timeout_s),
        SecretBox(settings.webhook_keys),
        WebhookMetrics(registry),
        concurrency=settings.webhook_concurrency,
        public_url=settings.public_url or "",
        spans=spans,
    )
