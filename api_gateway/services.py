"""What requests share, and how a route gets at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry

from api_gateway.blob_calls import BlobCalls
from api_gateway.changes import Changes
from api_gateway.dead_letters import DeadLetters
from api_gateway.endings import Endings
from api_gateway.fleet_views import FleetViews
from api_gateway.rate_limits import RateLimits
from api_gateway.records import Records
from api_gateway.settings import GatewaySettings
from api_gateway.submission import Submitter
from api_gateway.tenants_file import TenantsFile
from api_gateway.uploads import Uploads
from api_gateway.usage import UsageRecords
from contract.errors import Forbidden, RateLimited, Unauthenticated
from contract.metrics import GatewayMetrics
from contract.tenants import KeyHolder, Scope, Tenant


@dataclass(frozen=True)
class Services:
    """Everything a request may need, built once by ``create_app``."""

    settings: GatewaySettings
    tenants: TenantsFile
    rate_limits: RateLimits
    records: Records
    blobs: BlobCalls
    submitter: Submitter
    changes: Changes
    dead_letters: DeadLetters
    endings: Endings
    uploads: Uploads
    usage: UsageRecords
    fleet: FleetViews
    registry: CollectorRegistry
    metrics: GatewayMetrics


async def _services(request: Request) -> Services:
    # Not a plain function: FastAPI would run it in a thread, for every request.
    return cast(Services, request.app.state.services)


SharedServices = Annotated[Services, Depends(_services)]

_bearer = HTTPBearer(auto_error=False, description="A tenant's key, `sk-...`")


#: Methods that change nothing.
_READING = {"GET", "HEAD"}


async def _holder(
    request: Request,
    services: SharedServices,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> KeyHolder:
    if credentials is None:
        raise Unauthenticated("send the key as Authorization: Bearer sk-...")
    holder = services.tenants.current.by_key(credentials.credentials)
    if holder is None:
        raise Unauthenticated("nobody holds this key")
    request.state.tenant = holder.tenant.id
    rate = await services.rate_limits.count(holder.tenant)
    request.state.response_headers.update(rate.headers)
    if rate.exceeded:
        raise RateLimited(f"the tenant may send {holder.tenant.requests_per_s} requests a second")
    return holder


_Holder = Annotated[KeyHolder, Depends(_holder)]


async def _tenant(request: Request, holder: _Holder) -> Tenant:
    scope: Scope = "read" if request.method in _READING else "write"
    if not holder.may(scope):
        raise Forbidden(f"the key lacks the scope {scope}")
    return holder.tenant


async def _admin(holder: _Holder) -> Tenant:
    if not holder.may("admin"):
        raise Forbidden("the key lacks the scope admin")
    return holder.tenant


#: The tenant whose key the request carries; the request is refused without one, or with one that may not do this.
Caller = Annotated[Tenant, Depends(_tenant)]

#: The same for what concerns all tenants: the key needs the scope admin.
Admin = Annotated[Tenant, Depends(_admin)]
