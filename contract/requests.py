"""What a caller may ask for: the body of ``POST /v1/tasks``, as it is written."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from contract.catalogue import TaskKind
from contract.task import MAX_IMAGES, MAX_PAST_TURNS, Operation, PastTurn, Priority, TaskOptions
from contract.webhooks import TaskWebhook

#: Longest prompt, in characters: longer than any model's context holds of ordinary text.
MAX_PROMPT_CHARS = 100_000

#: Longest time for which an ended task is kept, in seconds: 30 days.
MAX_RETENTION_S = 30 * 86_400

#: Longest time that a task may be given to end, in seconds: 7 days.
MAX_DEADLINE_S = 7 * 86_400

MAX_METADATA_ENTRIES = 32

_Words = Annotated[str, Field(max_length=MAX_PROMPT_CHARS, pattern=r"\S")]
_MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
_MetadataValue = Annotated[str, Field(max_length=512)]


#: The fields of an input, of which one is given; in JSON Schema's words.
_ONE_SOURCE: list[JsonValue] = [
    {"required": [name], "properties": {name: {"type": "string"}}} for name in ("url", "s3", "upload", "base64")
]


class TaskInput(BaseModel):
    """One picture: exactly one of ``url``, ``s3``, ``upload`` and ``base64``."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"oneOf": _ONE_SOURCE})
    url: Annotated[str, Field(max_length=8192, pattern=r"^[^\s\x00-\x20\x7f]+$")] | None = None
    s3: Annotated[str, Field(max_length=1200)] | None = Field(None, examples=["s3://bucket/key"])
    upload: Annotated[str, Field(pattern=r"^upl_[0-9a-f]{32}$")] | None = Field(
        None, description="the id that POST /v1/uploads gave"
    )
    base64: str | None = Field(None, description="the picture's bytes, standard alphabet with padding")
    media_type: Annotated[str, Field(pattern=r"^[\w.+-]{1,64}/[\w.+-]{1,64}$")] | None = Field(
        None, description="goes with base64; a hint, decoding tells", examples=["image/png"]
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(value is not None for value in (self.url, self.s3, self.upload, self.base64)) != 1:
            raise ValueError("give exactly one of url, s3, upload and base64")
        if self.media_type is not None and self.base64 is None:
            raise ValueError("media_type goes with base64 only")
        return self


class TaskRequest(BaseModel):
    """One task, as a caller describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: TaskKind
    model: Annotated[str, Field(max_length=128)]
    input: TaskInput | None = None
    inputs: Annotated[tuple[TaskInput, ...], Field(max_length=MAX_IMAGES)] | None = None
    operation: Operation | None = Field(
        None, description="ocr for pictures and documents, caption for videos, ask for text, unless given"
    )
    prompt: _Words | None = Field(None, description="overrides the operation's own")
    system: _Words | None = None
    history: Annotated[tuple[PastTurn, ...], Field(max_length=MAX_PAST_TURNS)] = Field(
        (), description="ask about pictures or text: what was said before the prompt; user and assistant take turns"
    )
    options: TaskOptions = TaskOptions()
    webhook: TaskWebhook | None = Field(
        None, description="called when the task ends; signed with the tenant's own secret"
    )
    priority: Priority = "normal"
    deadline_s: Annotated[int, Field(ge=1, le=MAX_DEADLINE_S)] | None = Field(
        None, description="seconds after which a run of the task that hasn't ended expires; none unless given"
    )
    retention_s: Annotated[int, Field(ge=1, le=MAX_RETENTION_S)] = 86_400
    metadata: Annotated[dict[_MetadataKey, _MetadataValue], Field(max_length=MAX_METADATA_ENTRIES)] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _names_inputs_once(self) -> Self:
        if self.input is not None and self.inputs is not None:
            raise ValueError("give input or inputs, not both")
        return self

    def located_inputs(self) -> list[tuple[str, TaskInput]]:
        """Every input, in order, with its JSON pointer."""
        if self.input is not None:
            return [("/input", self.input)]
        return [(f"/inputs/{index}", item) for index, item in enumerate(self.inputs or ())]
