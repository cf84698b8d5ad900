"""What operators look at: every queue, every worker, and the tasks and dead letters of all tenants. Reads only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import redis.asyncio

from api_gateway.dead_letters import DeadLetter, DeadLetterPage, DeadLetters, Mark
from api_gateway.records import Page, QueueStats, Records
from api_gateway.store_calls import store_call
from contract.store import QUEUES_KEY, queue_key


@dataclass(frozen=True)
class QueueState:
    """A queue, and whose parts wait in it (suspects and resting parts not among them)."""

    name: str
    stats: QueueStats
    delayed: int
    waiting_by_tenant: dict[str, int]


@dataclass(frozen=True)
class WorkerState:
    """A live worker of a queue."""

    name: str
    queue: str
    slots: int
    held: int
    seen_ms: int


class FleetViews:
    """Reads through one asyncio client. Every method raises ``StoreUnavailable`` where Redis is away."""

    def __init__(self, client: redis.asyncio.Redis, records: Records, dead_letters: DeadLetters) -> None:
        self._client = cast(Any, client)  # the driver's types mix its sync and async replies
        self._records = records
        self._dead_letters = dead_letters

    async def queues(self) -> list[QueueState]:
        """Every queue that was ever used, by name."""
        names = await self._names()
        stats = await self._records.queue_stats(names)
        replies = await self._pipelined(
            [
                call
                for name in names
                for call in (
                    ("ZCARD", queue_key(name, "delayed")),
                    ("ZRANGE", queue_key(name, "tenants"), 0, -1),
                )
            ]
        )
        states = []
        for name, numbers, delayed, tenants in zip(names, stats, replies[::2], replies[1::2], strict=True):
            counts = await self._pipelined([("ZCARD", queue_key(name, f"t:{tenant}")) for tenant in tenants])
            states.append(QueueState(name, numbers, delayed, dict(zip(tenants, counts, strict=True))))
        return states

    async def workers(self) -> list[WorkerState]:
        """Every live worker, by queue and name."""
        found = []
        for queue in await self._names():
            seen, slots, held = await self._pipelined(
                [
                    ("ZRANGE", queue_key(queue, "workers"), 0, -1, "WITHSCORES"),
                    ("HGETALL", queue_key(queue, "slots")),
                    ("HGETALL", queue_key(queue, "held")),
                ]
            )
            holds: dict[str, int] = {}
            for field, count in _pairs(held):
                worker = field.partition(":")[2]
                holds[worker] = holds.get(worker, 0) + int(count)
            sizes = dict(_pairs(slots))
            found += [
                WorkerState(name, queue, int(sizes.get(name, 0)), holds.get(name, 0), int(float(score)))
                for name, score in _pairs(seen)
            ]
        return sorted(found, key=lambda worker: (worker.queue, worker.name))

    async def tasks(self, tenants: Sequence[str], *, limit: int, after: str | None) -> Page:
        """The next tasks of several tenants, newest first, at most ``limit``."""
        pages = await asyncio.gather(
            *(self._records.page(tenant, limit=limit, after=after, matches=None) for tenant in tenants)
        )
        found = sorted(chain.from_iterable(page.records for page in pages), key=lambda record: record.id, reverse=True)
        more = len(found) > limit or any(page.next_after for page in pages)
        return Page(found[:limit], found[:limit][-1].id if found and more else None)

    async def dead_letters(self, tenants: Sequence[str], *, limit: int, after: Mark | None) -> DeadLetterPage:
        """The next dead letters of several tenants, the last to die first, at most ``limit``."""
        pages = await asyncio.gather(*(self._dead_letters.page(tenant, limit=limit, after=after) for tenant in tenants))
        found = sorted(chain.from_iterable(page.letters for page in pages), key=_mark, reverse=True)
        more = len(found) > limit or any(page.next_after for page in pages)
        return DeadLetterPage(found[:limit], _mark(found[:limit][-1]) if found and more else None)

    async def _names(self) -> list[str]:
        async with store_call():
            return sorted(await self._client.smembers(QUEUES_KEY))

    async def _pipelined(self, calls: Sequence[tuple[str | int, ...]]) -> list[Any]:
        """The raw replies of some commands, sent at once."""
        if not calls:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command(*call)
            async with store_call():
                return list(await pipe.execute())


def _mark(letter: DeadLetter) -> Mark:
    return Mark(letter.record.ended_ms or 0, letter.record.id)


def _pairs(reply: Any) -> list[tuple[str, Any]]:
    """A reply of names and values, in whichever form the driver gives it."""
    if isinstance(reply, dict):
        return list(reply.items())
    if reply and isinstance(reply[0], (list, tuple)):
        return [(name, value) for name, value in reply]
    return list(zip(reply[::2], reply[1::2], strict=True))
