"""Waiting within a request: ``Prefer: wait`` and ``?wait=``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from api_gateway.waiting import preferred_wait_s
from contract import store
from contract.errors import NotAnImage
from contract.redis_io import run
from contract.store import ENDED_CHANNEL, task_key
from tests.api_gateway.conftest import Fleet, wait_until


def after(delay_s: float, act: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(delay_s, act)
    timer.start()
    return timer


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["wait=30"], 30),
        (["respond-async, wait=5"], 5),
        (["respond-async", 'Wait="7"; x=y'], 7),
        (["wait=3, wait=9"], 3),
        (["wait"], 0),
        (["wait=-1"], 0),
        (["wait=1.5"], 0),
        (["wait=99999999999"], 0),
        (["handling=lenient"], 0),
        ([], 0),
    ],
)
def test_preference_is_read_as_rfc_7240_says(values: list[str], expected: float) -> None:
    headers = Headers(raw=[(b"prefer", value.encode()) for value in values])

    assert preferred_wait_s(headers) == expected


def test_task_that_ends_within_the_wait_answers_200_at_once(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    def work() -> None:
        wait_until(lambda: bool(fleet.task_ids()))
        fleet.succeed(fleet.claim())

    worker = after(0.3, work)
    start = time.monotonic()

    response = api.post("/v1/tasks", json=text_task, headers={"Prefer": "wait=20"})

    assert time.monotonic() - start < 1.9, "the news should come by the channel, not by reading again"
    worker.join()
    assert response.status_code == 200
    assert response.headers["Preference-Applied"] == "wait"
    assert response.json()["status"] == "succeeded"
    assert response.json()["result"]["text"] == "hello"


def test_task_that_outlasts_the_wait_answers_202(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    start = time.monotonic()

    response = api.post("/v1/tasks", json=text_task, headers={"Prefer": "wait=1"})

    assert 0.9 < time.monotonic() - start < 2.5
    assert response.status_code == 202
    assert response.headers["Location"] == f"/v1/tasks/{response.json()['id']}"
    assert response.json()["status"] == "queued"


def test_many_long_polls_end_together(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    path = api.post("/v1/tasks", json=text_task).headers["Location"]
    with ThreadPoolExecutor(20) as threads:
        polls = [threads.submit(api.get, path, params={"wait": "20"}) for _ in range(20)]
        time.sleep(0.5)
        fleet.succeed(fleet.claim())
        start = time.monotonic()

        statuses = {poll.result().json()["status"] for poll in polls}

    assert statuses == {"succeeded"}
    assert time.monotonic() - start < 1.5


def test_long_poll_tells_of_a_failure(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    path = api.post("/v1/tasks", json=text_task).headers["Location"]
    attempt = fleet.claim()
    error = NotAnImage("no picture format is known").info().model_dump_json()
    worker = after(0.3, lambda: run(fleet.redis, store.finish(attempt, "failed", error_json=error)))

    task = api.get(path, params={"wait": "20"}).json()

    worker.join()
    assert task["status"] == "failed"
    assert task["progress"] == {"parts_total": 1, "parts_done": 0, "parts_failed": 1}
    assert task["error"] == {
        "type": "urn:ovis-fleet:error:not_an_image",
        "title": "Not an image",
        "status": 422,
        "detail": "no picture format is known",
        "code": "not_an_image",
        "retryable": False,
        "request_id": None,
        "errors": [],
    }
    assert (task["result"], task["result_url"], task["usage"]) == (None, None, None)


def test_lost_news_only_delays_the_answer(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = api.post("/v1/tasks", json=text_task).json()["id"]
    silent_end = {"status": "canceled", "ended_ms": 1, "expires_ms": 2}
    writer = after(0.3, lambda: fleet.redis.hset(task_key(task_id), mapping=silent_end))
    start = time.monotonic()

    task = api.get(f"/v1/tasks/{task_id}", params={"wait": "20"}).json()

    writer.join()
    assert task["status"] == "canceled"
    assert time.monotonic() - start < 4


def test_news_of_other_tasks_ends_no_wait(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    path = api.post("/v1/tasks", json=text_task).headers["Location"]
    chatter = after(0.2, lambda: [fleet.redis.publish(ENDED_CHANNEL, f"task_{n}") for n in range(50)])
    start = time.monotonic()

    task = api.get(path, params={"wait": "1"}).json()

    chatter.join()
    assert task["status"] == "queued"
    assert time.monotonic() - start > 0.9


def test_ended_task_is_not_waited_for(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    path = api.post("/v1/tasks", json=text_task).headers["Location"]
    fleet.succeed(fleet.claim())
    start = time.monotonic()

    assert api.get(path, params={"wait": "20"}).json()["status"] == "succeeded"
    assert time.monotonic() - start < 1


def test_wait_ends_when_its_caller_has_gone(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    path = api.post("/v1/tasks", json=text_task).headers["Location"]
    with pytest.raises(httpx.ReadTimeout):
        api.get(path, params={"wait": "20"}, headers={"X-Request-Id": "gone-away"}, timeout=0.5)

    log = fleet.stack.data_dir / "logs" / "gateway.log"
    wait_until(lambda: "gone-away" in log.read_text(), 4)
