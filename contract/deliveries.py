"""Every change of webhooks, as commands (see ``contract.scripting``); the table of keys is in ``contract.store``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from contract.scripting import Command, load_script
from contract.webhooks import MAX_ENDPOINTS, Delivery, HookAttempt

Outcome = Literal["succeeded", "retry", "failed", "gone"]


@dataclass(frozen=True)
class SealedSecrets:
    """A receiver's signing secrets, encrypted. Both sign until ``old_until_ms``."""

    secret: str | None
    old_secret: str | None
    old_until_ms: int


@dataclass(frozen=True)
class HeldDelivery:
    """A delivery that a sender holds.

    Attributes:
        delivery: As it stands, this try counted.
        token: What the record of this attempt is compared with.
        url: Where it goes.
        body: What was sent before; None on the first try.
        secrets: Of the endpoint, or of the tenant for a task's own webhook.
        spec: The task's, as JSON; None where there is no task, or no longer.
        task_created_ms: When the task was accepted; 0 where there is none.
        receivers_due: Receivers that may be called now, besides this delivery.
    """

    delivery: Delivery
    token: str
    url: str
    body: str | None
    secrets: SealedSecrets
    spec: str | None
    task_created_ms: int
    receivers_due: int


@dataclass(frozen=True)
class Expanded:
    """What one look at the outbox did: events taken, events left, and the age of the oldest of these."""

    taken: int
    left: int
    oldest_ms: int


def expand_outbox(most: int = 100) -> Command[Expanded]:
    """Turn events into deliveries."""
    return Command(load_script("webhook_expand"), (most,), lambda reply: Expanded(*map(int, reply)))


def claim_delivery(token: str) -> Command[HeldDelivery | None]:
    """Take a delivery that is due, under a lease; None where none is."""

    def parse(reply: list[Any] | None) -> HeldDelivery | None:
        if reply is None:
            return None
        delivery_id, flat, url, (secret, old_secret, old_until), (spec, created), due = reply
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return HeldDelivery(
            delivery=Delivery.from_hash(delivery_id, fields),
            token=token,
            url=url,
            body=fields.get("body"),
            secrets=SealedSecrets(secret, old_secret, int(old_until or 0)),
            spec=spec,
            task_created_ms=int(created or 0),
            receivers_due=int(due),
        )

    return Command(load_script("webhook_claim"), (token,), parse)


def record_attempt(
    held: HeldDelivery, outcome: Outcome, line: HookAttempt, body: str, *, delay_ms: int = 0
) -> Command[str]:
    """Record what came of an attempt; reply the delivery's status, or "stale"."""
    line_json = line.model_dump_json(exclude_none=True)
    args = (held.delivery.id, held.token, outcome, line_json, body, delay_ms)
    return Command(load_script("webhook_record"), args, str)


@dataclass(frozen=True)
class EndpointChange:
    """What becomes of an endpoint; None leaves a field as it is.

    Attributes:
        events_json: The events as a JSON list.
        sealed_secret: A new endpoint's; None changes one that is there.
    """

    url: str | None = None
    events_json: str | None = None
    description: str | None = None
    enabled: bool | None = None
    sealed_secret: str | None = None


def save_endpoint(
    endpoint_id: str, tenant: str, change: EndpointChange
) -> Command[Literal["saved", "missing", "full"]]:
    """Create an endpoint, or change one."""
    args: Sequence[str | int] = (
        endpoint_id,
        tenant,
        change.sealed_secret or "",
        change.url or "",
        change.events_json or "",
        "" if change.description is None else f"={change.description}",
        "" if change.enabled is None else str(int(change.enabled)),
        MAX_ENDPOINTS,
    )
    return Command(load_script("webhook_save"), tuple(args), lambda reply: reply)


def delete_endpoint(endpoint_id: str, tenant: str) -> Command[bool]:
    """Forget an endpoint; reply whether it was there."""
    return Command(load_script("webhook_delete"), (endpoint_id, tenant), bool)


def rotate_secret(endpoint_id: str, tenant: str, sealed: str, overlap_s: int) -> Command[int | None]:
    """Replace a secret; reply when the old one ends (0: there was none), None where there is no such endpoint.

    Args:
        endpoint_id: "" means the tenant's own.
        tenant: Whose.
        sealed: The new secret, encrypted.
        overlap_s: Seconds for which the old one still signs too.
    """
    args = (endpoint_id, tenant, sealed, overlap_s)
    return Command(load_script("webhook_rotate"), args, lambda reply: None if reply is None else int(reply))


def first_secret(tenant: str, sealed: str) -> Command[str]:
    """The tenant's own secret, encrypted; ``sealed`` becomes it where there was none."""
    return Command(load_script("webhook_first_secret"), (tenant, sealed), str)


def send_test(endpoint_id: str, tenant: str, nonce: str) -> Command[str]:
    """Send a test event; reply the delivery's id, "missing" or "disabled"."""
    return Command(load_script("webhook_test"), (endpoint_id, tenant, nonce), str)


def replay(delivery_id: str, tenant: str) -> Command[str]:
    """Send a delivery again under its id; reply "pending", "missing", "sending", or why it can't be."""
    return Command(load_script("webhook_replay"), (delivery_id, tenant), str)
