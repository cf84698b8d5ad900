"""The task: what a caller asks for, the states it passes through, and what workers hold of it."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.catalogue import ModelCard, TaskKind
from contract.ids import sortable_id
from contract.operations import OPERATIONS, READING_PARTITION
from contract.operations import Operation as Operation
from contract.options import TaskOptions as TaskOptions
from contract.results import PartResult as PartResult
from contract.results import Usage as Usage
from contract.units import Unit

Priority = Literal["high", "normal", "low"]

#: Order of the priority bands within one tenant; the smaller is claimed first.
PRIORITY_BANDS: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}

#: Most pictures of one task. The reference's several-images form is meant for a handful.
MAX_IMAGES = 32

#: Longest text of one turn before the prompt, in characters.
MAX_PAST_CHARS = 100_000

#: Most turns before the prompt.
MAX_PAST_TURNS = 256

#: Frames of a video and tiles of each, where the task names none: the reference's.
DEFAULT_FRAMES = 12
VIDEO_PARTITION = 1


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


class PastTurn(BaseModel):
    """What was said before the prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Literal["user", "assistant"]
    text: Annotated[str, Field(max_length=MAX_PAST_CHARS)]
    images: Annotated[int, Field(ge=0, le=MAX_IMAGES)] = Field(
        0, description="user: how many pictures it came with, the next ones of the task's inputs"
    )


class TaskSpec(BaseModel):
    """What the workers need to run a task; stored once, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: TaskKind
    model: str
    operation: Operation
    prompt: str
    hint_prompt: str | None = Field(None, description="follows the prompt of a page; {text} is the page's own text")
    summary_prompt: str | None = Field(None, description="asked over all clips; {captions} is what each of them gave")
    system: str | None = None
    history: tuple[PastTurn, ...] = ()
    inputs: tuple[UrlInput | ObjectInput, ...] = ()
    options: TaskOptions = TaskOptions()
    priority: Priority = "normal"
    retention_s: int = 86400
    deadline_s: int | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    traceparent: str | None = Field(None, description="W3C trace context of the request that submitted the task")

    tracestate: str | None = Field(None, description="what tracing systems had to say of it")

    @property
    def trace_id(self) -> str | None:
        """The trace that the task belongs to; None for a task that no request submitted."""
        return self.traceparent.split("-")[1] if self.traceparent else None

    @property
    def is_planned(self) -> bool:
        """Whether the io role has to find out the task's parts before any can run."""
        return self.kind == "document" or (self.kind == "video" and self.options.clip_s is not None)

    def max_partition(self, card: ModelCard) -> int:
        """Most tiles of one picture's grid."""
        if self.options.max_partition:
            return self.options.max_partition
        if self.kind == "video":
            return VIDEO_PARTITION
        if len(self.inputs) == 1 and OPERATIONS[self.operation].reads:
            return min(card.max_partition, READING_PARTITION)
        return card.partition_for(len(self.inputs))

    def max_new_tokens(self, card: ModelCard) -> int:
        """Most output tokens."""
        return self.options.max_new_tokens or card.default_max_new_tokens

    def num_pictures(self) -> int:
        """Pictures of one part: those of the task, the page, or about as many frames as a video gives."""
        if self.kind == "video":
            return self.options.num_frames or DEFAULT_FRAMES
        return len(self.inputs)

    def estimated_cost(self, card: ModelCard) -> int:
        """Upper guess of a part's visual plus output tokens: what a claim charges the tenant, corrected at the end."""
        partition = self.max_partition(card)
        tiles = self.num_pictures() * (partition + 1 if partition > 1 else 1)
        return tiles * card.tokens_per_tile + self.max_new_tokens(card)


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
        return {"task_id": self.task_id, "attempt": self.number, **self._trace}

    @property
    def _trace(self) -> dict[str, str]:
        return {} if self.spec.trace_id is None else {"trace_id": self.spec.trace_id}


class Attempt(Claim):
    """One claim of a part."""

    part: int
    unit: Unit | None = Field(None, description="what the part covers; None for the whole task")

    @property
    def log_fields(self) -> dict[str, str | int]:
        """What is bound to every log line of the attempt."""
        return {**super().log_fields, "part": self.part}


class Job(Claim):
    """One claim of a planned task's plan or assembly."""

    name: JobName

    @property
    def log_fields(self) -> dict[str, str | int]:
        """What is bound to every log line of the attempt."""
        return {**super().log_fields, "part": self.name}


def new_task_id() -> str:
    """An id that sorts by creation time: 12 hex digits of milliseconds, then 80 random bits."""
    return sortable_id("task_")


def dumps(value: object) -> str:
    """JSON without spaces, as it is stored."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
