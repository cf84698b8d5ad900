"""The parts of a task: pages of a document, clips of a video. Readable while the others still run."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api_gateway.cursors import read_cursor, write_cursor
from api_gateway.part_views import PartListView, PartView
from api_gateway.routes.documentation import problems
from api_gateway.services import Caller, SharedServices
from api_gateway.stored_results import document_response, stored_document
from contract.assembly import ResultFormat
from contract.errors import NotReady
from contract.planned import PartRecord, PartState

router = APIRouter(tags=["tasks"])

_MARK = re.compile(r"[0-9]{1,6}")


@router.get("/v1/tasks/{task_id}/parts", responses=problems(401, 404, 410, 422, 503))
async def list_parts(
    task_id: str,
    tenant: Caller,
    services: SharedServices,
    state: PartState | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: str | None = None,
) -> PartListView:
    """List the parts in order, with their states. A task that is being planned has none yet."""
    record = await services.records.find(task_id, tenant.id)
    start = int(read_cursor(cursor, _MARK)[0]) if cursor is not None else 0
    parts, next_start = await services.parts.page(record, limit=limit, start=start, state=state)
    views = [PartView.of(record, part) for part in parts]
    return PartListView(data=views, next_cursor=None if next_start is None else write_cursor(str(next_start)))


@router.get(
    "/v1/tasks/{task_id}/parts/{part}",
    response_model=None,
    responses={
        200: {
            "description": "The part's result",
            "content": {"application/json": {}, "text/plain": {}, "text/markdown": {}, "text/vtt": {}},
        },
        **problems(401, 404, 409, 410, 422, 503),
    },
)
async def read_part_result(
    task_id: str,
    part: Annotated[int, Path(ge=0, le=999_999, description="number of the part, from 0")],
    tenant: Caller,
    services: SharedServices,
    wanted: Annotated[ResultFormat, Query(alias="format")] = "json",
) -> Response:
    """Read what one part gave, also while the task still runs."""
    record, found = await services.parts.find(task_id, tenant.id, part)
    if found.state != "succeeded" or found.result is None:
        raise NotReady(_why(found))
    if found.result.text is not None and record.spec.options.logprobs is None:
        document = found.result.document(record.id, part, record.spec)
    else:
        document = await stored_document(found.result, services.blobs)
    unit = found.unit.model_dump() if found.unit else None
    return document_response({**document, "part": part, "unit": unit}, wanted)


def _why(part: PartRecord) -> str:
    if part.error is not None:
        return f"part {part.part} failed: {part.error.code}: {part.error.detail}"
    return f"part {part.part} is {part.state}; only a part that succeeded has a result"
