"""Batches in the OpenAI wire format: files of chat completions, run at low priority."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Query, Request

from api_gateway.batches import BATCH_ID, Ordered
from api_gateway.idempotency import idempotency_key
from api_gateway.json_bodies import read_json
from api_gateway.openai_wire.batch_requests import BatchRequest
from api_gateway.openai_wire.batch_views import BatchView, ListView
from api_gateway.pages import IdPage, checked_after
from api_gateway.routes.documentation import IDEMPOTENCY_PARAMETER, json_body, openai_problems
from api_gateway.services import Caller, SharedServices

router = APIRouter(tags=["openai"])


@router.post(
    "/v1/batches",
    response_model=BatchView,
    responses=openai_problems(400, 401, 403, 410, 413, 415, 429, 503),
    openapi_extra={**json_body(BatchRequest), "parameters": [IDEMPOTENCY_PARAMETER]},
)
async def create_batch(request: Request, tenant: Caller, services: SharedServices) -> BatchView:
    """Have every line of a file answered. What is wrong with the file is told in `errors` soon after."""
    key = idempotency_key(request)
    wanted = await read_json(request, BatchRequest)
    outputs = wanted.output_expires_after
    ordered = Ordered(
        input_file=wanted.input_file_id,
        endpoint=wanted.endpoint,
        completion_window=wanted.completion_window,
        window_s=wanted.window_s,
        metadata=wanted.metadata or {},
        kept_s=outputs.seconds if outputs else services.settings.file_retention_s,
        trace=request.state.trace,
        idempotency_key=key,
        body_hash=hashlib.sha256(wanted.model_dump_json().encode()).hexdigest(),
    )
    return BatchView.of(await services.batches.create(ordered, tenant))


@router.get("/v1/batches", responses=openai_problems(400, 401, 403, 429, 503))
async def list_batches(
    tenant: Caller,
    services: SharedServices,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> ListView[BatchView]:
    """List batches, newest first."""
    records, has_more = await services.batches.page(tenant.id, IdPage(limit, checked_after(after, BATCH_ID)))
    return ListView[BatchView].of([BatchView.of(record) for record in records], has_more)


@router.get("/v1/batches/{batch_id}", responses=openai_problems(401, 404, 410, 503))
async def read_batch(batch_id: str, tenant: Caller, services: SharedServices) -> BatchView:
    """Read a batch; the counts are live."""
    return BatchView.of(await services.batches.find(batch_id, tenant.id))


@router.post("/v1/batches/{batch_id}/cancel", responses=openai_problems(400, 401, 403, 404, 410, 429, 503))
async def cancel_batch(batch_id: str, tenant: Caller, services: SharedServices) -> BatchView:
    """Begin no line any more, cancel those under way: `cancelling`, then `cancelled` once workers have let go."""
    return BatchView.of(await services.batches.cancel(batch_id, tenant.id))
