"""What the gateway says of a tenant: use, limits, uploads, webhooks; as frozen values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from ovis_fleet.records import Record, Usage


@dataclass(frozen=True)
class Used(Record):
    """What was used on a day, or in all.

    Attributes:
        date: the day (UTC) as ``2026-11-22``; empty for a sum.
        tasks: how many were submitted, and how many ended in each status.
        usage: what they took.
    """

    said: ClassVar[str] = "use"
    nested: ClassVar[Mapping[str, type[Record]]] = {"usage": Usage}

    date: str = ""
    tasks: Mapping[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class UsageReport(Record):
    """What a tenant has used.

    Attributes:
        total: over all days.
        data: the last day first; days without use are left out.
    """

    said: ClassVar[str] = "usage report"
    nested: ClassVar[Mapping[str, type[Record]]] = {"total": Used, "data": Used}

    total: Used
    data: Sequence[Used] = ()


@dataclass(frozen=True)
class Limits(Record):
    """What a tenant may do, and how much of it is taken. None: no limit of that kind. Bytes and seconds."""

    said: ClassVar[str] = "set of limits"

    max_unended_tasks: int
    unended_tasks: int
    max_waiting_parts: int
    max_waiting_bytes: int
    waiting_bytes: int
    max_body_bytes: int
    max_upload_bytes: int
    max_wait_s: float
    requests_per_s: int | None = None
    weight: float = 1.0
    models: Sequence[str] | None = None
    webhook_hosts: Sequence[str] | None = None
    s3_prefixes: Sequence[str] = ()


@dataclass(frozen=True)
class Upload(Record):
    """Bytes that lie in the fleet's store, to be given as a source; good for a day.

    Attributes:
        id: what tasks call it by.
    """

    said: ClassVar[str] = "upload"
    times: ClassVar[tuple[str, ...]] = ("expires_at",)

    id: str
    size_bytes: int = 0
    media_type: str = ""
    expires_at: datetime | None = None


@dataclass(frozen=True)
class WebhookEndpoint(Record):
    """A URL that is told of the tenant's tasks.

    Attributes:
        id: what it is called by.
        events: which types of event it gets.
        enabled: whether it gets any.
        disabled_why: why not.
        old_secret_until: until when the secret before the last rotation signs too.
        secret: what deliveries are signed with; shown at creation only, and not part of the repr.
    """

    said: ClassVar[str] = "webhook endpoint"
    times: ClassVar[tuple[str, ...]] = ("created_at", "old_secret_until")

    id: str
    url: str
    events: Sequence[str] = ()
    description: str = ""
    enabled: bool = True
    disabled_why: str | None = None
    created_at: datetime | None = None
    old_secret_until: datetime | None = None
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class WebhookSecret(Record):
    """A new secret; shown this once, and not part of the repr."""

    said: ClassVar[str] = "webhook secret"
    times: ClassVar[tuple[str, ...]] = ("old_secret_until",)

    secret: str = field(repr=False)
    old_secret_until: datetime | None = None


@dataclass(frozen=True)
class Delivery(Record):
    """One event on its way to one receiver.

    Attributes:
        id: the header ``webhook-id`` of every try.
        type: of the event.
        endpoint: where to; None for a task's own webhook, which ``url`` names.
        status: pending, succeeded, failed or canceled.
        why: why it ended without being received.
        attempts: its tries, as the gateway words them.
    """

    said: ClassVar[str] = "delivery"
    times: ClassVar[tuple[str, ...]] = ("created_at", "next_try_at", "ended_at")

    id: str
    type: str
    status: str
    task: str | None = None
    run: int | None = None
    part: int | None = None
    endpoint: str | None = None
    url: str | None = None
    why: str | None = None
    created_at: datetime | None = None
    next_try_at: datetime | None = None
    ended_at: datetime | None = None
    attempts: Sequence[Mapping[str, Any]] = ()
