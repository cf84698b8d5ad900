"""Deleting tasks: record, inputs and results go, and the id says so."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from contract import store
from contract.redis_io import run
from tests.api_gateway.conftest import PNG, Fleet

LONG = "x" * 1000


@pytest.fixture
def picture_task() -> dict[str, Any]:
    """A task whose input lies with us."""
    source = {"base64": base64.b64encode(PNG).decode(), "media_type": "image/png"}
    return {"kind": "image", "model": "ovis2-reader", "input": source}


def test_deleted_task_leaves_nothing_but_its_id(
    fleet: Fleet, api: httpx.Client, picture_task: dict[str, Any], text_task: dict[str, Any]
) -> None:
    task_id = api.post("/v1/tasks", json=picture_task).json()["id"]
    fleet.succeed(fleet.claim(), LONG)
    neighbour = api.post("/v1/tasks", json=picture_task).json()["id"]
    assert len(fleet.keys("results/")) == 1

    response = api.delete(f"/v1/tasks/{task_id}")

    assert (response.status_code, response.content) == (204, b"")
    assert fleet.task_ids() == [neighbour]
    assert fleet.keys() == [f"inputs/acme/{neighbour}/0"]
    assert fleet.keys("results/") == []
    assert [task["id"] for task in api.get("/v1/tasks").json()["data"]] == [neighbour]
    again = api.delete(f"/v1/tasks/{task_id}")
    assert (again.status_code, again.json()["code"]) == (410, "gone")
    assert api.get(f"/v1/tasks/{task_id}").status_code == 410


def test_deleted_dead_letter_is_off_the_list(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    api.post("/v1/tasks", json=text_task)
    task_id = fleet.exhaust()

    assert api.delete(f"/v1/tasks/{task_id}").status_code == 204

    assert api.get("/v1/dead-letters").json()["data"] == []


def test_task_that_has_not_ended_is_not_deleted(fleet: Fleet, api: httpx.Client, picture_task: dict[str, Any]) -> None:
    task_id = api.post("/v1/tasks", json=picture_task).json()["id"]

    queued = api.delete(f"/v1/tasks/{task_id}")
    attempt = fleet.claim()
    running = api.delete(f"/v1/tasks/{task_id}")
    api.post(f"/v1/tasks/{task_id}/cancel")
    canceling = api.delete(f"/v1/tasks/{task_id}")

    for response, status in ((queued, "queued"), (running, "running"), (canceling, "canceling")):
        assert (response.status_code, response.json()["code"]) == (409, "wrong_status")
        assert f"the task is {status}: cancel it" in response.json()["detail"]
    assert fleet.keys() == [f"inputs/acme/{task_id}/0"]
    assert run(fleet.redis, store.finish(attempt, "stopped")) == "canceled"
    assert api.delete(f"/v1/tasks/{task_id}").status_code == 204
    assert fleet.task_ids() == fleet.keys() == []
