"""Reads a tenant's dead letters: failed tasks whose every attempt ended without a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import redis.asyncio

from api_gateway.records import Records
from api_gateway.store_calls import store_call
from contract import planned
from contract.errors import NotFound
from contract.record import AttemptEnd, TaskRecord
from contract.redis_io import run_async
from contract.store import dead_letters_key
from contract.task import TaskStatus


class Mark(NamedTuple):
    """The place of a dead letter in the list. Many can have died in the same millisecond."""

    ended_ms: int
    task_id: str


@dataclass(frozen=True)
class DeadLetter:
    """A failed task with what became of the attempts of its parts that failed."""

    record: TaskRecord
    history: tuple[AttemptEnd, ...]


@dataclass(frozen=True)
class DeadLetterPage:
    """A part of the list.

    Attributes:
        letters: Those that died last come first.
        next_after: Where to go on; None where nothing is left.
    """

    letters: list[DeadLetter]
    next_after: Mark | None


class DeadLetters:
    """Reads through one asyncio client. Every method raises ``StoreUnavailable`` where Redis is away."""

    def __init__(self, client: redis.asyncio.Redis, records: Records) -> None:
        self._client = cast(Any, client)  # the driver's types mix its sync and async replies
        self._records = records

    async def find(self, task_id: str, tenant: str) -> DeadLetter:
        """The tenant's dead letter.

        Raises:
            NotFound: There is no such task of the tenant, or it isn't a dead letter.
            Gone: The task was purged.
        """
        record = await self._records.find(task_id, tenant)
        async with store_call():
            died = await self._client.zscore(dead_letters_key(tenant), task_id)
        if died is None:
            raise NotFound("this task isn't among the dead letters")
        return await self._letter(record)

    async def page(self, tenant: str, *, limit: int, after: Mark | None) -> DeadLetterPage:
        """The tenant's next dead letters, the last to die first, at most ``limit``."""
        marks = await self._marks(tenant, after, limit + 1)
        records = await self._records.read_many([mark.task_id for mark in marks[:limit]])
        # One that was replayed or purged between the two reads is no dead letter any more.
        dead = [record for record in records if record is not None and record.status is TaskStatus.FAILED]
        letters = [await self._letter(record) for record in dead]
        return DeadLetterPage(letters, marks[limit - 1] if len(marks) > limit else None)

    async def _letter(self, record: TaskRecord) -> DeadLetter:
        async with store_call():
            return DeadLetter(record, await run_async(self._client, planned.history(record.id)))

    async def _marks(self, tenant: str, after: Mark | None, count: int) -> list[Mark]:
        """The next ``count`` places, or all that are left."""
        found: list[Mark] = []
        offset = 0
        while len(found) < count:
            async with store_call():
                batch: list[tuple[str, float]] = await self._client.zrevrangebyscore(
                    dead_letters_key(tenant),
                    after.ended_ms if after else "+inf",
                    "-inf",
                    start=offset,
                    num=count,
                    withscores=True,
                )
            marks = [Mark(int(score), task_id) for task_id, score in batch]
            found += [mark for mark in marks if after is None or mark < after]
            offset += len(batch)
            if len(batch) < count:
                break
        return found[:count]
