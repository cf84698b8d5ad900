"""Decides whether a task can be accepted, and what the workers are told of it. Reads no store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from contract.catalogue import CATALOGUE, ModelCard
from contract.egress import EgressPolicy
from contract.errors import ContextTooLong, Forbidden, InvalidRequest, S3NotAllowed, UrlNotAllowed
from contract.operations import DEFAULT_OPERATIONS, OPERATIONS
from contract.option_rules import check_history, check_options
from contract.pages import check_pages
from contract.prompt_book import PromptBook
from contract.refusals import Refused
from contract.requests import TaskInput, TaskRequest
from contract.task import MAX_IMAGES, ObjectInput, Operation, TaskSpec, UrlInput, dumps
from contract.task_bodies import InlineFile, SpooledFile, TaskBody, UploadedInput
from contract.tenants import Tenant
from contract.tracing import TraceContext
from contract.webhooks import TaskWebhook

#: A bucket's name by S3's rules, then a key.
_S3_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^\x00-\x1f\x7f]{1,1024})")

#: An input, before its bytes are stored.
PlannedInput = UrlInput | ObjectInput | InlineFile | SpooledFile | UploadedInput

#: Tokens that every prompt has beside its pictures, at the very least.
_LEAST_TEXT_TOKENS = 1


@dataclass(frozen=True)
class PlannedTask:
    """A task that may be accepted; its own bytes are not stored yet.

    Attributes:
        spec: What the workers need, without the inputs.
        inputs: The pictures, in order.
        card: The model.
        webhook: Who is told of the task, besides the tenant's endpoints.
    """

    spec: TaskSpec
    inputs: tuple[PlannedInput, ...]
    card: ModelCard
    webhook: TaskWebhook | None = None


@dataclass(frozen=True)
class Planner:
    """Plans tasks.

    Attributes:
        egress: Which URLs may be fetched.
        prompts: What each model family is asked.
    """

    egress: EgressPolicy
    prompts: Mapping[str, PromptBook]

    async def plan(self, body: TaskBody, tenant: Tenant, trace: TraceContext | None = None) -> PlannedTask:
        """Check everything that can be told without fetching or decoding; the task will be part of ``trace``.

        Raises:
            Refused: A value isn't allowed; the error says why, with a pointer.
        """
        if body.request.options.json_schema is None:
            return self.plan_now(body, tenant, trace)
        # Compiling a schema takes a while.
        return await asyncio.to_thread(self.plan_now, body, tenant, trace)

    def plan_now(self, body: TaskBody, tenant: Tenant, trace: TraceContext | None = None) -> PlannedTask:
        """As ``plan``, on the calling thread."""
        request = body.request
        card = _card(request, tenant)
        operation = _operation(request)
        inputs = _inputs(body, tenant, self.egress)
        if request.webhook is not None:
            check_hook_url(request.webhook.url, "/webhook/url", self.egress, tenant)
        _check_inputs(request, len(inputs))
        check_history(request, operation, len(inputs))
        check_options(request, operation)
        _check_pages(request)
        spec = self._spec(request, operation, card, trace)
        _check_size(spec, card, len(inputs))
        return PlannedTask(spec, inputs, card, request.webhook)

    def _spec(
        self, request: TaskRequest, operation: Operation, card: ModelCard, trace: TraceContext | None
    ) -> TaskSpec:
        book, options = self.prompts[card.prompts], request.options
        prompt = request.prompt or book.query(operation, request.kind, options.table_format or "markdown") or ""
        if request.prompt is None and options.json_schema is not None:
            prompt = prompt.replace("{schema}", dumps(options.json_schema))
        return TaskSpec(
            kind=request.kind,
            model=request.model,
            operation=operation,
            prompt=prompt,
            hint_prompt=book.text_layer if options.text_layer == "hint" else None,
            summary_prompt=book.summary(operation, prompt) if options.clip_s else None,
            system=request.system,
            history=request.history,
            options=options,
            priority=request.priority,
            retention_s=request.retention_s,
            deadline_s=request.deadline_s,
            metadata=request.metadata,
            traceparent=str(trace) if trace else None,
            tracestate=trace.state if trace else None,
        )


def check_hook_url(url: str, pointer: str, egress: EgressPolicy, tenant: Tenant) -> None:
    """Check a webhook's URL as far as it shows without DNS.

    Raises:
        Refused: It isn't allowed; the error points to ``pointer``.
    """
    try:
        egress.check_url(url)
    except UrlNotAllowed as exc:
        raise Refused.at(pointer, exc) from exc
    host = urlsplit(url).hostname or ""
    if not tenant.may_call(host):
        raise Refused.at(pointer, UrlNotAllowed(f"the tenant's webhooks may not go to {host}"))


def _card(request: TaskRequest, tenant: Tenant) -> ModelCard:
    card = CATALOGUE.get(request.model)
    if card is None:
        raise Refused.at("/model", InvalidRequest("there is no such model; GET /v1/models lists them"))
    if not tenant.may_use(card.name):
        raise Refused.at("/model", Forbidden("the tenant may not use this model; GET /v1/limits lists those it may"))
    if request.kind not in card.kinds:
        raise Refused.at("/kind", InvalidRequest(f"this model takes {', '.join(card.kinds)}"))
    return card


def _operation(request: TaskRequest) -> Operation:
    operation: Operation = request.operation or DEFAULT_OPERATIONS[request.kind]
    rule = OPERATIONS[operation]
    if request.kind not in rule.kinds:
        able = [name for name, other in OPERATIONS.items() if request.kind in other.kinds]
        message = f"a task of kind {request.kind} can't be asked for {operation}, but for {', '.join(able)}"
        raise Refused.at("/operation", InvalidRequest(message))
    if rule.needs_prompt and request.prompt is None:
        raise Refused.at("/prompt", InvalidRequest(f"the operation {operation} needs a prompt"))
    return operation


def _inputs(body: TaskBody, tenant: Tenant, egress: EgressPolicy) -> tuple[PlannedInput, ...]:
    located = body.request.located_inputs()
    if located and body.uploads:
        raise Refused.at(located[0][0], InvalidRequest("pictures come as file parts or in the JSON, not both"))
    named = [body.decoded.get(pointer) or _address(pointer, item, tenant, egress) for pointer, item in located]
    return (*named, *body.uploads)


def _address(
    pointer: str, item: TaskInput, tenant: Tenant, egress: EgressPolicy
) -> UrlInput | ObjectInput | UploadedInput:
    if item.upload is not None:
        return UploadedInput(f"{pointer}/upload", item.upload)
    if item.url is not None:
        try:
            egress.check_url(item.url)
        except UrlNotAllowed as exc:
            raise Refused.at(f"{pointer}/url", exc) from exc
        return UrlInput(url=item.url)
    match = _S3_ADDRESS.fullmatch(item.s3 or "")
    # HTTP libraries resolve such segments on the way, which would lead out of the tenant's prefixes.
    if match is None or {".", ".."} & set(match[2].split("/")):
        raise Refused.at(f"{pointer}/s3", InvalidRequest("write s3://bucket/key, without . and .. in the key"))
    if not tenant.may_read(match[1], match[2]):
        raise Refused.at(f"{pointer}/s3", S3NotAllowed("the tenant may not read this object"))
    return ObjectInput(bucket=match[1], key=match[2])


def _check_inputs(request: TaskRequest, count: int) -> None:
    if request.kind == "text" and (count or request.inputs is not None):
        raise Refused.at("/input" if request.input else "/inputs", InvalidRequest("a text task takes no input"))
    if request.kind == "image" and not 1 <= count <= MAX_IMAGES:
        message = f"an image task takes 1 to {MAX_IMAGES} pictures; here are {count}"
        raise Refused.at("/inputs" if count else "/input", InvalidRequest(message))
    if request.kind in ("document", "video") and count != 1:
        message = f"a task of kind {request.kind} takes one file; here are {count}"
        raise Refused.at("/inputs" if count else "/input", InvalidRequest(message))


def _check_pages(request: TaskRequest) -> None:
    if request.options.pages is None:
        return
    try:
        check_pages(request.options.pages)
    except InvalidRequest as exc:
        raise Refused.at("/options/pages", exc) from exc


def _check_size(spec: TaskSpec, card: ModelCard, num_images: int) -> None:
    partition = spec.options.max_partition
    if partition is not None and partition > card.max_partition:
        message = f"{partition} is over this model's limit of {card.max_partition}"
        raise Refused.at("/options/max_partition", InvalidRequest(message))
    max_new_tokens = spec.max_new_tokens(card)
    num_pictures = 1 if spec.kind == "document" else num_images
    if spec.kind == "video":
        num_pictures = spec.options.num_frames or 1
    picture_tokens = num_pictures * card.tokens_per_tile
    least_tokens = picture_tokens + _LEAST_TEXT_TOKENS + max_new_tokens
    if least_tokens > card.context_tokens:
        message = (
            f"{num_pictures} pictures need at least {picture_tokens} tokens; with {max_new_tokens} "
            f"new ones that is over the model's context of {card.context_tokens}"
        )
        raise Refused.at("/options/max_new_tokens", ContextTooLong(message))
