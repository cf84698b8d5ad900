"""Files in the OpenAI wire format: what batches read, and what they wrote."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from api_gateway.bodies import spooled_file
from api_gateway.errors import Refused
from api_gateway.files import FILE_ID, Incoming
from api_gateway.idempotency import idempotency_key
from api_gateway.json_bodies import content_type
from api_gateway.openai_wire.batch_requests import MAX_KEPT_S, MIN_KEPT_S, ExpiresAfter
from api_gateway.openai_wire.batch_views import DeletedFileView, FileView, ListView
from api_gateway.pages import IdPage, checked_after
from api_gateway.routes.documentation import IDEMPOTENCY_PARAMETER, openai_problems
from api_gateway.services import Caller, SharedServices
from api_gateway.stored_results import MAX_PASSED_BYTES
from contract.errors import InvalidRequest, TooLarge, UnsupportedMedia
from contract.files import FilePurpose
from contract.refusals import invalid_body
from contract.task import dumps

router = APIRouter(tags=["openai"])

#: Longest name of a file that is kept, in characters.
_MAX_NAME_CHARS = 255

_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"

_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "format": "binary", "minLength": 1, "description": "JSON lines; see batches"},
        "purpose": {"type": "string", "enum": ["batch"]},
        _ANCHOR: {"type": "string", "enum": ["created_at"]},
        _SECONDS: {"type": "integer", "minimum": MIN_KEPT_S, "maximum": MAX_KEPT_S},
    },
    "dependentRequired": {_ANCHOR: [_SECONDS], _SECONDS: [_ANCHOR]},
}


@router.post(
    "/v1/files",
    response_model=FileView,
    responses=openai_problems(400, 401, 403, 410, 413, 415, 429, 503),
    openapi_extra={
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}},
        "parameters": [IDEMPOTENCY_PARAMETER],
    },
)
async def create_file(request: Request, tenant: Caller, services: SharedServices) -> FileView:
    """Upload a file for a batch. It goes from disk to S3, however long it is."""
    key = idempotency_key(request)
    if content_type(request) != "multipart/form-data":
        raise UnsupportedMedia("the body must be multipart/form-data")
    async with request.form(max_files=1, max_fields=4, max_part_size=1024) as form:
        incoming = await _incoming(form, key, services.settings.file_retention_s)
        size_bytes, most_bytes = incoming.spooled.size_bytes, services.settings.file_max_bytes
        if size_bytes > most_bytes:
            raise TooLarge(f"the file has {size_bytes} bytes; the limit is {most_bytes}")
        return FileView.of(await services.files.add(incoming, tenant))


@router.get("/v1/files", responses=openai_problems(400, 401, 403, 429, 503))
async def list_files(
    tenant: Caller,
    services: SharedServices,
    purpose: FilePurpose | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> ListView[FileView]:
    """List files, newest first unless `order` is `asc`."""
    wanted = IdPage(limit, checked_after(after, FILE_ID), newest_first=order == "desc")
    records, has_more = await services.files.page(tenant.id, wanted, purpose)
    return ListView[FileView].of([FileView.of(record) for record in records], has_more)


@router.get("/v1/files/{file_id}", responses=openai_problems(401, 404, 410, 503))
async def read_file(file_id: str, tenant: Caller, services: SharedServices) -> FileView:
    """Read what is known of a file."""
    return FileView.of(await services.files.find(file_id, tenant.id))


@router.get(
    "/v1/files/{file_id}/content",
    response_class=Response,
    responses={
        200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}, "description": "A short file"},
        303: {"description": "A long file lies at the presigned URL in `Location`"},
        **openai_problems(401, 404, 410, 503),
    },
)
async def read_file_content(file_id: str, tenant: Caller, services: SharedServices) -> Response:
    """Read a file's bytes."""
    record = await services.files.find(file_id, tenant.id)
    if record.size_bytes > MAX_PASSED_BYTES:
        return RedirectResponse(services.files.address(record), status_code=303)
    return Response(await services.files.content(record), media_type="application/jsonl")


@router.delete("/v1/files/{file_id}", responses=openai_problems(400, 401, 403, 404, 410, 429, 503))
async def delete_file(file_id: str, tenant: Caller, services: SharedServices) -> DeletedFileView:
    """Delete a file, unless a batch that hasn't ended reads it."""
    await services.files.remove(file_id, tenant.id)
    return DeletedFileView(id=file_id)


async def _incoming(form: FormData, key: str, usual_s: int) -> Incoming:
    """What the form brings.

    Raises:
        Refused: A part is missing, unknown or wrong.
    """
    if unknown := set(form.keys()) - {"file", "purpose", _ANCHOR, _SECONDS}:
        raise Refused.at("/" + min(unknown)[:64], InvalidRequest("there is no such part of this form"))
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        raise Refused.at("/file", InvalidRequest("a part named file with a file name is needed"))
    if purpose != "batch":
        raise Refused.at("/purpose", InvalidRequest("the purpose is batch; no other files are kept here"))
    kept_s = _kept_s(form, usual_s)
    spooled = await asyncio.to_thread(spooled_file, file)
    if not spooled.size_bytes:
        raise Refused.at("/file", InvalidRequest("the file is empty"))
    name = (file.filename or "").encode(errors="replace").decode()[:_MAX_NAME_CHARS] or "file"
    said = dumps([spooled.sha256, name, kept_s])
    return Incoming(name, spooled, kept_s, key, hashlib.sha256(said.encode()).hexdigest())


def _kept_s(form: FormData, usual_s: int) -> int:
    """For how long the file is kept."""
    said: dict[str, Any] = {"anchor": form.get(_ANCHOR), "seconds": form.get(_SECONDS)}
    if said == {"anchor": None, "seconds": None}:
        return usual_s
    try:
        return ExpiresAfter.model_validate({name: value for name, value in said.items() if value is not None}).seconds
    except ValidationError as exc:
        found = invalid_body(exc)
        raise Refused.at("/expires_after", InvalidRequest(f"expires_after: {found}")) from exc
