"""Reads the parts of a task from Redis: a page each of a document, a clip each of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import redis.asyncio

from api_gateway.records import Records
from api_gateway.store_calls import store_call
from contract.errors import NotFound, NotReady
from contract.planned import PartRecord, part_fields, read_part
from contract.record import TaskRecord
from contract.store import task_key

#: Parts of which the states are read at once while a list is filtered.
_BATCH = 500


class Parts:
    """Reads through one asyncio client. Every method raises ``StoreUnavailable`` where Redis is away."""

    def __init__(self, client: redis.asyncio.Redis, records: Records) -> None:
        self._client = cast(Any, client)  # the driver's types mix its sync and async replies
        self._records = records

    async def find(self, task_id: str, tenant: str, part: int) -> tuple[TaskRecord, PartRecord]:
        """One part of the tenant's task, with the task.

        Raises:
            NotFound: There is no such task of the tenant, or it has no such part.
            Gone: The task was purged.
            NotReady: How many parts the task has isn't known yet.
        """
        record = await self._records.find(task_id, tenant)
        if record.stage == "planning":
            raise NotReady("the task is being planned: its parts aren't known yet")
        found = await self._read(task_id, [part])
        if not found or part >= record.parts_total:
            raise NotFound(f"the task has {record.parts_total} parts, numbered from 0; there is none {part}")
        return record, found[0]

    async def page(
        self, record: TaskRecord, *, limit: int, start: int, state: str | None
    ) -> tuple[list[PartRecord], int | None]:
        """The next parts of a task, at most ``limit``, and the number to go on from; None where nothing is left.

        Args:
            record: The task.
            limit: Most parts.
            start: The first part that is looked at.
            state: Only parts in this state; None takes all.
        """
        found: list[PartRecord] = []
        while start < record.parts_total:
            batch = range(start, min(start + (_BATCH if state else limit), record.parts_total))
            for part in await self._of_state(record.id, batch, state):
                if len(found) == limit:
                    return found, part.part
                found.append(part)
            start = batch.stop
            if len(found) == limit:
                break
        return found, start if start < record.parts_total else None

    async def _of_state(self, task_id: str, parts: Sequence[int], state: str | None) -> list[PartRecord]:
        if state is not None:
            async with store_call():
                states = await self._client.hmget(task_key(task_id), [f"p{part}:state" for part in parts])
            parts = [part for part, found in zip(parts, states, strict=True) if found == state]
        read = await self._read(task_id, parts) if parts else []
        return [part for part in read if state is None or part.state == state]

    async def _read(self, task_id: str, parts: Sequence[int]) -> list[PartRecord]:
        names = [name for part in parts for name in part_fields(part)]
        async with store_call():
            values = await self._client.hmget(task_key(task_id), names)
        size = len(names) // len(parts)
        read = [read_part(part, values[size * n : size * (n + 1)]) for n, part in enumerate(parts)]
        return [part for part in read if part is not None]
