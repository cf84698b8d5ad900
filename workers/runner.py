"""One wake-up: claim the next part, prepare its pictures, run the engine, store the result, commit."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import redis
import stamina

from contract import store
from contract.blobs import BlobStore, result_key
from contract.catalogue import ModelCard
from contract.errors import (
    BlobsUnavailable,
    CallerError,
    ContextTooLong,
    EngineDied,
    FleetError,
    InternalError,
    RejectedByEngine,
    StoreUnavailable,
)
from contract.logs import get_logger
from contract.metrics import WorkerMetrics
from contract.redis_io import run
from contract.scripting import Command
from contract.task import Attempt, ObjectInput, PartResult, UrlInput, Usage, dumps
from contract.units import PageUnit, SummaryUnit
from ovis_engine import Completion, Engine, EngineError, Request, RequestError, TiledImage
from workers.leases import Lease, LeaseKeeper, StopReason
from workers.media.pool import MediaPool
from workers.part_documents import PartDocuments
from workers.retry_policy import Fail, decide

log = get_logger(__name__)

#: Seconds for which a result is offered to an S3 that is away before the part is handed back.
_STORE_S = 120.0

#: Seconds for which a finished result is offered to a Redis that is away. Past a few leases the part runs elsewhere.
_COMMIT_S = 60.0


class _Stopped(Exception):
    """The lease was stopped; its reason says why."""


@dataclass(frozen=True)
class PartRunner:
    """Runs parts of one queue. ``run_next`` may be called from many threads at once."""

    client: redis.Redis
    blobs: BlobStore
    engine: Engine
    media: MediaPool
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
        except _Stopped:
            return self._stopped(lease)
        except FleetError as exc:
            return self._failed(lease, exc)
        except Exception as exc:
            log.exception("attempt_broke", **lease.attempt.log_fields)
            return self._failed(lease, InternalError(f"the worker broke: {type(exc).__name__}"))
        return self._commit(store.finish(lease.attempt, "succeeded", result=result), "succeeded")

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
        spec = lease.attempt.spec
        with self._stage("prepare"):
            images = self._prepare(lease.attempt)
        request = Request(
            prompt=self._prompt(lease.attempt),
            images=images,
            system=spec.system,
            max_new_tokens=spec.max_new_tokens(self.card),
            request_id=lease.attempt.token,
        )
        if lease.stop_reason:
            raise _Stopped
        with self._stage("generate"):
            completion = self._generate(request, lease)
        with self._stage("store"):
            return self._store(lease, completion, len(images))

    def _prepare(self, attempt: Attempt) -> tuple[TiledImage, ...]:
        """The part's pictures as tiles, in order; several are prepared side by side."""
        partition = attempt.spec.max_partition(self.card)

        def one(source: UrlInput | ObjectInput) -> TiledImage:
            trusted = isinstance(source, ObjectInput)
            url = self.blobs.presigned_get(source.bucket, source.key) if isinstance(source, ObjectInput) else source.url
            side = self.engine.side
            return self.media.prepare(url, trusted=trusted, side=side, max_partition=partition, page=page).image

        page = attempt.unit.page if isinstance(attempt.unit, PageUnit) else None
        inputs = () if isinstance(attempt.unit, SummaryUnit) else attempt.spec.inputs
        if len(inputs) < 2:
            return tuple(map(one, inputs))
        with ThreadPoolExecutor(min(4, len(inputs)), thread_name_prefix="prepare") as threads:
            return tuple(threads.map(one, inputs))

    def _prompt(self, attempt: Attempt) -> str:
        if not isinstance(attempt.unit, SummaryUnit) or attempt.spec.summary_prompt is None:
            return attempt.spec.prompt
        captions = PartDocuments(self.client, self.blobs).captions(attempt.task_id, attempt.part)
        return attempt.spec.summary_prompt.replace("{captions}", captions)

    def _generate(self, request: Request, lease: Lease) -> Completion:
        try:
            future = self.engine.submit(request)
            lease.when_stopped(lambda: self.engine.cancel(request.request_id))
            completion = future.result()
        except RequestError as exc:
            known = ContextTooLong if exc.code == ContextTooLong.code else RejectedByEngine
            raise known(str(exc)) from exc
        except (EngineError, CancelledError) as exc:
            raise EngineDied("the engine stopped before the result was there") from exc
        if completion.finish_reason == "canceled":
            raise _Stopped
        return completion

    def _store(self, lease: Lease, completion: Completion, num_images: int) -> PartResult:
        """Store the result, waiting for an S3 that is away: the work behind it is dear."""
        attempt = lease.attempt
        usage = Usage(
            images=num_images,
            tiles=completion.num_tiles,
            prompt_tokens=completion.num_prompt_tokens,
            visual_tokens=completion.num_visual_tokens,
            output_tokens=completion.num_output_tokens,
            gpu_seconds=round(completion.engine_s, 4),
        )
        assert completion.finish_reason not in ("canceled", "deadline")
        result = PartResult(
            text=completion.text,
            finish_reason=completion.finish_reason,
            blob_key=result_key(attempt.tenant, attempt.task_id, attempt.part, attempt.claims),
            usage=usage,
        )
        document = dumps(result.document(attempt.task_id, attempt.part, attempt.spec)).encode()
        for retry in stamina.retry_context(on=BlobsUnavailable, attempts=None, timeout=_STORE_S, wait_max=5.0):
            with retry:
                if lease.stop_reason:
                    raise _Stopped
                self.blobs.put(result.blob_key, document, "application/json")
        inline = len(completion.text.encode()) <= self.inline_result_bytes
        return result if inline else result.model_copy(update={"text": None})

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
