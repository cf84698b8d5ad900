"""The scripts of the queue, on a real Valkey."""

from __future__ import annotations

import json

import pytest
import redis

from contract import store, submissions
from contract.errors import StoreUnavailable
from contract.record import TaskRecord
from contract.redis_io import connect, run
from contract.scripting import MAX_ATTEMPTS
from contract.task import LEGAL_MOVES, Attempt, PartResult, TaskOptions, TaskSpec, TaskStatus, Usage, new_task_id
from contract.webhooks import TaskWebhook

QUEUE = "ovis2-reader"
WEBHOOK = TaskWebhook(url="https://example.com/hook").model_dump_json()
USAGE = Usage(visual_tokens=576, output_tokens=24)
RESULT = PartResult(text="hello", finish_reason="stop", blob_key="results/x", usage=USAGE)
ERROR = '{"code":"truncated_image","detail":"the page is damaged","retryable":false}'


def submission(tenant: str = "acme", **changes: object) -> submissions.Submission:
    spec = TaskSpec(kind="text", model=QUEUE, operation="ask", prompt="hi", options=TaskOptions(), priority="normal")
    values: dict[str, object] = {
        "task_id": new_task_id(),
        "tenant": tenant,
        "spec": spec,
        "cost": 1000,
        "weight": 1.0,
        "tenant_limit": 1_000_000,
        "queue_limit": 1_000_000,
    }
    return submissions.Submission(**{**values, **changes})  # type: ignore[arg-type]


def submit(client: redis.Redis, tenant: str = "acme", **changes: object) -> str:
    outcome, task_id = run(client, submissions.submit(submission(tenant, **changes)))
    assert outcome == "created"
    return task_id


def claim(client: redis.Redis, token: str = "token-1") -> Attempt | None:
    return run(client, store.claim(QUEUE, token=token, worker="w1"))


def claimed(client: redis.Redis, token: str = "token-1") -> Attempt:
    attempt = claim(client, token)
    assert attempt is not None
    return attempt


def record(client: redis.Redis, task_id: str) -> TaskRecord:
    return TaskRecord.from_hash(task_id, client.hgetall(store.task_key(task_id)))


def stats(client: redis.Redis) -> dict[str, int]:
    return {name: int(value) for name, value in client.hgetall(store.queue_stats_key(QUEUE)).items()}


def run_out(client: redis.Redis) -> None:
    """Let every lease be over, with a reaper that was there all the time."""
    run(client, store.expire_leases())
    for token in client.zrange("ovis:leases", 0, -1):
        client.zadd("ovis:leases", {token: 1})


def test_a_submitted_task_has_record_index_queue_entry_and_wakeup(client: redis.Redis) -> None:
    task_id = submit(client)
    assert record(client, task_id).status is TaskStatus.QUEUED
    assert client.zrange(store.index_key("acme"), 0, -1) == [task_id]
    assert stats(client)["waiting"] == 1
    assert client.llen(QUEUE) == 1


def test_the_wakeup_names_no_task(client: redis.Redis) -> None:
    task_id = submit(client)
    assert task_id not in client.lindex(QUEUE, 0)


def test_submitting_the_same_task_twice_makes_one(client: redis.Redis) -> None:
    again = submission()
    assert run(client, submissions.submit(again)) == run(client, submissions.submit(again))
    assert stats(client)["waiting"] == 1
    assert client.llen(QUEUE) == 1


def test_an_idempotency_key_gives_the_first_task_back(client: redis.Redis) -> None:
    first = submit(client, idempotency_key="order-7", body_hash="aa")
    assert run(client, submissions.submit(submission(idempotency_key="order-7", body_hash="aa"))) == ("exists", first)
    assert run(client, submissions.submit(submission(idempotency_key="order-7", body_hash="bb"))) == ("conflict", first)
    assert (
        run(client, submissions.submit(submission("other", idempotency_key="order-7", body_hash="bb")))[0] == "created"
    )


def test_limits_refuse_and_keep_nothing(client: redis.Redis) -> None:
    submit(client)
    assert run(client, submissions.submit(submission(tenant_limit=1)))[0] == "tenant_full"
    assert run(client, submissions.submit(submission("other", queue_limit=1)))[0] == "queue_full"
    assert len(client.keys("ovis:task:*")) == 1


