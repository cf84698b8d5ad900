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
from api_gateway.estimation import Estimator
from api_gateway.event_hub import EventHub
from api_gateway.parts import Parts
from api_gateway.planning import Planner
from api_gateway.records import Records
from api_gateway.settings import GatewaySettings
from api_gateway.submission import Submitter
from api_gateway.webhooks import Webhooks
from contract.errors import Unauthenticated
from contract.metrics import GatewayMetrics
from contract.tenants import Tenant, Tenants


@dataclass(frozen=True)
class Services:
    """Everything a request may need, built once by ``create_app``."""

    settings: GatewaySettings
    tenants: Tenants
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
    registry: CollectorRegistry
    metrics: GatewayMetrics

    def stop_waiting(self) -> None:
        """Let everybody go who only waits for what happens to a task."""
        self.endings.stop()
        self.events.stop()


def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


SharedServices = Annotated[Services, Depends(_services)]

_bearer = HTTPBearer(auto_error=False, description="A tenant's key, `sk-...`")


async def _tenant(
    request: Request,
    services: SharedServices,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Tenant:
    if credentials is None:
        raise Unauthenticated("send the key as Authorization: Bearer sk-...")
    tenant = services.tenants.by_key(credentials.credentials)
    if tenant is None:
        raise Unauthenticated("nobody holds this key")
    request.state.tenant = tenant.id
    return tenant


#: The tenant whose key the request carries; the request is refused without one.
Caller = Annotated[Tenant, Depends(_tenant)]
