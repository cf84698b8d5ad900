"""Uploads: bytes that a caller sends to S3 by itself, to be named as a task's input later.

Its object is ``incoming/<tenant>/<id>/0``; until that is there, a key in Redis says that it was announced. A task gets
a copy of its own, so that what it reads can't change any more; the upload itself is swept a day after it came.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

import redis.asyncio

from api_gateway.blob_calls import BlobCalls
from api_gateway.store_calls import store_call
from contract.blobs import UPLOAD_KEPT_S, ObjectFacts, PresignedForm, upload_key
from contract.errors import InputUnavailable, NotFound, TooLarge
from contract.ids import sortable_id
from contract.store import announced_key
from contract.task_bodies import UploadedInput as UploadedInput
from contract.tenants import Tenant

#: What ``begin`` makes.
UPLOAD_ID = re.compile(r"upl_[0-9a-f]{32}")

#: How long the addresses of an upload are good for, in seconds.
URL_S = 3600


@dataclass(frozen=True)
class Upload:
    """An upload that may begin.

    Attributes:
        put_url: Takes exactly ``size_bytes`` bytes of ``media_type`` by PUT.
        form: Takes 1 to ``size_bytes`` bytes by POST.
        created_ms: By the gateway's clock.
    """

    id: str
    size_bytes: int
    media_type: str
    put_url: str
    form: PresignedForm
    created_ms: int


class Uploads:
    """Begins uploads and finds them again."""

    def __init__(self, client: redis.asyncio.Redis, blobs: BlobCalls, max_bytes: int) -> None:
        self._client = client
        self._blobs = blobs
        self._max_bytes = max_bytes

    async def begin(self, tenant: Tenant, size_bytes: int, media_type: str) -> Upload:
        """Announce an upload and sign its addresses.

        Raises:
            TooLarge: It is over the limit of an upload, or of the tenant's waiting bytes.
            StoreUnavailable: Redis is away.
        """
        most_bytes = min(self._max_bytes, tenant.max_waiting_bytes)
        if size_bytes > most_bytes:
            raise TooLarge(f"the upload would have {size_bytes} bytes; the limit is {most_bytes}")
        upload_id = sortable_id("upl_")
        key = upload_key(tenant.id, upload_id)
        async with store_call():
            await self._client.set(announced_key(tenant.id, upload_id), media_type, ex=UPLOAD_KEPT_S)
        store = self._blobs.store
        return Upload(
            id=upload_id,
            size_bytes=size_bytes,
            media_type=media_type,
            put_url=store.presigned_put(key, size_bytes, media_type, expires_s=URL_S),
            form=store.presigned_post(key, size_bytes, media_type, expires_s=URL_S),
            created_ms=int(upload_id[4:16], 16),
        )

    async def find(self, upload_id: str, tenant: str) -> ObjectFacts | None:
        """What has arrived of the tenant's upload; None where nothing has.

        Raises:
            NotFound: This is no upload's id.
            BlobsUnavailable: S3 is away.
        """
        if not UPLOAD_ID.fullmatch(upload_id):
            raise NotFound("there is no upload with this id")
        try:
            return await self._blobs.facts(upload_key(tenant, upload_id))
        except InputUnavailable:
            return None

    async def announced_type(self, upload_id: str, tenant: str) -> str | None:
        """The media type that the tenant's upload was announced with; None where it wasn't within a day.

        Raises:
            StoreUnavailable: Redis is away.
        """
        async with store_call():
            return cast("str | None", await self._client.get(announced_key(tenant, upload_id)))
