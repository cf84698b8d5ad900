"""The whole fleet, for operators: a key with the scope admin sees what all tenants have."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api_gateway.cursors import read_cursor, write_cursor
from api_gateway.dead_letters import Mark
from api_gateway.moments import Moment, moment
from api_gateway.records import TASK_ID
from api_gateway.routes.documentation import problems
from api_gateway.services import Admin, Services, SharedServices
from api_gateway.views import DeadLetterView, TaskView

router = APIRouter(tags=["admin"], prefix="/v1/admin")

_MARK = re.compile(rf"([0-9]{{1,15}})\.({TASK_ID.pattern})")

_Tenant = Annotated[str | None, Query(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="only this tenant's")]
_Limit = Annotated[int, Query(ge=1, le=100)]


class QueueView(BaseModel):
    """A model's queue."""

    queue: str
    workers: int
    slots: int = Field(description="parts that the live workers take at once")
    waiting: int
    running: int
    delayed: int = Field(description="parts that rest before they wait again")
    waiting_by_tenant: dict[str, int] = Field(description="parts that wait for their first attempt")


class QueueListView(BaseModel):
    """Every queue that was ever used."""

    data: list[QueueView]


class WorkerView(BaseModel):
    """A live worker."""

    worker: str
    queue: str
    slots: int
    held: int = Field(description="parts under its leases")
    seen_at: Moment


class WorkerListView(BaseModel):
    """Every live model worker."""

    data: list[WorkerView]


class OwnedTaskView(BaseModel):
    """A task, and whose it is."""

    tenant: str
    task: TaskView


class OwnedTaskListView(BaseModel):
    """One page of the tasks of all tenants."""

    data: list[OwnedTaskView]
    next_cursor: str | None = Field(description="leads to the next page; null on the last")


class OwnedDeadLetterView(BaseModel):
    """A dead letter, and whose it is."""

    tenant: str
    dead_letter: DeadLetterView


class OwnedDeadLetterListView(BaseModel):
    """One page of the dead letters of all tenants."""

    data: list[OwnedDeadLetterView]
    next_cursor: str | None = Field(description="leads to the next page; null on the last")


@router.get("/queues", responses=problems(401, 403, 429, 503))
async def list_queues(_admin: Admin, services: SharedServices) -> QueueListView:
    """List every queue, and whose parts wait in it."""
    queues = await services.fleet.queues()
    views = [
        QueueView(
            queue=queue.name,
            workers=queue.stats.workers,
            slots=queue.stats.slots,
            waiting=queue.stats.waiting,
            running=queue.stats.running,
            delayed=queue.delayed,
            waiting_by_tenant=queue.waiting_by_tenant,
        )
        for queue in queues
    ]
    return QueueListView(data=views)


@router.get("/workers", responses=problems(401, 403, 429, 503))
async def list_workers(_admin: Admin, services: SharedServices) -> WorkerListView:
    """List every live model worker."""
    views = [
        WorkerView(
            worker=worker.name,
            queue=worker.queue,
            slots=worker.slots,
            held=worker.held,
            seen_at=moment(worker.seen_ms),
        )
        for worker in await services.fleet.workers()
    ]
    return WorkerListView(data=views)


@router.get("/tasks", responses=problems(401, 403, 422, 429, 503))
async def list_all_tasks(
    _admin: Admin, services: SharedServices, tenant: _Tenant = None, limit: _Limit = 20, cursor: str | None = None
) -> OwnedTaskListView:
    """List the tasks of all tenants of the tenants file, newest first; with `tenant=`, of one that may have left it."""
    after = read_cursor(cursor, TASK_ID)[0] if cursor is not None else None
    page = await services.fleet.tasks(_whose(tenant, services), limit=limit, after=after)
    views = [
        OwnedTaskView(tenant=record.tenant, task=TaskView.of(record, services.blobs.store)) for record in page.records
    ]
    return OwnedTaskListView(data=views, next_cursor=write_cursor(page.next_after) if page.next_after else None)


@router.get("/dead-letters", responses=problems(401, 403, 422, 429, 503))
async def list_all_dead_letters(
    _admin: Admin, services: SharedServices, tenant: _Tenant = None, limit: _Limit = 20, cursor: str | None = None
) -> OwnedDeadLetterListView:
    """List the dead letters of all tenants of the tenants file, the last to die first."""
    match = read_cursor(cursor, _MARK) if cursor is not None else None
    after = Mark(int(match[1]), match[2]) if match else None
    page = await services.fleet.dead_letters(_whose(tenant, services), limit=limit, after=after)
    views = [
        OwnedDeadLetterView(tenant=letter.record.tenant, dead_letter=DeadLetterView.of(letter, services.blobs.store))
        for letter in page.letters
    ]
    mark = page.next_after
    cursor_after = write_cursor(f"{mark.ended_ms}.{mark.task_id}") if mark else None
    return OwnedDeadLetterListView(data=views, next_cursor=cursor_after)


def _whose(tenant: str | None, services: Services) -> list[str]:
    return [tenant] if tenant else [known.id for known in services.tenants.current.tenants]
