"""Uploads: large inputs go to S3 directly, not through the gateway."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api_gateway.json_bodies import read_json
from api_gateway.moments import Moment, moment
from api_gateway.routes.documentation import json_body, problems
from api_gateway.services import Caller, SharedServices
from api_gateway.uploads import URL_S, Upload
from contract.blobs import UPLOAD_KEPT_S
from contract.errors import NotFound

router = APIRouter(tags=["uploads"])


class UploadRequest(BaseModel):
    """An upload, announced."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size_bytes: Annotated[int, Field(ge=1, description="length of what will be sent", examples=[1048576])]
    media_type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,64}/[A-Za-z0-9_.+-]{1,64}$")] = (
        "application/octet-stream"
    )


class PutView(BaseModel):
    """How to send the bytes by PUT: exactly the announced number."""

    url: str
    headers: dict[str, str] = Field(description="must be sent as they are")


class FormView(BaseModel):
    """How to send the bytes by POST, as a browser's form: at most the announced number."""

    url: str
    fields: dict[str, str] = Field(description="go before the part `file`")


class UploadView(BaseModel):
    """An upload that may begin: by `put` or by `post`."""

    id: str = Field(examples=["upl_0193f0c0a1b2c3d4e5f60718293a4b5c"])
    size_bytes: int
    media_type: str
    put: PutView
    post: FormView
    urls_expire_at: Moment
    expires_at: Moment = Field(description="when it is deleted; a task that named it before has its own copy")

    @classmethod
    def of(cls, upload: Upload) -> UploadView:
        """The caller's view of an upload."""
        headers = {"Content-Length": str(upload.size_bytes), "Content-Type": upload.media_type}
        return cls(
            id=upload.id,
            size_bytes=upload.size_bytes,
            media_type=upload.media_type,
            put=PutView(url=upload.put_url, headers=headers),
            post=FormView(url=upload.form.url, fields=upload.form.fields),
            urls_expire_at=moment(upload.created_ms + 1000 * URL_S),
            expires_at=moment(upload.created_ms + 1000 * UPLOAD_KEPT_S),
        )


class ArrivedView(BaseModel):
    """What has arrived of an upload."""

    id: str
    status: Literal["waiting", "arrived"] = Field(description="a task may name it once it has arrived")
    size_bytes: int | None = Field(description="null while it is waited for")
    media_type: str


@router.post(
    "/v1/uploads",
    status_code=201,
    response_model=UploadView,
    responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=json_body(UploadRequest),
)
async def create_upload(request: Request, tenant: Caller, services: SharedServices) -> Response:
    """Announce an upload: get addresses that take its bytes, and an id that a task names as `{"upload": id}`."""
    wanted = await read_json(request, UploadRequest)
    upload = await services.uploads.begin(tenant, wanted.size_bytes, wanted.media_type)
    view = UploadView.of(upload)
    return Response(
        view.model_dump_json(),
        status_code=201,
        media_type="application/json",
        headers={"Location": f"/v1/uploads/{upload.id}"},
    )


@router.get("/v1/uploads/{upload_id}", responses=problems(401, 403, 404, 429, 503))
async def read_upload(upload_id: str, tenant: Caller, services: SharedServices) -> ArrivedView:
    """Read what has arrived of an upload."""
    facts = await services.uploads.find(upload_id, tenant.id)
    if facts is not None:
        return ArrivedView(id=upload_id, status="arrived", size_bytes=facts.size_bytes, media_type=facts.media_type)
    media_type = await services.uploads.announced_type(upload_id, tenant.id)
    if media_type is None:
        raise NotFound("no upload with this id was announced within the last day")
    return ArrivedView(id=upload_id, status="waiting", size_bytes=None, media_type=media_type)
