"""What the gateway says, as frozen values. Fields that this version doesn't know are left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Generic, Self, TypeVar

T_co = TypeVar("T_co", covariant=True)

#: The statuses that a task never leaves by itself.
ENDED = frozenset({"succeeded", "failed", "canceled", "expired"})


class Record:
    """A dataclass that is read from a JSON object.

    Attributes:
        said: what it is called in an error.
        times: fields that are moments.
        nested: fields that are records.
    """

    said: ClassVar[str] = "record"
    times: ClassVar[tuple[str, ...]] = ()
    nested: ClassVar[Mapping[str, "type[Record]"]] = {}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads the known fields of a JSON object.

        Raises:
            TypeError: when a field without default is missing.
            ValueError: when a moment isn't one.
        """
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type] # each subclass is a dataclass
        read = {key: value for key, value in document.items() if key in known and value is not None}
        read |= {key: datetime.fromisoformat(read[key]) for key in cls.times if key in read}
        read |= {key: _nested(kind, read[key]) for key, kind in cls.nested.items() if key in read}
        return cls(**read)


def _nested(kind: type[Record], value: Any) -> Any:
    return tuple(kind.from_json(item) for item in value) if isinstance(value, list) else kind.from_json(value)


@dataclass(frozen=True)
class Problem(Record):
    """An error as the gateway words it (RFC 9457).

    Attributes:
        code: the stable name.
        status: the HTTP status.
        title: what kind of error, for people.
        detail: what is wrong this time, for people.
        retryable: whether the same call may succeed later.
        request_id: what the operator finds the call by.
        errors: one entry for each invalid value, with a JSON pointer.
    """

    code: str
    status: int = 0
    title: str = ""
    detail: str = ""
    retryable: bool = False
    request_id: str | None = None
    errors: tuple[dict[str, object], ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads a problem; one without a code is called by its status."""
        code = document.get("code") or f"http_{document.get('status', 0)}"
        return super().from_json({**document, "code": code, "errors": tuple(document.get("errors") or ())})

    def summary(self) -> str:
        """Returns one line: code, detail, where, request id."""
        text = f"{self.code}: {self.detail or self.title or f'status {self.status}'}"
        where = "; ".join(self._locate(entry) for entry in self.errors)
        text += f" [{where}]" if where else ""
        return text + (f" (request {self.request_id})" if self.request_id else "")

    def _locate(self, entry: Mapping[str, object]) -> str:
        """Words one invalid value, without repeating what the whole problem says."""
        said = entry.get("detail")
        words = [entry.get("pointer"), None if said == self.detail else said]
        return ": ".join(str(word) for word in words if word)


@dataclass(frozen=True)
class Progress(Record):
    """How far a task is, in parts: images, pages or clips."""

    parts_total: int = 0
    parts_done: int = 0
    parts_failed: int = 0


@dataclass(frozen=True)
class Usage(Record):
    """What a task took. Seconds are those of the device that the model ran on."""

    images: int = 0
    tiles: int = 0
    frames: int = 0
    pages: int = 0
    prompt_tokens: int = 0
    visual_tokens: int = 0
    output_tokens: int = 0
    gpu_seconds: float = 0.0


@dataclass(frozen=True)
class Result(Record):
    """What a task brought.

    Attributes:
        text: the output; empty when it is too large to sit in the record.
        data: the answer of extract, chart and table as JSON; None for other operations and when it is too large.
        finish_reason: ``stop``, ``length`` or ``repetition``; empty when no model ran.
        source: ``model``, ``text_layer``, ``blank`` or ``cache``; empty for a document's pages together.
        warnings: what is doubtful about the answer.
        location: where the whole result lies, as ``s3://bucket/key``.
    """

    text: str = ""
    data: Any = None
    finish_reason: str = ""
    source: str = ""
    warnings: Sequence[str] = ()
    location: str = ""


@dataclass(frozen=True)
class Task(Record):
    """A task as it was when it was read. Times carry their zone.

    Attributes:
        id: what it is called by.
        status: queued, running, canceling, or one of ``ENDED``.
        kind: image, video, document or text.
        model: which model does it.
        operation: what is asked of the model.
        progress: how far it is.
        stage: planning, parts, summary or assembling; None for a task of one part, and once it has ended.
        run: 1, and one more for every retry.
        attempts: how often its parts were claimed.
        deadline_at: when its run expires; None for never.
        usage: None before anything was done.
        result: None before it succeeded.
        result_url: where the gateway serves the result.
        error: why it failed.
        metadata: the caller's own.
    """

    said: ClassVar[str] = "task"
    times: ClassVar[tuple[str, ...]] = ("created_at", "started_at", "deadline_at", "ended_at", "expires_at")
    nested: ClassVar[Mapping[str, type[Record]]] = {
        "progress": Progress,
        "usage": Usage,
        "result": Result,
        "error": Problem,
    }

    id: str
    status: str
    kind: str = ""
    model: str = ""
    operation: str | None = None
    progress: Progress = field(default_factory=Progress)
    stage: str | None = None
    run: int = 1
    attempts: int = 0
    created_at: datetime | None = None
    started_at: datetime | None = None
    deadline_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    usage: Usage | None = None
    result: Result | None = None
    result_url: str | None = None
    error: Problem | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ended(self) -> bool:
        """Whether it has its last status."""
        return self.status in ENDED

    @property
    def duration_s(self) -> float | None:
        """From acceptance to end; None before the end."""
        if self.created_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.created_at).total_seconds()


@dataclass(frozen=True)
class AttemptEnd(Record):
    """One attempt that has ended.

    Attributes:
        attempt: which one of its run.
        worker: who had it.
        started_at: when it began.
        ended_at: when it ended.
        why: what ended it: an error's code, or words.
    """

    times: ClassVar[tuple[str, ...]] = ("started_at", "ended_at")

    attempt: int
    worker: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    why: str = ""


@dataclass(frozen=True)
class DeadLetter(Record):
    """A task whose every attempt ended without a result.

    Attributes:
        task: as it stands; its ``error`` says that its attempts are exhausted.
        history: its attempts, oldest first, those of earlier runs included.
    """

    said: ClassVar[str] = "dead letter"
    nested: ClassVar[Mapping[str, type[Record]]] = {"task": Task, "history": AttemptEnd}

    task: Task
    history: tuple[AttemptEnd, ...] = ()


@dataclass(frozen=True)
class Model(Record):
    """A model that the fleet knows.

    Attributes:
        id: what tasks call it by.
        description: for people.
        params_b: its size, in billions of parameters.
        workers: how many serve it now; None, as the next two, while the gateway can't tell.
        slots: how many sequences they can run at once.
        waiting: how many parts wait for it.
    """

    said: ClassVar[str] = "model"

    id: str
    description: str = ""
    params_b: float | None = None
    workers: int | None = None
    slots: int | None = None
    waiting: int | None = None


@dataclass(frozen=True)
class Page(Generic[T_co]):
    """One page of a list.

    Attributes:
        items: in the list's order.
        next_cursor: leads to the next page; None on the last.
    """

    items: tuple[T_co, ...]
    next_cursor: str | None
