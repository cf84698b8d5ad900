"""One wake-up: claim the next part, read its inputs, answer it, store the result, commit."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

import redis
import stamina

from contract import store
from contract.blobs import BlobStore, result_key
from contract.catalogue import ModelCard
from contract.errors import BlobsUnavailable, CallerError, FleetError, InternalError, StoreUnavailable
from contract.estimates import note_pace
from contract.logs import get_logger
from contract.metrics import WorkerMetrics
from contract.redis_io import run
from contract.scripting import Command
from contract.task import Attempt, PartResult, dumps
from workers.answering import Answerer
from workers.generation import Stopped
from workers.inputs import InputReader
from workers.leases import Lease, LeaseKeeper, StopReason
from workers.readings import Reading
from workers.result_cache import ResultCache
from workers.retry_policy import Fail, decide

log = get_logger(__name__)

#: Seconds for which a result is offered to an S3 that is away before the part is handed back.
_STORE_S = 120.0

#: Seconds for which a finished result is offered to a Redis that is away. Past a few leases the part runs elsewhere.
_COMMIT_S = 60.0


@dataclass(frozen=True)
class PartRunner:
    """Runs parts of one queue. ``run_next`` may be called from many threads at once."""

    client: redis.Redis
    blobs: BlobStore
    inputs: InputReader
    answerer: Answerer
    cache: ResultCache
    leases: LeaseKeeper
    metrics: WorkerMetrics
    card: ModelCard
    worker: str
    inline_result_bytes: int

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
        with self.leases.hold(attempt) as lease:
            log.info("attempt_started", **attempt.log_fields, queued_ms=attempt.queued_ms)
            outcome = self._attempt(lease)
        self.metrics.parts.labels(outcome).inc()
        log.info("attempt_ended", **attempt.log_fields, outcome=outcome)
        return outcome

    def _attempt(self, lease: Lease) -> str:
        try:
            result = self._perform(lease)
        except Stopped:
            return self._stopped(lease)
        except FleetError as exc:
            return self._failed(lease, exc)
        except Exception as exc:
            log.exception("attempt_broke", **lease.attempt.log_fields)
            return self._failed(lease, InternalError(f"the worker broke: {type(exc).__name__}"))
        outcome = self._commit(store.finish(lease.attempt, "succeeded", result=result), "succeeded")
        if result.source == "model":
            self._note_pace(result)
        return outcome

    def _note_pace(self, result: PartResult) -> None:
        """Estimates go by what parts took lately; one that isn't noted is no loss."""
        with suppress(StoreUnavailable):
            run(self.client, note_pace(self.card.name, result.usage))

    def _failed(self, lease: Lease, error: FleetError) -> str:
        attempt = lease.attempt
        if lease.stop_reason and not isinstance(error, CallerError):  # most likely the stop itself made the work fail
            return self._stopped(lease)
        # Not a secret: it only spreads retries.
        decision = decide(error, attempt.claims, random.random())  # noqa: S311
        log.warning("attempt_failed", **attempt.log_fields, code=error.code, decision=str(decision))
        if isinstance(decision, Fail):
            error_json = error.info().model_dump_json()
            return self._commit(store.finish(attempt, "failed", error_json=error_json), "failed")
        return self._release(attempt, error.code, counts=decision.counts, delay_s=decision.rest_s)

    def _perform(self, lease: Lease) -> PartResult:
        with self._stage("prepare"):
            inputs = self.inputs.read(lease.attempt)
        if lease.stop_reason:
            raise Stopped
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
        document = dumps(result.document(attempt.task_id, attempt.part, attempt.spec)).encode()
        for retry in stamina.retry_context(on=BlobsUnavailable, attempts=None, timeout=_STORE_S, wait_max=5.0):
            with retry:
                if lease.stop_reason:
                    raise Stopped
                self.blobs.put(result.blob_key, document, "application/json")
        inline = result.inline_size_bytes <= self.inline_result_bytes
        return result if inline else result.model_copy(update={"text": None, "data": None})

    def _stopped(self, lease: Lease) -> str:
        reason = lease.stop_reason
        if reason is StopReason.DRAINED:
            return self._release(lease.attempt, "drained", counts=False)
        if reason is StopReason.CANCELED:
            return self._commit(store.finish(lease.attempt, "stopped"), "stopped")
        return "lost"

    def _commit(self, command: Command[store.FinishOutcome], outcome: str) -> str:
        """Commit an outcome, waiting for a Redis that is away; the token decides whether it still counts."""
        try:
            for retry in stamina.retry_context(on=StoreUnavailable, attempts=None, timeout=_COMMIT_S, wait_max=2.0):
                with retry:
                    committed = run(self.client, command)
        except StoreUnavailable:
            log.warning("commit_failed", outcome=outcome)
            return "store_unavailable"
        return outcome if committed == "committed" else committed

    def _release(self, attempt: Attempt, why: str, *, counts: bool, delay_s: float = 0.0) -> str:
        command = store.release(attempt.token, why, counts=counts, delay_s=delay_s)
        try:
            return f"released_{run(self.client, command)}"
        except StoreUnavailable:
            return "store_unavailable"  # the lease runs out and the reaper takes the part back

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.metrics.part_seconds.labels(stage).observe(time.monotonic() - start)
