"""Tasks: hand in, read, cancel, retry, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api_gateway.bodies import ReadBody
from api_gateway.idempotency import idempotency_key
from api_gateway.routes.answers import pending_response, task_response
from api_gateway.routes.documentation import IDEMPOTENCY_PARAMETER, problems, task_body
from api_gateway.services import Caller, Services, SharedServices, caller_of, services_of
from api_gateway.views import TaskView, task_path
from api_gateway.waiting import preferred_wait_s, wait_for_end
from contract.record import TaskRecord
from contract.task import TaskStatus

router = APIRouter(tags=["tasks"])


@router.post(
    "/v1/tasks",
    status_code=202,
    response_model=TaskView,
    responses={
        200: {"model": TaskView, "description": "The task has ended within the wait that was asked for"},
        **problems(400, 401, 403, 410, 413, 415, 422, 429, 503),
    },
    openapi_extra={
        **task_body(),
        "parameters": [
            {"name": "Prefer", "in": "header", "schema": {"type": "string"}, "example": "wait=30"},
            IDEMPOTENCY_PARAMETER,
        ],
    },
)
async def submit_task(request: Request) -> Response:
    """Hand in a task. 202 means that it is durable and will end."""
    # The busiest route does without FastAPI's dependencies, which take as long as the rest of it.
    services, tenant = services_of(request), await caller_of(request)
    key = idempotency_key(request)
    async with ReadBody(request) as body:
        plan = await services.planner.plan(body, tenant, request.state.trace)
        if plan.webhook is not None:
            services.webhooks.check_on("/webhook")
        accepted = await services.submitter.submit(plan, tenant, key, body.hash() if key else "-")
    if accepted.created:
        services.metrics.tasks_accepted.labels(plan.spec.model, plan.spec.kind).inc()
    record = accepted.record
    wait_s = min(preferred_wait_s(request.headers), services.settings.max_wait_s)
    if wait_s > 0:
        record = await _wait(record, wait_s, services, request)
    if not record.status.ended or (accepted.created and not wait_s):
        return pending_response(record, services)
    response = task_response(record, services)
    response.headers["Location"] = task_path(record.id)
    if wait_s > 0:
        response.headers["Preference-Applied"] = "wait"
    return response


@router.get("/v1/tasks/{task_id}", response_model=TaskView, responses=problems(401, 404, 410, 422, 503))
async def read_task(
    request: Request,
    task_id: str,
    tenant: Caller,
    services: SharedServices,
    wait: Annotated[float, Query(ge=0, allow_inf_nan=False, description="seconds to wait for the task's end")] = 0,
) -> Response:
    """Read a task, if asked to after waiting for its end."""
    record = await services.records.find(task_id, tenant.id)
    wait_s = min(wait, services.settings.max_wait_s)
    if wait_s > 0:
        record = await _wait(record, wait_s, services, request)
    return task_response(record, services)


@router.post(
    "/v1/tasks/{task_id}/cancel",
    response_model=TaskView,
    responses={
        202: {"model": TaskView, "description": "A worker is about to let go of the task"},
        **problems(401, 404, 410, 503),
    },
)
async def cancel_task(task_id: str, tenant: Caller, services: SharedServices) -> Response:
    """Ask for a task's end. One that has ended stays as it is."""
    record = await services.changes.cancel(task_id, tenant.id)
    if record.status is TaskStatus.CANCELING:
        return pending_response(record, services)
    return task_response(record, services)


@router.post(
    "/v1/tasks/{task_id}/retry",
    status_code=202,
    response_model=TaskView,
    responses=problems(401, 404, 409, 410, 422, 503),
    openapi_extra={"parameters": [IDEMPOTENCY_PARAMETER]},
)
async def retry_task(request: Request, task_id: str, tenant: Caller, services: SharedServices) -> Response:
    """Queue a failed task again, or the failed parts of one: a new run, with all attempts and the whole deadline.

    With an `Idempotency-Key` it may be repeated: one key makes one run.
    """
    key = idempotency_key(request)
    return pending_response(await services.changes.retry(task_id, tenant.id, key), services)


@router.delete("/v1/tasks/{task_id}", status_code=204, responses=problems(401, 404, 409, 410, 503))
async def delete_task(task_id: str, tenant: Caller, services: SharedServices) -> Response:
    """Purge an ended task: record, inputs and results. From then on its id is 410."""
    await services.changes.delete(task_id, tenant.id)
    return Response(status_code=204)


async def _wait(record: TaskRecord, wait_s: float, services: Services, request: Request) -> TaskRecord:
    return await wait_for_end(record, wait_s, records=services.records, endings=services.endings, request=request)
