"""What a receiver reads: a thin body that names the task; whoever wants the result fetches it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from contract.deliveries import HeldDelivery
from contract.error_info import ErrorInfo
from contract.task import TaskSpec, dumps
from contract.webhooks import HookEvent

#: Longest body, in bytes.
MAX_BODY_BYTES = 20_000

#: Characters of an error's detail that are told; the task holds the rest.
_MAX_DETAIL_CHARS = 1000


def render(held: HeldDelivery, public_url: str) -> str:
    """The body of a delivery: the same for every try, as the receiver's copy is told by its id.

    Args:
        held: The delivery.
        public_url: Where links begin; "" makes them paths.
    """
    if held.body is not None:
        return held.body
    event = held.delivery.event
    data = _task_data(event, held, public_url) if event.task else {"endpoint": held.delivery.endpoint}
    body = {"type": event.type, "timestamp": _moment(event.at_ms), "data": data}
    text = dumps(body)
    if len(text.encode()) <= MAX_BODY_BYTES:
        return text
    return dumps({**body, "data": {**data, "metadata": None}})  # all else is bounded far below the limit


def _task_data(event: HookEvent, held: HeldDelivery, public_url: str) -> dict[str, Any]:
    url = f"{public_url.rstrip('/')}/v1/tasks/{event.task}"
    spec = TaskSpec.model_validate_json(held.spec) if held.spec else None
    ended = event.type != "task.part.succeeded"
    data: dict[str, Any] = {
        "id": event.task,
        "kind": spec.kind if spec else None,
        "model": spec.model if spec else None,
        "operation": spec.operation if spec else None,
        "status": event.status,
        "run": event.run,
        "progress": {
            "parts_total": event.parts_total,
            "parts_done": event.parts_done,
            "parts_failed": event.parts_failed,
        },
        "created_at": _moment(held.task_created_ms) if held.task_created_ms else None,
        "started_at": _moment(event.started_ms) if event.started_ms else None,
        "ended_at": _moment(event.at_ms) if ended else None,
        "error": _error(event.error),
        "metadata": spec.metadata if spec else None,
        "url": url,
        "result_url": f"{url}/result" if event.type == "task.succeeded" else None,
    }
    if event.part is not None:
        data["part"] = event.part
    return data


def _error(error_json: str | None) -> dict[str, Any] | None:
    if not error_json:
        return None
    error = ErrorInfo(**json.loads(error_json))
    return {**error.model_dump(), "detail": error.detail[:_MAX_DETAIL_CHARS]}


def _moment(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
