"""A tenant's files: what its batches read, and what they wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio

from api_gateway.blob_calls import BlobCalls
from api_gateway.errors import Refused
from api_gateway.pages import IdPage, read_id_page
from api_gateway.store_calls import store_call
from contract.errors import Gone, IdempotencyConflict, InputUnavailable, NotFound, StoreFull, TooLarge, WrongStatus
from contract.files import (
    FILE_FIELDS,
    FilePurpose,
    FileRecord,
    NewFile,
    add_file,
    file_blob_key,
    file_index_key,
    file_key,
    file_prefix,
    new_file_id,
    read_file,
    remove_file,
)
from contract.redis_io import run_async
from contract.store import purged_key
from contract.task_bodies import SpooledFile
from contract.tenants import Tenant

FILE_ID = re.compile(r"file-[0-9a-f]{32}")


@dataclass(frozen=True)
class Incoming:
    """A file that is about to be kept.

    Attributes:
        kept_s: Seconds after which it is deleted.
        content_hash: Tells two uploads under one idempotency key apart.
    """

    filename: str
    spooled: SpooledFile
    kept_s: int
    idempotency_key: str
    content_hash: str


class Files:
    """Keeps files, finds them again, lets them go. Raises ``StoreUnavailable`` where Redis is away."""

    def __init__(self, client: redis.asyncio.Redis, blobs: BlobCalls) -> None:
        self._client = client
        self._blobs = blobs

    async def add(self, incoming: Incoming, tenant: Tenant) -> FileRecord:
        """Store a file for batches; a reply means that it is durable.

        Raises:
            TooLarge: The tenant's files would have more bytes than they may.
            Refused: The idempotency key was used with another file.
            Gone: The idempotency key stands for a file that was deleted.
            BlobsUnavailable: S3 is away.
        """
        file_id, spooled = new_file_id(), incoming.spooled
        key = file_blob_key(tenant.id, file_id, 0)
        new = NewFile(
            id=file_id,
            tenant=tenant.id,
            purpose="batch",
            filename=incoming.filename,
            blob=key,
            size_bytes=spooled.size_bytes,
            kept_s=incoming.kept_s,
            tenant_bytes_limit=tenant.max_file_bytes,
            idempotency_key=incoming.idempotency_key,
            content_hash=incoming.content_hash,
        )
        prefix = file_prefix(tenant.id, file_id)
        await self._blobs.put_file(prefix, key, spooled)
        # Where the reply gets lost the script may have run: the bytes stay, and are swept if it hasn't.
        try:
            async with store_call():
                outcome, known_id = await run_async(self._client, add_file(new))
        except StoreFull:
            await self._blobs.delete_leftovers(prefix)
            raise
        if outcome != "created":
            await self._blobs.delete_leftovers(prefix)
        if outcome == "tenant_full":
            raise TooLarge(f"the tenant's files may have {tenant.max_file_bytes} bytes in all; delete some first")
        if outcome == "conflict":
            error = IdempotencyConflict("the key was used with another file")
            raise Refused.parameter("Idempotency-Key", error)
        return await self.find(known_id, tenant.id)

    async def find(self, file_id: str, tenant: str) -> FileRecord:
        """The tenant's file.

        Raises:
            NotFound: There is none, or it is another tenant's.
            Gone: It was deleted.
        """
        if FILE_ID.fullmatch(file_id):
            async with store_call():
                values = await cast(Any, self._client).hmget(file_key(file_id), FILE_FIELDS)
            record = read_file(file_id, values)
            if record is not None and record.tenant == tenant:
                return record
            async with store_call():
                owner = await self._client.get(purged_key(file_id))
            if owner == tenant:
                raise Gone("the file was deleted")
        raise NotFound("there is no file with this id")

    async def page(self, tenant: str, wanted: IdPage, purpose: FilePurpose | None) -> tuple[list[FileRecord], bool]:
        """Some of the tenant's files in the order of their ids, and whether there are more."""

        async def read(ids: list[str]) -> list[FileRecord | None]:
            async with self._client.pipeline(transaction=False) as pipe:
                for file_id in ids:
                    pipe.hmget(file_key(file_id), FILE_FIELDS)
                async with store_call():
                    replies = await pipe.execute()
            return [read_file(file_id, values) for file_id, values in zip(ids, replies, strict=True)]

        keeps = None if purpose is None else lambda record: record.purpose == purpose
        return await read_id_page(self._client, file_index_key(tenant), wanted, read, keeps)

    async def content(self, record: FileRecord) -> bytes:
        """The bytes of a short file.

        Raises:
            Gone: They aren't there any more.
            BlobsUnavailable: S3 is away.
        """
        try:
            return await self._blobs.get(record.blob)
        except InputUnavailable as exc:
            raise Gone("the file was deleted") from exc

    def address(self, record: FileRecord) -> str:
        """A presigned URL that reads the file. Reaches nobody."""
        return self._blobs.store.presigned_get(self._blobs.store.bucket, record.blob)

    async def remove(self, file_id: str, tenant: str) -> None:
        """Delete a file. Bytes that can't be deleted at once are swept later.

        Raises:
            NotFound: There is none, or it is another tenant's.
            Gone: It was deleted before.
            WrongStatus: A batch that hasn't ended reads it.
        """
        await self.find(file_id, tenant)
        async with store_call():
            outcome = await run_async(self._client, remove_file(file_id, tenant))
        if outcome == "in_use":
            raise WrongStatus("a batch that hasn't ended reads this file; cancel it first")
        await self._blobs.delete_leftovers(file_prefix(tenant, file_id))
