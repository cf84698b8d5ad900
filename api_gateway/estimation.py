"""Has a task's cost estimated by an io worker: the gateway itself reads no media."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from uuid import uuid4

import redis.asyncio

from api_gateway.blob_calls import BlobCalls
from api_gateway.store_calls import store_call
from api_gateway.submission import place_inputs
from api_gateway.uploads import Uploads
from contract.blobs import task_prefixes
from contract.errors import EstimateLate, InternalError, QueueFull, all_errors
from contract.estimates import (
    MAX_QUESTIONS,
    QUESTIONS_KEY,
    Estimate,
    EstimateAnswer,
    EstimateQuestion,
    answer_key,
)
from contract.planning import PlannedTask
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
                ``QueueFull`` where too many questions wait, or what of ours is away.
        """
        question_id = f"estimate_{uuid4().hex}"
        prefix, _ = task_prefixes(tenant.id, question_id)
        spec, blobs = await place_inputs(plan, tenant.id, question_id, self.blobs.store.bucket, self.uploads)
        try:
            if blobs:
                await self.blobs.put_all(prefix, blobs)
            answer = await self._ask(question_id, spec.model_dump(mode="json"))
        finally:
            if blobs:
                await self.blobs.delete_leftovers(prefix)
        if answer.error is not None:
            raise all_errors().get(answer.error.code, InternalError)(answer.error.detail)
        assert answer.estimate is not None
        return answer.estimate

    async def _ask(self, question_id: str, spec: object) -> EstimateAnswer:
        async with store_call():
            if await self.client.llen(QUESTIONS_KEY) >= MAX_QUESTIONS:
                raise QueueFull(f"{MAX_QUESTIONS} estimates wait already; try again later")
            seconds, _ = await self.client.time()
            until_ms = int(1000 * (int(seconds) + self.wait_s))
            question = EstimateQuestion.model_validate({"id": question_id, "spec": spec, "until_ms": until_ms})
            await self.client.lpush(QUESTIONS_KEY, question.model_dump_json())
        ends = time.monotonic() + self.wait_s
        while time.monotonic() < ends:
            async with store_call():
                reply = await self.client.blpop([answer_key(question_id)], timeout=_LOOK_S)
            if reply is not None:
                return EstimateAnswer.model_validate_json(reply[1])
            await asyncio.sleep(0)
        raise EstimateLate(f"no io worker answered within {self.wait_s:g} seconds; try again later")
