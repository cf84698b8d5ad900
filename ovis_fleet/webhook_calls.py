"""Operations on webhooks, as flows that both clients run."""

from collections.abc import Sequence

from ovis_fleet.records import Page
from ovis_fleet.tenant_records import Delivery, WebhookEndpoint, WebhookSecret
from ovis_fleet.wire import Flow, ask, path_of, read_page, read_record

_ENDPOINTS = "/v1/webhook-endpoints"
_DELIVERIES = "/v1/webhook-deliveries"


def create_endpoint(url: str, *, events: Sequence[str] | None = None, description: str = "") -> Flow[WebhookEndpoint]:
    """Registers a URL for events of all the tenant's tasks; the answer alone has its secret.

    Args:
        url: who is told.
        events: of which types; the ends of tasks by default.
        description: for people.
    """
    body = {"url": url, "description": description, **({"events": list(events)} if events is not None else {})}
    return read_record((yield from ask("POST", _ENDPOINTS, json=body, is_repeatable=False)), WebhookEndpoint)


def endpoints() -> Flow[tuple[WebhookEndpoint, ...]]:
    """Reads all of the tenant's endpoints."""
    return read_page((yield from ask("GET", _ENDPOINTS)), WebhookEndpoint).items


def endpoint(endpoint_id: str) -> Flow[WebhookEndpoint]:
    """Reads an endpoint."""
    return read_record((yield from ask("GET", path_of(_ENDPOINTS, endpoint_id))), WebhookEndpoint)


def change_endpoint(
    endpoint_id: str,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    description: str | None = None,
    enabled: bool | None = None,
) -> Flow[WebhookEndpoint]:
    """Changes what is given of an endpoint; enabling also ends a rest after failures."""
    changes = {"url": url, "events": events, "description": description, "enabled": enabled}
    body = {key: value for key, value in changes.items() if value is not None}
    return read_record((yield from ask("PATCH", path_of(_ENDPOINTS, endpoint_id), json=body)), WebhookEndpoint)


def delete_endpoint(endpoint_id: str) -> Flow[None]:
    """Removes an endpoint; what waits for it is canceled."""
    yield from ask("DELETE", path_of(_ENDPOINTS, endpoint_id))


def rotate_endpoint_secret(endpoint_id: str, *, overlap_s: int = 86_400) -> Flow[WebhookSecret]:
    """Gives an endpoint a new secret; the old one signs too for ``overlap_s``."""
    path = path_of(_ENDPOINTS, endpoint_id, "rotate-secret")
    return read_record(
        (yield from ask("POST", path, json={"overlap_s": overlap_s}, is_repeatable=False)), WebhookSecret
    )


def rotate_webhook_secret(*, overlap_s: int = 86_400) -> Flow[WebhookSecret]:
    """Gives the webhooks that tasks name themselves a new secret; the old one signs too for ``overlap_s``."""
    path = "/v1/webhook-secret/rotate"
    return read_record(
        (yield from ask("POST", path, json={"overlap_s": overlap_s}, is_repeatable=False)), WebhookSecret
    )


def test_endpoint(endpoint_id: str) -> Flow[Delivery]:
    """Sends an endpoint an event ``webhook.test``."""
    return read_record(
        (yield from ask("POST", path_of(_ENDPOINTS, endpoint_id, "test"), is_repeatable=False)), Delivery
    )


def delivery_page(
    cursor: str | None = None,
    *,
    endpoint: str | None = None,
    task: str | None = None,
    status: str | None = None,
    limit: int | None = None,
) -> Flow[Page[Delivery]]:
    """Reads deliveries, the newest first.

    Args:
        cursor: an earlier page's ``next_cursor``.
        endpoint: only to it.
        task: only about it.
        status: only those.
        limit: how many on a page; the gateway's own number by default.
    """
    params = {"endpoint": endpoint, "task": task, "status": status, "limit": limit, "cursor": cursor}
    return read_page((yield from ask("GET", _DELIVERIES, params=params)), Delivery)


def delivery(delivery_id: str) -> Flow[Delivery]:
    """Reads a delivery with its tries."""
    return read_record((yield from ask("GET", path_of(_DELIVERIES, delivery_id))), Delivery)


def replay_delivery(delivery_id: str) -> Flow[Delivery]:
    """Delivers again, under the same id."""
    return read_record((yield from ask("POST", path_of(_DELIVERIES, delivery_id, "replay"))), Delivery)
