"""What a tenant may do and has used."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api_gateway.routes.documentation import problems
from api_gateway.services import Caller, SharedServices
from api_gateway.usage import DayOfUse
from contract.task import Usage

router = APIRouter(tags=["tenant"])


class DayView(BaseModel):
    """What was used on a day, or in all."""

    tasks: dict[str, int] = Field(
        description="how many were submitted, and how many ended in each status", examples=[{"submitted": 2}]
    )
    usage: Usage

    @classmethod
    def of(cls, days: Iterable[DayOfUse]) -> DayView:
        """The sum of some days."""
        tasks: dict[str, int] = {}
        amounts: dict[str, float] = {}
        for day in days:
            for name, amount in day.amounts.items():
                if name.startswith("tasks_"):
                    status = name.removeprefix("tasks_")
                    tasks[status] = tasks.get(status, 0) + round(amount)
                elif name in Usage.model_fields:
                    amounts[name] = amounts.get(name, 0) + amount
        return cls(tasks=tasks, usage=Usage.model_validate(amounts))


class DatedView(DayView):
    """What was used on one day."""

    date: date


class UsageView(BaseModel):
    """What a tenant has used."""

    data: list[DatedView] = Field(description="days (UTC), the last one first; days without use are left out")
    total: DayView


class LimitsView(BaseModel):
    """What a tenant may do, and how much of it is taken. null means that there is no limit of that kind."""

    requests_per_s: int | None
    max_waiting_parts: int = Field(description="parts that wait in one model's queue")
    max_unended_tasks: int
    unended_tasks: int
    max_waiting_bytes: int = Field(description="bytes of stored inputs of tasks that haven't ended")
    waiting_bytes: int
    max_file_bytes: int = Field(description="bytes of files, outputs of batches included")
    file_bytes: int
    weight: float = Field(description="share of a busy queue, against the other tenants' weights")
    models: list[str] | None
    webhook_hosts: list[str] | None
    s3_prefixes: list[str]
    max_body_bytes: int
    max_upload_bytes: int
    max_wait_s: float


@router.get("/v1/usage", responses=problems(401, 403, 422, 429, 503))
async def read_usage(
    tenant: Caller, services: SharedServices, days: Annotated[int, Query(ge=1, le=92)] = 30
) -> UsageView:
    """Read what the tenant's tasks used in the last days, today included."""
    used = await services.usage.days(tenant.id, days)
    data = [DatedView(date=day.day, **dict(DayView.of([day]))) for day in used]
    return UsageView(data=data, total=DayView.of(used))


@router.get("/v1/limits", responses=problems(401, 403, 429, 503))
async def read_limits(tenant: Caller, services: SharedServices) -> LimitsView:
    """Read the tenant's limits, and what of them is taken now."""
    load = await services.usage.load(tenant.id)
    return LimitsView(
        requests_per_s=tenant.requests_per_s,
        max_waiting_parts=tenant.max_waiting_parts,
        max_unended_tasks=tenant.max_unended_tasks,
        unended_tasks=load.num_tasks,
        max_waiting_bytes=tenant.max_waiting_bytes,
        waiting_bytes=load.size_bytes,
        max_file_bytes=tenant.max_file_bytes,
        file_bytes=load.file_bytes,
        weight=tenant.weight,
        models=list(tenant.models) if tenant.models is not None else None,
        webhook_hosts=list(tenant.webhook_hosts) if tenant.webhook_hosts is not None else None,
        s3_prefixes=list(tenant.s3_prefixes),
        max_body_bytes=services.settings.max_body_bytes,
        max_upload_bytes=min(services.settings.max_upload_bytes, tenant.max_waiting_bytes),
        max_wait_s=services.settings.max_wait_s,
    )
