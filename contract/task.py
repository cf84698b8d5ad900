"""The task: what a caller asks for, the states it passes through, and what workers hold of it."""

from __future__ import annotations

import json
import secrets
import time
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from contract.catalogue import ModelCard, TaskKind
from contract.pages import PAGES_PATTERN
from contract.units import Unit

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
#: one may be retried, and so may a document that succeeded although pages of it failed.
LEGAL_MOVES: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.QUEUED: frozenset({TaskStatus.RUNNING, TaskStatus.FAILED, TaskStatus.CANCELED, TaskStatus.EXPIRED}),
    TaskStatus.RUNNING: frozenset(
        {TaskStatus.QUEUED, TaskStatus.CANCELING, TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.EXPIRED}
    ),
    TaskStatus.CANCELING: frozenset({TaskStatus.CANCELED}),
    TaskStatus.SUCCEEDED: frozenset({TaskStatus.QUEUED}),
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
    pages: Annotated[str, Field(max_length=1000, pattern=PAGES_PATTERN)] | None = Field(
        None, description="pages of a document, from 1", examples=["1-20", "1,3,5-"]
    )
    on_page_failure: Literal["succeed", "fail"] = Field(
        "succeed", description="how a document ends of which some, but not all, pages failed"
    )
    clip_s: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] | None = Field(
        None, description="seconds of a clip: a video is captioned clip by clip, then summarised"
    )
    start_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    end_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


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

    @property
    def is_planned(self) -> bool:
        """Whether the io role has to find out the task's parts before any can run."""
        return self.kind == "document" or (self.kind == "video" and self.options.clip_s is not None)

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
    pages: int = 0
    frames: int = 0
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
    finish_reason: Literal["stop", "length", "repetition"] | None = Field(description="None where no model ran")
    blob_key: str
    usage: Usage
    data: JsonValue = None
    warnings: tuple[str, ...] = ()
    source: Literal["model", "text_layer", "blank", "cache"] = "model"
    start_s: float | None = None
    end_s: float | None = None

    def document(self, task_id: str, part: int, spec: TaskSpec) -> dict[str, object]:
        """The result as it lies in the blob store and as callers read it."""
        return {
            "task_id": task_id,
            "part": part,
            "model": spec.model,
            "operation": spec.operation,
            "text": self.text,
            "data": self.data,
            "finish_reason": self.finish_reason,
            "warnings": list(self.warnings),
            "source": self.source,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "usage": self.usage.model_dump(),
        }


#: What the io role does for a planned task.
JobName = Literal["plan", "assemble"]


class Claim(BaseModel):
    """What a worker holds while it works: one claim of a part or of a job."""

    model_config = ConfigDict(frozen=True)
    token: str
    task_id: str
    tenant: str
    number: int = Field(description="1 for the first attempt; tries that don't count leave it as it was")
    claims: int = Field(description="how often this was claimed, this attempt included")
    queued_ms: int = Field(description="how long it waited, by the clock of Redis")
    spec: TaskSpec

    @property
    def log_fields(self) -> dict[str, str | int]:
        """What is bound to every log line of the attempt."""
        return {"task_id": self.task_id, "attempt": self.number}


class Attempt(Claim):
    """One claim of a part."""

    part: int
    unit: Unit | None = Field(None, description="what the part covers; None for the whole task")

    @property
    def log_fields(self) -> dict[str, str | int]:
        """What is bound to every log line of the attempt."""
        return {"task_id": self.task_id, "part": self.part, "attempt": self.number}


class Job(Claim):
    """One claim of a planned task's plan or assembly."""

    name: JobName

    @property
    def log_fields(self) -> dict[str, str | int]:
        """What is bound to every log line of the attempt."""
        return {"task_id": self.task_id, "part": self.name, "attempt": self.number}


def new_task_id() -> str:
    """An id that sorts by creation time: 12 hex digits of milliseconds, then 80 random bits."""
    return f"task_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def dumps(value: object) -> str:
    """JSON without spaces, as it is stored."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
