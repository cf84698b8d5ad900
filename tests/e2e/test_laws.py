"""The laws, broken on purpose: messages lost and repeated, processes killed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import redis

from contract import store
from ovis_fleet import Client
from ovis_fleet.stack import LocalStack
from tests.e2e.conftest import MODEL, RECEIPT


def text_task(prompt: str = "hi", max_new_tokens: int = 2) -> dict[str, object]:
    return {
        "kind": "text",
        "model": MODEL,
        "operation": "ask",
        "prompt": prompt,
        "options": {"max_new_tokens": max_new_tokens},
    }


def submit(api: Client, count: int) -> list[str]:
    return [
        api.submit(kind="text", model=MODEL, operation="ask", prompt="hi", options={"max_new_tokens": 2}).id
        for _ in range(count)
    ]


def assert_each_succeeded_once(api: Client, queue: redis.Redis, task_ids: list[str], timeout_s: float = 60) -> None:
    for task_id in task_ids:
        task = api.wait(task_id, timeout_s)
        assert task.status == "succeeded", task
        assert task.progress.parts_done == 1
        history = queue.hget(store.task_key(task_id), "p0:history")
        assert history is not None
        assert history.count('"why":"succeeded"') == 1


def test_law_1_every_message_deleted_and_all_tasks_finish(fleet: LocalStack, api: Client, queue: redis.Redis) -> None:
    fleet.stop_part("model")
    task_ids = submit(api, 30)
    assert queue.llen(MODEL) > 0
    queue.delete(MODEL)
    starting = threading.Thread(target=fleet.start_part, args=("model",))
    starting.start()
    while starting.is_alive():
        queue.delete(MODEL)
        time.sleep(0.05)
    assert_each_succeeded_once(api, queue, task_ids)


def test_law_1_every_message_repeated_tenfold_and_each_result_is_one(
    fleet: LocalStack, api: Client, queue: redis.Redis
) -> None:
    fleet.stop_part("model")
    task_ids = submit(api, 10)
    messages = queue.lrange(MODEL, 0, -1)
    for _ in range(9):
        queue.lpush(MODEL, *messages)
    fleet.start_part("model")
    assert_each_succeeded_once(api, queue, task_ids)
    assert all(api.get(task_id).attempts == 1 for task_id in task_ids)


def test_law_2_every_202_that_was_seen_succeeds_though_the_gateway_is_killed(
    fleet: LocalStack, api: Client, queue: redis.Redis
) -> None:
    accepted: list[str] = []
    refused: list[str] = []

    def submit_one(number: int) -> None:
        headers = {"Authorization": f"Bearer {fleet.api_key}"}
        try:
            answer = httpx.post(f"{fleet.url}/v1/tasks", json=text_task(f"task {number}"), headers=headers, timeout=10)
        except httpx.TransportError as exc:
            refused.append(type(exc).__name__)
            return
        assert answer.status_code == 202, answer.text
        accepted.append(answer.json()["id"])

    def kill_when_busy() -> None:
        while len(accepted) < 150:
            time.sleep(0.005)
        fleet.kill_part("gateway")
        fleet.start_part("gateway")

    killer = threading.Thread(target=kill_when_busy)
    killer.start()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(submit_one, range(500)))
    killer.join()
    assert refused, "the kill met no request"
    assert len(accepted) >= 150
    assert_each_succeeded_once(api, queue, accepted)


def test_law_3_tasks_of_a_killed_worker_finish_once_and_soon(
    fleet: LocalStack, api: Client, queue: redis.Redis
) -> None:
    task_ids = [api.submit(RECEIPT, model=MODEL).id for _ in range(12)]
    deadline = time.monotonic() + 30
    while queue.zcard("ovis:leases") < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    fleet.kill_part("model")
    assert queue.zcard("ovis:leases") >= 4
    fleet.start_part("model")
    back = time.monotonic()
    assert_each_succeeded_once(api, queue, task_ids)
    assert time.monotonic() - back < 30
    assert max(api.get(task_id).attempts for task_id in task_ids) == 2


def test_law_3_the_io_worker_killed_with_the_model_worker_hides_no_work(
    fleet: LocalStack, api: Client, queue: redis.Redis
) -> None:
    task_ids = submit(api, 20)
    fleet.kill_part("io")
    fleet.kill_part("model")
    fleet.start_part("model")
    fleet.start_part("io")
    assert_each_succeeded_once(api, queue, task_ids, timeout_s=90)


def test_a_valkey_that_is_killed_loses_no_accepted_task(fleet: LocalStack, api: Client, queue: redis.Redis) -> None:
    task_ids = submit(api, 10)
    fleet.kill_part("valkey")
    fleet.start_part("valkey")
    task_ids += submit(api, 10)
    assert_each_succeeded_once(api, queue, task_ids, timeout_s=90)


def test_law_4_a_prompt_over_the_context_ends_with_a_typed_error(api: Client, queue: redis.Redis) -> None:
    options = {"max_new_tokens": 320}
    task = api.submit(kind="text", model=MODEL, operation="ask", prompt="x" * 4000, options=options, wait_s=60)
    assert task.status == "failed"
    assert task.error is not None
    assert (task.error.code, task.error.retryable) == ("context_too_long", False)
    assert "4096" in task.error.detail
