"""One wake-up of the io role: claim the next plan or assembly, do it, commit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

import redis

from contract import planned
from contract.errors import QueueFull, StoreUnavailable, TenantQueueFull
from contract.logs import get_logger
from contract.metrics import JobMetrics
from contract.redis_io import run
from contract.spans import NoSpans, Spans
from contract.task import Job
from workers.assembler import Assembler
from workers.job_watch import JobWatch
from workers.leases import Lease, LeaseKeeper, Stopped
from workers.planner import Planner
from workers.settling import Settler
from workers.steps import told

T = TypeVar("T")

log = get_logger(__name__)


@dataclass(frozen=True)
class JobRunner:
    """Runs plans and assemblies. ``run_next`` may be called from many threads at once."""

    client: redis.Redis
    planner: Planner
    assembler: Assembler
    leases: LeaseKeeper
    settler: Settler[Job]
    metrics: JobMetrics
    watch: JobWatch
    worker: str
    spans: Spans = field(default_factory=NoSpans)

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
        timed = self.metrics.job_seconds.labels(job.name).time()
        with self.leases.hold(job) as lease, timed, told(self.spans, job, job.name) as step:
            log.info("attempt_started", **job.log_fields, queued_ms=job.queued_ms)
            with self.watch.job() as looked:
                outcome = self.settler.settle(lease, lambda held: self._attempt(held, looked))
            step.end(outcome)
        self.metrics.jobs.labels(job.name, outcome).inc()
        log.info("attempt_ended", **job.log_fields, outcome=outcome)
        return outcome

    def _attempt(self, lease: Lease[Job], step: Callable[[], None]) -> str:
        def go_on() -> None:
            lease.check()
            step()

        return self._plan(lease, go_on) if lease.attempt.name == "plan" else self._assemble(lease, go_on)

    def _plan(self, lease: Lease[Job], go_on: Callable[[], None]) -> str:
        job = lease.attempt
        # Waiting for a media process is a step, and so is waiting for its answer: its limits end both.
        plan = _unless_stopped(lease, lambda: self.planner.plan(job, go_on))
        command = planned.plant(job, plan.units, cost=plan.cost, summary_cost=plan.summary_cost)
        outcome = self.settler.commit(command, "planned")
        if outcome == "tenant_full":
            raise TenantQueueFull("the tenant has as many waiting parts as it may; the plan rests")
        if outcome == "queue_full":
            raise QueueFull("the model's queue is at its limit; the plan rests")
        return outcome

    def _assemble(self, lease: Lease[Job], go_on: Callable[[], None]) -> str:
        assembly = self.assembler.assemble(lease.attempt, go_on)
        command = planned.finish_job(lease.attempt, "succeeded", assembly=assembly)
        return self.settler.commit(command, "assembled")


def _unless_stopped(lease: Lease[Job], work: Callable[[], T]) -> T:
    """The result of ``work``, but no longer waited for once the lease is stopped: a stranger's server may be slow.

    The look's thread gives up within a second, and the media process that works for it is replaced.

    Raises:
        Stopped: The lease was stopped first.
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
        raise Stopped
    return future.result()