def test_a_claim_runs_the_task_under_a_lease(client: redis.Redis) -> None:
    task_id = submit(client)
    attempt = claimed(client)
    assert (attempt.task_id, attempt.number, attempt.spec.prompt) == (task_id, 1, "hi")
    assert record(client, task_id).status is TaskStatus.RUNNING
    assert client.zscore("ovis:leases", "token-1") is not None
    assert claim(client, "token-2") is None


def test_repeating_a_claim_with_its_token_gives_the_same_part(client: redis.Redis) -> None:
    submit(client)
    submit(client)
    assert claimed(client).task_id == claimed(client).task_id
    assert stats(client)["running"] == 1


def test_finish_commits_once_and_ends_the_task(client: redis.Redis) -> None:
    task_id = submit(client)
    attempt = claimed(client)
    command = store.finish(attempt, "succeeded", result=RESULT)
    assert run(client, command) == "committed"
    assert run(client, command) == "committed"  # the reply was lost, say
    after = record(client, task_id)
    assert after.status is TaskStatus.SUCCEEDED
    assert after.parts_done == 1
    assert after.result == RESULT
    assert stats(client)["running"] == 0
    assert client.zcard("ovis:leases") == 0


def test_a_late_attempt_changes_nothing(client: redis.Redis) -> None:
    task_id = submit(client)
    late = claimed(client, "late")
    run_out(client)
    assert run(client, store.expire_leases()).requeued == 1
    second = claimed(client, "second")
    assert second.number == 2
    assert run(client, store.finish(late, "failed", error_json='{"code":"x","detail":"","retryable":false}')) == "stale"
    assert run(client, store.finish(second, "succeeded", result=RESULT)) == "committed"
    assert run(client, store.finish(late, "succeeded", result=RESULT)) == "stale"
    assert record(client, task_id).status is TaskStatus.SUCCEEDED
    assert record(client, task_id).parts_done == 1


def test_a_part_that_fails_fails_its_task_with_the_error(client: redis.Redis) -> None:
    task_id = submit(client)
    error = json.dumps({"code": "not_an_image", "detail": "no", "retryable": False})
    run(client, store.finish(claimed(client), "failed", error_json=error))
    after = record(client, task_id)
    assert after.status is TaskStatus.FAILED
    assert after.error is not None
    assert after.error.code == "not_an_image"


def test_three_lost_attempts_are_a_dead_letter_with_its_history(client: redis.Redis) -> None:
    task_id = submit(client)
    for number in range(1, MAX_ATTEMPTS + 1):
        assert claimed(client, f"token-{number}").number == number
        run_out(client)
        run(client, store.expire_leases())
    after = record(client, task_id)
    assert after.status is TaskStatus.FAILED
    assert after.error is not None
    assert after.error.code == "attempts_exhausted"
    history = client.hget(store.task_key(task_id), "p0:history")
    assert history is not None
    assert [json.loads(line)["why"] for line in history.splitlines()] == ["lease expired"] * 3
    assert claim(client, "token-4") is None


def test_leases_are_extended_once_when_nobody_looked_for_long(client: redis.Redis) -> None:
    submit(client)
    claimed(client)
    run_out(client)
    client.set(store.REAPER_KEY, 1)
    first = run(client, store.expire_leases())
    assert (first.extended, first.requeued) == (1, 0)
    run_out(client)
    assert run(client, store.expire_leases()).requeued == 1


def test_a_renewed_lease_is_not_expired(client: redis.Redis) -> None:
    submit(client)
    claimed(client)
    run_out(client)
    assert run(client, store.renew(QUEUE, "w1", 4, ["token-1", "stranger"])) == {"token-1": "ok", "stranger": "lost"}
    assert run(client, store.expire_leases()).requeued == 0


def test_a_drained_attempt_costs_no_try(client: redis.Redis) -> None:
    task_id = submit(client)
    claimed(client)
    assert run(client, store.release("token-1", "drained", counts=False)) == "queued"
    assert record(client, task_id).status is TaskStatus.QUEUED
    assert claimed(client, "token-2").number == 1
    assert run(client, store.release("token-2", "s3 away", counts=True)) == "queued"
    assert claimed(client, "token-3").number == 2


def test_cancel_of_a_queued_task_is_immediate(client: redis.Redis) -> None:
    task_id = submit(client)
    assert run(client, store.cancel(task_id, "acme")) == "canceled"
    assert claim(client) is None
    assert stats(client)["waiting"] == 0


