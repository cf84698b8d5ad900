"""The ``model`` role: media processes, then the engine, then wake-ups."""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from contract.blobs import BlobStore
from contract.catalogue import CATALOGUE, ModelCard
from contract.errors import StoreUnavailable
from contract.logs import get_logger
from contract.metrics import WorkerMetrics
from contract.redis_io import connect
from ovis_engine import CheckpointError, Engine, EngineConfig, bundled_model_path
from workers.celery_role import run_celery
from workers.leases import LeaseKeeper, StopReason
from workers.media.pool import MediaPool
from workers.observe import serve_observability
from workers.runner import PartRunner
from workers.settings import WorkerSettings

log = get_logger(__name__)


@dataclass(frozen=True)
class ModelRole:
    """What one model worker serves, and where."""

    model: str
    device: str
    checkpoint: Path | None
    worker: str
    metrics_host: str
    metrics_port: int


def run_model_role(role: ModelRole, settings: WorkerSettings) -> None:
    """Serve until SIGTERM. A failed load is a failed start.

    Raises:
        SystemExit: Status 1, with the reason in the log, where the checkpoint, Redis or the port isn't as it must be.
    """
    try:
        _run(role, settings)
    except (CheckpointError, StoreUnavailable, OSError) as exc:
        log.critical("start_failed", error=f"{type(exc).__name__}: {exc}")
        raise SystemExit(1) from exc


def _run(role: ModelRole, settings: WorkerSettings) -> None:
    card = CATALOGUE[role.model]
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    serving = threading.Event()
    media = MediaPool(settings, on_death=lambda why: metrics.media_deaths.labels(why).inc())
    close_observability = serve_observability(
        registry, host=role.metrics_host, port=role.metrics_port, ready=serving.is_set
    )
    config = _engine_config(role, settings)
    _adopt_library_logs()
    try:
        with Engine.from_pretrained(_checkpoint(role, card), config, on_death=_die) as engine:
            log.info("engine_loaded", model=card.name, device=role.device, side=engine.side)
            _export(engine, metrics)
            _serve(card, role.worker, engine, media, metrics, settings, serving)
    finally:
        media.close()
        close_observability()
    log.info("worker_stopped")


def _serve(
    card: ModelCard,
    worker: str,
    engine: Engine,
    media: MediaPool,
    metrics: WorkerMetrics,
    settings: WorkerSettings,
    serving: threading.Event,
) -> None:
    """Consume wake-ups until SIGTERM; ``serving`` is set meanwhile."""
    broker_url = settings.redis_url.get_secret_value()
    client = connect(broker_url)
    leases = LeaseKeeper(client, card.name, worker, settings.slots)
    metrics.leases.set_function(lambda: len(leases))
    leases.start()
    runner = PartRunner(
        client=client,
        blobs=BlobStore(settings),
        engine=engine,
        media=media,
        leases=leases,
        metrics=metrics,
        card=card,
        worker=f"{worker}@{socket.gethostname()}",
        inline_result_bytes=settings.inline_result_bytes,
    )
    draining, drained = threading.Event(), threading.Event()

    def wake() -> str:
        outcome = "draining" if draining.is_set() else runner.run_next()
        metrics.wakeups.labels(outcome).inc()
        return outcome

    def on_ready() -> None:
        serving.set()
        log.info("worker_ready", slots=settings.slots)

    def drain() -> None:
        draining.set()
        serving.clear()
        if not drained.wait(settings.drain_grace_s):
            log.info("drain_deadline", held=len(leases))
            leases.stop_all(StopReason.DRAINED)
            media.close()

    run_celery(
        broker_url=broker_url,
        queue=card.name,
        name=worker,
        concurrency=settings.slots,
        wake=wake,
        on_ready=on_ready,
        on_shutdown=drain,
    )
    drained.set()
    leases.close()


def _adopt_library_logs() -> None:
    """The batching library logs through a handler of its own; its lines belong among ours."""
    library = logging.getLogger("ContinuousBatchingLogger")
    library.handlers.clear()
    library.propagate = True


def _checkpoint(role: ModelRole, card: ModelCard) -> Path:
    if role.checkpoint is not None:
        return role.checkpoint
    if card.hub_id is None:
        return bundled_model_path(card.name)
    raise FileNotFoundError(f"{card.name} is not bundled: name its directory with --checkpoint")


def _engine_config(role: ModelRole, settings: WorkerSettings) -> EngineConfig:
    dtype = settings.engine_dtype
    if dtype == "auto":
        dtype = "float32" if role.device == "cpu" else "bfloat16"
    return EngineConfig(
        device=role.device,
        dtype=dtype,
        max_running_requests=settings.engine_rows,
        kv_cache_tokens=settings.engine_kv_cache_tokens,
        max_batch_tokens=settings.engine_max_batch_tokens,
        num_threads=settings.engine_threads,
    )


def _export(engine: Engine, metrics: WorkerMetrics) -> None:
    metrics.running.set_function(lambda: engine.stats().running)
    metrics.waiting.set_function(lambda: engine.stats().waiting)
    metrics.steps.set_function(lambda: engine.stats().steps)
    metrics.output_tokens.set_function(lambda: engine.stats().output_tokens)
    metrics.cache_tokens.set_function(lambda: engine.stats().cache_tokens_used)
    metrics.pool_rows.set_function(lambda: engine.stats().pool_rows_used)


def _die(error: BaseException) -> None:
    """A dead engine loop ends the process: its leases run out and another worker takes the parts."""
    log.critical("engine_died", exc_info=error)
    os._exit(70)
