"""What callers read: tasks, lists and models as JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from api_gateway.dead_letters import DeadLetter
from api_gateway.errors import Problem
from api_gateway.moments import Moment, moment
from api_gateway.records import QueueStats
from contract.blobs import BlobStore
from contract.catalogue import ModelCard, TaskKind
from contract.record import AttemptEnd, Stage, TaskRecord
from contract.results import FinishReason, Source
from contract.task import JobName, Operation, TaskStatus, Usage


class ProgressView(BaseModel):
    """How far a task is."""

    parts_total: int
    parts_done: int
    parts_failed: int


class ResultView(BaseModel):
    """What a task gave."""

    text: str | None = Field(description="null where the text is too long to stand here; see result_url")
    data: JsonValue = Field(None, description="extract, chart and table: the answer as JSON")
    finish_reason: FinishReason | None = Field(description="null where no model ran, or many parts have one each")
    source: Source | None = Field(None, description="where the text is from")
    warnings: tuple[str, ...] = Field((), description="what is doubtful about the answer")
    start_s: float | None = Field(None, description="videos: the stretch that was looked at")
    end_s: float | None = None
    location: str = Field(description="where the whole result lies", examples=["s3://bucket/key"])


class TaskView(BaseModel):
    """A task, as it reads back."""

    model_config = ConfigDict(frozen=True)
    id: str
    kind: TaskKind
    model: str
    operation: Operation
    status: TaskStatus
    progress: ProgressView
    stage: Stage | None = Field(description="how far a task of many parts is; null for others, and once it has ended")
    run: int = Field(description="1, and one more for every retry")
    attempts: int = Field(description="how often its parts were claimed by a worker")
    created_at: Moment
    started_at: Moment | None
    deadline_at: Moment | None = Field(description="when the present run expires if it hasn't ended")
    ended_at: Moment | None
    expires_at: Moment | None = Field(description="when record, inputs and results are purged")
    usage: Usage | None
    result: ResultView | None
    result_url: str | None
    error: Problem | None
    metadata: dict[str, str]

    @classmethod
    def of(cls, record: TaskRecord, blobs: BlobStore) -> TaskView:
        """The caller's view of a record."""
        spec = record.spec
        has_result = record.status is TaskStatus.SUCCEEDED or record.is_assembled
        result = _result_view(record, blobs) if has_result else None
        return cls(
            id=record.id,
            kind=spec.kind,
            model=spec.model,
            operation=spec.operation,
            status=record.status,
            progress=ProgressView(
                parts_total=record.parts_total, parts_done=record.parts_done, parts_failed=record.parts_failed
            ),
            stage=record.stage,
            run=record.run,
            attempts=record.attempts,
            created_at=moment(record.created_ms),
            started_at=moment(record.started_ms) if record.started_ms else None,
            deadline_at=moment(record.deadline_ms) if record.deadline_ms else None,
            ended_at=moment(record.ended_ms) if record.ended_ms else None,
            expires_at=moment(record.expires_ms) if record.expires_ms else None,
            usage=record.usage,
            result=result,
            result_url=f"{task_path(record.id)}/result" if result else None,
            error=Problem.of(record.error) if record.error else None,
            metadata=spec.metadata,
        )


class TaskListView(BaseModel):
    """One page of a tenant's tasks."""

    data: list[TaskView]
    next_cursor: str | None = Field(description="leads to the next page; null on the last")


class AttemptView(BaseModel):
    """One attempt that has ended."""

    part: int | JobName = Field(description="whose: a part's number, from 0, or what was done for the whole task")
    attempt: int = Field(description="which one of its run; one that didn't count has the number of the next")
    worker: str
    started_at: Moment
    ended_at: Moment
    why: str = Field(description="what ended it: an error's code, or words")

    @classmethod
    def of(cls, end: AttemptEnd) -> AttemptView:
        """The caller's view of one line of the history."""
        started, ended = moment(end.started_ms), moment(end.ended_ms)
        return cls(
            part=end.part, attempt=end.attempt, worker=end.worker, started_at=started, ended_at=ended, why=end.why
        )


class DeadLetterView(BaseModel):
    """A task whose every attempt ended without a result."""

    task: TaskView
    error: Problem | None
    history: list[AttemptView] = Field(
        description="attempts of the parts that failed, part by part, oldest first, those of earlier runs included"
    )

    @classmethod
    def of(cls, letter: DeadLetter, blobs: BlobStore) -> DeadLetterView:
        """The caller's view of a dead letter."""
        task = TaskView.of(letter.record, blobs)
        return cls(task=task, error=task.error, history=[AttemptView.of(end) for end in letter.history])


class DeadLetterListView(BaseModel):
    """One page of a tenant's dead letters."""

    data: list[DeadLetterView]
    next_cursor: str | None = Field(description="leads to the next page; null on the last")


class ModelView(BaseModel):
    """A model that may be asked for; the numbers are null where the queue can't be reached."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="for OpenAI's clients; always 0")
    owned_by: str = Field(description="who made it")
    description: str
    params_b: float = Field(description="parameters, in 10^9")
    context_tokens: int
    kinds: tuple[TaskKind, ...]
    max_partition: int
    workers: int | None
    slots: int | None = Field(description="parts that the live workers take at once")
    waiting: int | None
    running: int | None

    @classmethod
    def of(cls, card: ModelCard, stats: QueueStats | None) -> ModelView:
        """The caller's view of a model and its queue."""
        return cls(
            id=card.name,
            owned_by=card.hub_id.partition("/")[0] if card.hub_id else "ovis-fleet",
            description=card.description,
            params_b=card.params_b,
            context_tokens=card.context_tokens,
            kinds=card.kinds,
            max_partition=card.max_partition,
            workers=stats.workers if stats else None,
            slots=stats.slots if stats else None,
            waiting=stats.waiting if stats else None,
            running=stats.running if stats else None,
        )


class ModelListView(BaseModel):
    """All models of the catalogue."""

    object: Literal["list"] = "list"
    data: list[ModelView]


def task_path(task_id: str) -> str:
    """Where a task is read."""
    return f"/v1/tasks/{task_id}"


def _result_view(record: TaskRecord, blobs: BlobStore) -> ResultView | None:
    if record.assembly is not None:
        location = blobs.location(record.assembly.files["json"].key)
        return ResultView(text=record.assembly.text, finish_reason=None, location=location)
    result = record.result
    if result is None:
        return None
    shared = result.model_dump(include={"text", "data", "finish_reason", "source", "warnings", "start_s", "end_s"})
    return ResultView(**shared, location=blobs.location(result.blob_key))
