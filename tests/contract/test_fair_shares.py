"""A tenant's heap of tasks is its own: on a real Valkey, with the scripts that the fleet runs."""

from __future__ import annotations

import json
import time
from uuid import uuid4

import redis

from contract import store, submissions
from contract.redis_io import run
from contract.task import Attempt, PartResult, TaskSpec, Usage, new_task_id

QUEUE = "ovis2-reader"
HEAP = 10_000
LATE = '{"code":"limit_exceeded","detail":"preparing the input took more than 30 seconds","retryable":false}'


def submission(tenant: str, priority: str = "normal") -> submissions.Submission:
    spec = TaskSpec(kind="text", model=QUEUE, operation="ask", prompt="hi", priority=priority)  # type: ignore[arg-type]
    return submissions.Submission(new_task_id(), tenant, spec, 1000, 1.0, 1_000_000, 1_000_000)


def heap_up(client: redis.Redis, tenant: str, count: int) -> None:
    """Many tasks, through the same script, without a round trip for each."""
    run(client, submissions.submit(submission(tenant, "high")))
    pipeline = client.pipeline(transaction=False)
    for _ in range(count - 1):
        command = submissions.submit(submission(tenant, "high"))
        pipeline.evalsha(command.script.sha, 0, *map(str, command.args))
    assert {reply[0][0] for reply in pipeline.execute()} == {"created"}


def claim(client: redis.Redis) -> Attempt:
    attempt = run(client, store.claim(QUEUE, token=uuid4().hex, worker="worker-1"))
    assert attempt is not None
    return attempt


def test_pages_that_hold_their_slots_and_fail_do_not_go_first_for_ever(client: redis.Redis) -> None:
    for tenant in ("dripping", "honest"):
        for _ in range(40):
            run(client, submissions.submit(submission(tenant)))
    result = PartResult(text="x", finish_reason="stop", blob_key="results/x", usage=Usage(output_tokens=800))
    claims = []
    for _ in range(40):
        attempt = claim(client)
        claims.append(attempt.tenant)
        if attempt.tenant == "honest":
            run(client, store.finish(attempt, "succeeded", result=result))
            continue
        kept = json.loads(client.hget("ovis:attempts", attempt.token) or "")
        client.hset("ovis:attempts", attempt.token, json.dumps({**kept, "started_ms": kept["started_ms"] - 30_000}))
        run(client, store.finish(attempt, "failed", error_json=LATE))
    assert claims.count("honest") >= 20


def test_ten_thousand_waiting_tasks_delay_another_tenants_one_by_no_claim(client: redis.Redis) -> None:
    heap_up(client, "heavy", HEAP)
    result = PartResult(text="x", finish_reason="stop", blob_key="results/x", usage=Usage(output_tokens=24))
    for _ in range(20):
        assert run(client, store.finish(claim(client), "succeeded", result=result)) == "committed"
    running = [claim(client) for _ in range(16)]
    assert {attempt.tenant for attempt in running} == {"heavy"}

    submitted = time.perf_counter()
    single = submission("light")
    run(client, submissions.submit(single))
    following = claim(client)
    wait_ms = 1000 * (time.perf_counter() - submitted)

    print(f"with {HEAP - 36} tasks of another tenant waiting, a single one was claimed next, after {wait_ms:.1f} ms")
    assert following.task_id == single.task_id, "it is the next part claimed, before all that waited longer"
