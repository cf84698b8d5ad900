"""The ``io`` role: plans, assembles, runs batches; takes back expired leases, tops up wake-ups, purges, sends webhooks.

Any number may run: the scripts are atomic, so several reapers only look more often. A wake-up on the queue ``io`` says
that a plan or an assembly waits there.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from contract import planned
from contract.blobs import BlobStore
from contract.errors import StoreUnavailable
from contract.logs import get_logger
from contract.metrics import JobMetrics, QueueMetrics, WebhookMetrics
from contract.planned import IO_QUEUE
from contract.redis_io import connect
from contract.spans import Spans, open_spans
from contract.webhook_secrets import SecretBox
from workers.assembler import Assembler
from workers.batches import batch_keeper
from workers.celery_role import run_celery
from workers.cleaning import Cleaner
from workers.drain import Drain
from workers.estimate_desk import EstimateDesk
from workers.housekeeping import Housekeeper
from workers.io_jobs import JobRunner
from workers.job_watch import JobWatch
from workers.leases import LeaseKeeper
from workers.liveness import Look, end_stalled, look_at_wakeups, watch_progress
from workers.media.pool import MediaPool
from workers.observe import serve_observability
from workers.part_documents import PartDocuments
from workers.planner import Planner
from workers.settings import WorkerSettings
from workers.settling import Settler
from workers.webhooks.deliverer import Deliverer
from workers.webhooks.sender import Sender

log = get_logger(__name__)


class IoServer:
    """Plans and assembles; in other threads keeps house, answers estimates, runs batches and sends webhooks."""

    def __init__(self, worker: str, registry: CollectorRegistry, settings: WorkerSettings) -> None:
        """Starts the media processes and opens clients; ``worker`` is the name for Celery."""
        self._worker = worker
        self._settings = settings
        self._broker_url = settings.redis_url.get_secret_value()
        metrics, client, blobs = JobMetrics(registry), connect(self._broker_url), BlobStore(settings)
        self._metrics, self._client, self._watch, self._wakeups_taken = metrics, client, JobWatch(), 0
        self._media = MediaPool(settings, on_death=self._count_death)
        identity = f"{worker}@{socket.gethostname()}"
        self._leases = LeaseKeeper(client, IO_QUEUE, identity, settings.io_jobs)
        self._drain = Drain(settings.drain_grace_s, self._leases, self._media)
        queue_metrics = QueueMetrics(registry)
        self._keeper = Housekeeper(client, queue_metrics)
        self._cleaner = Cleaner(
            client,
            blobs,
            queue_metrics,
            sweep_interval_s=settings.sweep_interval_s,
            orphan_age_s=settings.orphan_age_s,
        )
        self._desks = [
            EstimateDesk(
                connect(self._broker_url), blobs, self._open_media, settings.plan_max_parts, settings.media_max_frames
            )
            for _ in range(settings.estimate_threads)
        ]
        self._spans = open_spans(settings.otlp_endpoint, "ovis-worker-io")
        self._jobs = JobRunner(
            client=client,
            planner=Planner(self._media, blobs, settings.plan_max_parts),
            assembler=Assembler(PartDocuments(client, blobs), blobs, settings.inline_result_bytes),
            leases=self._leases,
            settler=Settler(client, planned.finish_job),
            metrics=metrics,
            watch=self._watch,
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
        threads, closing = self._start_threads(), threading.Event()
        threads.append(self._start_watch(closing))

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
            closing.set()
            for part in (self._keeper, self._cleaner, self._deliverer, self._batches):
                part.close()
            for desk in self._desks:
                desk.close()
            for thread in threads:
                thread.join()
            self._leases.close()

    def alive(self) -> bool:
        """Whether what goes on beside the jobs still does."""
        return self._keeper.alive() and self._cleaner.alive()

    def close(self) -> None:
        """End the media processes, tell what is left to tell."""
        self._media.close()
        self._spans.close()

    def _start_threads(self) -> list[threading.Thread]:
        """What goes on beside the jobs."""
        work = {"housekeeping": self._keeper.keep_house, "cleaning": self._cleaner.keep_clean}
        work["batches"] = self._batches.keep
        work |= {f"estimates-{number}": desk.serve for number, desk in enumerate(self._desks)}
        if self._deliverer.box.usable:
            work["webhooks"] = self._deliverer.deliver
        else:
            log.warning("webhooks_off", reason="OVIS_WEBHOOK_KEYS is not set")
        threads = [threading.Thread(target=target, name=name, daemon=True) for name, target in work.items()]
        for thread in threads:
            thread.start()
        return threads

    def _start_watch(self, closing: threading.Event) -> threading.Thread:
        """End the process where a job, or the taking of wake-ups, stands still. A look may take as long as it may."""
        stall_s = self._settings.stall_s + self._settings.media_timeout_s
        looks: dict[str, Callable[[], Look | None]] = {"jobs": self._watch.look, "wakeups": self._look_at_wakeups}
        return watch_progress(looks, stall_s=stall_s, on_stall=end_stalled, closing=closing)

    def _look_at_wakeups(self) -> Look | None:
        has_room = len(self._leases) < self._settings.io_jobs and not self._drain.begun
        return look_at_wakeups(self._client, IO_QUEUE, has_room=has_room, taken=self._wakeups_taken)

    def _open_media(self) -> MediaPool:
        """One media process for a desk."""
        return MediaPool(self._settings.model_copy(update={"media_processes": 1}), on_death=self._count_death)

    def _count_death(self, why: str) -> None:
        self._metrics.media_deaths.labels(why).inc()

    def _wake(self) -> str:
        self._wakeups_taken += 1
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
            registry, host=metrics_host, port=metrics_port, ready=serving.is_set, alive=server.alive
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
