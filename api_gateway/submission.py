"""Accepts a task: its bytes into the blob store, then one script (law 2)."""

from __future__ import annotations

from dataclasses import dataclass

from api_gateway.blob_calls import Blob, BlobCalls, BlobCopy
from api_gateway.errors import Refused
from api_gateway.records import Records
from api_gateway.submission_batches import SubmissionBatches
from api_gateway.uploads import UploadedInput, Uploads
from contract import submissions
from contract.blobs import input_key, task_prefixes, upload_key
from contract.errors import (
    Gone,
    IdempotencyConflict,
    InputUnavailable,
    QueueFull,
    StoreFull,
    TenantQueueFull,
    TooLarge,
)
from contract.planning import PlannedTask
from contract.record import TaskRecord
from contract.task import ObjectInput, TaskSpec, TaskStatus, UrlInput, new_task_id
from contract.tenants import Tenant


@dataclass(frozen=True)
class Accepted:
    """A task that is durable.

    Attributes:
        record: The task as it stands.
        created: False where the idempotency key stood for an earlier task.
    """

    record: TaskRecord
    created: bool


@dataclass(frozen=True)
class Submitter:
    """Makes planned tasks durable."""

    batches: SubmissionBatches
    records: Records
    blobs: BlobCalls
    uploads: Uploads
    queue_max_waiting_parts: int
    queue_max_bytes: int

    async def submit(self, plan: PlannedTask, tenant: Tenant, idempotency_key: str, body_hash: str) -> Accepted:
        """Store the task; a reply means that it is durable.

        Raises:
            Refused: The idempotency key was used with another body.
            Gone: The idempotency key stands for a task that was purged.
            InputUnavailable: Nothing was uploaded under an id.
            TooLarge: Its own bytes alone are over a limit of waiting ones.
            TenantQueueFull, QueueFull: Too many parts, or bytes of inputs, wait.
            StoreFull: Redis is out of memory; nothing was accepted.
            StoreUnavailable: Redis is away; the task may or may not have been accepted.
            BlobsUnavailable: S3 is away; nothing was accepted.
        """
        task_id = new_task_id()
        prefix, _ = task_prefixes(tenant.id, task_id)
        if not all(isinstance(item, UrlInput | ObjectInput) for item in plan.inputs):
            # Nothing is stored for a queue that is away, or for a task that is there.
            known = await self.records.by_idempotency_key(tenant.id, idempotency_key)
            if known is not None:
                return await self._known(*known, body_hash)
        spec, blobs = await place_inputs(plan, tenant.id, task_id, self.blobs.store.bucket, self.uploads)
        size_bytes = sum(blob.size_bytes for blob in blobs)
        submission = self._submission(spec, plan, tenant, task_id, size_bytes, idempotency_key, body_hash)
        if blobs:
            await self.blobs.put_all(prefix, blobs)
        # Where the reply gets lost the script may have run: the inputs stay, as the task may need them.
        try:
            submitted = await self.batches.send(submission)
        except StoreFull:
            await self.blobs.delete_leftovers(prefix)
            raise
        if submitted.created_ms is not None:
            return Accepted(_new_record(task_id, tenant.id, spec, submitted.created_ms), created=True)
        if blobs:
            await self.blobs.delete_leftovers(prefix)
        _raise_refusal(submitted.outcome)
        return await self._known(submitted.task_id, body_hash, body_hash)

    async def _known(self, task_id: str, known_hash: str, body_hash: str) -> Accepted:
        """The task that the idempotency key stands for."""
        if known_hash != body_hash:
            _raise_refusal("conflict")
        record = await self.records.read(task_id)
        if record is None:
            raise Gone(f"the idempotency key stands for {task_id}, which was purged")
        return Accepted(record, created=False)

    def _submission(
        self,
        spec: TaskSpec,
        plan: PlannedTask,
        tenant: Tenant,
        task_id: str,
        size_bytes: int,
        idempotency_key: str,
        body_hash: str,
    ) -> submissions.Submission:
        """What the queue is told of the task."""
        most_bytes = min(tenant.max_waiting_bytes, self.queue_max_bytes)
        if size_bytes > most_bytes:
            raise TooLarge(f"the inputs have {size_bytes} bytes; {most_bytes} may wait")
        return submissions.Submission(
            task_id=task_id,
            tenant=tenant.id,
            spec=spec,
            cost=spec.estimated_cost(plan.card),
            weight=tenant.weight,
            idempotency_key=idempotency_key,
            body_hash=body_hash,
            tenant_limit=tenant.max_waiting_parts,
            queue_limit=self.queue_max_waiting_parts,
            webhook=plan.webhook.model_dump_json() if plan.webhook else "",
            size_bytes=size_bytes,
            tenant_bytes_limit=tenant.max_waiting_bytes,
            queue_bytes_limit=self.queue_max_bytes,
            tenant_tasks_limit=tenant.max_unended_tasks,
        )


async def place_inputs(
    plan: PlannedTask, tenant: str, task_id: str, bucket: str, uploads: Uploads
) -> tuple[TaskSpec, list[Blob | BlobCopy]]:
    """The spec with every input's address, and what has to be stored at those of ours.

    Raises:
        Refused: Nothing was uploaded under an id.
        BlobsUnavailable: S3 is away.
    """
    if not plan.inputs:
        return plan.spec, []
    inputs: list[UrlInput | ObjectInput] = []
    blobs: list[Blob | BlobCopy] = []
    for index, item in enumerate(plan.inputs):
        if isinstance(item, UrlInput | ObjectInput):
            inputs.append(item)
            continue
        key = input_key(tenant, task_id, index)
        if isinstance(item, UploadedInput):
            blobs.append(await _copy_of(item, uploads, tenant, key))
        else:
            blobs.append(Blob(key, item.data, item.media_type, item.size_bytes))
        inputs.append(ObjectInput(bucket=bucket, key=key))
    return plan.spec.model_copy(update={"inputs": tuple(inputs)}), blobs


async def _copy_of(item: UploadedInput, uploads: Uploads, tenant: str, key: str) -> BlobCopy:
    """What binds an upload to a task: a copy, which nobody can write over."""
    facts = await uploads.find(item.upload_id, tenant)
    if facts is None:
        raise Refused.at(item.pointer, InputUnavailable("nothing has been uploaded under this id"))
    return BlobCopy(key, upload_key(tenant, item.upload_id), facts.size_bytes)


def _new_record(task_id: str, tenant: str, spec: TaskSpec, created_ms: int) -> TaskRecord:
    """The record as the script has just written it."""
    return TaskRecord(
        id=task_id,
        tenant=tenant,
        status=TaskStatus.QUEUED,
        spec=spec,
        parts_total=0 if spec.is_planned else 1,
        parts_done=0,
        parts_failed=0,
        attempts=0,
        created_ms=created_ms,
        deadline_ms=created_ms + 1000 * spec.deadline_s if spec.deadline_s else None,
        started_ms=None,
        ended_ms=None,
        expires_ms=None,
        error=None,
        result=None,
        planned=spec.is_planned,
        stage="planning" if spec.is_planned else None,
    )


def _raise_refusal(outcome: str) -> None:
    if outcome == "conflict":
        raise Refused.parameter("Idempotency-Key", IdempotencyConflict("the key was used with another body"))
    if outcome == "tenant_full":
        raise TenantQueueFull("as many of your tasks, or bytes of their inputs, wait as may; try again later")
    if outcome == "queue_full":
        raise QueueFull("the model's queue is full; try again later")
