"""What the gateway says of a task's parts, its events, and its cost, as frozen values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ovis_fleet.records import Problem, Record, Usage


@dataclass(frozen=True)
class Part(Record):
    """A page or a clip of a task.

    Attributes:
        part: its number, from 0.
        state: waiting, running, succeeded, failed or canceled, as the gateway words it.
        unit: the page or the stretch of time that it covers; empty for the whole task.
        attempts: tries of the present run that counted.
        finish_reason: ``stop``, ``length`` or ``repetition``; empty when no model ran (yet).
        source: where its text is from.
        warnings: what is doubtful about it.
        usage: None before it succeeded.
        error: why it failed.
    """

    said: ClassVar[str] = "part"
    nested: ClassVar[Mapping[str, type[Record]]] = {"usage": Usage, "error": Problem}

    part: int
    state: str
    unit: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0
    finish_reason: str = ""
    source: str = ""
    warnings: Sequence[str] = ()
    usage: Usage | None = None
    result_url: str | None = None
    error: Problem | None = None


@dataclass(frozen=True)
class Event(Record):
    """What has happened to a task. Fields that its kind doesn't have are None.

    Attributes:
        kind: ``status``, ``part`` or ``delta``; later gateways may know more.
        run: of the task.
        id: resumes after it; empty for a status that isn't part of the record.
        status: of a ``status``: the task's new one.
        part: of a ``part`` and a ``delta``: its number.
        state: of a ``part``: how it ended.
        attempt: of a ``delta``: a greater one makes void what those before wrote.
        offset: of a ``delta``: at which character of the part's text ``text`` stands.
        text: of a ``delta``: what was written.
    """

    said: ClassVar[str] = "event"

    kind: str
    run: int = 1
    id: str = ""
    status: str | None = None
    part: int | None = None
    state: str | None = None
    attempt: int | None = None
    offset: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class Estimate(Record):
    """What a task would take, each part run once.

    Attributes:
        parts: requests to the model.
        max_output_tokens: no run gives more.
        expected_output_tokens: as parts of this model gave lately; None where none did.
        expected_seconds: in the engine; None where no part ran lately.
    """

    said: ClassVar[str] = "estimate"

    parts: int
    images: int = 0
    pages: int = 0
    frames: int = 0
    tiles: int = 0
    visual_tokens: int = 0
    max_output_tokens: int = 0
    expected_output_tokens: int | None = None
    expected_seconds: float | None = None
