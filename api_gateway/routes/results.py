"""A succeeded task's result: as JSON, or as the text alone."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse, RedirectResponse

from api_gateway.routes.documentation import problems
from api_gateway.services import Caller, Services, SharedServices
from contract.errors import Gone, InputUnavailable, NotReady
from contract.record import TaskRecord
from contract.task import PartResult, TaskStatus

router = APIRouter(tags=["tasks"])

_TEXT_TYPES = {"text": "text/plain", "markdown": "text/markdown"}


@router.get(
    "/v1/tasks/{task_id}/result",
    response_model=None,
    responses={
        200: {
            "description": "The result",
            "content": {"application/json": {}, "text/plain": {}, "text/markdown": {}},
        },
        303: {"description": "A large result: Location is a presigned URL, to be read without the key"},
        **problems(401, 404, 409, 410, 422, 503),
    },
)
async def read_result(
    task_id: str,
    tenant: Caller,
    services: SharedServices,
    wanted: Annotated[Literal["json", "text", "markdown"], Query(alias="format")] = "json",
) -> Response:
    """Read what a task gave."""
    record = await services.records.find(task_id, tenant.id)
    result = record.result
    if record.status is not TaskStatus.SUCCEEDED or result is None:
        raise NotReady(f"the task is {record.status}; only a task that succeeded has a result")
    if wanted == "json":
        return _json(record, result, services)
    text = result.text if result.text is not None else await _stored_text(result, services)
    return Response(text, media_type=_TEXT_TYPES[wanted])


def _json(record: TaskRecord, result: PartResult, services: Services) -> Response:
    if result.text is not None:
        return JSONResponse(result.document(record.id, 0, record.spec))
    store = services.blobs.store
    return RedirectResponse(store.presigned_get(store.bucket, result.blob_key), status_code=303)


async def _stored_text(result: PartResult, services: Services) -> str:
    try:
        document = json.loads(await services.blobs.get(result.blob_key))
    except InputUnavailable as exc:
        raise Gone("the stored result isn't there any more") from exc
    return str(document["text"])
