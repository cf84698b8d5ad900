"""What a tenant may do and has used, and what operators see of everybody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from contract import store
from contract.redis_io import run
from tests.api_gateway.conftest import Fleet

ADMIN_PATHS = ("/v1/admin/queues", "/v1/admin/workers", "/v1/admin/tasks", "/v1/admin/dead-letters")


def submit(fleet: Fleet, body: dict[str, Any], tenant: str = "acme") -> str:
    response = fleet.caller(tenant).post("/v1/tasks", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def test_usage_counts_what_tasks_took_by_day(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    for _ in range(3):
        submit(fleet, text_task)
    for _ in range(2):
        fleet.succeed(fleet.claim())
    submit(fleet, text_task, "other")

    used = api.get("/v1/usage").json()

    assert [day["date"] for day in used["data"]] == [datetime.now(UTC).date().isoformat()]
    assert used["total"]["tasks"] == {"submitted": 3, "succeeded": 2}
    assert used["total"]["usage"]["output_tokens"] == 6
    assert used["total"]["usage"]["visual_tokens"] == 2 * 576
    assert used["total"]["usage"]["gpu_seconds"] == 0.5
    assert {name: used["data"][0][name] for name in ("tasks", "usage")} == used["total"]
    (key,) = fleet.redis.scan_iter("ovis:usage:acme:*")
    assert fleet.redis.ttl(key) > 86_400


def test_usage_of_nobody_is_nothing(fleet: Fleet, api: httpx.Client) -> None:
    used = api.get("/v1/usage", params={"days": 92}).json()

    assert (used["data"], used["total"]["tasks"]) == ([], {})
    assert api.get("/v1/usage", params={"days": 93}).status_code == 422


def test_limits_show_what_is_taken(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    submit(fleet, text_task)
    api.post("/v1/tasks", json={"kind": "image", "model": "ovis2-reader", "input": {"base64": "QUJD"}})

    limits = api.get("/v1/limits").json()

    assert (limits["unended_tasks"], limits["waiting_bytes"]) == (2, 3)
    assert (limits["max_waiting_parts"], limits["max_waiting_bytes"]) == (10_000, 10**9)
    assert (limits["requests_per_s"], limits["models"]) == (None, None)
    assert fleet.caller("hasty").get("/v1/limits").json()["requests_per_s"] == 5
    assert fleet.caller("narrow").get("/v1/limits").json()["models"] == ["ovis2-reader"]
    fleet.succeed(fleet.claim())
    assert api.get("/v1/limits").json()["unended_tasks"] == 1


def test_un_ended_tasks_are_limited_over_all_queues(fleet: Fleet, text_task: dict[str, Any]) -> None:
    few = fleet.caller("few")
    submit(fleet, text_task, "few")
    submit(fleet, {**text_task, "model": "ovis2-4b"}, "few")

    refused = few.post("/v1/tasks", json=text_task)

    assert (refused.status_code, refused.json()["code"]) == (429, "tenant_queue_full")
    fleet.succeed(fleet.claim())
    assert few.post("/v1/tasks", json=text_task).status_code == 202


@pytest.mark.parametrize("path", ADMIN_PATHS)
def test_what_concerns_everybody_needs_the_scope_admin(fleet: Fleet, path: str) -> None:
    assert fleet.caller("nobody").get(path).status_code == 401
    refused = fleet.caller("acme").get(path)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert fleet.caller("operator").get(path).status_code == 200


def test_operators_see_queues_and_workers(fleet: Fleet, text_task: dict[str, Any]) -> None:
    for tenant in ("acme", "acme", "other"):
        submit(fleet, text_task, tenant)
    run(fleet.redis, store.renew("ovis2-reader", "worker-1", 24, ()))
    fleet.claim()
    operator = fleet.caller("operator")

    (queue,) = operator.get("/v1/admin/queues").json()["data"]
    (worker,) = operator.get("/v1/admin/workers").json()["data"]

    assert (queue["queue"], queue["waiting"], queue["running"], queue["workers"]) == ("ovis2-reader", 2, 1, 1)
    assert sum(queue["waiting_by_tenant"].values()) == 2
    assert (worker["worker"], worker["queue"], worker["slots"], worker["held"]) == ("worker-1", "ovis2-reader", 24, 1)
    assert worker["seen_at"].startswith(datetime.now(UTC).date().isoformat()[:8])


def test_operators_page_through_the_tasks_of_all_tenants(fleet: Fleet, text_task: dict[str, Any]) -> None:
    ids = [submit(fleet, text_task, tenant) for tenant in ("acme", "other", "acme", "other", "narrow")]
    operator = fleet.caller("operator")

    seen: list[tuple[str, str]] = []
    cursor: dict[str, str] = {}
    while True:
        page = operator.get("/v1/admin/tasks", params={"limit": "2", **cursor}).json()
        seen += [(entry["tenant"], entry["task"]["id"]) for entry in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}

    assert [task_id for _, task_id in seen] == sorted(ids, reverse=True)
    assert [tenant for tenant, _ in seen] == ["narrow", "other", "acme", "other", "acme"]
    of_one = operator.get("/v1/admin/tasks", params={"tenant": "other"}).json()["data"]
    assert {entry["tenant"] for entry in of_one} == {"other"}


def test_operators_page_through_the_dead_letters_of_all_tenants(fleet: Fleet, text_task: dict[str, Any]) -> None:
    dead = []
    for tenant in ("acme", "other", "acme"):
        submit(fleet, text_task, tenant)
        dead.append(fleet.exhaust())
    operator = fleet.caller("operator")

    first = operator.get("/v1/admin/dead-letters", params={"limit": 2}).json()
    second = operator.get("/v1/admin/dead-letters", params={"limit": 2, "cursor": first["next_cursor"]}).json()

    found = [entry["dead_letter"]["task"]["id"] for entry in first["data"] + second["data"]]
    assert sorted(found) == sorted(dead)
    assert len(first["data"]) == 2
    assert second["next_cursor"] is None
    assert len(first["data"][0]["dead_letter"]["history"]) == 3
