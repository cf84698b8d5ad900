"""A tenant's webhook endpoints, their secrets, and the log of deliveries."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from uuid import uuid4

import redis.asyncio

from api_gateway.errors import Refused
from api_gateway.store_calls import store_call
from contract import deliveries
from contract.deliveries import EndpointChange
from contract.egress import EgressPolicy
from contract.errors import NotFound, WebhooksOff, WrongStatus
from contract.planning import check_hook_url
from contract.redis_io import run_async
from contract.scripting import Command
from contract.task import dumps
from contract.tenants import Tenant
from contract.webhook_secrets import SecretBox, new_secret
from contract.webhooks import (
    MAX_ENDPOINTS,
    Delivery,
    Endpoint,
    deliveries_key,
    delivery_key,
    endpoint_key,
    endpoints_key,
    new_endpoint_id,
)

T = TypeVar("T")

ENDPOINT_ID = re.compile(r"whep_[0-9a-f]{32}")
DELIVERY_ID = re.compile(r"whd_[0-9a-f]{32}")

#: Deliveries that one list request looks at; the cursor leads on from there.
_MAX_SCANNED = 1000

#: Deliveries read at once.
_BATCH = 200


@dataclass(frozen=True)
class Rotated:
    """A new secret, shown this once.

    Attributes:
        old_until_ms: Until when the one before it signs too; None where there was none.
    """

    secret: str
    old_until_ms: int | None


@dataclass(frozen=True)
class DeliveryPage:
    """A part of the log, newest first; ``next_after`` is the id to go on after."""

    deliveries: list[Delivery]
    next_after: str | None


class Webhooks:
    """Reads and changes through one asyncio client. Every method raises ``StoreUnavailable`` where Redis is away.

    Those that take an id raise ``NotFound`` where the tenant has no such thing.
    """

    def __init__(self, client: redis.asyncio.Redis, box: SecretBox, egress: EgressPolicy) -> None:
        self._driver = client
        self._client = cast(Any, client)  # the driver's types mix its sync and async replies
        self._box = box
        self._egress = egress

    def check_on(self, pointer: str) -> None:
        """Refuse what needs webhooks where the operator has set no key."""
        if not self._box.usable:
            raise Refused.at(pointer, WebhooksOff("the operator has set no OVIS_WEBHOOK_KEYS"))

    async def create(self, tenant: Tenant, change: EndpointChange) -> tuple[Endpoint, str]:
        """A new endpoint and its secret.

        Raises:
            Refused: The URL isn't allowed.
            WrongStatus: The tenant has as many as it may.
            WebhooksOff: There is no key to encrypt the secret with.
        """
        self._check_url(change, tenant)
        endpoint_id, secret = new_endpoint_id(), new_secret()
        sealed = EndpointChange(
            change.url, change.events_json, change.description, change.enabled, self._box.seal(secret)
        )
        if await self._run(deliveries.save_endpoint(endpoint_id, tenant.id, sealed)) == "full":
            raise WrongStatus(f"the tenant has {MAX_ENDPOINTS} endpoints, as many as it may")
        return await self.find(endpoint_id, tenant.id), secret

    async def change(self, endpoint_id: str, tenant: Tenant, change: EndpointChange) -> Endpoint:
        """Change an endpoint; the endpoint after it."""
        self._check_url(change, tenant)
        await self.find(endpoint_id, tenant.id)
        await self._run(deliveries.save_endpoint(endpoint_id, tenant.id, change))
        return await self.find(endpoint_id, tenant.id)

    async def find(self, endpoint_id: str, tenant: str) -> Endpoint:
        """The tenant's endpoint."""
        fields = await self._fields(endpoint_key(endpoint_id)) if ENDPOINT_ID.fullmatch(endpoint_id) else {}
        if fields.get("tenant") != tenant:
            raise NotFound("there is no webhook endpoint with this id")
        return Endpoint.from_hash(endpoint_id, fields)

    async def all(self, tenant: str) -> list[Endpoint]:
        """The tenant's endpoints, oldest first."""
        async with store_call():
            ids: list[str] = await self._client.zrange(endpoints_key(tenant), 0, -1)
        found = await self._many([endpoint_key(endpoint_id) for endpoint_id in ids])
        return [Endpoint.from_hash(i, fields) for i, fields in zip(ids, found, strict=True) if fields]

    async def delete(self, endpoint_id: str, tenant: str) -> None:
        """Forget an endpoint; what waits for it ends as canceled."""
        await self.find(endpoint_id, tenant)
        await self._run(deliveries.delete_endpoint(endpoint_id, tenant))

    async def rotate(self, endpoint_id: str | None, tenant: str, overlap_s: int) -> Rotated:
        """A new secret for an endpoint, or the tenant's own; the old one signs too for ``overlap_s`` seconds.

        Raises:
            WebhooksOff: There is no key to encrypt the secret with.
        """
        if endpoint_id is not None:
            await self.find(endpoint_id, tenant)
        secret = new_secret()
        sealed = self._box.seal(secret)
        old_until_ms = await self._run(deliveries.rotate_secret(endpoint_id or "", tenant, sealed, overlap_s))
        if old_until_ms is None:
            raise NotFound("there is no webhook endpoint with this id")
        return Rotated(secret, old_until_ms or None)

    async def send_test(self, endpoint_id: str, tenant: str) -> Delivery:
        """A test event's delivery.

        Raises:
            WrongStatus: The endpoint is disabled.
        """
        await self.find(endpoint_id, tenant)
        outcome = await self._run(deliveries.send_test(endpoint_id, tenant, uuid4().hex))
        if outcome == "disabled":
            raise WrongStatus("the endpoint is disabled: enable it first")
        return await self.find_delivery(outcome, tenant)

    async def find_delivery(self, delivery_id: str, tenant: str) -> Delivery:
        """The tenant's delivery."""
        fields = await self._fields(delivery_key(delivery_id)) if DELIVERY_ID.fullmatch(delivery_id) else {}
        if fields.get("tenant") != tenant:
            raise NotFound("there is no webhook delivery with this id")
        return Delivery.from_hash(delivery_id, fields)

    async def replay(self, delivery_id: str, tenant: str) -> Delivery:
        """Send a delivery again, under its id.

        Raises:
            WrongStatus: It is being sent, or what it belongs to is gone.
        """
        await self.find_delivery(delivery_id, tenant)
        outcome = await self._run(deliveries.replay(delivery_id, tenant))
        if outcome == "sending":
            raise WrongStatus("the delivery is being sent right now")
        if outcome not in ("pending", "missing"):
            raise WrongStatus(f"the delivery can't be sent again: {outcome}")
        return await self.find_delivery(delivery_id, tenant)

    async def page(
        self, tenant: str, *, limit: int, after: str | None, matches: Callable[[Delivery], bool]
    ) -> DeliveryPage:
        """The tenant's next deliveries, newest first. A page looks at a bounded number and may end early."""
        found: list[Delivery] = []
        num_scanned = 0
        while num_scanned < _MAX_SCANNED:
            newest = f"({after}" if after else "+"
            async with store_call():
                ids: list[str] = await self._client.zrevrangebylex(
                    deliveries_key(tenant), newest, "-", start=0, num=_BATCH
                )
            records = await self._many([delivery_key(delivery_id) for delivery_id in ids])
            for delivery_id, fields in zip(ids, records, strict=True):
                if len(found) == limit:
                    return DeliveryPage(found, after)
                after = delivery_id
                if fields and matches(delivery := Delivery.from_hash(delivery_id, fields)):
                    found.append(delivery)
            num_scanned += len(ids)
            if len(ids) < _BATCH:
                return DeliveryPage(found, None)
        return DeliveryPage(found, after)

    def _check_url(self, change: EndpointChange, tenant: Tenant) -> None:
        if change.url is not None:
            check_hook_url(change.url, "/url", self._egress, tenant)

    async def _run(self, command: Command[T]) -> T:
        async with store_call():
            return await run_async(self._driver, command)

    async def _fields(self, key: str) -> dict[str, str]:
        async with store_call():
            fields: dict[str, str] = await self._client.hgetall(key)
        return fields

    async def _many(self, keys: Sequence[str]) -> list[dict[str, str]]:
        if not keys:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(key)
            async with store_call():
                found: list[dict[str, str]] = await pipe.execute()
        return found


def endpoint_change(
    url: str | None, events: Sequence[str] | None, description: str | None, enabled: bool | None
) -> EndpointChange:
    """What a caller's body asks for."""
    return EndpointChange(url, None if events is None else dumps(list(events)), description, enabled)
