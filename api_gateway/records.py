"""Reads tasks and queues from Redis. Nothing here changes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio

from api_gateway.store_calls import store_call
from contract.errors import Gone, NotFound
from contract.record import RECORD_FIELDS, TaskRecord
from contract.store import idempotency_key, index_key, purged_key, queue_stats_key, task_key

#: What ``contract.task.new_task_id`` makes.
TASK_ID = re.compile(r"task_[0-9a-f]{32}")

#: Records that one list request looks at; the cursor leads on from there.
_MAX_SCANNED = 1000

#: Records read at once while filtering.
_BATCH = 200


@dataclass(frozen=True)
class QueueStats:
    """How busy a model's queue is."""

    workers: int
    slots: int
    waiting: int
    running: int


@dataclass(frozen=True)
class Page:
    """A part of a tenant's list.

    Attributes:
        records: Newest first.
        next_after: The id to go on after; None where nothing is left.
    """

    records: list[TaskRecord]
    next_after: str | None


class Records:
    """Reads through one asyncio client. Every method raises ``StoreUnavailable`` where Redis is away."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = cast(Any, client)  # the driver's types mix its sync and async replies

    async def check(self) -> None:
        """Raise ``StoreUnavailable`` unless Redis answers."""
        async with store_call():
            await self._client.ping()

    async def read(self, task_id: str) -> TaskRecord | None:
        """The task as it stands, whoever's it is; None where there is none."""
        async with store_call():
            values = await self._client.hmget(task_key(task_id), RECORD_FIELDS)
        return TaskRecord.from_values(task_id, values)

    async def by_idempotency_key(self, tenant: str, key: str) -> tuple[str, str] | None:
        """The task id and body hash that a key stands for; None where it stands for none, or is empty.

        Asks Redis in any case, so that a reply means that it is there.
        """
        async with store_call():
            found: str | None = await self._client.get(idempotency_key(tenant, key))
        if not found:
            return None
        task_id, _, body_hash = found.partition(" ")
        return task_id, body_hash

    async def retry_key(self, task_id: str) -> str | None:
        """The idempotency key of a task's last retry; None where it had none."""
        async with store_call():
            key: str | None = await self._client.hget(task_key(task_id), "retry_key")
        return key

    async def read_many(self, ids: Sequence[str]) -> list[TaskRecord | None]:
        """Tasks as they stand, in the order of their ids; None where there is none."""
        if not ids:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for task_id in ids:
                pipe.hmget(task_key(task_id), RECORD_FIELDS)
            async with store_call():
                replies = await pipe.execute()
        return [TaskRecord.from_values(task_id, values) for task_id, values in zip(ids, replies, strict=True)]

    async def find(self, task_id: str, tenant: str) -> TaskRecord:
        """The tenant's task.

        Raises:
            NotFound: There is none, or it is another tenant's.
            Gone: It was purged.
        """
        if not TASK_ID.fullmatch(task_id):
            raise NotFound("there is no task with this id")
        record = await self.read(task_id)
        if record is None or record.tenant != tenant:
            await self.raise_missing(task_id, tenant)
        assert record is not None
        return record

    async def raise_missing(self, task_id: str, tenant: str) -> None:
        """Say why there is no such task of the tenant: ``Gone`` or ``NotFound``."""
        async with store_call():
            owner = await self._client.get(purged_key(task_id))
        if owner == tenant:
            raise Gone("the task was purged at the end of its retention")
        raise NotFound("there is no task with this id")

    async def page(
        self, tenant: str, *, limit: int, after: str | None, matches: Callable[[TaskRecord], bool] | None
    ) -> Page:
        """The tenant's next tasks, newest first, at most ``limit``.

        Args:
            tenant: Whose.
            limit: Most records of the page.
            after: The last id that an earlier page looked at.
            matches: Which records to keep; None keeps all. A page looks at a bounded number and may end early.
        """
        found: list[TaskRecord] = []
        batch = _BATCH if matches else limit + 1
        num_scanned = 0
        while num_scanned < _MAX_SCANNED:
            ids = await self._ids(tenant, after, batch)
            for task_id, record in zip(ids, await self.read_many(ids), strict=True):
                if len(found) == limit:
                    return Page(found, after)
                after = task_id
                if record is not None and (matches is None or matches(record)):
                    found.append(record)
            num_scanned += len(ids)
            if len(ids) < batch:
                return Page(found, None)
        return Page(found, after)

    async def queue_stats(self, queues: Sequence[str]) -> list[QueueStats]:
        """How busy each of the queues is."""
        async with self._client.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.hmget(queue_stats_key(queue), "workers", "slots", "waiting", "running")
            async with store_call():
                replies = await pipe.execute()
        return [QueueStats(*(int(value or 0) for value in reply)) for reply in replies]

    async def _ids(self, tenant: str, after: str | None, count: int) -> list[str]:
        newest = f"({after}" if after else "+"
        async with store_call():
            ids: list[str] = await self._client.zrevrangebylex(index_key(tenant), newest, "-", start=0, num=count)
        return ids
