"""A loaded engine at work: wake-ups in, parts out, until SIGTERM."""

from __future__ import annotations

import socket
import threading

from contract import store
from contract.blobs import BlobStore
from contract.catalogue import ModelCard
from contract.logs import get_logger
from contract.metrics import WorkerMetrics
from contract.redis_io import connect
from contract.spans import open_spans
from ovis_engine import Engine
from workers.answering import Answerer
from workers.celery_role import run_celery
from workers.drain import Drain
from workers.generation import Generator
from workers.inputs import InputReader
from workers.leases import LeaseKeeper
from workers.liveness import Look, end_stalled, look_at_wakeups, watch_progress
from workers.media.pool import MediaPool
from workers.result_cache import ResultCache
from workers.runner import PartRunner
from workers.settings import WorkerSettings
from workers.settling import Settler

log = get_logger(__name__)


class ModelServer:
    """Serves one queue with one engine."""

    def __init__(
        self,
        card: ModelCard,
        worker: str,
        engine: Engine,
        media: MediaPool,
        metrics: WorkerMetrics,
        settings: WorkerSettings,
        *,
        revision: str,
    ) -> None:
        """Opens nothing but clients.

        Args:
            card, engine: What is served.
            worker: Name for Celery.
            media, metrics, settings: As the role has them.
            revision: What tells this checkpoint from others of the model.
        """
        self._card = card
        self._worker = worker
        self._engine = engine
        self._metrics = metrics
        self._settings = settings
        self._broker_url = settings.redis_url.get_secret_value()
        self._client = connect(self._broker_url)
        identity = f"{worker}@{socket.gethostname()}"
        self._leases = LeaseKeeper(self._client, card.name, identity, settings.slots)
        self._drain = Drain(settings.drain_grace_s, self._leases, media)
        blobs = BlobStore(settings)
        self._spans = open_spans(settings.otlp_endpoint, "ovis-worker-model")
        self._runner = PartRunner(
            client=self._client,
            blobs=blobs,
            inputs=InputReader(self._client, blobs, media, engine.side, card),
            answerer=Answerer(self._client, Generator(engine), card),
            cache=ResultCache(self._client, blobs, revision),
            leases=self._leases,
            settler=Settler(self._client, store.finish),
            metrics=metrics,
            card=card,
            worker=identity,
            inline_result_bytes=settings.inline_result_bytes,
            spans=self._spans,
        )
        self._wakeups_taken = 0
        metrics.leases.set_function(lambda: len(self._leases))

    def serve(self, serving: threading.Event) -> None:
        """Consume wake-ups until SIGTERM; ``serving`` is set meanwhile.

        Raises:
            StoreUnavailable: Redis is away at the start.
        """
        closing = threading.Event()
        self._leases.start()
        looks = {"engine": self._look_at_engine, "wakeups": self._look_at_wakeups}
        watch = watch_progress(looks, stall_s=self._settings.stall_s, on_stall=end_stalled, closing=closing)

        def on_ready() -> None:
            serving.set()
            log.info("worker_ready", slots=self._settings.slots)

        def on_shutdown() -> None:
            serving.clear()
            self._drain.run()

        run_celery(
            broker_url=self._broker_url,
            queue=self._card.name,
            name=self._worker,
            concurrency=self._settings.slots,
            wake=self._wake,
            on_ready=on_ready,
            on_shutdown=on_shutdown,
            on_second_signal=self._drain.cut_short,
        )
        self._drain.cut_short()
        closing.set()
        watch.join()
        self._leases.close()
        self._spans.close()

    def _wake(self) -> str:
        self._wakeups_taken += 1
        outcome = "draining" if self._drain.begun else self._runner.run_next()
        self._metrics.wakeups.labels(outcome).inc()
        return outcome

    def _look_at_engine(self) -> Look:
        stats = self._engine.stats()
        has_work = stats.running + stats.waiting > 0
        return Look(has_work, (stats.steps, stats.encoded_tiles, stats.output_tokens))

    def _look_at_wakeups(self) -> Look | None:
        has_room = len(self._leases) < self._settings.slots and not self._drain.begun
        return look_at_wakeups(self._client, self._card.name, has_room=has_room, taken=self._wakeups_taken)
