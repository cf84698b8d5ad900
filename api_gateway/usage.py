"""What tenants have used, day by day, and what their un-ended tasks hold now. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import redis.asyncio

from api_gateway.store_calls import store_call
from contract.store import LOAD_KEY, usage_key

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class DayOfUse:
    """What a tenant used on one day (UTC).

    Attributes:
        amounts: By name: ``tasks_<status>``, and the fields of ``contract.task.Usage``.
    """

    day: date
    amounts: Mapping[str, float]


@dataclass(frozen=True)
class Load:
    """What a tenant's un-ended tasks hold, and its files."""

    num_tasks: int
    size_bytes: int
    file_bytes: int


class UsageRecords:
    """Reads through one asyncio client. Every method raises ``StoreUnavailable`` where Redis is away."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = cast(Any, client)  # the driver's types mix its sync and async replies

    async def days(self, tenant: str, count: int) -> list[DayOfUse]:
        """The last ``count`` days, today first; days without use are left out."""
        async with self._client.pipeline(transaction=False) as pipe:
            days = _last_days(count)
            for day in days:
                pipe.hgetall(usage_key(tenant, (day - _EPOCH).days))
            async with store_call():
                replies = await pipe.execute()
        return [
            DayOfUse(day, {name: float(amount) for name, amount in fields.items()})
            for day, fields in zip(days, replies, strict=True)
            if fields
        ]

    async def load(self, tenant: str) -> Load:
        """What the tenant's un-ended tasks and its files hold now."""
        async with store_call():
            tasks, size, files = await self._client.hmget(LOAD_KEY, f"n:{tenant}", f"t:{tenant}", f"f:{tenant}")
        return Load(int(tasks or 0), int(size or 0), int(files or 0))


def _last_days(count: int) -> list[date]:
    today = datetime.now(UTC).date()
    return [today - timedelta(days=back) for back in range(count)]
