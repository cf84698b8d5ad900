"""A task's record in Redis, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from contract.assembly import Assembly
from contract.error_info import ErrorInfo
from contract.task import JobName, PartResult, TaskSpec, TaskStatus, Usage

#: How far a planned task is that hasn't ended.
Stage = Literal["planning", "parts", "summary", "assembling"]

#: Fields of a record that are read to show a task, whatever the number of its parts.
RECORD_FIELDS = (
    *("tenant", "status", "spec", "parts_total", "parts_done", "parts_failed", "attempts", "created_ms"),
    *("started_ms", "ended_ms", "expires_ms", "error", "run", "deadline_ms", "planned", "stage", "usage"),
    *("p0:result", "p0:history", "passemble:result"),
)


class AttemptEnd(BaseModel):
    """One line of a part's history."""

    model_config = ConfigDict(frozen=True)
    attempt: int
    worker: str
    started_ms: int
    ended_ms: int
    why: str
    part: int | JobName = 0

    @classmethod
    def read_all(cls, part: str, lines: str) -> tuple[AttemptEnd, ...]:
        """Decode a part's history; ``part`` is its number or the job's name, as the record has it."""
        known = {"part": int(part) if part.isdigit() else part}
        return tuple(cls.model_validate({**json.loads(line), **known}) for line in lines.splitlines())


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
    history: tuple[AttemptEnd, ...] = Field((), description="of the one part of a task that isn't planned")
    planned: bool = False
    stage: Stage | None = None
    usage: Usage | None = Field(None, description="None where nothing has been used yet")
    assembly: Assembly | None = Field(None, description="the last that was made, perhaps in an earlier run")

    @property
    def is_assembled(self) -> bool:
        """Whether there is a whole result to read: this run's, or an earlier one's where this one ended without."""
        return self.assembly is not None and self.status.ended

    @property
    def can_be_retried(self) -> bool:
        """Whether something of it failed that may be run again."""
        incomplete = self.planned and self.status is TaskStatus.SUCCEEDED and self.parts_failed > 0
        return self.status is TaskStatus.FAILED or incomplete

    @classmethod
    def from_values(cls, task_id: str, values: Sequence[str | None]) -> TaskRecord | None:
        """Decode the values of ``RECORD_FIELDS``, in their order; None where there is no such record."""
        fields = {name: value for name, value in zip(RECORD_FIELDS, values, strict=True) if value is not None}
        return cls.from_hash(task_id, fields) if fields else None

    @classmethod
    def from_hash(cls, task_id: str, fields: Mapping[str, str]) -> TaskRecord:
        """Decode the hash ``ovis:task:<id>``, or its ``RECORD_FIELDS`` alone."""

        def optional(name: str) -> int | None:
            return int(fields[name]) if name in fields else None

        planned = "planned" in fields
        result, error, assembly = fields.get("p0:result"), fields.get("error"), fields.get("passemble:result")
        only = PartResult.model_validate_json(result) if result and not planned else None
        usage = Usage.model_validate_json(fields["usage"]) if "usage" in fields else None
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
            result=only,
            run=int(fields["run"]),
            deadline_ms=optional("deadline_ms"),
            history=() if planned else AttemptEnd.read_all("0", fields.get("p0:history", "")),
            planned=planned,
            stage=cast(Stage | None, fields.get("stage")),
            usage=usage or (only.usage if only else None),
            assembly=Assembly.model_validate_json(assembly) if assembly else None,
        )
