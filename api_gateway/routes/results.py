"""A succeeded task's result: as JSON, text, Markdown or WebVTT."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse

from api_gateway.routes.documentation import problems
from api_gateway.services import Caller, SharedServices
from api_gateway.stored_results import assembly_response, document_response, stored_document
from contract.assembly import ResultFormat
from contract.errors import NotReady
from contract.task import TaskStatus

router = APIRouter(tags=["tasks"])


@router.get(
    "/v1/tasks/{task_id}/result",
    response_model=None,
    responses={
        200: {
            "description": "The result",
            "content": {"application/json": {}, "text/plain": {}, "text/markdown": {}, "text/vtt": {}},
        },
        303: {"description": "A large result: Location is a presigned URL, to be read without the key"},
        **problems(401, 404, 409, 410, 422, 503),
    },
)
async def read_result(
    task_id: str,
    tenant: Caller,
    services: SharedServices,
    wanted: Annotated[ResultFormat, Query(alias="format")] = "json",
) -> Response:
    """Read what a task gave; of a document whose retry ended without a result, what it gave before."""
    record = await services.records.find(task_id, tenant.id)
    if record.assembly is not None and record.is_assembled:
        return await assembly_response(record.assembly, wanted, services.blobs)
    result = record.result
    if record.status is not TaskStatus.SUCCEEDED or result is None:
        raise NotReady(f"the task is {record.status}; only a task that succeeded has a result")
    # The record holds no log probabilities.
    if result.text is not None and (wanted != "json" or record.spec.options.logprobs is None):
        return document_response(result.document(record.id, 0, record.spec), wanted)
    if wanted == "json":
        store = services.blobs.store
        return RedirectResponse(store.presigned_get(store.bucket, result.blob_key), status_code=303)
    return document_response(await stored_document(result, services.blobs), wanted)
