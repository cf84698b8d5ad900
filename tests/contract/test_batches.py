"""A batch's lines under any interleaving of holders, losses, ends and cancels: each is begun once and counted once."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import store, submissions
from contract.batch_changes import (
    HeldBatch,
    NewBatch,
    begin_batch,
    cancel_batch,
    claim_batch,
    create_batch,
    end_batch,
    finalize_batch,
    lines_stopped,
    refuse_line,
    rest_batch,
)
from contract.batches import BatchRecord, BatchTerms, LineError, batch_key, line_task_id, new_batch_id, refused_key
from contract.errors import InvalidRequest
from contract.files import NewFile, add_file, new_file_id
from contract.redis_io import run
from contract.task import Attempt, PartResult, TaskSpec, Usage
from contract.tenants import Tenant

QUEUE, LINES = "ovis2-reader", 4
TERMS = BatchTerms(tenant=Tenant(id="acme"), queue_max_waiting_parts=100, queue_max_bytes=1000, statuses={})
ERROR = InvalidRequest("no").info().model_dump_json()

ACTIONS = (
    *("claim", "lose", "rest", "begin", "feed", "feed_late", "refuse"),
    *("take", "succeed", "fail", "cancel", "stop", "end"),
)


class Batch:
    """One batch with whoever may hold it, and the model worker."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        client.flushall()
        file_id = new_file_id()
        run(client, add_file(NewFile(file_id, "acme", "batch", "a", "key", 1, 3600, 100)))
        self.id = new_batch_id()
        new = NewBatch(self.id, "acme", file_id, "/v1/chat/completions", "1h", 3600, {}, TERMS, 3600, 5)
        assert run(client, create_batch(new))[0] == "created"
        self.held: HeldBatch | None = None
        self.lost: list[HeldBatch] = []
        self.running: list[Attempt] = []
        self.begun: Counter[str] = Counter()

    @property
    def record(self) -> BatchRecord:
        return BatchRecord.from_hash(self.id, self.client.hgetall(batch_key(self.id)))

    def act(self, action: str) -> None:
        getattr(self, f"_{action}")()

    def _claim(self) -> None:
        self.client.zadd("ovis:batches-due", {self.id: 0}, xx=True)  # time passes
        held = run(self.client, claim_batch(uuid4().hex))
        if held is not None:
            self.lost += [self.held] if self.held else []
            self.held = held.read()

    def _lose(self) -> None:
        self.lost += [self.held] if self.held else []
        self.held = None

    def _rest(self) -> None:
        if self.held:
            run(self.client, rest_batch(self.id, self.held.token, 1000, "whole"))
            self._lose()

    def _begin(self) -> None:
        if self.held:
            run(self.client, begin_batch(self.id, self.held.token, LINES))

    def _feed(self) -> None:
        if self.held and self.record.fed < LINES:
            self._submit(self.held, self.record.fed)

    def _feed_late(self) -> None:
        for held in self.lost:
            for number in range(LINES):
                assert self._submit(held, number) != "created" or number < self.record.fed

    def _submit(self, held: HeldBatch, number: int) -> str:
        spec = TaskSpec(kind="text", model=QUEUE, operation="ask", prompt="hi", priority="low")
        task_id = line_task_id(self.id, number)
        there = self.client.exists(store.task_key(task_id))
        submission = submissions.Submission(
            task_id, "acme", spec, 1, 1.0, 100, 100, line=submissions.LinePlace(self.id, held.token, number, number + 1)
        )
        outcome, _ = run(self.client, submissions.submit(submission))
        if outcome == "created" and not there:
            self.begun[task_id] += 1
        return outcome

    def _refuse(self) -> None:
        if self.held:
            error = LineError(code="invalid_request", detail="no")
            for held in (*self.lost, self.held):
                run(self.client, refuse_line(self.id, held.token, self.record.fed, 1, error))

    def _take(self) -> None:
        attempt = run(self.client, store.claim(QUEUE, token=uuid4().hex, worker="w"))
        if attempt is not None:
            self.running.append(attempt)

    def _succeed(self) -> None:
        if self.running:
            result = PartResult(text="hi", finish_reason="stop", blob_key="key", usage=Usage())
            run(self.client, store.finish(self.running.pop(), "succeeded", result=result))

    def _fail(self) -> None:
        if self.running:
            attempt = self.running.pop()
            run(self.client, store.finish(attempt, "failed", error_json=ERROR))
            run(self.client, store.retry(attempt.task_id, "acme"))

    def _cancel(self) -> None:
        run(self.client, cancel_batch(self.id, "acme"))

    def _stop(self) -> None:
        if self.held and self.record.status == "cancelling":
            for number in range(self.record.fed):
                run(self.client, store.cancel(line_task_id(self.id, number), "acme"))
            run(self.client, lines_stopped(self.id, self.held.token, self.record.fed))

    def _end(self) -> None:
        for held in [*self.lost, *([self.held] if self.held else [])]:
            if run(self.client, finalize_batch(self.id, held.token)) not in ("waiting", "lost", "validating"):
                # Who stopped working still holds it until another does.
                assert held is (self.held or self.lost[-1])
                assert self.record.under_way == 0
                run(self.client, end_batch(self.id, held.token))

    def check(self) -> None:
        """What holds at any time."""
        record = self.record
        tasks = {line_task_id(self.id, number) for number in range(record.fed)}
        refused = {line_task_id(self.id, int(number)) for number in self.client.hkeys(refused_key(self.id))}
        there = {key.removeprefix("ovis:task:") for key in self.client.scan_iter("ovis:task:*")}
        assert max(self.begun.values(), default=0) <= 1
        if "ended_ms" not in self.client.hgetall(batch_key(self.id)):
            assert there | refused == tasks
            assert there & refused == set()
            ended = [self.client.hget(store.task_key(task_id), "ended_ms") for task_id in there]
            assert record.completed + record.failed == len(refused) + len([moment for moment in ended if moment])
        else:
            assert there <= tasks
            assert self.client.zscore("ovis:batches-due", self.id) is None


@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_line_is_begun_once_and_counted_once(client: redis.Redis, actions: list[str]) -> None:
    batch = Batch(client)
    for action in ("claim", "begin", *actions):
        batch.act(action)
        batch.check()


def test_a_batch_whose_lines_have_all_ended_can_be_brought_to_its_end(client: redis.Redis) -> None:
    batch = Batch(client)
    for action in ("claim", "begin", *("feed", "take", "succeed") * LINES, "end", "end"):
        batch.act(action)
        batch.check()
    assert batch.record.status == "completed"
