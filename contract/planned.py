"""Planned tasks: what the io role does for them, as commands, and their parts as they stand in the record.

A document, or a video by clips, begins as one job ``plan`` on the queue ``io``. It ends by planting all parts of the
task in one script. The script that ends the last part orders the job ``assemble`` (for clips first one more part, the
summary). Jobs are claimed, renewed, handed back and dead-lettered as parts are; their place in the record is
``pplan:...`` and ``passemble:...``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from contract.assembly import Assembly
from contract.error_info import ErrorInfo
from contract.record import AttemptEnd
from contract.scripting import Command, load_script
from contract.store import FinishOutcome
from contract.task import Job, PartResult, TaskSpec
from contract.units import Unit

#: The queue of plans and assemblies.
IO_QUEUE = "io"

PlantOutcome = Literal["committed", "tenant_full", "queue_full", "canceled", "stale"]
PartState = Literal["waiting", "running", "succeeded", "failed", "canceled"]

_unit: TypeAdapter[Unit] = TypeAdapter(Unit)


class PartRecord(BaseModel):
    """One part as it stands in the task's record."""

    model_config = ConfigDict(frozen=True)
    part: int
    state: PartState
    attempts: int
    unit: Unit | None
    result: PartResult | None
    error: ErrorInfo | None


#: Fields of a part that ``read_part`` needs, behind their prefix.
_PART_FIELDS = ("state", "attempts", "unit", "result", "error")


def part_fields(part: int) -> list[str]:
    """Fields of the record that ``read_part`` takes, in its order."""
    return [f"p{part}:{name}" for name in _PART_FIELDS]


def read_part(part: int, values: Sequence[str | None]) -> PartRecord | None:
    """Decode the values of ``part_fields``; None where there is no such part."""
    state, attempts, unit, result, error = values
    if state is None:
        return None
    return PartRecord(
        part=part,
        state=state,
        attempts=int(attempts or 0),
        unit=_unit.validate_json(unit) if unit else None,
        result=PartResult.model_validate_json(result) if result else None,
        error=ErrorInfo.model_validate_json(error) if error else None,
    )


def claim_job(*, token: str, worker: str) -> Command[Job | None]:
    """Take the next plan or assembly in fair order under a lease; None where nothing waits."""

    def parse(reply: list[Any] | None) -> Job | None:
        if reply is None:
            return None
        task_id, tenant, name, number, claims, queued_ms, spec, _ = reply
        return Job(
            token=token,
            task_id=task_id,
            tenant=tenant,
            name=name,
            number=int(number),
            claims=int(claims),
            queued_ms=int(queued_ms),
            spec=TaskSpec.model_validate_json(spec),
        )

    return Command(load_script("claim"), (IO_QUEUE, token, worker), parse)


def plant(job: Job, units: Sequence[Unit], *, cost: int, summary_cost: int | None) -> Command[PlantOutcome]:
    """Commit a plan: write, queue and wake all parts at once.

    Args:
        job: The attempt at the plan.
        units: What each part covers, in order; at least one.
        cost: Visual plus output tokens that one part may take.
        summary_cost: The same for the summary that follows the last part; None where none follows.
    """
    args = (
        job.token,
        job.task_id,
        cost,
        "" if summary_cost is None else summary_cost,
        *(unit.model_dump_json() for unit in units),
    )
    return Command(load_script("plant"), args, lambda reply: reply)


def finish_job(
    job: Job,
    outcome: Literal["succeeded", "failed", "stopped"],
    *,
    assembly: Assembly | None = None,
    error_json: str = "",
) -> Command[FinishOutcome]:
    """Commit an assembly, or the failure or stop of either job, by compare-and-set on its token."""
    result = assembly.model_dump_json() if assembly else ""
    # Nobody measures a job: of what the tenant was charged at the claim, 1 stands.
    args = (job.token, job.task_id, job.name, outcome, result, error_json, 1)
    return Command(load_script("finish"), args, lambda reply: reply)


def history(task_id: str, most_parts: int = 100) -> Command[tuple[AttemptEnd, ...]]:
    """What ended every attempt of the parts that failed: plan, parts in order, assembly; oldest first in each."""

    def parse(reply: list[str]) -> tuple[AttemptEnd, ...]:
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return tuple(end for part, lines in pairs for end in AttemptEnd.read_all(part, lines))

    return Command(load_script("history"), (task_id, most_parts), parse)
