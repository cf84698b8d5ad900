"""Decides whether a task can be accepted, and what the workers are told of it. Reads no store."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from api_gateway.bodies import InlineFile, SpooledFile, TaskBody
from api_gateway.errors import Refused
from api_gateway.requests import TaskInput, TaskRequest
from api_gateway.uploads import UploadedInput
from contract.catalogue import CATALOGUE, ModelCard
from contract.egress import EgressPolicy
from contract.errors import ContextTooLong, Forbidden, InvalidRequest, S3NotAllowed, UrlNotAllowed
from contract.task import MAX_IMAGES, OPERATION_PROMPTS, ObjectInput, Operation, TaskSpec, UrlInput
from contract.tenants import Tenant
from contract.tracing import TraceContext

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
    """

    spec: TaskSpec
    inputs: tuple[PlannedInput, ...]
    card: ModelCard

    def traced(self, trace: TraceContext) -> PlannedTask:
        """The same task as part of a trace."""
        return replace(self, spec=self.spec.model_copy(update={"traceparent": str(trace)}))


def plan_task(body: TaskBody, tenant: Tenant, egress: EgressPolicy) -> PlannedTask:
    """Check everything that can be told without fetching or decoding.

    Raises:
        Refused: A value isn't allowed; the error says why, with a pointer.
    """
    request = body.request
    card = _card(request, tenant)
    operation = _operation(request)
    inputs = _inputs(body, tenant, egress)
    _check_inputs(request, len(inputs))
    spec = TaskSpec(
        kind=request.kind,
        model=request.model,
        operation=operation,
        prompt=request.prompt or OPERATION_PROMPTS[operation],
        system=request.system,
        options=request.options,
        priority=request.priority,
        retention_s=request.retention_s,
        deadline_s=request.deadline_s,
        metadata=request.metadata,
    )
    _check_size(spec, card, len(inputs))
    return PlannedTask(spec, inputs, card)


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
    operation: Operation = request.operation or ("ocr" if request.kind == "image" else "ask")
    if request.kind == "text" and operation != "ask":
        raise Refused.at("/operation", InvalidRequest("a text task has no picture: its only operation is ask"))
    if operation == "ask" and request.prompt is None:
        raise Refused.at("/prompt", InvalidRequest("the operation ask needs a prompt"))
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


def _check_size(spec: TaskSpec, card: ModelCard, num_images: int) -> None:
    partition = spec.options.max_partition
    if partition is not None and partition > card.max_partition:
        message = f"{partition} is over this model's limit of {card.max_partition}"
        raise Refused.at("/options/max_partition", InvalidRequest(message))
    max_new_tokens = spec.max_new_tokens(card)
    least_tokens = num_images * card.tokens_per_tile + _LEAST_TEXT_TOKENS + max_new_tokens
    if least_tokens > card.context_tokens:
        message = (
            f"{num_images} pictures need at least {num_images * card.tokens_per_tile} tokens; with {max_new_tokens} "
            f"new ones that is over the model's context of {card.context_tokens}"
        )
        raise Refused.at("/options/max_new_tokens", ContextTooLong(message))
