"""Questions for estimates: how many may wait, and how they leave the count. On a real Valkey."""

from __future__ import annotations

import redis

from contract.estimates import MAX_QUESTIONS, QUESTIONS_KEY, AskOutcome, EstimateQuestion, ask, asked_key
from contract.redis_io import run
from contract.task import TaskSpec

SPEC = TaskSpec(kind="text", model="ovis2-reader", operation="ask", prompt="hi")


def put(client: redis.Redis, number: int, tenant: str = "acme", *, limit: int = 2, wait_ms: int = 60_000) -> AskOutcome:
    seconds, _ = client.time()
    question = EstimateQuestion(id=f"estimate_{number}", spec=SPEC, until_ms=1000 * int(seconds) + wait_ms)
    return run(client, ask(question, tenant, limit))


def test_a_tenant_may_wait_for_so_many_estimates_and_no_more(client: redis.Redis) -> None:
    assert [put(client, number) for number in range(3)] == ["asked", "asked", "tenant_full"]
    assert put(client, 3, "other") == "asked"
    assert client.llen(QUESTIONS_KEY) == 3

    client.zrem(asked_key("acme"), "estimate_0")

    assert put(client, 4) == "asked"


def test_a_question_that_is_asked_again_after_a_lost_reply_waits_once(client: redis.Redis) -> None:
    assert [put(client, 1), put(client, 1)] == ["asked", "asked"]
    assert client.llen(QUESTIONS_KEY) == 1
    assert client.zcard(asked_key("acme")) == 1


def test_who_has_given_up_counts_no_more(client: redis.Redis) -> None:
    assert [put(client, number, wait_ms=-1000) for number in range(3)] == ["asked"] * 3
    assert put(client, 4, limit=1) == "asked"
    assert 0 < client.pttl(asked_key("acme")) <= 61_000


def test_all_tenants_together_have_a_limit(client: redis.Redis) -> None:
    client.lpush(QUESTIONS_KEY, *["{}"] * MAX_QUESTIONS)
    assert put(client, 1) == "queue_full"
    assert not client.exists(asked_key("acme"))
