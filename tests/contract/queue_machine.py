"""The callers' half of the machine: submit, cancel, retry, discard, purge; and what must hold after each step.

The machine knows what callers and workers were told; ``queue_state`` knows what must be true of the keys.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contract import store, submissions
from contract.redis_io import run
from contract.task import Attempt, TaskSpec, TaskStatus
from contract.webhooks import TaskWebhook
from tests.contract.queue_state import QueueState, check, outbox

QUEUE = "ovis2-reader"
WEBHOOK = TaskWebhook(url="https://example.org/hook").model_dump_json()
TENANTS = ("acme", "bolt", "core")

#: Which task, token or lease a rule means: an index into however many there are.
which = st.integers(0, 1000)


@dataclass
class Held:
    """An attempt that a worker was given, and what it was told of it."""

    attempt: Attempt
    worker: str
    outcome: str = ""


@dataclass
class Told:
    """What the callers and workers of one queue know."""

    submissions: dict[str, submissions.Submission] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    claims: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    discarded: set[str] = field(default_factory=set)
    purged: set[str] = field(default_factory=set)


class CallersMachine(RuleBasedStateMachine):
    """One queue and three tenants."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        self.client = client
        self.told = Told()
        self.before: QueueState | None = None

    @initialize()
    def start(self) -> None:
        self.client.flushall()
        run(self.client, store.expire_leases())

    @rule(
        tenant=st.sampled_from(TENANTS),
        parts=st.integers(1, 3),
        priority=st.sampled_from(("high", "normal", "low")),
        deadline_s=st.sampled_from((None, 3600)),
        webhook=st.sampled_from(("", WEBHOOK)),
        key=st.sampled_from(("", "", "order-1", "order-2")),
        body=st.sampled_from(("aa", "bb")),
        size_bytes=st.sampled_from((0, 7, 1000)),
    )
    def submit(self, tenant, parts, priority, deadline_s, webhook, key, body, size_bytes) -> None:
        task = f"task_{len(self.told.submissions):04d}"
        spec = TaskSpec(
            kind="text", model=QUEUE, operation="ask", prompt="hi", priority=priority, deadline_s=deadline_s
        )
        submission = submissions.Submission(
            task_id=task,
            tenant=tenant,
            spec=spec,
            cost=600,
            weight=1.0,
            tenant_limit=1000,
            queue_limit=1000,
            idempotency_key=key,
            body_hash=body,
            num_parts=parts,
            webhook=webhook,
            size_bytes=size_bytes,
        )
        reply = run(self.client, submissions.submit(submission))
        if known := self.told.keys.get((tenant, key)):
            assert reply == ("exists" if known[1] == body else "conflict", known[0])
            return
        assert reply == ("created", task)
        self.told.submissions[task] = submission
        self.told.runs[task] = 1
        if key:
            self.told.keys[tenant, key] = (task, body)

    @rule(tenant=st.sampled_from(TENANTS), limit=st.sampled_from(("tenant_limit", "queue_limit", "tenant_bytes_limit")))
    def submit_over_a_limit(self, tenant, limit) -> None:
        spec = TaskSpec(kind="text", model=QUEUE, operation="ask", prompt="hi")
        values = {"tenant_limit": 1000, "queue_limit": 1000, limit: 0}
        refused = submissions.Submission("task_refused", tenant, spec, 600, 1.0, size_bytes=1, **values)
        outcome, _ = run(self.client, submissions.submit(refused))
        assert outcome == ("queue_full" if limit == "queue_limit" else "tenant_full")

    @precondition(lambda self: self.alive)
    @rule(index=which)
    def submit_again_as_after_a_lost_reply(self, index) -> None:
        task = self.pick(self.alive, index)
        assert run(self.client, submissions.submit(self.told.submissions[task])) == ("created", task)

    @precondition(lambda self: self.alive)
    @rule(index=which, own=st.booleans())
    def cancel(self, index, own) -> None:
        task = self.pick(self.alive, index)
        tenant = self.told.submissions[task].tenant if own else "stranger"
        before = self.status_of(task)
        after = run(self.client, store.cancel(task, tenant))
        if not own:
            assert after == "missing"
        elif before is TaskStatus.QUEUED:
            assert after == "canceled"
        elif before is TaskStatus.RUNNING:
            assert after in ("canceling", "canceled")
        else:
            assert after == before

    @precondition(lambda self: self.alive)
    @rule(index=which)
    def retry(self, index) -> None:
        failed = [task for task in self.alive if self.status_of(task) is TaskStatus.FAILED]
        task = self.pick(failed or self.alive, index)
        before = self.status_of(task)
        after = run(self.client, store.retry(task, self.told.submissions[task].tenant))
        assert after == ("queued" if failed else before)
        if failed:
            self.told.runs[task] += 1
            self.told.discarded.discard(task)

    @precondition(lambda self: self.alive)
    @rule(index=which)
    def discard(self, index) -> None:
        task = self.pick(self.alive, index)
        tenant = self.told.submissions[task].tenant
        was_there = self.client.zscore(store.dead_letters_key(tenant), task) is not None
        assert bool(run(self.client, store.discard(task, tenant))) == was_there
        if was_there:
            self.told.discarded.add(task)

    @precondition(lambda self: self.alive)
    @rule(index=which)
    def purge(self, index) -> None:
        task = self.pick(self.alive, index)
        ended = self.status_of(task).ended
        assert bool(run(self.client, store.purge(task))) == ended, "only an ended task is forgotten"
        if ended:
            self.told.purged.add(task)

    # What must hold after each -----------------------------------------------------------------------------------

    @invariant()
    def the_laws_hold(self) -> None:
        state = QueueState.read(self.client, QUEUE)
        check(state, self.before)
        self.before = state
        self._assert_nothing_accepted_is_lost(state)

    def _assert_nothing_accepted_is_lost(self, state: QueueState) -> None:
        told = self.told
        assert set(state.tasks) == set(self.alive)
        assert {e["task"] for e in outbox(state)} <= {t for t, s in told.submissions.items() if s.webhook}
        for task, record in state.tasks.items():
            assert (int(record["run"]), int(record["attempts"])) == (told.runs[task], told.claims[task])
        for tenant in TENANTS:
            own = {task for task in self.alive if told.submissions[task].tenant == tenant}
            assert set(state.keys.get(store.index_key(tenant), {})) == own
            dead = {task for task in own - told.discarded if "attempts_exhausted" in state.tasks[task].get("error", "")}
            assert set(state.keys.get(store.dead_letters_key(tenant), {})) == dead

    @property
    def alive(self) -> list[str]:
        """Accepted tasks that haven't been purged."""
        return [task for task in self.told.submissions if task not in self.told.purged]

    @property
    def live(self) -> list[str]:
        """Tokens of live attempts, in the order of their claims."""
        live = set(self.client.hkeys("ovis:attempts"))
        return [token for token in self.told.held if token in live]

    def pick(self, items: list[str], index: int) -> str:
        return items[index % len(items)]

    def field_of(self, task: str, name: str) -> str:
        return self.client.hget(store.task_key(task), name) or ""

    def status_of(self, task: str) -> TaskStatus:
        return TaskStatus(self.field_of(task, "status"))
