"""The ``model`` role: media processes, then the engine, then wake-ups."""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError

from contract.catalogue import CATALOGUE, ModelCard
from contract.errors import BlobsUnavailable, InputUnavailable, StoreUnavailable
from contract.logs import get_logger
from contract.metrics import WorkerMetrics
from contract.redis_io import connect
from ovis_engine import CheckpointError, Engine, EngineConfig, locate_checkpoint
from workers.checkpoints import find_checkpoint
from workers.heap import share_one_heap
from workers.media.pool import MediaPool
from workers.memory import is_out_of_memory, note_out_of_memory, remembered_rows
from workers.observe import serve_observability
from workers.revision import checkpoint_revision
from workers.serving import ModelServer
from workers.settings import WorkerSettings

log = get_logger(__name__)

#: Exit status of a worker whose engine died (EX_SOFTWARE).
DEAD_ENGINE_STATUS = 70

#: Most tokens of the KV cache where the operator names no number.
_MOST_CACHE_TOKENS = 32768

#: Tokens of a usual prompt, its picture apart.
_PROMPT_TOKENS = 64

#: Billions of parameters below which copies of the decoding rows' keys and values gain nothing that can be measured,
#: while for the bundled model they take as much memory as its KV cache.
_KEYS_KEPT_FROM_B = 0.05


@dataclass(frozen=True)
class ModelRole:
    """What one model worker serves, and where."""

    model: str
    device: str
    checkpoint: str | None
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
    except (CheckpointError, StoreUnavailable, BlobsUnavailable, InputUnavailable, RedisError, OSError) as exc:
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
    client, host = connect(settings.redis_url.get_secret_value()), socket.gethostname()
    rows = remembered_rows(client, card.name, host, settings.engine_rows)
    settings = settings.model_copy(update={"engine_rows": rows})
    _adopt_library_logs()

    def die(error: BaseException) -> None:
        """A dead engine loop ends the process: its leases run out and another worker takes the parts."""
        log.critical("engine_died", exc_info=error)
        if is_out_of_memory(error):
            note_out_of_memory(client, card.name, host, rows)
        os._exit(DEAD_ENGINE_STATUS)

    share_one_heap()
    try:
        checkpoint = find_checkpoint(role.checkpoint, card, settings)
        with Engine.from_pretrained(checkpoint, engine_config(card, role.device, settings), on_death=die) as engine:
            log.info("engine_loaded", model=card.name, device=role.device, side=engine.side)
            _export(engine, metrics)
            _freeze_heap()
            revision = f"{checkpoint_revision(locate_checkpoint(checkpoint))} {engine.config.dtype}"
            ModelServer(card, role.worker, engine, media, metrics, settings, revision=revision).serve(serving)
    finally:
        media.close()
        close_observability()
    log.info("worker_stopped")


def _freeze_heap() -> None:
    """Takes what the libraries loaded out of the collector's sight: while it looks through it, the engine waits."""
    gc.collect()
    gc.freeze()


def _adopt_library_logs() -> None:
    """The batching library logs through a handler of its own; its lines belong among ours."""
    library = logging.getLogger("ContinuousBatchingLogger")
    library.handlers.clear()
    library.propagate = True


def engine_config(card: ModelCard, device: str, settings: WorkerSettings) -> EngineConfig:
    """How the engine runs a model under the operator's settings."""
    dtype = settings.engine_dtype
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    cache_tokens = settings.engine_kv_cache_tokens or _usual_cache_tokens(card, settings.engine_rows)
    return EngineConfig(
        device=device,
        dtype=dtype,
        max_running_requests=settings.engine_rows,
        kv_cache_tokens=cache_tokens,
        max_batch_tokens=settings.engine_max_batch_tokens,
        kept_keys_bytes=EngineConfig.kept_keys_bytes if card.params_b >= _KEYS_KEPT_FROM_B else 0,
        visual_pool_rows=min(EngineConfig.visual_pool_rows, _pool_rows(cache_tokens, settings)),
        num_threads=settings.engine_threads,
    )


def _pool_rows(cache_tokens: int, settings: WorkerSettings) -> int:
    """As much as the KV cache holds, and the backlog's pictures, which are encoded ahead; at most as much again."""
    rows = settings.engine_rows
    return cache_tokens * min(settings.slots, 2 * rows) // rows


def _usual_cache_tokens(card: ModelCard, rows: int) -> int:
    """What so many requests of one picture usually need of the KV cache, within what any request needs and the most."""
    partition = card.partition_for(1)
    tiles = partition + (partition > 1)  # the thumbnail
    usual = tiles * card.tokens_per_tile + _PROMPT_TOKENS + card.default_max_new_tokens // 2
    return min(_MOST_CACHE_TOKENS, max(card.context_tokens, rows * usual))


def _export(engine: Engine, metrics: WorkerMetrics) -> None:
    metrics.running.set_function(lambda: engine.stats().running)
    metrics.waiting.set_function(lambda: engine.stats().waiting)
    metrics.steps.set_function(lambda: engine.stats().steps)
    metrics.output_tokens.set_function(lambda: engine.stats().output_tokens)
    metrics.cache_tokens.set_function(lambda: engine.stats().cache_tokens_used)
    metrics.pool_rows.set_function(lambda: engine.stats().pool_rows_used)
