"""What happens to a task, as it happens: Server-Sent Events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from api_gateway.errors import Refused
from api_gateway.routes.documentation import problems
from api_gateway.services import Caller, Services, SharedServices
from contract.errors import InvalidRequest
from contract.events import EVENT_ID, EventBody
from contract.record import TaskRecord

router = APIRouter(tags=["tasks"])

#: One event as the fields of its lines: how tools read a described stream.
_EVENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    "required": ["event", "data"],
}


@router.get(
    "/v1/tasks/{task_id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": _EVENT}}, "description": "Events, until the end"},
        204: {"description": "The task has ended, and nothing came after Last-Event-ID"},
        **problems(401, 404, 410, 422, 503),
    },
)
async def follow_task(
    task_id: str,
    tenant: Caller,
    services: SharedServices,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", description="resumes after this event")] = None,
) -> Response:
    """Follow a task: its statuses, parts that end, and text as it is written. Ends with the run."""
    if last_event_id is not None and not EVENT_ID.fullmatch(last_event_id):
        raise Refused.parameter("Last-Event-ID", InvalidRequest("this isn't an id that a stream has given"))
    record = await services.records.find(task_id, tenant.id)
    past = await services.events.past(task_id, last_event_id)
    if last_event_id and record.status.ended and not past:
        return Response(status_code=204)
    stream = _stream(record, last_event_id, services, begins=bool(past) or last_event_id is not None)
    return EventSourceResponse(stream, ping=services.settings.events_ping_s, sep="\n")


async def _stream(
    record: TaskRecord, after: str | None, services: Services, *, begins: bool
) -> AsyncIterator[ServerSentEvent]:
    """The task's events; where there are none to begin with, its status comes first."""
    if not begins:
        yield _sent(EventBody(kind="status", run=record.run, status=record.status), None)
    with services.metrics.event_streams.track_inprogress():
        async with aclosing(services.events.follow(record, after)) as events:
            async for event in events:
                yield _sent(event.body, event.id)


def _sent(body: EventBody, event_id: str | None) -> ServerSentEvent:
    return ServerSentEvent(body.model_dump_json(exclude_none=True), event=body.kind, id=event_id, sep="\n")
