"""Backpressure by bytes: 429 and 503 before anything runs full, and nothing kept of what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from contract import store
from contract.redis_io import run
from tests.api_gateway.conftest import KEYS, Fleet, GatewayProcess

PICTURE = {"kind": "image", "model": "ovis2-reader"}


def post_bytes(api: httpx.Client, size_bytes: int, key: str | None = None) -> httpx.Response:
    files = [
        ("task", (None, json.dumps(PICTURE).encode(), "application/json")),
        ("file", ("a.png", bytes(size_bytes), "image/png")),
    ]
    return api.post("/v1/tasks", files=files, headers={"Idempotency-Key": key} if key else {})


def test_tenant_at_its_bytes_gets_429_until_a_task_ends(fleet: Fleet, text_task: dict[str, Any]) -> None:
    api = fleet.caller("light")
    accepted = [post_bytes(api, 600), post_bytes(api, 400)]
    assert [response.status_code for response in accepted] == [202, 202]

    refused = post_bytes(api, 1)

    assert (refused.status_code, refused.json()["code"]) == (429, "tenant_queue_full")
    assert "bytes" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) >= 1
    assert len(fleet.task_ids()) == len(fleet.keys()) == 2
    assert api.post("/v1/tasks", json=text_task).status_code == 202, "a task without bytes may wait"
    api.post(f"/v1/tasks/{accepted[0].json()['id']}/cancel")
    assert post_bytes(api, 600).status_code == 202


def test_limit_of_one_tenant_is_not_anothers(fleet: Fleet, api: httpx.Client) -> None:
    assert post_bytes(fleet.caller("light"), 1000).status_code == 202

    assert post_bytes(api, 2000).status_code == 202


def test_task_over_the_limit_by_itself_is_413_and_never_stored(fleet: Fleet) -> None:
    response = post_bytes(fleet.caller("light"), 1001)

    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert "1001" in response.json()["detail"]
    assert "1000" in response.json()["detail"]
    assert fleet.task_ids() == fleet.keys() == []


def test_base64_counts_by_what_is_stored(fleet: Fleet) -> None:
    api = fleet.caller("light")

    def post(num_bytes: int) -> int:
        source = {"base64": "AAAA" * (num_bytes // 3), "media_type": "image/png"}
        return api.post("/v1/tasks", json={**PICTURE, "inputs": [source]}).status_code

    assert [post(900), post(102), post(99)] == [202, 429, 202]


def test_repeated_submission_of_a_waiting_task_is_no_further_load(fleet: Fleet) -> None:
    api = fleet.caller("light")

    responses = [post_bytes(api, 900, "order-42") for _ in range(3)]

    assert [response.status_code for response in responses] == [202, 202, 202]
    assert fleet.redis.hget("ovis:load", "t:light") == "900"
    assert len(fleet.keys()) == 1


def test_full_model_queue_gives_503(fleet: Fleet, start_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = start_gateway(OVIS_QUEUE_MAX_BYTES="1000")
    headers = {"Authorization": f"Bearer {KEYS['acme']}"}
    with httpx.Client(base_url=gateway.url, headers=headers) as api:
        assert post_bytes(api, 1000).status_code == 202

        refused = post_bytes(api, 1)

    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert int(refused.headers["Retry-After"]) >= 1
    assert len(fleet.task_ids()) == len(fleet.keys()) == 1


@pytest.fixture
def full_redis(fleet: Fleet) -> Any:
    """Lets Redis run full, and gives it room again."""
    yield lambda: fleet.redis.config_set("maxmemory", 1)
    fleet.redis.config_set("maxmemory", 0)


def test_full_redis_refuses_new_tasks_and_ends_old_ones(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any], full_redis: Callable[[], object]
) -> None:
    ids = [api.post("/v1/tasks", json=text_task).json()["id"] for _ in range(3)]
    full_redis()

    for refused in (api.post("/v1/tasks", json=text_task), post_bytes(api, 100)):
        assert (refused.status_code, refused.json()["code"]) == (503, "store_full")
        assert int(refused.headers["Retry-After"]) >= 1
    assert len(fleet.task_ids()) == 3
    assert fleet.keys() == [], "what was stored for a refused task is deleted"
    wait_after = api.get(f"/v1/tasks/{ids[0]}", params={"wait": "0.2"})
    fleet.succeed(fleet.claim())
    fleet.exhaust()
    assert api.post(f"/v1/tasks/{ids[2]}/cancel").json()["status"] == "canceled"
    assert api.delete(f"/v1/tasks/{ids[0]}").status_code == 204

    assert wait_after.status_code == 200
    assert [api.get(f"/v1/tasks/{task_id}").status_code for task_id in ids] == [410, 200, 200]
    assert run(fleet.redis, store.claim("ovis2-reader", token="t", worker="worker-1")) is None