def test_cancel_of_a_running_task_waits_for_its_worker(client: redis.Redis) -> None:
    task_id = submit(client)
    attempt = claimed(client)
    assert run(client, store.cancel(task_id, "acme")) == "canceling"
    assert run(client, store.renew(QUEUE, "w1", 4, ["token-1"])) == {"token-1": "stop"}
    assert record(client, task_id).status is TaskStatus.CANCELING
    assert run(client, store.finish(attempt, "stopped")) == "canceled"
    assert record(client, task_id).status is TaskStatus.CANCELED


def test_a_result_that_comes_after_the_cancel_is_not_kept(client: redis.Redis) -> None:
    task_id = submit(client)
    attempt = claimed(client)
    run(client, store.cancel(task_id, "acme"))
    assert run(client, store.finish(attempt, "succeeded", result=RESULT)) == "canceled"
    assert record(client, task_id).status is TaskStatus.CANCELED
    assert record(client, task_id).result is None


def test_a_canceled_task_whose_worker_dies_is_canceled_by_the_reaper(client: redis.Redis) -> None:
    task_id = submit(client)
    claimed(client)
    run(client, store.cancel(task_id, "acme"))
    run_out(client)
    run(client, store.expire_leases())
    assert record(client, task_id).status is TaskStatus.CANCELED


def test_another_tenant_cannot_cancel(client: redis.Redis) -> None:
    task_id = submit(client)
    assert run(client, store.cancel(task_id, "other")) == "missing"
    assert record(client, task_id).status is TaskStatus.QUEUED


def test_one_tenants_thousand_parts_do_not_starve_anothers_single_one(client: redis.Redis) -> None:
    for _ in range(50):
        submit(client, "big")
    claimed(client, "t0")
    small = submit(client, "small")
    assert small in {claimed(client, f"t{i}").task_id for i in range(1, 3)}


def test_shares_follow_the_weights(client: redis.Redis) -> None:
    for _ in range(40):
        submit(client, "light", weight=1.0)
        submit(client, "heavy", weight=3.0)
    tenants = [claimed(client, f"t{i}").tenant for i in range(40)]
    assert tenants.count("heavy") == 30


def test_high_priority_goes_first_within_a_tenant_only(client: redis.Redis) -> None:
    low = submission().spec.model_copy(update={"priority": "low"})
    high = submission().spec.model_copy(update={"priority": "high"})
    last = submit(client, spec=low)
    first = submit(client, spec=high)
    assert [claimed(client, f"t{i}").task_id for i in range(2)] == [first, last]


def test_canceled_work_is_not_charged(client: redis.Redis) -> None:
    task_id = submit(client)
    attempt = claimed(client)
    before = charged(client)
    run(client, store.cancel(task_id, "acme"))
    run(client, store.finish(attempt, "stopped"))
    assert before == 1000
    assert float(client.hget("ovis:q:ovis2-reader:vt", "acme") or 0) == 0


def test_the_charge_is_corrected_to_what_was_used(client: redis.Redis) -> None:
    submit(client)
    run(client, store.finish(claimed(client), "succeeded", result=RESULT))
    assert float(client.hget("ovis:q:ovis2-reader:vt", "acme") or 0) == USAGE.cost


def hold_for(client: redis.Redis, attempt: Attempt, seconds: float) -> None:
    """Let an attempt have begun so long ago."""
    kept = json.loads(client.hget("ovis:attempts", attempt.token) or "")
    kept["started_ms"] -= 1000 * seconds
    client.hset("ovis:attempts", attempt.token, json.dumps(kept))


def charged(client: redis.Redis) -> float:
    return float(client.hget("ovis:q:ovis2-reader:vt", "acme") or 0)


@pytest.mark.parametrize(
    ("held_s", "engine_s", "tokens", "least", "most"),
    [
        pytest.param(5, 0.0, 0, 500, 600, id="half the time costs half the guess"),
        pytest.param(60, 0.0, 0, 1000, 1000, id="time never costs more than the guess"),
        pytest.param(60, 58.0, 30, 200, 300, id="time in the engine is no time outside it"),
        pytest.param(60, 60.0, 30, 30, 130, id="tokens alone"),
        pytest.param(1, 0.0, 700, 700, 700, id="tokens that cost more than the time"),
        pytest.param(60, 0.0, 2000, 2000, 2000, id="tokens beyond the guess"),
    ],
)
def test_time_in_a_slot_is_charged_where_it_costs_more_than_the_tokens(
    client: redis.Redis, held_s: float, engine_s: float, tokens: int, least: float, most: float
) -> None:
    submit(client)
    attempt = claimed(client)
    hold_for(client, attempt, held_s)
    usage = Usage(output_tokens=tokens, gpu_seconds=engine_s)
    run(client, store.finish(attempt, "succeeded", result=RESULT.model_copy(update={"usage": usage})))
    assert least <= charged(client) <= most


