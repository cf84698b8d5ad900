"""Webhooks: what is told to whom, and how that stands. ``contract.deliveries`` holds the changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from contract.ids import sortable_id

EventType = Literal["task.succeeded", "task.failed", "task.canceled", "task.expired", "task.part.succeeded"]

#: What a webhook gets unless it asks for something else: the ends of tasks.
END_EVENTS: tuple[EventType, ...] = ("task.succeeded", "task.failed", "task.canceled", "task.expired")

DeliveryStatus = Literal["pending", "succeeded", "failed", "canceled"]

#: Most endpoints of one tenant: each ended task costs a look at them.
MAX_ENDPOINTS = 50

HookUrl = Annotated[
    str, Field(max_length=2048, pattern=r"^[^\s\x00-\x20\x7f]+$", examples=["https://example.com/hook"])
]
HookEvents = Annotated[tuple[EventType, ...], Field(min_length=1, max_length=10)]

_EVENTS: TypeAdapter[tuple[EventType, ...]] = TypeAdapter(tuple[EventType, ...])


def endpoint_key(endpoint_id: str) -> str:
    """Key of an endpoint."""
    return f"ovis:hooks:endpoint:{endpoint_id}"


def endpoints_key(tenant: str) -> str:
    """Key of a tenant's list of endpoints."""
    return f"ovis:hooks:endpoints:{tenant}"


def delivery_key(delivery_id: str) -> str:
    """Key of a delivery."""
    return f"ovis:delivery:{delivery_id}"


def deliveries_key(tenant: str) -> str:
    """Key of a tenant's list of deliveries."""
    return f"ovis:deliveries:{tenant}"


def new_endpoint_id() -> str:
    """An id that sorts by creation time."""
    return sortable_id("whep_")


class TaskWebhook(BaseModel):
    """A webhook that one task names itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: HookUrl
    events: HookEvents = END_EVENTS


class Endpoint(BaseModel):
    """A tenant's address for events of all its tasks; its secrets are not part of it."""

    model_config = ConfigDict(frozen=True)
    id: str
    url: str
    events: tuple[EventType, ...]
    description: str
    enabled: bool
    disabled_why: str | None
    created_ms: int
    old_secret_until_ms: int | None

    @classmethod
    def from_hash(cls, endpoint_id: str, fields: Mapping[str, str]) -> Endpoint:
        """Decode the hash ``ovis:hooks:endpoint:<id>``."""
        return cls(
            id=endpoint_id,
            url=fields["url"],
            events=_EVENTS.validate_json(fields["events"]),
            description=fields["description"],
            enabled=fields["enabled"] == "1",
            disabled_why=fields.get("disabled_why"),
            created_ms=int(fields["created_ms"]),
            old_secret_until_ms=int(fields["old_until_ms"]) if "old_until_ms" in fields else None,
        )


class HookEvent(BaseModel):
    """What happened, as the ending script wrote it down; a later run of the task doesn't change it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    type: str
    at_ms: int
    task: str | None = None
    run: int = 0
    part: int | None = None
    status: str = ""
    error: str | None = Field(None, description="an ErrorInfo as JSON")
    parts_total: int = 0
    parts_done: int = 0
    parts_failed: int = 0
    started_ms: int = 0


class HookAttempt(BaseModel):
    """One line of a delivery's log."""

    model_config = ConfigDict(frozen=True)
    at_ms: int
    status_code: int | None = None
    error: str | None = None
    detail: str | None = None
    seconds: float | None = None


class Delivery(BaseModel):
    """One event for one receiver."""

    model_config = ConfigDict(frozen=True)
    id: str
    tenant: str
    type: str
    task: str | None
    endpoint: str | None
    url: str | None = Field(description="of a task's own webhook; an endpoint's stands there")
    status: DeliveryStatus
    tries: int
    created_ms: int
    due_ms: int | None
    ended_ms: int | None
    why: str | None
    event: HookEvent
    attempts: tuple[HookAttempt, ...]

    @classmethod
    def from_hash(cls, delivery_id: str, fields: Mapping[str, str]) -> Delivery:
        """Decode the hash ``ovis:delivery:<id>``."""

        def optional(name: str) -> int | None:
            return int(fields[name]) if name in fields else None

        return cls(
            id=delivery_id,
            tenant=fields["tenant"],
            type=fields["type"],
            task=fields.get("task"),
            endpoint=fields.get("endpoint"),
            url=fields.get("url"),
            status=fields["status"],
            tries=int(fields["tries"]),
            created_ms=int(fields["created_ms"]),
            due_ms=optional("due_ms"),
            ended_ms=optional("ended_ms"),
            why=fields.get("why"),
            event=HookEvent.model_validate_json(fields["event"]),
            attempts=tuple(map(HookAttempt.model_validate_json, fields.get("log", "").splitlines())),
        )
