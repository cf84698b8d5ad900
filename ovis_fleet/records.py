"""What the gateway says, as frozen values. Fields that this version doesn't know are left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self

#: The statuses that a task never leaves by itself.
ENDED = frozenset({"succeeded", "failed", "canceled", "expired"})


class _Record:
    """A dataclass that is read from a JSON object."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads the known fields of a JSON object.

        Raises:
            TypeError: when a field without default is missing.
        """
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type] # each subclass is a dataclass
        return cls(**{key: value for key, value in document.items() if key in known and value is not None})


@dataclass(frozen=True)
class Problem(_Record):
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
class Progress(_Record):
    """How far a task is, in parts: images, pages or clips."""

    parts_total: int = 0
    parts_done: int = 0
    parts_failed: int = 0


@dataclass(frozen=True)
class Usage(_Record):
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
class Result(_Record):
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
class Task(_Record):
    """A task as it was when it was read. Times carry their zone.

    Attributes:
        id: what it is called by.
        status: queued, running, canceling, or one of ``ENDED``.
        kind: image, video, document or text.
        model: which model does it.
        operation: what is asked of the model.
        progress: how far it is.
        run: 1, and one more for every retry.
        attempts: how often its parts were claimed.
        deadline_at: when its run expires; None for never.
        usage: None before anything was done.
        result: None before it succeeded.
        result_url: where the gateway serves the result.
        error: why it failed.
        metadata: the caller's own.
    """

    id: str
    status: str
    kind: str = ""
    model: str = ""
    operation: str | None = None
    progress: Progress = field(default_factory=Progress)
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

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads a task with its nested records and times."""
        nested: dict[str, type[_Record]] = {
            "progress": Progress,
            "usage": Usage,
            "result": Result,
            "error": Problem,
        }
        read: dict[str, Any] = dict(document)
        read.update({key: kind.from_json(read[key]) for key, kind in nested.items() if read.get(key)})
        read.update(_read_times(read, "created_at", "started_at", "deadline_at", "ended_at", "expires_at"))
        return super().from_json(read)

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
class AttemptEnd(_Record):
    """One attempt that has ended.

    Attributes:
        attempt: which one of its run.
        worker: who had it.
        started_at: when it began.
        ended_at: when it ended.
        why: what ended it: an error's code, or words.
    """

    attempt: int
    worker: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    why: str = ""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads an attempt with its times."""
        return super().from_json({**document, **_read_times(document, "started_at", "ended_at")})


@dataclass(frozen=True)
class DeadLetter:
    """A task whose every attempt ended without a result.

    Attributes:
        task: as it stands; its ``error`` says that its attempts are exhausted.
        history: its attempts, oldest first, those of earlier runs included.
    """

    task: Task
    history: tuple[AttemptEnd, ...]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads a dead letter with its task and its history.

        Raises:
            TypeError: when it has no task.
        """
        history = tuple(AttemptEnd.from_json(line) for line in document.get("history") or ())
        return cls(Task.from_json(document.get("task") or {}), history)


@dataclass(frozen=True)
class DeadLetterPage:
    """One page of a list.

    Attributes:
        letters: the last to die first.
        next_cursor: leads to the next page; None on the last.
    """

    letters: tuple[DeadLetter, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Model(_Record):
    """A model that the fleet knows.

    Attributes:
        id: what tasks call it by.
        description: for people.
        params_b: its size, in billions of parameters.
        workers: how many serve it now; None, as the next two, while the gateway can't tell.
        slots: how many sequences they can run at once.
        waiting: how many parts wait for it.
    """

    id: str
    description: str = ""
    params_b: float | None = None
    workers: int | None = None
    slots: int | None = None
    waiting: int | None = None


@dataclass(frozen=True)
class TaskPage:
    """One page of a list.

    Attributes:
        tasks: newest first.
        next_cursor: leads to the next page; None on the last.
    """

    tasks: tuple[Task, ...]
    next_cursor: str | None


def _read_times(document: Mapping[str, Any], *names: str) -> dict[str, datetime]:
    """Returns those of the named times that the document has."""
    return {name: datetime.fromisoformat(document[name]) for name in names if document.get(name)}
