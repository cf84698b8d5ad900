"""The task: what a caller asks for, the states it passes through, and its record in Redis."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.catalogue import ModelCard, TaskKind
from contract.errors import ErrorInfo

Operation = Literal["ocr", "caption", "markdown", "ask"]
Priority = Literal["high", "normal", "low"]

#: Order of the priority bands within one tenant; the smaller is claimed first.
PRIORITY_BANDS: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}

#: Most pictures of one task. The reference's several-images form is meant for a handful.
MAX_IMAGES = 32

#: Query text of each operation. ``ask`` has none: the caller's prompt is the query.
OPERATION_PROMPTS: dict[Operation, str] = {
    "ocr": "Read all the text in the image.",
    "caption": "Describe the image.",
    "markdown": "Convert the page to Markdown. Keep headings, lists, tables and formulas.",
}


class TaskStatus(StrEnum):
    """State of a task. Never Celery's states."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more, unless a failed task is retried."""
        return self in _ENDED


_ENDED = frozenset({TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.CANCELED, TaskStatus.EXPIRED})


#: Every move that a script may make. A running task whose worker died, or handed it back, is queued again; a failed
#: one may be retried.
LEGAL_MOVES: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.QUEUED: frozenset({TaskStatus.RUNNING, TaskStatus.FAILED, TaskStatus.CANCELED, TaskStatus.EXPIRED}),
    TaskStatus.RUNNING: frozenset(
        {TaskStatus.QUEUED, TaskStatus.CANCELING, TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.EXPIRED}
    ),
    TaskStatus.CANCELING: frozenset({TaskStatus.CANCELED}),
    TaskStatus.SUCCEEDED: frozenset(),
    TaskStatus.FAILED: frozenset({TaskStatus.QUEUED}),
    TaskStatus.CANCELED: frozenset(),
    TaskStatus.EXPIRED: frozenset(),
}


class UrlInput(BaseModel):
    """A picture behind a URL; fetched under the egress policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: str = Field(max_length=8192)


class ObjectInput(BaseModel):
    """A picture in the blob store: the caller's own object, or bytes that the gateway stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bucket: str
    key: str


class TaskOptions(BaseModel):
    """How a task is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_partition: Annotated[int, Field(ge=1, le=64)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] | None = None


class TaskSpec(BaseModel):
    """What the workers need to run a task; stored once, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: TaskKind
    model: str
    operation: Operation
    prompt: str
    system: str | None = None
    inputs: tuple[UrlInput | ObjectInput, ...] = ()
    options: TaskOptions = TaskOptions()
    priority: Priority = "normal"
    retention_s: int = 86400
    deadline_s: int | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    traceparent: str | None = Field(None, description="W3C trace context of the request that submitted the task")

    @property
    def trace_id(self) -> str | None:
        """The trace that the task belongs to; None for a task that no request submitted."""
        return self.traceparent.split("-")[1] if self.traceparent else None

    def max_partition(self, card: ModelCard) -> int:
        """Most tiles of one picture's grid."""
        return self.options.max_partition or card.partition_for(len(self.inputs))

    def max_new_tokens(self, card: ModelCard) -> int:
        """Most output tokens."""
        return self.options.max_new_tokens or card.default_max_new_tokens

    def estimated_cost(self, card: ModelCard) -> int:
        """Upper guess of visual plus output tokens: what a claim charges the tenant, corrected at the end."""
        partition = self.max_partition(card)
        tiles = len(self.inputs) * (partition + 1 if partition > 1 else 1)
        return tiles * card.tokens_per_tile + self.max_new_tokens(card)


class Usage(BaseModel):
    """What a part or a task consumed."""

    model_config = ConfigDict(frozen=True)
    images: int = 0
    tiles: int = 0
    prompt_tokens: int = 0
    visual_tokens: int = 0
    output_tokens: int = 0
    gpu_seconds: float = 0.0

    @property
    def cost(self) -> int:
        """Visual plus output tokens: the unit of fair shares."""
        return self.visual_tokens + self.output_tokens


class PartResult(BaseModel):
    """What one part gave; small results sit in the record, all of them in the blob store."""

    model_config = ConfigDict(frozen=True)
    text: str | None = Field(description="None where the text is too long to sit in the record")
    finish_reason: Literal["stop", "length", "repetition"]
    blob_key: str
    usage: Usage

    def document(self, task_id: str, part: int, spec: TaskSpec) -> dict[str, object]:
        """The result as it lies in the blob store and as callers read it."""
        return {
            "task_id": task_id,
            "part": part,
            "model": spec.model,
            "operation": spec.operation,
            "text": self.text,
            "finish_reason": self.finish_reason,
            "usage": self.usage.model_dump(),
        }


class AttemptEnd(BaseModel):
    """One line of a part's history."""

    model_config = ConfigDict(frozen=True)
    attempt: int
    worker: str
    started_ms: int
    ended_ms: int
    why: str


class TaskRecord(BaseModel):
    """A task as it stands in Redis, read back."""

    model_config = ConfigDict(frozen=True)
    id: str
    tenant: str
    status: TaskStatus
    spec: TaskSpec
    parts_total: int
    parts_done: int
    parts_failed: int
    attempts: int
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    expires_ms: int | None
    error: ErrorInfo | None
    result: PartResult | None
    run: int = Field(1, description="1, and one more for every retry")
    deadline_ms: int | None = None
    history: tuple[AttemptEnd, ...] = ()

    @classmethod
    def from_hash(cls, task_id: str, fields: Mapping[str, str]) -> TaskRecord:
        """Decode the hash ``ovis:task:<id>``."""

        def optional(name: str) -> int | None:
            return int(fields[name]) if name in fields else None

        result, error = fields.get("p0:result"), fields.get("error")
        return cls(
            id=task_id,
            tenant=fields["tenant"],
            status=TaskStatus(fields["status"]),
            spec=TaskSpec.model_validate_json(fields["spec"]),
            parts_total=int(fields["parts_total"]),
            parts_done=int(fields["parts_done"]),
            parts_failed=int(fields["parts_failed"]),
            attempts=int(fields["attempts"]),
            created_ms=int(fields["created_ms"]),
            started_ms=optional("started_ms"),
            ended_ms=optional("ended_ms"),
            expires_ms=optional("expires_ms"),
            error=ErrorInfo.model_validate_json(error) if error else None,
            result=PartResult.model_validate_json(result) if result else None,
            run=int(fields["run"]),
            deadline_ms=optional("deadline_ms"),
            history=tuple(map(AttemptEnd.model_validate_json, fields.get("p0:history", "").splitlines())),
        )


class Attempt(BaseModel):
    """One claim of a part: what a worker holds while it works."""

    model_config = ConfigDict(frozen=True)
    token: str
    task_id: str
    tenant: str
    part: int
    number: int = Field(description="1 for the first attempt; tries that don't count leave it as it was")
    claims: int = Field(description="how often the part was claimed, this attempt included")
    queued_ms: int = Field(description="how long the part waited, by the clock of Redis")
    spec: TaskSpec

    @property
    def log_fields(self) -> dict[str, str | int]:
        """What is bound to every log line of the attempt."""
        fields: dict[str, str | int] = {"task_id": self.task_id, "part": self.part, "attempt": self.number}
        return fields if self.spec.trace_id is None else {**fields, "trace_id": self.spec.trace_id}


def new_task_id() -> str:
    """An id that sorts by creation time: 12 hex digits of milliseconds, then 80 random bits."""
    return f"task_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def dumps(value: object) -> str:
    """JSON without spaces, as it is stored."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
