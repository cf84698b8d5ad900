"""Bounds every call of Redis in time and speaks of its failures in our words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from contract.errors import StoreUnavailable

#: Seconds that a call may take in all: the driver's own limits hold for each of its steps and tries alone.
_DEADLINE_S = 4.0


@asynccontextmanager
async def store_call() -> AsyncIterator[None]:
    """Run what is inside within the deadline.

    Raises:
        StoreUnavailable: Redis is away, or doesn't answer in time. Whether it did what was asked is not known.
    """
    try:
        async with asyncio.timeout(_DEADLINE_S):
            yield
    except (RedisError, OSError) as exc:  # a TimeoutError is an OSError
        raise StoreUnavailable("the queue can't be reached; try again later") from exc
