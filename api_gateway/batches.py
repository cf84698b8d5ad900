"""A tenant's batches: accepted, found again, canceled. What they do is the io workers' work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio

from api_gateway.errors import HTTP_STATUS, Refused, openai_status
from api_gateway.pages import IdPage, read_id_page
from api_gateway.store_calls import store_call
from contract.batch_changes import NewBatch, cancel_batch, create_batch
from contract.batches import BatchRecord, BatchTerms, batch_index_key, batch_key, new_batch_id
from contract.errors import Gone, IdempotencyConflict, InvalidRequest, NotFound, TenantQueueFull, WrongStatus
from contract.redis_io import run_async
from contract.store import purged_key
from contract.tenants import Tenant
from contract.tracing import TraceContext

BATCH_ID = re.compile(r"batch_[0-9a-f]{32}")

#: Statuses in which a batch can be canceled, or is being so.
_CANCELABLE = ("validating", "in_progress", "cancelling")


@dataclass(frozen=True)
class Ordered:
    """A batch as it was asked for.

    Attributes:
        window_s: Seconds that it may take.
        kept_s: Seconds for which its outputs are kept.
        body_hash: Tells two bodies under one idempotency key apart.
    """

    input_file: str
    endpoint: str
    completion_window: str
    window_s: int
    metadata: dict[str, str]
    kept_s: int
    trace: TraceContext
    idempotency_key: str
    body_hash: str


@dataclass(frozen=True)
class Batches:
    """Reads and changes batches. Raises ``StoreUnavailable`` where Redis is away.

    Attributes:
        queue_max_waiting_parts, queue_max_bytes: What a model's queue may hold.
        max_unended: Batches of one tenant that haven't ended.
    """

    client: redis.asyncio.Redis
    queue_max_waiting_parts: int
    queue_max_bytes: int
    max_unended: int

    async def create(self, ordered: Ordered, tenant: Tenant) -> BatchRecord:
        """Accept a batch; a reply means that it is durable.

        Raises:
            Refused: There is no such file of the tenant's, or it isn't one for batches; or the idempotency key was used
                with another body.
            Gone: The idempotency key stands for a batch that was forgotten.
            TenantQueueFull: As many of the tenant's batches haven't ended as may.
        """
        new = NewBatch(
            id=new_batch_id(),
            tenant=tenant.id,
            input_file=ordered.input_file,
            endpoint=ordered.endpoint,
            completion_window=ordered.completion_window,
            window_s=ordered.window_s,
            metadata=ordered.metadata,
            terms=self._terms(tenant, ordered.trace),
            kept_s=ordered.kept_s,
            tenant_limit=self.max_unended,
            idempotency_key=ordered.idempotency_key,
            body_hash=ordered.body_hash,
        )
        async with store_call():
            outcome, batch_id = await run_async(self.client, create_batch(new))
        if outcome == "no_file":
            raise Refused.at("/input_file_id", InvalidRequest("there is no file with this id"))
        if outcome == "other_purpose":
            raise Refused.at("/input_file_id", InvalidRequest("this file isn't one with the purpose batch"))
        if outcome == "full":
            raise TenantQueueFull(f"{self.max_unended} batches of yours haven't ended; try again later")
        if outcome == "conflict":
            raise Refused.parameter("Idempotency-Key", IdempotencyConflict("the key was used with another body"))
        return await self.find(batch_id, tenant.id)

    def _terms(self, tenant: Tenant, trace: TraceContext) -> BatchTerms:
        return BatchTerms(
            tenant=tenant.model_copy(update={"keys": (), "key_sha256": ()}),
            queue_max_waiting_parts=self.queue_max_waiting_parts,
            queue_max_bytes=self.queue_max_bytes,
            statuses={code: openai_status(code) for code in HTTP_STATUS},
            traceparent=str(trace),
            tracestate=trace.state,
        )

    async def find(self, batch_id: str, tenant: str) -> BatchRecord:
        """The tenant's batch.

        Raises:
            NotFound: There is none, or it is another tenant's.
            Gone: It was forgotten at the end of its time.
        """
        if BATCH_ID.fullmatch(batch_id):
            async with store_call():
                fields = await cast(Any, self.client).hgetall(batch_key(batch_id))
            if fields.get("tenant") == tenant:
                return BatchRecord.from_hash(batch_id, fields)
            async with store_call():
                owner = await self.client.get(purged_key(batch_id))
            if owner == tenant:
                raise Gone("the batch was purged at the end of its retention")
        raise NotFound("there is no batch with this id")

    async def page(self, tenant: str, wanted: IdPage) -> tuple[list[BatchRecord], bool]:
        """Some of the tenant's batches in the order of their ids, and whether there are more."""

        async def read(ids: list[str]) -> list[BatchRecord | None]:
            async with self.client.pipeline(transaction=False) as pipe:
                for batch_id in ids:
                    pipe.hgetall(batch_key(batch_id))
                async with store_call():
                    replies = await pipe.execute()
            pairs = zip(ids, replies, strict=True)
            return [BatchRecord.from_hash(batch_id, fields) if fields else None for batch_id, fields in pairs]

        return await read_id_page(self.client, batch_index_key(tenant), wanted, read)

    async def cancel(self, batch_id: str, tenant: str) -> BatchRecord:
        """Ask for a batch's end; reply how it stands.

        Raises:
            NotFound: There is none, or it is another tenant's.
            Gone: It was forgotten at the end of its time.
            WrongStatus: It has ended, or its outputs are being written.
        """
        await self.find(batch_id, tenant)
        async with store_call():
            status = await run_async(self.client, cancel_batch(batch_id, tenant))
        if status not in _CANCELABLE:
            raise WrongStatus(f"the batch is {status} and can't be canceled any more")
        return await self.find(batch_id, tenant)
