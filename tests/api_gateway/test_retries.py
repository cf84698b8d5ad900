"""Retrying failed tasks, and deadlines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from contract import store
from contract.errors import NotAnImage
from contract.redis_io import run
from tests.api_gateway.conftest import Fleet, wait_until


def submit(api: httpx.Client, body: dict[str, Any]) -> str:
    response = api.post("/v1/tasks", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def fail(fleet: Fleet) -> None:
    error = NotAnImage("no picture format is known").info().model_dump_json()
    assert run(fleet.redis, store.finish(fleet.claim(), "failed", error_json=error)) == "committed"


def test_failed_task_runs_again_as_a_new_run(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = submit(api, text_task)
    fail(fleet)

    response = api.post(f"/v1/tasks/{task_id}/retry")

    assert response.status_code == 202
    assert response.headers["Location"] == f"/v1/tasks/{task_id}"
    assert int(response.headers["Retry-After"]) >= 1
    task = response.json()
    assert (task["status"], task["run"], task["error"], task["ended_at"]) == ("queued", 2, None, None)
    assert task["progress"] == {"parts_total": 1, "parts_done": 0, "parts_failed": 0}
    fleet.succeed(fleet.claim())
    ended = api.get(f"/v1/tasks/{task_id}").json()
    assert (ended["status"], ended["run"], ended["attempts"]) == ("succeeded", 2, 2)


def test_one_key_makes_one_retry(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = submit(api, text_task)
    fail(fleet)
    path = f"/v1/tasks/{task_id}/retry"
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: api.post(path, headers={"Idempotency-Key": "again-1"}), range(20)))

    assert {(answer.status_code, answer.json()["run"]) for answer in answers} == {(202, 2)}
    assert fleet.redis.hget(store.queue_stats_key("ovis2-reader"), "waiting") == "1"
    fail(fleet)
    repeated = api.post(path, headers={"Idempotency-Key": "again-1"}).json()
    assert (repeated["run"], repeated["status"]) == (2, "failed"), "the same answer, not a third run"
    assert api.post(path, headers={"Idempotency-Key": "again-2"}).json()["run"] == 3
    assert api.post(path, headers={"Idempotency-Key": "again-3"}).status_code == 409
    assert api.post(path, headers={"Idempotency-Key": "no space"}).status_code == 422


def test_one_key_makes_one_replay(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = submit(api, text_task)
    fleet.exhaust()
    path = f"/v1/dead-letters/{task_id}/replay"

    answers = [api.post(path, headers={"Idempotency-Key": "again-1"}) for _ in range(3)]

    assert [(answer.status_code, answer.json()["run"]) for answer in answers] == [(202, 2)] * 3
    assert api.post(path).status_code == 404, "without the key it is a dead letter no more"


def end_nothing(_fleet: Fleet, _api: httpx.Client, _task_id: str) -> None:
    """It stays queued."""


def claim(fleet: Fleet, _api: httpx.Client, _task_id: str) -> None:
    fleet.claim()


def claim_and_cancel(fleet: Fleet, api: httpx.Client, task_id: str) -> None:
    fleet.claim()
    api.post(f"/v1/tasks/{task_id}/cancel")


def succeed(fleet: Fleet, _api: httpx.Client, _task_id: str) -> None:
    fleet.succeed(fleet.claim())


def cancel(_fleet: Fleet, api: httpx.Client, task_id: str) -> None:
    api.post(f"/v1/tasks/{task_id}/cancel")


@pytest.mark.parametrize(
    ("act", "status"),
    [
        (end_nothing, "queued"),
        (claim, "running"),
        (claim_and_cancel, "canceling"),
        (succeed, "succeeded"),
        (cancel, "canceled"),
    ],
    ids=["queued", "running", "canceling", "succeeded", "canceled"],
)
def test_task_that_has_not_failed_is_not_retried(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any], act: Any, status: str
) -> None:
    task_id = submit(api, text_task)
    act(fleet, api, task_id)
    before = api.get(f"/v1/tasks/{task_id}").json()

    response = api.post(f"/v1/tasks/{task_id}/retry")

    assert (response.status_code, response.json()["code"]) == (409, "wrong_status")
    assert status in response.json()["detail"]
    assert response.json()["retryable"] is False
    assert api.get(f"/v1/tasks/{task_id}").json() == before


def test_task_whose_retention_is_over_is_gone_for_a_retry(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    task_id = submit(api, text_task)
    fail(fleet)
    assert run(fleet.redis, store.end_retention(task_id, "acme")) == "due"

    response = api.post(f"/v1/tasks/{task_id}/retry")

    assert (response.status_code, response.json()["code"]) == (410, "gone")


def test_retried_task_survives_a_purge_that_was_under_way(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    task_id = submit(api, text_task)
    fail(fleet)
    assert api.post(f"/v1/tasks/{task_id}/retry").status_code == 202

    assert not run(fleet.redis, store.purge(task_id))

    assert api.get(f"/v1/tasks/{task_id}").json()["status"] == "queued"


def test_deadline_is_shown_and_expires_a_task_that_waits(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    task = api.post("/v1/tasks", json={**text_task, "deadline_s": 1}).json()
    created, deadline = (datetime.fromisoformat(task[name]) for name in ("created_at", "deadline_at"))
    assert deadline - created == timedelta(seconds=1)
    assert run(fleet.redis, store.expire_deadlines()) == 0

    wait_until(lambda: run(fleet.redis, store.expire_deadlines()) == 1)

    ended = api.get(f"/v1/tasks/{task['id']}").json()
    assert (ended["status"], ended["error"]["code"]) == ("expired", "deadline_exceeded")
    assert ended["deadline_at"] == task["deadline_at"]


def test_every_run_has_the_whole_time(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task = api.post("/v1/tasks", json={**text_task, "deadline_s": 60}).json()
    fail(fleet)
    failed = api.get(f"/v1/tasks/{task['id']}").json()

    retried = api.post(f"/v1/tasks/{task['id']}/retry").json()

    ended, deadline = (datetime.fromisoformat(text) for text in (failed["ended_at"], retried["deadline_at"]))
    assert timedelta(seconds=60) <= deadline - ended < timedelta(seconds=70)
