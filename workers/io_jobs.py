"""One wake-up of the io role: claim the next plan or assembly, do it, commit."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

import redis
import stamina

from contract import planned, store
from contract.errors import CallerError, FleetError, InternalError, QueueFull, StoreUnavailable, TenantQueueFull
from contract.logs import get_logger
from contract.metrics import JobMetrics
from contract.redis_io import run
from contract.scripting import Command
from contract.task import Job
from workers.assembler import Assembler
from workers.leases import Lease, LeaseKeeper, StopReason
from workers.planner import Planner
from workers.retry_policy import Fail, decide

T = TypeVar("T")

log = get_logger(__name__)

#: Seconds for which an outcome is offered to a Redis that is away. Past a few leases the job is done elsewhere.
_COMMIT_S = 60.0


class _Stopped(Exception):
    """The lease was stopped; its reason says why."""


@dataclass(frozen=True)
class JobRunner:
    """Runs plans and assemblies. ``run_next`` may be called from many threads at once."""

    client: redis.Redis
    planner: Planner
    assembler: Assembler
    leases: LeaseKeeper
    metrics: JobMetrics
    worker: str

    def run_next(self) -> str:
        """Claim one job and bring its attempt to an end; reply what came of it, for logs and metrics.

        Never raises for a fault of a job: every claimed attempt is finished, failed or handed back.
        """
        try:
            job = run(self.client, planned.claim_job(token=uuid4().hex, worker=self.worker))
        except StoreUnavailable:
            log.warning("claim_failed", queue=planned.IO_QUEUE)
            return "store_unavailable"
        if job is None:
            return "empty"
        with self.leases.hold(job) as lease, self.metrics.job_seconds.labels(job.name).time():
            log.info("attempt_started", **job.log_fields, queued_ms=job.queued_ms)
            outcome = self._attempt(lease)
        self.metrics.jobs.labels(job.name, outcome).inc()
        log.info("attempt_ended", **job.log_fields, outcome=outcome)
        return outcome

    def _attempt(self, lease: Lease[Job]) -> str:
        try:
            return self._plan(lease) if lease.attempt.name == "plan" else self._assemble(lease)
        except _Stopped:
            return self._stopped(lease)
        except FleetError as exc:
            return self._failed(lease, exc)
        except Exception as exc:
            log.exception("attempt_broke", **lease.attempt.log_fields)
            return self._failed(lease, InternalError(f"the worker broke: {type(exc).__name__}"))

    def _plan(self, lease: Lease[Job]) -> str:
        job = lease.attempt
        plan = _unless_stopped(lease, lambda: self.planner.plan(job))
        command = planned.plant(job, plan.units, cost=plan.cost, summary_cost=plan.summary_cost)
        outcome = self._commit(command)
        if outcome == "tenant_full":
            raise TenantQueueFull("the tenant has as many waiting parts as it may; the plan rests")
        if outcome == "queue_full":
            raise QueueFull("the model's queue is at its limit; the plan rests")
        return "planned" if outcome == "committed" else outcome

    def _assemble(self, lease: Lease[Job]) -> str:
        def check() -> None:
            if lease.stop_reason:
                raise _Stopped

        assembly = self.assembler.assemble(lease.attempt, check)
        outcome = self._commit(planned.finish_job(lease.attempt, "succeeded", assembly=assembly))
        return "assembled" if outcome == "committed" else outcome

    def _failed(self, lease: Lease[Job], error: FleetError) -> str:
        job = lease.attempt
        if lease.stop_reason and not isinstance(error, CallerError):  # most likely the stop itself made the work fail
            return self._stopped(lease)
        # Not a secret: it only spreads retries.
        decision = decide(error, job.claims, random.random())  # noqa: S311
        log.warning("attempt_failed", **job.log_fields, code=error.code, decision=str(decision))
        if isinstance(decision, Fail):
            outcome = self._commit(planned.finish_job(job, "failed", error_json=error.info().model_dump_json()))
            return "failed" if outcome == "committed" else outcome
        return self._release(job, error.code, counts=decision.counts, delay_s=decision.rest_s)

    def _stopped(self, lease: Lease[Job]) -> str:
        if lease.stop_reason is StopReason.DRAINED:
            return self._release(lease.attempt, "drained", counts=False)
        if lease.stop_reason is StopReason.CANCELED:
            return self._commit(planned.finish_job(lease.attempt, "stopped"))
        return "lost"

    def _commit(self, command: Command[T]) -> T | str:
        """Commit an outcome, waiting for a Redis that is away; the token decides whether it still counts."""
        try:
            for retry in stamina.retry_context(on=StoreUnavailable, attempts=None, timeout=_COMMIT_S, wait_max=2.0):
                with retry:
                    outcome = run(self.client, command)
        except StoreUnavailable:
            log.warning("commit_failed")
            return "store_unavailable"
        return outcome

    def _release(self, job: Job, why: str, *, counts: bool, delay_s: float = 0.0) -> str:
        command = store.release(job.token, why, counts=counts, delay_s=delay_s)
        try:
            return f"released_{run(self.client, command)}"
        except StoreUnavailable:
            return "store_unavailable"  # the lease runs out and the reaper takes the job back


def _unless_stopped(lease: Lease[Job], work: Callable[[], T]) -> T:
    """The result of ``work``, but no longer waited for once the lease is stopped: a stranger's server may be slow.

    What was begun goes on in its thread, within the media process's own limits.

    Raises:
        _Stopped: The lease was stopped first.
    """
    future: Future[T] = Future()
    ended = threading.Event()
    future.add_done_callback(lambda _: ended.set())
    lease.when_stopped(ended.set)

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:  # noqa: BLE001 - it is raised where the result is waited for
            future.set_exception(exc)

    threading.Thread(target=do, name="plan", daemon=True).start()
    ended.wait()
    if not future.done():
        raise _Stopped
    return future.result()
