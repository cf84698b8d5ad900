"""Webhook endpoints, secrets and deliveries over HTTP."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from contract import deliveries
from contract.redis_io import run
from contract.webhooks import MAX_ENDPOINTS, HookAttempt, endpoint_key
from tests.api_gateway.conftest import Fleet, GatewayProcess

URL = "https://example.com/hook"


def create(api: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = api.post("/v1/webhook-endpoints", json={"url": URL, **changes})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/webhook-endpoints/{made['id']}"
    return made


def try_once(fleet: Fleet, outcome: deliveries.Outcome) -> str:
    """Play the io worker for whatever is due; reply the delivery."""
    run(fleet.redis, deliveries.expand_outbox())
    held = run(fleet.redis, deliveries.claim_delivery(uuid4().hex))
    assert held is not None
    line = HookAttempt(at_ms=1, status_code=200 if outcome == "succeeded" else 500)
    run(fleet.redis, deliveries.record_attempt(held, outcome, line, "{}", delay_ms=1000))
    return held.delivery.id


def test_an_endpoint_is_created_read_changed_listed_and_deleted(fleet: Fleet, api: httpx.Client) -> None:
    made = create(api, description="-", events=["task.failed"])
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    path = f"/v1/webhook-endpoints/{made['id']}"
    assert api.get(path).json() == made
    assert api.get("/v1/webhook-endpoints").json() == {"data": [made]}
    assert secret not in json.dumps(fleet.redis.hgetall(endpoint_key(made["id"])))
    changed = api.patch(path, json={"enabled": False, "description": ""}).json()
    assert changed == {**made, "enabled": False, "disabled_why": "switched off", "description": ""}
    assert api.patch(path, json={"enabled": True, "url": "https://example.org/"}).json()["disabled_why"] is None
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404
    assert api.get("/v1/webhook-endpoints").json() == {"data": []}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/test"),
        ("POST", "/rotate-secret"),
    ],
)
def test_another_tenants_endpoint_is_not_there(fleet: Fleet, api: httpx.Client, method: str, path: str) -> None:
    made = create(api)
    other = fleet.caller("other")
    body = {"json": {"enabled": False}} if method == "PATCH" else {}
    answer = other.request(method, f"/v1/webhook-endpoints/{made['id']}{path}", **body)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert api.get(f"/v1/webhook-endpoints/{made['id']}").json()["enabled"] is True


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"url": "https://127.0.0.1/"}, 422, "url_not_allowed", "/url"),
        ({"url": "http://example.com/"}, 422, "url_not_allowed", "/url"),
        ({"url": "https://a b/"}, 422, "invalid_request", "/url"),
        ({"url": URL, "events": []}, 422, "invalid_request", "/events"),
        ({"url": URL, "events": ["task.gone"]}, 422, "invalid_request", "/events/0"),
        ({"url": URL, "secret": "mine"}, 422, "invalid_request", "/secret"),
        ({}, 422, "invalid_request", "/url"),
    ],
)
def test_a_wrong_endpoint_is_refused(
    api: httpx.Client, body: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    answer = api.post("/v1/webhook-endpoints", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_tenant_has_so_many_endpoints_at_most(api: httpx.Client, fleet: Fleet) -> None:
    for _ in range(MAX_ENDPOINTS):
        create(api)
    answer = api.post("/v1/webhook-endpoints", json={"url": URL})
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_status")
    create(fleet.caller("other"))


def test_a_rotated_secret_is_shown_once_and_the_old_one_still_signs(api: httpx.Client) -> None:
    made = create(api)
    path = f"/v1/webhook-endpoints/{made['id']}"
    rotated = api.post(f"{path}/rotate-secret", json={"overlap_s": 60}).json()
    assert rotated["secret"] != made["secret"]
    assert api.get(path).json()["old_secret_until"] == rotated["old_secret_until"]
    first = api.post("/v1/webhook-secret/rotate").json()
    assert first["old_secret_until"] is None
    assert api.post("/v1/webhook-secret/rotate").json()["old_secret_until"] is not None


def test_a_test_event_goes_into_the_log(fleet: Fleet, api: httpx.Client) -> None:
    made = create(api)
    answer = api.post(f"/v1/webhook-endpoints/{made['id']}/test")
    assert answer.status_code == 202
    sent = answer.json()
    assert (sent["type"], sent["status"], sent["endpoint"], sent["task"]) == (
        "webhook.test",
        "pending",
        made["id"],
        None,
    )
    assert try_once(fleet, "succeeded") == sent["id"]
    read = api.get(f"/v1/webhook-deliveries/{sent['id']}").json()
    assert (read["status"], len(read["attempts"])) == ("succeeded", 1)
    api.patch(f"/v1/webhook-endpoints/{made['id']}", json={"enabled": False})
    assert api.post(f"/v1/webhook-endpoints/{made['id']}/test").status_code == 409


def test_the_log_is_filtered_paged_and_replayed(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    made = create(api)
    own = {**text_task, "webhook": {"url": URL}}
    task_ids = []
    for body in (text_task, own):
        task_ids.append(api.post("/v1/tasks", json=body).json()["id"])
        fleet.succeed(fleet.claim())
    run(fleet.redis, deliveries.expand_outbox())

    def listed(**wanted: Any) -> list[dict[str, Any]]:
        found, cursor = [], None
        while True:
            page = api.get("/v1/webhook-deliveries", params={**wanted, **({"cursor": cursor} if cursor else {})})
            assert page.status_code == 200, page.text
            found += page.json()["data"]
            cursor = page.json()["next_cursor"]
            if cursor is None:
                return found

    everything = listed()
    assert len(everything) == 3
    assert everything == listed(limit=1) == listed(status="pending")
    assert [delivery["task"] for delivery in listed(endpoint=made["id"])] == task_ids[::-1]
    assert {delivery["endpoint"] for delivery in listed(task=task_ids[1])} == {made["id"], None}
    assert fleet.caller("other").get("/v1/webhook-deliveries").json()["data"] == []
    done = try_once(fleet, "succeeded")
    assert [delivery["id"] for delivery in listed(status="succeeded")] == [done]
    assert fleet.caller("other").post(f"/v1/webhook-deliveries/{done}/replay").status_code == 404
    again = api.post(f"/v1/webhook-deliveries/{done}/replay")
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (202, done, "pending")
    assert len(again.json()["attempts"]) == 1
    api.delete(f"/v1/webhook-endpoints/{made['id']}")
    ended = listed(endpoint=made["id"])
    assert {(delivery["status"], delivery["why"]) for delivery in ended if delivery["status"] == "canceled"} == {
        ("canceled", "the endpoint was deleted")
    }
    refused = api.post(f"/v1/webhook-deliveries/{ended[0]['id']}/replay")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_status")


def test_without_keys_webhooks_are_refused(start_gateway: Any, fleet: Fleet, text_task: dict[str, Any]) -> None:
    gateway: GatewayProcess = start_gateway(OVIS_WEBHOOK_KEYS="")
    with httpx.Client(base_url=gateway.url, headers=fleet.caller().headers) as api:
        refused = [
            api.post("/v1/webhook-endpoints", json={"url": URL}),
            api.post("/v1/webhook-secret/rotate"),
            api.post("/v1/tasks", json={**text_task, "webhook": {"url": URL}}),
        ]
        assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(403, "webhooks_off")] * 3
        assert api.post("/v1/tasks", json=text_task).status_code == 202
