"""Answers that tell of one task."""

from __future__ import annotations

from fastapi import Response

from api_gateway.services import Services
from api_gateway.views import TaskView, task_path
from contract.record import TaskRecord

#: Seconds after which it is worth to ask for a running task again.
_POLL_AFTER_S = 1


def task_response(record: TaskRecord, services: Services, status_code: int = 200) -> Response:
    """The task as it stands."""
    view = TaskView.of(record, services.blobs.store)
    return Response(view.model_dump_json(), status_code=status_code, media_type="application/json")


def pending_response(record: TaskRecord, services: Services) -> Response:
    """202: what was asked for has yet to happen; the headers say where and when to ask again."""
    response = task_response(record, services, status_code=202)
    response.headers["Location"] = task_path(record.id)
    response.headers["Retry-After"] = str(_POLL_AFTER_S)
    return response
