"""What requests share, and how a route gets at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

import redis.asyncio
from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from api_gateway.batches import Batches
from api_gateway.blob_calls import BlobCalls
from api_gateway.changes import Changes
from api_gateway.dead_letters import DeadLetters
from api_gateway.endings import Endings
from api_gateway.estimation import Estimator
from api_gateway.event_hub import EventHub
from api_gateway.files import Files
from api_gateway.fleet_views import FleetViews
from api_gateway.parts import Parts
from api_gateway.rate_limits import RateLimits
from api_gateway.records import Records
from api_gateway.settings import GatewaySettings
from api_gateway.submission import Submitter
from api_gateway.tenants_file import TenantsFile
from api_gateway.uploads import Uploads
from api_gateway.usage import UsageRecords
from api_gateway.webhooks import Webhooks
from contract.errors import Forbidden, RateLimited, Unauthenticated
from contract.metrics import GatewayMetrics
from contract.planning import Planner
from contract.spans import Spans
from contract.tenants import Scope, Tenant


@dataclass(frozen=True)
class Services:
    """Everything a request may need, built once by ``create_app``."""

    settings: GatewaySettings
    redis: redis.asyncio.Redis
    tenants: TenantsFile
    rate_limits: RateLimits
    records: Records
    parts: Parts
    blobs: BlobCalls
    planner: Planner
    estimator: Estimator
    submitter: Submitter
    changes: Changes
    dead_letters: DeadLetters
    endings: Endings
    events: EventHub
    webhooks: Webhooks
    uploads: Uploads
    files: Files
    batches: Batches
    usage: UsageRecords
    fleet: FleetViews
    registry: CollectorRegistry
    metrics: GatewayMetrics
    spans: Spans

    def stop_waiting(self) -> None:
        """Let everybody go who only waits for what happens to a task."""
        self.endings.stop()
        self.events.stop()


def services_of(request: Request) -> Services:
    """What the request's application was built with."""
    return cast(Services, request.app.state.services)


async def caller_of(request: Request) -> Tenant:
    """The tenant whose key the request carries.

    Raises:
        Unauthenticated: It carries none, or one that nobody holds.
        Forbidden: The key's scopes don't allow the method.
        RateLimited: The tenant sent too many requests in this second.
        StoreUnavailable: The tenant's requests are counted, and Redis is away.
    """
    scope: Scope = "read" if request.method in _READING else "write"
    return await _holder_with(scope, request)


#: Methods that change nothing.
_READING = {"GET", "HEAD"}


async def _services(request: Request) -> Services:
    # Not a plain function: FastAPI would run it in a thread, for every request.
    return services_of(request)


async def _holder_with(scope: Scope, request: Request) -> Tenant:
    # The header is read by hand: every dependency costs a request some 40 microseconds.
    services = services_of(request)
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthenticated("send the key as Authorization: Bearer sk-...")
    holder = services.tenants.current.by_key(key.strip())
    if holder is None:
        raise Unauthenticated("nobody holds this key")
    request.state.tenant = holder.tenant.id
    rate = await services.rate_limits.count(holder.tenant)
    if rate.headers:
        request.state.response_headers.update(rate.headers)
    if rate.exceeded:
        raise RateLimited(f"the tenant may send {holder.tenant.requests_per_s} requests a second")
    if not holder.may(scope):
        raise Forbidden(f"the key lacks the scope {scope}")
    return holder.tenant


async def _admin(request: Request) -> Tenant:
    return await _holder_with("admin", request)


SharedServices = Annotated[Services, Depends(_services)]

#: The tenant whose key the request carries; the request is refused without one, or with one that may not do this.
Caller = Annotated[Tenant, Depends(caller_of)]

#: The same for what concerns all tenants: the key needs the scope admin.
Admin = Annotated[Tenant, Depends(_admin)]
