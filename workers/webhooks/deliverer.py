"""Turns the outbox into deliveries and sends what is due, until it is told to end.

Any number of io workers do so side by side: the scripts hand each delivery to one sender, under a lease. A sender that
dies between sending and recording leaves it to the next: a receiver may see a delivery twice, under the same id.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import uuid4

import redis
import stamina

from contract import deliveries
from contract.deliveries import HeldDelivery, SealedSecrets
from contract.errors import FleetError, StoreUnavailable
from contract.logs import get_logger
from contract.metrics import WebhookMetrics
from contract.redis_io import run
from contract.scripting import Command
from contract.spans import NoSpans, Spans, step
from contract.task import TaskSpec
from contract.tracing import TraceContext
from contract.webhook_secrets import SecretBox, new_secret
from contract.webhooks import HookAttempt
from workers.webhooks.bodies import render
from workers.webhooks.schedule import delay_s
from workers.webhooks.sender import Answer, Sender

log = get_logger(__name__)

#: Seconds between looks while nothing is due.
_LOOK_S = 0.2

#: Seconds between looks while Redis is away.
_AWAY_S = 2.0

#: Seconds for which a record is offered to a Redis that is away; with a try it stays below the lease.
_RECORD_S = 25.0


@dataclass
class Deliverer:
    """Sends webhooks.

    Attributes:
        concurrency: Tries at once.
        public_url: Where links in bodies begin; "" makes them paths.
    """

    client: redis.Redis
    sender: Sender
    box: SecretBox
    metrics: WebhookMetrics
    concurrency: int = 16
    public_url: str = ""
    spans: Spans = field(default_factory=NoSpans)
    _closing: threading.Event = field(default_factory=threading.Event)

    def deliver(self) -> None:
        """Look and send until ``close``; then wait for the tries under way."""
        free = threading.BoundedSemaphore(self.concurrency)
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="webhook") as threads:
            wait_s = 0.0
            while not self._closing.wait(wait_s):
                wait_s = self._look(threads, free)

    def close(self) -> None:
        """End ``deliver`` soon."""
        self._closing.set()

    def _look(self, threads: ThreadPoolExecutor, free: threading.BoundedSemaphore) -> float:
        """Hand out whatever is due; reply the seconds until the next look."""
        try:
            more = self.expand()
            while not self._closing.is_set() and free.acquire(timeout=_LOOK_S):
                held = self._claim(free)
                if held is None:
                    return 0.0 if more else _LOOK_S
                threads.submit(self._send_and_free, held, free)
        except FleetError as exc:
            log.warning("webhooks_wait", code=exc.code)
            return _AWAY_S
        return 0.0

    def _claim(self, free: threading.BoundedSemaphore) -> HeldDelivery | None:
        held = None
        try:
            held = run(self.client, deliveries.claim_delivery(uuid4().hex))
        finally:
            if held is None:
                free.release()
        self.metrics.receivers_due.set(held.receivers_due if held else 0)
        return held

    def _send_and_free(self, held: HeldDelivery, free: threading.BoundedSemaphore) -> None:
        try:
            self.send(held)
        except Exception:
            log.exception("delivery_broke", delivery_id=held.delivery.id)  # its lease runs out, and it is tried again
        finally:
            free.release()

    def expand(self) -> bool:
        """Turn events into deliveries; reply whether more wait.

        Raises:
            StoreUnavailable: Redis is away.
        """
        expanded = run(self.client, deliveries.expand_outbox())
        self.metrics.outbox_events.set(expanded.left)
        self.metrics.outbox_age.set(expanded.oldest_ms / 1000)
        return expanded.left > 0

    def send(self, held: HeldDelivery) -> str:
        """Try once and record what came of it; reply how the delivery stands."""
        body = render(held, self.public_url)
        delivery = held.delivery
        answer = self._try(held, body)
        outcome, wait_s = _judge(answer, delivery.tries)
        line = HookAttempt(
            at_ms=time.time_ns() // 1_000_000,
            status_code=answer.status_code,
            error=answer.error,
            detail=answer.detail,
            seconds=round(answer.seconds, 3),
        )
        status = self._record(deliveries.record_attempt(held, outcome, line, body, delay_ms=round(1000 * wait_s)))
        self.metrics.attempts.labels(outcome).inc()
        self.metrics.attempt_seconds.observe(answer.seconds)
        log.info("delivery_tried", delivery_id=delivery.id, task_id=delivery.task, outcome=outcome, status=status)
        return status

    def _try(self, held: HeldDelivery, body: str) -> Answer:
        """One exchange with the receiver, as a step of the task's trace."""
        delivery, trace = held.delivery, _trace_of(held)
        with step(self.spans, trace or TraceContext.begin(None), "webhook", "client") as begun:
            try:
                secrets = self._secrets(held.secrets, delivery.tenant)
                answer = self.sender.send(held.url, delivery.id, body, secrets, trace)
            except FleetError as exc:  # the secrets can't be read: the operator's fault, and told as one
                answer = Answer(None, exc.code, str(exc), None, 0.0)
            begun.failed = not answer.received
            begun.attributes |= {"ovis.delivery": delivery.id, "ovis.event": delivery.event.type}
            if answer.status_code is not None:
                begun.attributes["http.response.status_code"] = answer.status_code
        return answer

    def _record(self, command: Command[str]) -> str:
        for retry in stamina.retry_context(on=StoreUnavailable, attempts=None, timeout=_RECORD_S, wait_max=2.0):
            with retry:
                return run(self.client, command)
        raise AssertionError("stamina raises what it has caught last")

    def _secrets(self, sealed: SealedSecrets, tenant: str) -> list[str]:
        """What the delivery is signed with, the newest first."""
        first = sealed.secret or run(self.client, deliveries.first_secret(tenant, self.box.seal(new_secret())))
        found = [self.box.open(first)]
        if sealed.old_secret and sealed.old_until_ms > time.time_ns() // 1_000_000:
            found.append(self.box.open(sealed.old_secret))
        return found


def _trace_of(held: HeldDelivery) -> TraceContext | None:
    """The try as a step of its task's trace; None where there is no task any more."""
    if held.spec is None:
        return None
    spec = TaskSpec.model_validate_json(held.spec)
    return TraceContext.begin(spec.traceparent, spec.tracestate) if spec.traceparent else None


def _judge(answer: Answer, tries: int) -> tuple[deliveries.Outcome, float]:
    """What becomes of the delivery, and the seconds until its next try."""
    if answer.received:
        return "succeeded", 0.0
    if answer.status_code == 410:
        return "gone", 0.0
    # Not a secret: it only spreads retries.
    wait_s = delay_s(tries, random.random(), answer.retry_after)  # noqa: S311
    return ("failed", 0.0) if wait_s is None else ("retry", wait_s)
