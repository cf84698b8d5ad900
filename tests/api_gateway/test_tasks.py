"""Reading and canceling tasks, and whose they are."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from contract import store
from contract.redis_io import run
from contract.task import new_task_id
from tests.api_gateway.conftest import Fleet


def submit(api: httpx.Client, body: dict[str, Any]) -> str:
    return str(api.post("/v1/tasks", json=body).json()["id"])


def test_task_reads_back_on_its_way(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = submit(api, {**text_task, "retention_s": 60})
    attempt = fleet.claim()
    running = api.get(f"/v1/tasks/{task_id}").json()
    fleet.succeed(attempt)

    ended = api.get(f"/v1/tasks/{task_id}").json()

    assert (running["status"], running["attempts"]) == ("running", 1)
    assert ended["status"] == "succeeded"
    assert ended["progress"] == {"parts_total": 1, "parts_done": 1, "parts_failed": 0}
    assert ended["usage"] == {
        "images": 1,
        "pages": 0,
        "frames": 0,
        "tiles": 1,
        "prompt_tokens": 9,
        "visual_tokens": 576,
        "output_tokens": 3,
        "gpu_seconds": 0.25,
    }
    assert ended["result"] == {
        "text": "hello",
        "data": None,
        "finish_reason": "stop",
        "source": "model",
        "warnings": [],
        "start_s": None,
        "end_s": None,
        "location": f"s3://ovis/results/acme/{task_id}/attempt-1/0.json",
    }
    assert ended["result_url"] == f"/v1/tasks/{task_id}/result"
    times = [datetime.fromisoformat(ended[name]) for name in ("created_at", "started_at", "ended_at", "expires_at")]
    assert times == sorted(times)
    assert times[3] - times[2] == timedelta(seconds=60)


def test_queued_task_is_canceled_at_once(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = submit(api, text_task)

    response = api.post(f"/v1/tasks/{task_id}/cancel")

    assert (response.status_code, response.json()["status"]) == (200, "canceled")
    assert run(fleet.redis, store.claim("ovis2-reader", token="t", worker="w")) is None


def test_running_task_is_canceling_until_its_worker_lets_go(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    task_id = submit(api, text_task)
    attempt = fleet.claim()

    response = api.post(f"/v1/tasks/{task_id}/cancel")

    assert (response.status_code, response.json()["status"]) == (202, "canceling")
    assert run(fleet.redis, store.finish(attempt, "stopped")) == "canceled"
    assert api.get(f"/v1/tasks/{task_id}").json()["status"] == "canceled"


def test_ended_task_stays_as_it_is_when_canceled(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = submit(api, text_task)
    fleet.succeed(fleet.claim())

    response = api.post(f"/v1/tasks/{task_id}/cancel")

    assert (response.status_code, response.json()["status"]) == (200, "succeeded")


PATHS = [
    ("GET", "/v1/tasks/{id}"),
    ("GET", "/v1/tasks/{id}/result"),
    ("POST", "/v1/tasks/{id}/cancel"),
    ("POST", "/v1/tasks/{id}/retry"),
    ("DELETE", "/v1/tasks/{id}"),
    ("GET", "/v1/dead-letters/{id}"),
    ("POST", "/v1/dead-letters/{id}/replay"),
    ("DELETE", "/v1/dead-letters/{id}"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("task_id", [new_task_id(), "task_0", "*", "%2e%2e"])
def test_unknown_id_is_404(fleet: Fleet, api: httpx.Client, method: str, path: str, task_id: str) -> None:
    response = api.request(method, path.format(id=task_id))

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_another_tenants_id_is_404_and_stays_untouched(
    fleet: Fleet, text_task: dict[str, Any], method: str, path: str
) -> None:
    task_id = submit(fleet.caller("other"), text_task)

    response = fleet.caller("acme").request(method, path.format(id=task_id))

    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert fleet.caller("other").get(f"/v1/tasks/{task_id}").json()["status"] == "queued"


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_purged_id_is_410_to_its_tenant_alone(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any], method: str, path: str
) -> None:
    task_id = submit(api, text_task)
    fleet.succeed(fleet.claim())
    assert run(fleet.redis, store.purge(task_id))

    own = api.request(method, path.format(id=task_id))
    foreign = fleet.caller("other").request(method, path.format(id=task_id))

    assert (own.status_code, own.json()["code"]) == (410, "gone")
    assert foreign.status_code == 404
