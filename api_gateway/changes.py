"""What a caller may do with a task that is there: cancel, retry, discard, delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import redis.asyncio

from api_gateway.blob_calls import BlobCalls
from api_gateway.records import Records
from api_gateway.store_calls import store_call
from contract import store
from contract.blobs import task_prefixes
from contract.errors import Gone, NotFound, WrongStatus
from contract.record import TaskRecord
from contract.redis_io import run_async
from contract.scripting import Command

T = TypeVar("T")


@dataclass(frozen=True)
class Changes:
    """Changes the tasks of tenants.

    Every method raises ``NotFound`` or ``Gone`` for a task that isn't there, or is another tenant's, and
    ``StoreUnavailable`` where Redis is away: whether anything was changed is not known then.
    """

    client: redis.asyncio.Redis
    records: Records
    blobs: BlobCalls

    async def cancel(self, task_id: str, tenant: str) -> TaskRecord:
        """Ask for a task's end; the record after it. One that has ended stays as it is."""
        await self.records.find(task_id, tenant)
        await self._run(store.cancel(task_id, tenant))
        return await self.records.find(task_id, tenant)

    async def retry(self, task_id: str, tenant: str, idempotency_key: str = "") -> TaskRecord:
        """Queue the failed parts of a task again, as a new run; the record after it.

        Under an idempotency key that its last retry had, nothing changes any more.

        Raises:
            WrongStatus: The task hasn't failed, nor has any part of it; or its batch is about to end.
        """
        before = await self.records.find(task_id, tenant)
        # The script alone would take "queued" for its own work, repeated after a lost reply.
        asks = before.can_be_retried or idempotency_key != ""
        outcome = await self._run(store.retry(task_id, tenant, idempotency_key)) if asks else before.status
        if outcome == "gone":
            raise Gone("the task's retention has ended: it is being purged")
        if outcome == "missing":
            await self.records.raise_missing(task_id, tenant)
        if outcome.startswith("batch "):
            raise WrongStatus(f"the task is a line of a {outcome}: it can be retried once the batch has ended")
        if outcome != "retried" and not (before.can_be_retried and outcome == "queued"):
            raise WrongStatus(f"the task is {outcome}; only what failed can be retried: a task, or parts of it")
        return await self.records.find(task_id, tenant)

    async def was_retried(self, task_id: str, tenant: str, idempotency_key: str) -> bool:
        """Whether the task's last retry had this key."""
        await self.records.find(task_id, tenant)
        return await self.records.retry_key(task_id) == idempotency_key

    async def discard(self, task_id: str, tenant: str) -> None:
        """Take a task off the dead letters; it stays failed until its retention ends."""
        await self.records.find(task_id, tenant)
        if not await self._run(store.discard(task_id, tenant)):
            raise NotFound("this task isn't among the dead letters")

    async def delete(self, task_id: str, tenant: str) -> None:
        """Purge an ended task: its inputs and results, then its record.

        Raises:
            WrongStatus: The task hasn't ended.
            BlobsUnavailable: S3 is away. The task's retention has ended: it is purged when S3 is back.
        """
        await self.records.find(task_id, tenant)
        outcome = await self._run(store.end_retention(task_id, tenant))
        if outcome == "missing":
            await self.records.raise_missing(task_id, tenant)
        if outcome != "due":
            raise WrongStatus(f"the task is {outcome}: cancel it, and delete it once it has ended")
        await self.blobs.delete(task_prefixes(tenant, task_id))
        await self._run(store.purge(task_id))

    async def _run(self, command: Command[T]) -> T:
        async with store_call():
            return await run_async(self.client, command)
