"""What a task would take, before it runs."""

from __future__ import annotations

from fastapi import APIRouter, Request

from api_gateway.bodies import ReadBody
from api_gateway.routes.documentation import problems, task_body
from api_gateway.services import Caller, SharedServices
from contract.estimates import Estimate

router = APIRouter(tags=["tasks"])


@router.post(
    "/v1/tasks:estimate",
    responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=task_body(),
)
async def estimate_task(request: Request, tenant: Caller, services: SharedServices) -> Estimate:
    """Estimate a task: the same body as for handing it in. Inputs are looked at, nothing is run or kept."""
    async with ReadBody(request) as body:
        plan = await services.planner.plan(body, tenant)
        return await services.estimator.estimate(plan, tenant)
