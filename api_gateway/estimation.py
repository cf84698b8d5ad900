"""Has a task's cost estimated by an io worker: the gateway itself reads no media."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

import redis.asyncio

from api_gateway.blob_calls import BlobCalls
from api_gateway.errors import Refused
from api_gateway.store_calls import store_call
from api_gateway.submission import place_inputs
from api_gateway.uploads import UploadedInput, Uploads
from contract.blobs import task_prefixes, upload_key
from contract.errors import (
    EstimateLate,
    InputUnavailable,
    InternalError,
    QueueFull,
    StoreUnavailable,
    TenantQueueFull,
    all_errors,
)
from contract.estimates import (
    MAX_QUESTIONS,
    Estimate,
    EstimateAnswer,
    EstimateQuestion,
    answer_key,
    ask,
    asked_key,
)
from contract.planning import PlannedInput, PlannedTask
from contract.redis_io import run_async
from contract.task import ObjectInput, TaskSpec
from contract.tenants import Tenant

#: Seconds for which one call of Redis waits; below the driver's own limit.
_LOOK_S = 1


@dataclass(frozen=True)
class Estimator:
    """Asks for estimates.

    Attributes:
        wait_s: Longest time that an io worker may take.
    """

    client: redis.asyncio.Redis
    blobs: BlobCalls
    uploads: Uploads
    wait_s: float

    async def estimate(self, plan: PlannedTask, tenant: Tenant) -> Estimate:
        """What the task would take. Inline bytes lie in the blob store meanwhile.

        Raises:
            FleetError: What is wrong with an input; ``EstimateLate`` where no io worker answered in time,
                ``TenantQueueFull`` or ``QueueFull`` where too many questions wait, or what of ours is away.
        """
        question_id = f"estimate_{uuid4().hex}"
        prefix, _ = task_prefixes(tenant.id, question_id)
        plan = replace(plan, inputs=tuple([await self._where_it_lies(item, tenant.id) for item in plan.inputs]))
        spec, blobs = await place_inputs(plan, tenant.id, question_id, self.blobs.store.bucket, self.uploads)
        try:
            if blobs:
                await self.blobs.put_all(prefix, blobs)
            answer = await self._ask(question_id, spec, tenant)
        finally:
            if blobs:
                await self.blobs.delete_leftovers(prefix)
        if answer.error is not None:
            error = all_errors().get(answer.error.code, InternalError)(answer.error.detail)
            if answer.error.pointer:
                raise Refused.at(answer.error.pointer, error)
            raise error
        assert answer.estimate is not None
        return answer.estimate

    async def _where_it_lies(self, item: PlannedInput, tenant: str) -> PlannedInput:
        """An upload as the object that it is: a look needs no copy."""
        if not isinstance(item, UploadedInput):
            return item
        if await self.uploads.find(item.upload_id, tenant) is None:
            raise Refused.at(item.pointer, InputUnavailable("nothing has been uploaded under this id"))
        return ObjectInput(bucket=self.blobs.store.bucket, key=upload_key(tenant, item.upload_id))

    async def _ask(self, question_id: str, spec: TaskSpec, tenant: Tenant) -> EstimateAnswer:
        async with store_call():
            seconds, _ = await self.client.time()
            until_ms = int(1000 * (int(seconds) + self.wait_s))
            question = EstimateQuestion(id=question_id, spec=spec, until_ms=until_ms)
            outcome = await run_async(self.client, ask(question, tenant.id, tenant.max_waiting_estimates))
        if outcome == "tenant_full":
            most = tenant.max_waiting_estimates
            raise TenantQueueFull(f"{most} of your estimates wait for their answer; the limit is {most}")
        if outcome == "queue_full":
            raise QueueFull(f"{MAX_QUESTIONS} estimates wait already; try again later")
        try:
            return await self._answer(question_id)
        finally:
            with suppress(StoreUnavailable):  # then it leaves the count when the wait would have ended
                async with store_call():
                    await self.client.zrem(asked_key(tenant.id), question_id)

    async def _answer(self, question_id: str) -> EstimateAnswer:
        ends = time.monotonic() + self.wait_s
        while time.monotonic() < ends:
            async with store_call():
                reply = await self.client.blpop([answer_key(question_id)], timeout=_LOOK_S)
            if reply is not None:
                return EstimateAnswer.model_validate_json(reply[1])
            await asyncio.sleep(0)
        raise EstimateLate(f"no io worker answered within {self.wait_s:g} seconds; try again later")
