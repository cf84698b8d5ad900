"""The callers: they hand tasks in until they have seen a 202, and change their minds about some."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from contract.store import task_key
from contract.webhooks import TaskWebhook
from tests.chaos.fleet import ChaosFleet
from tests.chaos.menu import Dish

#: Seconds after which a caller gives up on one call.
_PATIENCE_S = 120.0

#: Callers at once.
_THREADS = 16

#: Shares of the tasks that get a webhook, and that are canceled.
_WEBHOOK_SHARE, _CANCEL_SHARE = 0.3, 0.25

#: Longest time between a 202 and its cancel, in seconds.
_LONGEST_HESITATION_S = 2.5

#: Gives a task that hasn't ended a webhook. Nobody receives it: what counts is the event that its end owes.
_GIVE_WEBHOOK = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' and status ~= 'canceling' then return 0 end
redis.call('HSET', KEYS[1], 'webhook', ARGV[1])
return 1
"""


@dataclass(frozen=True)
class Order:
    """One task to hand in.

    Attributes:
        number: its own, told in the metadata.
        at_s: when, from the start of the run.
        cancel_after_s: how long after the 202 it is canceled; None for one that is wanted.
    """

    number: int
    at_s: float
    dish: Dish
    cancel_after_s: float | None
    with_webhook: bool


@dataclass
class Receipts:
    """What the callers saw. The lock guards all of it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    accepted: dict[str, Order] = field(default_factory=dict)
    cancels: dict[str, str] = field(default_factory=dict)
    webhooks: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    given_up: list[str] = field(default_factory=list)


def plan_orders(menu: Sequence[Dish], tasks: int, duration_s: float, seed: int) -> list[Order]:
    """Orders spread over the first part of the run, the same for the same seed."""
    chance = random.Random(f"orders-{seed}")
    weights = [dish.weight for dish in menu]
    return [
        Order(
            number=number,
            at_s=0.85 * duration_s * number / tasks,
            dish=chance.choices(menu, weights)[0],
            cancel_after_s=chance.uniform(0, _LONGEST_HESITATION_S) if chance.random() < _CANCEL_SHARE else None,
            with_webhook=chance.random() < _WEBHOOK_SHARE,
        )
        for number in range(tasks)
    ]


class Callers:
    """Hands in orders; ``run`` returns when every order was accepted or given up, and every cancel asked."""

    def __init__(self, fleet: ChaosFleet, seed: int) -> None:
        self.receipts = Receipts()
        self._fleet = fleet
        self._seed = seed
        self._http = httpx.Client(
            base_url=fleet.stack.url,
            headers={"Authorization": f"Bearer {fleet.stack.api_key}"},
            timeout=20,
            trust_env=False,
        )

    def run(self, orders: Sequence[Order]) -> None:
        """Keep the orders' times as far as the fleet lets us."""
        start = time.monotonic()
        with self._http, ThreadPoolExecutor(_THREADS, thread_name_prefix="caller") as threads:
            futures = []
            for order in orders:
                time.sleep(max(0.0, start + order.at_s - time.monotonic()))
                futures.append(threads.submit(self._serve, order))
            for future in futures:
                future.result()

    def _serve(self, order: Order) -> None:
        body = {**order.dish.body, "metadata": {"order": str(order.number)}}
        key = f"chaos-{self._seed}-{order.number}"
        answer = self._until_answered("POST", "/v1/tasks", {200, 202}, json=body, headers={"Idempotency-Key": key})
        if answer is None:
            return
        task = answer.json()["id"]
        with self.receipts.lock:
            self.receipts.accepted[task] = order
        if order.with_webhook:
            self._give_webhook(task)
        if order.cancel_after_s is not None:
            time.sleep(order.cancel_after_s)
            self._cancel(task)

    def _give_webhook(self, task: str) -> None:
        webhook = TaskWebhook(url="https://example.invalid/hook").model_dump_json()
        call = self._fleet.client.register_script(_GIVE_WEBHOOK)
        if self._fleet.patiently(lambda: call([task_key(task)], [webhook])):
            with self.receipts.lock:
                self.receipts.webhooks.add(task)

    def _cancel(self, task: str) -> None:
        answer = self._until_answered("POST", f"/v1/tasks/{task}/cancel", {200, 202})
        if answer is not None:
            with self.receipts.lock:
                self.receipts.cancels[task] = answer.json()["status"]

    def _until_answered(self, method: str, path: str, good: set[int], **request: Any) -> httpx.Response | None:
        """Repeat a call until it is answered as it should be; None, and a note, where that takes too long."""
        deadline = time.monotonic() + _PATIENCE_S
        seen = ""
        while time.monotonic() < deadline:
            try:
                answer = self._http.request(method, path, **request)
            except httpx.TransportError as exc:
                seen = type(exc).__name__
            else:
                seen = str(answer.status_code)
                if answer.status_code not in good:
                    seen += f" {answer.json().get('code', '')}"
            with self.receipts.lock:
                self.receipts.answers[f"{method} {seen}"] += 1
            if seen.isdigit():
                return answer
            time.sleep(0.3)
        with self.receipts.lock:
            self.receipts.given_up.append(f"{method} {path}: {seen}")
        return None