@pytest.mark.parametrize(
    ("end", "most"),
    [
        pytest.param(lambda a: store.finish(a, "failed", error_json=ERROR), 1000, id="failed"),
        pytest.param(lambda a: store.release(a.token, "media_process_died", counts=True), 1000, id="a used up try"),
        pytest.param(lambda a: store.release(a.token, "drained", counts=False), 0, id="drained"),
        pytest.param(lambda a: store.finish(a, "stopped"), 0, id="not wanted after all"),
    ],
)
def test_time_is_charged_where_the_end_may_be_the_parts_fault(client: redis.Redis, end, most: float) -> None:
    submit(client)
    attempt = claimed(client)
    hold_for(client, attempt, 20)
    run(client, end(attempt))
    assert charged(client) == most


def test_time_of_canceled_work_is_not_charged(client: redis.Redis) -> None:
    task_id = submit(client)
    attempt = claimed(client)
    hold_for(client, attempt, 20)
    run(client, store.cancel(task_id, "acme"))
    run(client, store.finish(attempt, "failed", error_json=ERROR))
    assert charged(client) == 0


def test_wakeups_stop_at_twice_the_slots_and_are_topped_up(client: redis.Redis) -> None:
    run(client, store.renew(QUEUE, "w1", 3, []))
    for _ in range(10):
        submit(client)
    assert client.llen(QUEUE) == 6
    client.delete(QUEUE)
    assert run(client, store.top_up(QUEUE)) == (6, 0)
    assert run(client, store.top_up(QUEUE)) == (0, 0)


def test_silent_workers_are_forgotten(client: redis.Redis) -> None:
    run(client, store.renew(QUEUE, "w1", 3, []))
    run(client, store.renew(QUEUE, "w2", 5, []))
    client.zadd("ovis:q:ovis2-reader:workers", {"w1": 1})
    assert run(client, store.top_up(QUEUE)) == (0, 1)
    assert stats(client)["slots"] == 5
    run(client, store.leave(QUEUE, "w2"))
    assert stats(client)["slots"] == 0


def test_a_task_with_a_webhook_leaves_one_outbox_entry_when_it_ends(client: redis.Redis) -> None:
    task_id = submit(client, webhook=WEBHOOK)
    attempt = claimed(client)
    assert client.llen("ovis:outbox") == 0
    command = store.finish(attempt, "succeeded", result=RESULT)
    run(client, command)
    run(client, command)
    entries = [json.loads(entry) for entry in client.lrange("ovis:outbox", 0, -1)]
    assert [(entry["task"], entry["status"], entry["run"]) for entry in entries] == [(task_id, "succeeded", 1)]


def test_every_end_tells_who_waits(client: redis.Redis) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(store.ENDED_CHANNEL)
        pubsub.get_message(timeout=1)
        task_id = submit(client)
        run(client, store.cancel(task_id, "acme"))
        message = pubsub.get_message(timeout=5)
    assert message is not None
    assert message["data"] == task_id


def test_purge_forgets_the_task_and_remembers_that_it_was_there(client: redis.Redis) -> None:
    task_id = submit(client)
    run(client, store.cancel(task_id, "acme"))
    assert run(client, store.purge(task_id))
    assert not client.exists(store.task_key(task_id))
    assert client.get(store.purged_key(task_id)) == "acme"
    assert client.zrange(store.index_key("acme"), 0, -1) == []
    assert not run(client, store.purge(task_id))


def test_a_task_of_several_parts_ends_with_its_last_part(client: redis.Redis) -> None:
    task_id = submit(client, num_parts=3)
    attempts = [claimed(client, f"t{i}") for i in range(3)]
    assert sorted(attempt.part for attempt in attempts) == [0, 1, 2]
    for attempt in attempts[:2]:
        run(client, store.finish(attempt, "succeeded", result=RESULT))
    assert record(client, task_id).status is TaskStatus.RUNNING
    run(client, store.finish(attempts[2], "succeeded", result=RESULT))
    assert record(client, task_id).status is TaskStatus.SUCCEEDED


