"""Webhooks: endpoints and their secrets, the log of deliveries, replay."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api_gateway.cursors import read_cursor, write_cursor
from api_gateway.json_bodies import read_json
from api_gateway.moments import moment
from api_gateway.routes.documentation import json_body, problems
from api_gateway.services import Caller, SharedServices
from api_gateway.webhook_views import (
    DeliveryListView,
    DeliveryView,
    EndpointListView,
    EndpointPatch,
    EndpointRequest,
    EndpointView,
    NewEndpointView,
    RotationRequest,
    SecretView,
)
from api_gateway.webhooks import DELIVERY_ID, Rotated, endpoint_change
from contract.webhooks import Delivery, DeliveryStatus

router = APIRouter(tags=["webhooks"])


@router.post(
    "/v1/webhook-endpoints",
    status_code=201,
    responses=problems(400, 401, 403, 409, 413, 415, 422, 503),
    openapi_extra=json_body(EndpointRequest),
)
async def create_endpoint(
    request: Request, response: Response, tenant: Caller, services: SharedServices
) -> NewEndpointView:
    """Register an address for the events of all your tasks. Its secret is shown in this answer only."""
    body = await read_json(request, EndpointRequest)
    change = endpoint_change(body.url, body.events, body.description, body.enabled)
    endpoint, secret = await services.webhooks.create(tenant, change)
    response.headers["Location"] = f"/v1/webhook-endpoints/{endpoint.id}"
    return NewEndpointView(**EndpointView.of(endpoint).model_dump(), secret=secret)


@router.get("/v1/webhook-endpoints", responses=problems(401, 503))
async def list_endpoints(tenant: Caller, services: SharedServices) -> EndpointListView:
    """List endpoints, oldest first."""
    return EndpointListView(data=[EndpointView.of(endpoint) for endpoint in await services.webhooks.all(tenant.id)])


@router.get("/v1/webhook-endpoints/{endpoint_id}", responses=problems(401, 404, 503))
async def read_endpoint(endpoint_id: str, tenant: Caller, services: SharedServices) -> EndpointView:
    """Read an endpoint."""
    return EndpointView.of(await services.webhooks.find(endpoint_id, tenant.id))


@router.patch(
    "/v1/webhook-endpoints/{endpoint_id}",
    responses=problems(400, 401, 404, 413, 415, 422, 503),
    openapi_extra=json_body(EndpointPatch),
)
async def change_endpoint(request: Request, endpoint_id: str, tenant: Caller, services: SharedServices) -> EndpointView:
    """Change an endpoint's address, events or description, switch it off or on."""
    body = await read_json(request, EndpointPatch)
    change = endpoint_change(body.url, body.events, body.description, body.enabled)
    return EndpointView.of(await services.webhooks.change(endpoint_id, tenant, change))


@router.delete("/v1/webhook-endpoints/{endpoint_id}", status_code=204, responses=problems(401, 404, 503))
async def delete_endpoint(endpoint_id: str, tenant: Caller, services: SharedServices) -> Response:
    """Forget an endpoint; what waits for it ends as canceled."""
    await services.webhooks.delete(endpoint_id, tenant.id)
    return Response(status_code=204)


@router.post(
    "/v1/webhook-endpoints/{endpoint_id}/rotate-secret",
    responses=problems(400, 401, 403, 404, 413, 415, 422, 503),
    openapi_extra=json_body(RotationRequest, required=False),
)
async def rotate_endpoint_secret(
    request: Request, endpoint_id: str, tenant: Caller, services: SharedServices
) -> SecretView:
    """Replace an endpoint's secret. For a while every delivery carries two signatures, of the old and the new one."""
    body = await read_json(request, RotationRequest, optional=True)
    return _secret_view(await services.webhooks.rotate(endpoint_id, tenant.id, body.overlap_s))


@router.post(
    "/v1/webhook-secret/rotate",
    responses=problems(400, 401, 403, 413, 415, 422, 503),
    openapi_extra=json_body(RotationRequest, required=False),
)
async def rotate_own_secret(request: Request, tenant: Caller, services: SharedServices) -> SecretView:
    """Make or replace the secret that signs for the webhooks which tasks name themselves."""
    body = await read_json(request, RotationRequest, optional=True)
    return _secret_view(await services.webhooks.rotate(None, tenant.id, body.overlap_s))


@router.post("/v1/webhook-endpoints/{endpoint_id}/test", status_code=202, responses=problems(401, 404, 409, 503))
async def test_endpoint(endpoint_id: str, tenant: Caller, services: SharedServices) -> DeliveryView:
    """Send an event of type `webhook.test`; the delivery tells what came of it."""
    return DeliveryView.of(await services.webhooks.send_test(endpoint_id, tenant.id))


@router.get("/v1/webhook-deliveries", responses=problems(401, 422, 503))
async def list_deliveries(
    tenant: Caller,
    services: SharedServices,
    endpoint: Annotated[str | None, Query(max_length=64)] = None,
    task: Annotated[str | None, Query(max_length=64)] = None,
    status: DeliveryStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: str | None = None,
) -> DeliveryListView:
    """List deliveries, newest first. A filtered page may be short and still lead on by `next_cursor`."""

    def matches(delivery: Delivery) -> bool:
        return (
            (endpoint is None or delivery.endpoint == endpoint)
            and (task is None or delivery.task == task)
            and (status is None or delivery.status == status)
        )

    after = read_cursor(cursor, DELIVERY_ID)[0] if cursor is not None else None
    page = await services.webhooks.page(tenant.id, limit=limit, after=after, matches=matches)
    views = [DeliveryView.of(delivery) for delivery in page.deliveries]
    return DeliveryListView(data=views, next_cursor=write_cursor(page.next_after) if page.next_after else None)


@router.get("/v1/webhook-deliveries/{delivery_id}", responses=problems(401, 404, 503))
async def read_delivery(delivery_id: str, tenant: Caller, services: SharedServices) -> DeliveryView:
    """Read a delivery with the log of its tries."""
    return DeliveryView.of(await services.webhooks.find_delivery(delivery_id, tenant.id))


@router.post("/v1/webhook-deliveries/{delivery_id}/replay", status_code=202, responses=problems(401, 404, 409, 503))
async def replay_delivery(delivery_id: str, tenant: Caller, services: SharedServices) -> DeliveryView:
    """Send a delivery again under its id: one that has ended with all its tries, one that waits at once."""
    return DeliveryView.of(await services.webhooks.replay(delivery_id, tenant.id))


def _secret_view(rotated: Rotated) -> SecretView:
    until_ms = rotated.old_until_ms
    return SecretView(secret=rotated.secret, old_secret_until=moment(until_ms) if until_ms else None)
