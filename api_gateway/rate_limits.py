"""Requests per second of a tenant, counted in Redis for all gateways together.

The headers follow draft-ietf-httpapi-ratelimit-headers-10: ``RateLimit-Policy: "requests";q=50;w=1`` and
``RateLimit: "requests";r=49;t=1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import redis.asyncio
from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage

from api_gateway.store_calls import store_call
from contract.tenants import Tenant

#: Seconds of the window in which requests are counted.
WINDOW_S = 1

_PREFIX = "ovis:rate"


@dataclass(frozen=True)
class RateState:
    """Where a tenant stands after a request.

    Attributes:
        headers: What the answer tells of it; none where there is no limit.
        exceeded: Whether this request is one too many.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    exceeded: bool = False


class RateLimits:
    """Counts requests by ``limits``' fixed window: one call of Redis a request, none for a tenant without a limit.

    Args:
        client: Its connections are shared.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        # The address is read for its scheme only, as connections come from the pool.
        self._storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=_PREFIX,
            connection_pool=client.connection_pool,  # type: ignore[arg-type]
        )

    async def count(self, tenant: Tenant) -> RateState:
        """Count a request of the tenant's.

        Raises:
            StoreUnavailable: Redis is away.
        """
        if tenant.requests_per_s is None:
            return RateState()
        limit = RateLimitItemPerSecond(tenant.requests_per_s, WINDOW_S)
        async with store_call():
            used = await self._storage.incr(limit.key_for(tenant.id), WINDOW_S)
        headers = {
            "RateLimit-Policy": f'"requests";q={tenant.requests_per_s};w={WINDOW_S}',
            "RateLimit": f'"requests";r={max(0, tenant.requests_per_s - used)};t={WINDOW_S}',
        }
        return RateState(headers, exceeded=used > tenant.requests_per_s)