def lose(client: redis.Redis) -> None:
    """End every attempt as a worker's death does."""
    run_out(client)
    run(client, store.expire_leases())


def test_second_attempts_meet_at_most_three_of_their_kind_and_nobody_else(client: redis.Redis) -> None:
    poisoned = {submit(client) for _ in range(6)}
    for number in range(6):
        claimed(client, f"first-{number}")
    lose(client)
    submit(client)
    together = [claim(client, f"second-{number}") for number in range(6)]
    assert [attempt is not None for attempt in together] == [True] * 4 + [False] * 2
    assert {attempt.task_id for attempt in together if attempt} < poisoned
    assert {attempt.number for attempt in together if attempt} == {2}


def test_a_third_attempt_runs_alone(client: redis.Redis) -> None:
    for _ in range(3):
        submit(client)
    for kind in ("first", "second"):
        for number in range(3):
            claimed(client, f"{kind}-{number}")
        lose(client)
    submit(client)
    alone = claimed(client, "third")
    assert alone.number == 3
    assert claim(client, "another") is None
    run(client, store.finish(alone, "succeeded", result=RESULT))
    assert claimed(client, "another").number == 3


def test_a_worker_with_first_attempts_empties_itself_before_it_takes_a_suspect(client: redis.Redis) -> None:
    suspect = submit(client)
    claimed(client, "first")
    submit(client)
    neighbour = claimed(client, "neighbour")
    run(client, store.expire_leases())
    client.zadd("ovis:leases", {"first": 1})
    run(client, store.expire_leases())
    submit(client)
    assert claim(client, "too-early") is None
    other = run(client, store.claim(QUEUE, token="elsewhere", worker="w2"))
    assert other is not None
    assert other.number == 1
    run(client, store.finish(neighbour, "succeeded", result=RESULT))
    assert claimed(client, "now").task_id == suspect
    run(client, store.finish(claimed(client, "now"), "succeeded", result=RESULT))
    run(client, store.finish(other, "succeeded", result=RESULT))
    assert stats(client)["waiting"] == 0
    assert client.hgetall("ovis:q:ovis2-reader:held") == {}


def test_a_poison_part_takes_no_neighbour_with_it(client: redis.Redis) -> None:
    poison = submit(client)
    others = [submit(client) for _ in range(9)]
    for step in range(60):
        held = [claim(client, f"{step}-{number}") for number in range(12)]
        live = [attempt for attempt in held if attempt]
        if any(attempt.task_id == poison for attempt in live):
            lose(client)
        else:
            for attempt in live:
                run(client, store.finish(attempt, "succeeded", result=RESULT))
    assert record(client, poison).status is TaskStatus.FAILED
    assert {record(client, other).status for other in others} == {TaskStatus.SUCCEEDED}
    assert client.zrange(store.dead_letters_key("acme"), 0, -1) == [poison]


def test_a_part_that_rests_is_claimed_only_when_it_has_rested(client: redis.Redis) -> None:
    submit(client)
    claimed(client)
    assert run(client, store.release("token-1", "blobs_unavailable", counts=False, delay_s=60)) == "queued"
    assert claim(client, "token-2") is None
    run(client, store.top_up(QUEUE))
    assert claim(client, "token-2") is None
    client.zadd("ovis:q:ovis2-reader:delayed", dict.fromkeys(client.zrange("ovis:q:ovis2-reader:delayed", 0, -1), 1))
    run(client, store.top_up(QUEUE))
    assert claimed(client, "token-2").number == 1


def test_a_resting_part_can_be_canceled(client: redis.Redis) -> None:
    task_id = submit(client)
    claimed(client)
    run(client, store.release("token-1", "blobs_unavailable", counts=False, delay_s=60))
    assert run(client, store.cancel(task_id, "acme")) == "canceled"
    assert client.zcard("ovis:q:ovis2-reader:delayed") == 0


def with_deadline(deadline_s: int) -> TaskSpec:
    return submission().spec.model_copy(update={"deadline_s": deadline_s})


