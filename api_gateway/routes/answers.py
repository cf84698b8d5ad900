"""Answers that tell of one task."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Response

from api_gateway.services import Services
from api_gateway.views import TaskView, task_path
from contract.record import TaskRecord

#: Seconds after which it is worth to ask for a running task again.
_POLL_AFTER_S = 1


def task_response(
    record: TaskRecord, services: Services, status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The task as it stands."""
    view = TaskView.of(record, services.blobs.store)
    return Response(view.model_dump_json(), status_code, headers, "application/json")


def pending_response(record: TaskRecord, services: Services) -> Response:
    """202: what was asked for has yet to happen; the headers say where and when to ask again."""
    headers = {"Location": task_path(record.id), "Retry-After": str(_POLL_AFTER_S)}
    return task_response(record, services, 202, headers)
