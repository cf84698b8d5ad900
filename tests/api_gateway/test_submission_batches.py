"""Tasks that come together go to Redis together, and what becomes of one is no other's concern."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest
import redis
import redis.asyncio

from api_gateway.submission_batches import SubmissionBatches
from contract import store
from contract.errors import InternalError, StoreUnavailable
from contract.redis_io import connect_async
from contract.submissions import Submission, Submitted
from contract.task import TaskSpec, new_task_id
from ovis_fleet.stack import LocalStack

T = TypeVar("T")

_SPEC = TaskSpec(kind="text", model="ovis2-reader", operation="ask", prompt="hi")


def submission() -> Submission:
    return Submission(new_task_id(), "acme", _SPEC, cost=1, weight=1.0, tenant_limit=10_000, queue_limit=10_000)


def sending(url: str, work: Callable[[SubmissionBatches], Awaitable[T]]) -> T:
    async def inside() -> T:
        client = connect_async(url)
        try:
            return await work(SubmissionBatches(client))
        finally:
            await client.aclose()

    return asyncio.run(inside())


def num_scripts(client: redis.Redis) -> int:
    return sum(client.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


def test_many_at_once_need_few_scripts_and_each_gets_its_own_answer(servers: LocalStack, client: redis.Redis) -> None:
    wanted = [submission() for _ in range(200)]
    before = num_scripts(client)

    async def all_of_them(batches: SubmissionBatches) -> list[Submitted]:
        return list(await asyncio.gather(*map(batches.send, wanted)))

    replies = sending(servers.redis_url, all_of_them)
    assert [reply.task_id for reply in replies] == [item.task_id for item in wanted]
    assert {reply.outcome for reply in replies} == {"created"}
    assert all(client.exists(store.task_key(item.task_id)) for item in wanted)
    assert num_scripts(client) - before <= 200 / 4


def test_one_that_breaks_the_script_breaks_no_other(servers: LocalStack, client: redis.Redis) -> None:
    broken = replace(submission(), tenant_limit="many")  # type: ignore[arg-type]
    sound = [submission() for _ in range(4)]

    async def together(batches: SubmissionBatches) -> list[Submitted | BaseException]:
        wanted = [*sound[:2], broken, *sound[2:]]
        return list(await asyncio.gather(*map(batches.send, wanted), return_exceptions=True))

    replies = sending(servers.redis_url, together)
    assert isinstance(replies.pop(2), InternalError)
    assert [reply.task_id for reply in replies if isinstance(reply, Submitted)] == [i.task_id for i in sound]
    assert not client.exists(store.task_key(broken.task_id))


def test_who_goes_away_takes_nobody_along(servers: LocalStack, client: redis.Redis) -> None:
    wanted = [submission() for _ in range(3)]

    async def one_leaves(batches: SubmissionBatches) -> list[Submitted | BaseException]:
        sent = [asyncio.create_task(batches.send(item)) for item in wanted]
        await asyncio.sleep(0)
        sent[1].cancel()
        return list(await asyncio.gather(*sent, return_exceptions=True))

    first, second, third = sending(servers.redis_url, one_leaves)
    assert isinstance(second, asyncio.CancelledError)
    assert [getattr(reply, "outcome", None) for reply in (first, third)] == ["created", "created"]


def test_without_redis_all_who_wait_hear_of_it() -> None:
    async def together(batches: SubmissionBatches) -> list[Submitted | BaseException]:
        wanted = [submission() for _ in range(40)]
        return list(await asyncio.gather(*map(batches.send, wanted), return_exceptions=True))

    replies = sending("redis://127.0.0.1:1/0", together)
    assert len(replies) == 40
    assert all(isinstance(reply, StoreUnavailable) for reply in replies)


@pytest.mark.parametrize("again", [1, 2])
def test_the_same_task_sent_again_is_the_one_that_is_there(
    servers: LocalStack, client: redis.Redis, again: int
) -> None:
    item = submission()

    async def repeated(batches: SubmissionBatches) -> list[Submitted]:
        return list(await asyncio.gather(*(batches.send(item) for _ in range(1 + again))))

    replies = sending(servers.redis_url, repeated)
    assert len(set(replies)) == 1
    assert client.zcard(store.index_key("acme")) == 1