def test_a_deadline_ends_queued_work_at_once_and_running_work_when_it_is_freed(client: redis.Redis) -> None:
    running = submit(client, spec=with_deadline(0))
    attempt = claimed(client)
    queued, later = submit(client, spec=with_deadline(0)), submit(client, spec=with_deadline(3600))
    assert run(client, store.expire_deadlines()) == 2
    expired = record(client, queued)
    assert expired.status is TaskStatus.EXPIRED
    assert expired.error is not None
    assert expired.error.code == "deadline_exceeded"
    assert record(client, running).status is TaskStatus.RUNNING
    assert run(client, store.renew(QUEUE, "w1", 4, ["token-1"])) == {"token-1": "stop"}
    run(client, store.finish(attempt, "stopped"))
    assert record(client, running).status is TaskStatus.EXPIRED
    assert record(client, later).status is TaskStatus.QUEUED


def test_a_dead_letter_runs_again_when_it_is_retried(client: redis.Redis) -> None:
    task_id = submit(client, webhook=WEBHOOK)
    for number in range(MAX_ATTEMPTS):
        claimed(client, f"token-{number}")
        lose(client)
    assert client.zrange(store.dead_letters_key("acme"), 0, -1) == [task_id]
    assert run(client, store.retry(task_id, "other")) == "missing"
    assert run(client, store.retry(task_id, "acme")) == "queued"
    assert run(client, store.retry(task_id, "acme")) == "queued"
    assert client.zcard(store.dead_letters_key("acme")) == 0
    assert record(client, task_id).error is None
    attempt = claimed(client, "again")
    assert attempt.number == 1
    run(client, store.finish(attempt, "succeeded", result=RESULT))
    after = record(client, task_id)
    assert (after.status, after.run, len(after.history)) == (TaskStatus.SUCCEEDED, 2, 4)
    assert [json.loads(entry)["run"] for entry in client.lrange("ovis:outbox", 0, -1)] == [1, 2]


def test_a_retry_runs_the_failed_parts_only(client: redis.Redis) -> None:
    task_id = submit(client, num_parts=2)
    good, bad = claimed(client, "good"), claimed(client, "bad")
    run(client, store.finish(good, "succeeded", result=RESULT))
    run(client, store.finish(bad, "failed", error_json='{"code":"x","detail":"","retryable":false}'))
    run(client, store.retry(task_id, "acme"))
    assert claimed(client, "again").part == bad.part
    assert claim(client, "nothing") is None


def test_a_task_that_did_not_fail_is_not_retried(client: redis.Redis) -> None:
    task_id = submit(client)
    run(client, store.cancel(task_id, "acme"))
    assert run(client, store.retry(task_id, "acme")) == "canceled"


def test_a_discarded_dead_letter_stays_failed(client: redis.Redis) -> None:
    task_id = submit(client)
    for number in range(MAX_ATTEMPTS):
        claimed(client, f"token-{number}")
        lose(client)
    assert run(client, store.discard(task_id, "acme"))
    assert not run(client, store.discard(task_id, "acme"))
    assert record(client, task_id).status is TaskStatus.FAILED


def test_bytes_are_limited_until_their_task_ends(client: redis.Redis) -> None:
    first = submit(client, size_bytes=900)
    assert run(client, submissions.submit(submission(size_bytes=200, tenant_bytes_limit=1000)))[0] == "tenant_full"
    assert (
        run(client, submissions.submit(submission("other", size_bytes=200, queue_bytes_limit=1000)))[0] == "queue_full"
    )
    run(client, store.cancel(first, "acme"))
    submit(client, size_bytes=200, tenant_bytes_limit=1000)


def test_a_full_redis_refuses_new_tasks_and_finishes_old_ones(client: redis.Redis) -> None:
    task_id = submit(client)
    client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(StoreUnavailable, match="full"):
            run(client, submissions.submit(submission()))
        attempt = claimed(client)
        run(client, store.renew(QUEUE, "w1", 4, ["token-1"]))
        assert run(client, store.finish(attempt, "succeeded", result=RESULT)) == "committed"
    finally:
        client.config_set("maxmemory", "0")
    assert record(client, task_id).status is TaskStatus.SUCCEEDED


def test_a_store_that_is_away_is_said_to_be_unavailable(unused_port: int) -> None:
    with connect(f"redis://127.0.0.1:{unused_port}/0") as nowhere, pytest.raises(StoreUnavailable):
        run(nowhere, store.expire_leases())


def test_ended_states_have_no_moves() -> None:
    assert {status for status in TaskStatus if status.ended} == {
        TaskStatus.SUCCEEDED,
        TaskStatus.FAILED,
        TaskStatus.CANCELED,
        TaskStatus.EXPIRED,
    }
    assert set(LEGAL_MOVES) == set(TaskStatus)
