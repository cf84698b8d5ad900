"""Dead letters: failed tasks whose every attempt ended without a result. List, inspect, replay, discard."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api_gateway.cursors import read_cursor, write_cursor
from api_gateway.dead_letters import Mark
from api_gateway.idempotency import idempotency_key
from api_gateway.records import TASK_ID
from api_gateway.routes.answers import pending_response
from api_gateway.routes.documentation import IDEMPOTENCY_PARAMETER, problems
from api_gateway.services import Caller, SharedServices
from api_gateway.views import DeadLetterListView, DeadLetterView, TaskView

router = APIRouter(tags=["dead letters"])

_MARK = re.compile(rf"([0-9]{{1,15}})\.({TASK_ID.pattern})")


@router.get("/v1/dead-letters", responses=problems(401, 422, 503))
async def list_dead_letters(
    tenant: Caller,
    services: SharedServices,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: str | None = None,
) -> DeadLetterListView:
    """List dead letters, the last to die first."""
    match = read_cursor(cursor, _MARK) if cursor is not None else None
    after = Mark(int(match[1]), match[2]) if match else None
    page = await services.dead_letters.page(tenant.id, limit=limit, after=after)
    views = [DeadLetterView.of(letter, services.blobs.store) for letter in page.letters]
    mark = page.next_after
    return DeadLetterListView(data=views, next_cursor=write_cursor(f"{mark.ended_ms}.{mark.task_id}") if mark else None)


@router.get("/v1/dead-letters/{task_id}", responses=problems(401, 404, 410, 503))
async def read_dead_letter(task_id: str, tenant: Caller, services: SharedServices) -> DeadLetterView:
    """Read a dead letter with the history of its attempts."""
    letter = await services.dead_letters.find(task_id, tenant.id)
    return DeadLetterView.of(letter, services.blobs.store)


@router.post(
    "/v1/dead-letters/{task_id}/replay",
    status_code=202,
    response_model=TaskView,
    responses=problems(401, 404, 409, 410, 422, 503),
    openapi_extra={"parameters": [IDEMPOTENCY_PARAMETER]},
)
async def replay_dead_letter(request: Request, task_id: str, tenant: Caller, services: SharedServices) -> Response:
    """Queue a dead letter again, with all its attempts before it. One `Idempotency-Key` makes one run."""
    key = idempotency_key(request)
    if not key or not await services.changes.was_retried(task_id, tenant.id, key):
        await services.dead_letters.find(task_id, tenant.id)
    return pending_response(await services.changes.retry(task_id, tenant.id, key), services)


@router.delete("/v1/dead-letters/{task_id}", status_code=204, responses=problems(401, 404, 410, 503))
async def discard_dead_letter(task_id: str, tenant: Caller, services: SharedServices) -> Response:
    """Take a task off the dead letters. The task itself stays failed, and can be retried, until it is purged."""
    await services.changes.discard(task_id, tenant.id)
    return Response(status_code=204)
