"""Chat completions in the OpenAI wire format: tasks of high priority, answered within the request."""

from __future__ import annotations

import contextlib
import math
import secrets
from dataclasses import replace

from fastapi import APIRouter, Request, Response
from sse_starlette import EventSourceResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message

from api_gateway.idempotency import idempotency_key
from api_gateway.json_bodies import read_json
from api_gateway.openai_wire.streaming import ChatStream
from api_gateway.openai_wire.texts import read_answer
from api_gateway.routes.documentation import IDEMPOTENCY_PARAMETER, json_body, openai_problems
from api_gateway.services import Services, caller_of, services_of
from api_gateway.waiting import wait_for_end
from contract.errors import DeadlineExceeded, FleetError, GatewayStopping
from contract.openai_wire.answers import ChatCompletion
from contract.openai_wire.requests import ChatRequest
from contract.openai_wire.translation import translate
from contract.planning import PlannedTask
from contract.record import TaskRecord

router = APIRouter(tags=["openai"])


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={
        200: {
            "content": {"text/event-stream": {}},
            "description": "The answer, or with stream its chunks",
        },
        **openai_problems(400, 401, 403, 404, 410, 413, 415, 429, 500, 503, 504),
    },
    openapi_extra={**json_body(ChatRequest), "parameters": [IDEMPOTENCY_PARAMETER]},
)
async def complete_chat(request: Request) -> Response:
    """Answer a conversation, with pictures in it or without. A caller who goes away cancels it."""
    services, tenant = services_of(request), await caller_of(request)
    key = idempotency_key(request)
    chat = await read_json(request, ChatRequest)
    translated = translate(chat, deadline_s=math.ceil(services.settings.chat_s))
    with translated.pointing_back():
        body = translated.body
        plan = await services.planner.plan(body, tenant, request.state.trace)
        accepted = await services.submitter.submit(_seeded(plan), tenant, key, body.hash() if key else "-")
    if accepted.created:
        services.metrics.tasks_accepted.labels(plan.spec.model, plan.spec.kind).inc()
    if chat.stream:
        return _streamed(accepted.record, chat, services, keep=bool(key))
    record = await _ended(accepted.record, services, request, keep=bool(key))
    answer = ChatCompletion.of(record, chat.model, await read_answer(record, services.blobs))
    return Response(answer.model_dump_json(), media_type="application/json")


def _seeded(plan: PlannedTask) -> PlannedTask:
    """A streamed sample gets a seed, so that another attempt writes the same again."""
    options = plan.spec.options
    if not options.stream or not options.temperature or options.seed is not None:
        return plan
    options = options.model_copy(update={"seed": secrets.randbelow(2**63)})
    return replace(plan, spec=plan.spec.model_copy(update={"options": options}))


def _streamed(record: TaskRecord, chat: ChatRequest, services: Services, *, keep: bool) -> Response:
    async def on_close(_message: Message) -> None:
        if not keep:
            await _let_go(record, services)

    stream = ChatStream(
        record=record,
        model=chat.model,
        includes_usage=chat.includes_usage,
        wait_s=services.settings.chat_s,
        events=services.events,
        records=services.records,
        blobs=services.blobs,
    )
    return EventSourceResponse(
        stream.chunks(), ping=services.settings.events_ping_s, sep="\n", client_close_handler_callable=on_close
    )


async def _ended(record: TaskRecord, services: Services, request: Request, *, keep: bool) -> TaskRecord:
    """The task once it has ended.

    One that nobody waits for any more is canceled, unless it is to be ``keep``-t for a repetition of the request.
    """
    wait_s = services.settings.chat_s
    record = await wait_for_end(record, wait_s, records=services.records, endings=services.endings, request=request)
    if record.status.ended:
        return record
    if not keep:
        await _let_go(record, services)
    if await request.is_disconnected():
        raise ClientDisconnect
    if services.endings.stopping:
        raise GatewayStopping("the gateway is going away; ask again")
    raise DeadlineExceeded(f"the answer wasn't there after {wait_s:g} s")


async def _let_go(record: TaskRecord, services: Services) -> None:
    """Cancel a task whose answer nobody will read; where that fails its deadline ends it."""
    with contextlib.suppress(FleetError):
        await services.changes.cancel(record.id, record.tenant)
