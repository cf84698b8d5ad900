"""What callers read of a task's parts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from api_gateway.errors import Problem
from contract.planned import PartRecord, PartState
from contract.record import TaskRecord
from contract.results import FinishReason, Source
from contract.task import Usage
from contract.units import Unit


class PartView(BaseModel):
    """One part of a task, without what it says."""

    model_config = ConfigDict(frozen=True)
    part: int = Field(description="number, from 0, in the order of the pages or clips")
    state: PartState
    unit: Unit | None = Field(description="what it covers; null is the whole task")
    attempts: int = Field(description="tries of the present run that counted")
    finish_reason: FinishReason | None
    source: Source | None = Field(description="where the text is from")
    warnings: tuple[str, ...]
    usage: Usage | None
    result_url: str | None
    error: Problem | None

    @classmethod
    def of(cls, record: TaskRecord, part: PartRecord) -> PartView:
        """The caller's view of a part of the task."""
        result = part.result if part.state == "succeeded" else None
        return cls(
            part=part.part,
            state=part.state,
            unit=part.unit,
            attempts=part.attempts,
            finish_reason=result.finish_reason if result else None,
            source=result.source if result else None,
            warnings=result.warnings if result else (),
            usage=result.usage if result else None,
            result_url=f"/v1/tasks/{record.id}/parts/{part.part}" if result else None,
            error=Problem.of(part.error) if part.error else None,
        )


class PartListView(BaseModel):
    """Some of a task's parts, in order."""

    data: list[PartView]
    next_cursor: str | None = Field(description="leads to the next page; null on the last")
