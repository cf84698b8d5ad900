"""A tenant's tasks, newest first."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.datastructures import QueryParams

from api_gateway.cursors import read_cursor, write_cursor
from api_gateway.errors import Refused
from api_gateway.records import TASK_ID
from api_gateway.routes.documentation import problems
from api_gateway.services import Caller, SharedServices
from api_gateway.views import TaskListView, TaskView
from contract.catalogue import TaskKind
from contract.errors import InvalidRequest
from contract.record import TaskRecord
from contract.task import TaskStatus

router = APIRouter(tags=["tasks"])

_METADATA_PARAMETER = re.compile(r"metadata\[(.{1,64})\]")

_PARAMETERS = {"status", "model", "kind", "limit", "cursor"}


@router.get("/v1/tasks", responses=problems(401, 422, 503))
async def list_tasks(
    request: Request,
    tenant: Caller,
    services: SharedServices,
    status: TaskStatus | None = None,
    model: Annotated[str | None, Query(max_length=128)] = None,
    kind: TaskKind | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: str | None = None,
) -> TaskListView:
    """List tasks, newest first. Filter by metadata with `metadata[key]=value`.

    A filtered page may be short, even empty, and still lead on: follow `next_cursor` until it is null.
    """
    metadata = _metadata(request.query_params)
    matches: Callable[[TaskRecord], bool] | None = None
    if status or model or kind or metadata:

        def matches(record: TaskRecord) -> bool:
            spec = record.spec
            return (
                (status is None or record.status is status)
                and (model is None or spec.model == model)
                and (kind is None or spec.kind == kind)
                and metadata.items() <= spec.metadata.items()
            )

    after = read_cursor(cursor, TASK_ID)[0] if cursor is not None else None
    page = await services.records.page(tenant.id, limit=limit, after=after, matches=matches)
    views = [TaskView.of(record, services.blobs.store) for record in page.records]
    return TaskListView(data=views, next_cursor=write_cursor(page.next_after) if page.next_after else None)


def _metadata(parameters: QueryParams) -> dict[str, str]:
    """The metadata that is asked for; an unknown parameter is refused rather than ignored."""
    wanted = {}
    for name, value in parameters.multi_items():
        match = _METADATA_PARAMETER.fullmatch(name)
        if match:
            wanted[match[1]] = value
        elif name not in _PARAMETERS:
            raise Refused.parameter(name[:64], InvalidRequest("this list has no such parameter"))
    return wanted
