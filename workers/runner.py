"""One wake-up: claim the next part, read its inputs, answer it, store the result, commit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import uuid4

import redis
import stamina

from contract import store
from contract.blobs import BlobStore, result_key
from contract.catalogue import ModelCard
from contract.errors import BlobsUnavailable, StoreUnavailable
from contract.estimates import note_pace
from contract.logs import get_logger
from contract.metrics import WorkerMetrics
from contract.redis_io import run
from contract.spans import NoSpans, Spans
from contract.task import Attempt, PartResult, dumps
from workers.answering import Answerer
from workers.inputs import InputReader
from workers.leases import Lease, LeaseKeeper
from workers.readings import Reading
from workers.result_cache import ResultCache
from workers.settling import Settler
from workers.steps import told

log = get_logger(__name__)

#: Seconds for which a result is offered to an S3 that is away before the part is handed back.
_STORE_S = 120.0


@dataclass(frozen=True)
class PartRunner:
    """Runs parts of one queue. ``run_next`` may be called from many threads at once."""

    client: redis.Redis
    blobs: BlobStore
    inputs: InputReader
    answerer: Answerer
    cache: ResultCache
    leases: LeaseKeeper
    settler: Settler[Attempt]
    metrics: WorkerMetrics
    card: ModelCard
    worker: str
    inline_result_bytes: int
    spans: Spans = field(default_factory=NoSpans)

    def run_next(self) -> str:
        """Claim one part and bring its attempt to an end; reply what came of it, for logs and metrics.

        Never raises for a fault of a part: every claimed attempt is finished, failed or handed back.
        """
        try:
            attempt = run(self.client, store.claim(self.card.name, token=uuid4().hex, worker=self.worker))
        except StoreUnavailable:
            log.warning("claim_failed", queue=self.card.name)
            return "store_unavailable"
        if attempt is None:
            return "empty"
        self.metrics.queued_seconds.observe(attempt.queued_ms / 1000)
        with self.leases.hold(attempt) as lease, told(self.spans, attempt, "part") as step:
            log.info("attempt_started", **attempt.log_fields, queued_ms=attempt.queued_ms)
            outcome = self.settler.settle(lease, self._attempt)
            step.end(outcome)
        self.metrics.parts.labels(outcome).inc()
        log.info("attempt_ended", **attempt.log_fields, outcome=outcome)
        return outcome

    def _attempt(self, lease: Lease) -> str:
        result = self._perform(lease)
        outcome = self.settler.commit(store.finish(lease.attempt, "succeeded", result=result), "succeeded")
        if result.source == "model":
            self._note_pace(result)
        return outcome

    def _note_pace(self, result: PartResult) -> None:
        """Estimates go by what parts took lately; one that isn't noted is no loss."""
        with suppress(StoreUnavailable):
            run(self.client, note_pace(self.card.name, result.usage))

    def _perform(self, lease: Lease) -> PartResult:
        with self._stage("prepare"):
            inputs = self.inputs.read(lease.attempt, lease.check)
        lease.check()
        attempt = lease.attempt
        reading = self.cache.find(attempt.tenant, attempt.spec, inputs)
        if reading is None:
            with self._stage("generate"):
                reading = self.answerer.answer(lease, inputs)
        with self._stage("store"):
            self.cache.keep(attempt.tenant, attempt.spec, inputs, reading)
            return self._store(lease, reading)

    def _store(self, lease: Lease, reading: Reading) -> PartResult:
        """Store the result, waiting for an S3 that is away: the work behind it is dear."""
        attempt = lease.attempt
        result = reading.result(result_key(attempt.tenant, attempt.task_id, attempt.part, attempt.claims))
        document = dumps(reading.document(result, attempt)).encode()
        for retry in stamina.retry_context(on=BlobsUnavailable, attempts=None, timeout=_STORE_S, wait_max=5.0):
            with retry:
                lease.check()
                self.blobs.put(result.blob_key, document, "application/json")
        inline = result.inline_size_bytes <= self.inline_result_bytes
        return result if inline else result.model_copy(update={"text": None, "data": None})

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.metrics.part_seconds.labels(stage).observe(time.monotonic() - start)
