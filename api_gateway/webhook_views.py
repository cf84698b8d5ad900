"""Webhook endpoints and deliveries: what may be asked, and what callers read."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api_gateway.moments import Moment, moment
from contract.webhooks import (
    END_EVENTS,
    Delivery,
    DeliveryStatus,
    Endpoint,
    EventType,
    HookAttempt,
    HookEvents,
    HookUrl,
)

#: Seconds for which an old secret signs beside the new one: at least none, at most a week.
MAX_OVERLAP_S = 7 * 86_400

_Description = Annotated[str, Field(max_length=256)]


class EndpointRequest(BaseModel):
    """A new endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: HookUrl
    events: HookEvents = Field(END_EVENTS, description="task.part.succeeded comes only where it is named")
    description: _Description = ""
    enabled: bool = True


class EndpointPatch(BaseModel):
    """What changes of an endpoint; a field that isn't there stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: HookUrl | None = None
    events: HookEvents | None = None
    description: _Description | None = None
    enabled: bool | None = Field(None, description="enabling also ends a rest after failures")

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if all(value is None for value in (self.url, self.events, self.description, self.enabled)):
            raise ValueError("name at least one of url, events, description and enabled")
        return self


class RotationRequest(BaseModel):
    """A new secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    overlap_s: int = Field(86_400, ge=0, le=MAX_OVERLAP_S, description="seconds for which the old secret signs too")


class EndpointView(BaseModel):
    """An endpoint, as it reads back: without its secret."""

    id: str
    url: str
    events: tuple[EventType, ...]
    description: str
    enabled: bool
    disabled_why: str | None
    created_at: Moment
    old_secret_until: Moment | None = Field(description="until when the secret before the last rotation signs too")

    @classmethod
    def of(cls, endpoint: Endpoint) -> EndpointView:
        """The caller's view."""
        until_ms = endpoint.old_secret_until_ms
        return cls(
            id=endpoint.id,
            url=endpoint.url,
            events=endpoint.events,
            description=endpoint.description,
            enabled=endpoint.enabled,
            disabled_why=endpoint.disabled_why,
            created_at=moment(endpoint.created_ms),
            old_secret_until=moment(until_ms) if until_ms else None,
        )


class NewEndpointView(EndpointView):
    """A new endpoint with its secret, which is shown this once."""

    secret: str = Field(examples=["whsec_..."])


class EndpointListView(BaseModel):
    """All endpoints of the tenant."""

    data: list[EndpointView]


class SecretView(BaseModel):
    """A new secret, which is shown this once."""

    secret: str = Field(examples=["whsec_..."])
    old_secret_until: Moment | None = Field(description="null where there was none before")


class HookAttemptView(BaseModel):
    """One try of a delivery."""

    at: Moment
    status_code: int | None
    error: str | None = Field(description="null where the receiver took it")
    detail: str | None
    seconds: float | None

    @classmethod
    def of(cls, line: HookAttempt) -> HookAttemptView:
        """The caller's view."""
        return cls(
            at=moment(line.at_ms),
            status_code=line.status_code,
            error=line.error,
            detail=line.detail,
            seconds=line.seconds,
        )


class DeliveryView(BaseModel):
    """One event for one receiver, with every try."""

    id: str = Field(description="the header webhook-id of every try")
    type: str
    task: str | None
    run: int | None
    part: int | None
    endpoint: str | None = Field(description="null for the webhook that a task named itself")
    url: str | None = Field(description="of the task's own webhook")
    status: DeliveryStatus
    why: str | None = Field(description="why it has ended without being received")
    created_at: Moment
    next_try_at: Moment | None
    ended_at: Moment | None
    attempts: list[HookAttemptView]

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryView:
        """The caller's view."""
        return cls(
            id=delivery.id,
            type=delivery.type,
            task=delivery.task,
            run=delivery.event.run if delivery.task else None,
            part=delivery.event.part,
            endpoint=delivery.endpoint,
            url=delivery.url,
            status=delivery.status,
            why=delivery.why,
            created_at=moment(delivery.created_ms),
            next_try_at=moment(delivery.due_ms) if delivery.due_ms else None,
            ended_at=moment(delivery.ended_ms) if delivery.ended_ms else None,
            attempts=[HookAttemptView.of(line) for line in delivery.attempts],
        )


class DeliveryListView(BaseModel):
    """One page of the log."""

    data: list[DeliveryView]
    next_cursor: str | None = Field(description="leads to the next page; null on the last")
