"""Redis or S3 away: quick 503s, nothing left over, and back to work by itself."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ovis_fleet.process import ManagedProcess
from ovis_fleet.stack import LocalStack, StackConfig
from tests.api_gateway.conftest import PNG, Fleet, wait_until
from tests.api_gateway.listening import WHOLE, following, seen

#: What counts as quick: the client's own patience is longer.
QUICK_S = 6.0


@pytest.fixture(scope="module")
def own_stack(tenants_file: Path) -> Iterator[LocalStack]:
    """A stack whose parts are killed here, away from the other tests."""
    env = {"OVIS_TENANTS_FILE": str(tenants_file), "OVIS_BLOB_TIMEOUT_S": "3"}
    with LocalStack(StackConfig(parts=("valkey", "s3", "gateway"), extra_env=env)) as running:
        yield running


@pytest.fixture
def shaken(own_stack: LocalStack) -> Iterator[Fleet]:
    """The stack, whole again after each test."""
    fleet = Fleet.of(own_stack)
    yield fleet
    for name in ("valkey", "s3"):
        own_stack.start_part(name)
    wait_until(lambda: fleet.caller().get("/readyz").status_code == 200)
    fleet.redis.flushall()
    fleet.blobs.delete_prefix("")
    fleet.close()


def post_picture(api: httpx.Client) -> httpx.Response:
    task = json.dumps({"kind": "image", "model": "ovis2-reader"}).encode()
    files = [("task", (None, task, "application/json")), ("file", ("a.png", PNG, "image/png"))]
    return api.post("/v1/tasks", files=files)


def assert_503_quickly(response: httpx.Response, code: str) -> None:
    assert response.elapsed.total_seconds() < QUICK_S
    assert (response.status_code, response.json()["code"]) == (503, code)
    assert response.json()["retryable"] is True
    assert int(response.headers["Retry-After"]) >= 1


def long_polls(fleet: Fleet, threads: ThreadPoolExecutor, path: str, count: int) -> list[Future[httpx.Response]]:
    """Begin to wait for a task ``count`` times; return when all have read its record and its record again."""

    def num_reads() -> int:
        return int(fleet.redis.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0))

    before = num_reads()
    polls = [threads.submit(fleet.caller().get, path, params={"wait": "25"}) for _ in range(count)]
    wait_until(lambda: num_reads() >= before + 2 * count)
    return polls


def stop(process: ManagedProcess) -> None:
    """Stop a process for now; return when every thread of it stands still."""
    process.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{process.pid}/task")
    wait_until(lambda: all(") T " in (thread / "stat").read_text() for thread in threads.iterdir()))


def test_redis_killed_gives_503_until_it_is_back(shaken: Fleet, text_task: dict[str, Any]) -> None:
    api = shaken.caller()
    kept = api.post("/v1/tasks", json=text_task).json()
    time.sleep(1.5)  # appendfsync everysec
    shaken.stack.kill_part("valkey")

    assert_503_quickly(api.post("/v1/tasks", json=text_task), "store_unavailable")
    assert_503_quickly(post_picture(api), "store_unavailable")
    assert_503_quickly(api.get(f"/v1/tasks/{kept['id']}", params={"wait": "20"}), "store_unavailable")
    assert_503_quickly(api.get("/v1/tasks"), "store_unavailable")
    for method, path in (
        ("POST", f"/v1/tasks/{kept['id']}/cancel"),
        ("POST", f"/v1/tasks/{kept['id']}/retry"),
        ("DELETE", f"/v1/tasks/{kept['id']}"),
        ("GET", "/v1/dead-letters"),
        ("GET", f"/v1/dead-letters/{kept['id']}"),
        ("POST", f"/v1/dead-letters/{kept['id']}/replay"),
        ("DELETE", f"/v1/dead-letters/{kept['id']}"),
    ):
        assert_503_quickly(api.request(method, path), "store_unavailable")
    # Without a limit of requests the list of models would be 200: what can't be counted isn't let through.
    assert_503_quickly(shaken.caller("hasty").get("/v1/models"), "store_unavailable")
    ready = api.get("/readyz")
    assert_503_quickly(ready, "store_unavailable")
    assert "redis" in ready.json()["detail"]
    assert api.get("/livez").status_code == 200
    models = api.get("/v1/models")
    assert (models.status_code, models.json()["data"][0]["workers"]) == (200, None)
    assert shaken.keys() == [], "no picture is stored for a queue that is away"

    shaken.stack.start_part("valkey")

    wait_until(lambda: api.get("/readyz").status_code == 200, 5)
    assert api.get(f"/v1/tasks/{kept['id']}").json() == kept
    assert api.post("/v1/tasks", json=text_task).status_code == 202


def test_long_poll_outlives_a_restart_of_redis(shaken: Fleet, text_task: dict[str, Any]) -> None:
    api = shaken.caller()
    polled: list[httpx.Response] = []
    path = api.post("/v1/tasks", json=text_task).headers["Location"]
    poll = threading.Thread(target=lambda: polled.append(api.get(path, params={"wait": "25"})))
    poll.start()
    time.sleep(1.5)

    shaken.stack.kill_part("valkey")
    shaken.stack.start_part("valkey")
    shaken.succeed(shaken.claim())
    poll.join(10)

    assert (polled[0].status_code, polled[0].json()["status"]) == (200, "succeeded")


def test_event_stream_outlives_a_restart_of_redis(shaken: Fleet, text_task: dict[str, Any]) -> None:
    task_id = shaken.caller().post("/v1/tasks", json=text_task).json()["id"]
    with following(shaken.caller(), task_id) as got:
        assert got.get(timeout=10).data["status"] == "queued"
        shaken.stack.kill_part("valkey")
        shaken.stack.start_part("valkey")
        shaken.succeed(shaken.claim())
        assert seen(list(iter(lambda: got.get(timeout=20), None))) == WHOLE


def test_long_poll_outlives_a_redis_that_hangs(shaken: Fleet, text_task: dict[str, Any]) -> None:
    api = shaken.caller()
    path = api.post("/v1/tasks", json=text_task).headers["Location"]
    redis_server = shaken.stack.parts["valkey"]
    with ThreadPoolExecutor(20) as threads:
        polls = long_polls(shaken, threads, path, 20)
        stop(redis_server)
        try:
            time.sleep(5)  # longer than a call of Redis may take
        finally:
            redis_server.send_signal(signal.SIGCONT)
        shaken.succeed(shaken.claim())

        answers = [poll.result() for poll in polls]

    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "succeeded")}


def test_nobody_notices_that_connections_to_redis_are_cut(shaken: Fleet, text_task: dict[str, Any]) -> None:
    api = shaken.caller()
    path = api.post("/v1/tasks", json=text_task).headers["Location"]
    with ThreadPoolExecutor(20) as threads:
        polls = long_polls(shaken, threads, path, 10)
        for _ in range(10):
            calls = [threads.submit(api.get, path) for _ in range(9)]
            calls.append(threads.submit(api.post, "/v1/tasks", json=text_task))
            for kind in ("normal", "pubsub"):
                shaken.redis.client_kill_filter(_type=kind, skipme=True)
            assert {call.result().status_code for call in calls} == {200, 202}
        shaken.succeed(shaken.claim())

        answers = [poll.result() for poll in polls]

    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "succeeded")}
    wait_until(lambda: dict(shaken.redis.pubsub_numsub("ovis:ended"))["ovis:ended"] == 1, 5)


def test_news_is_heard_again_after_a_restart_of_redis(shaken: Fleet) -> None:
    shaken.stack.kill_part("valkey")
    shaken.stack.start_part("valkey")

    wait_until(lambda: dict(shaken.redis.pubsub_numsub("ovis:ended"))["ovis:ended"] == 1, 5)


def test_accepted_task_is_answered_although_redis_dies_while_it_is_waited_for(
    shaken: Fleet, text_task: dict[str, Any]
) -> None:
    api = shaken.caller()
    killer = threading.Timer(0.7, lambda: shaken.stack.kill_part("valkey"))
    killer.start()

    response = api.post("/v1/tasks", json=text_task, headers={"Prefer": "wait=2"})

    killer.join()
    assert (response.status_code, response.json()["status"]) == (202, "queued")


def test_hanging_redis_gives_503_and_takes_no_connection_with_it(shaken: Fleet, text_task: dict[str, Any]) -> None:
    api = shaken.caller()
    path = api.post("/v1/tasks", json=text_task).headers["Location"]
    redis_server = shaken.stack.parts["valkey"]
    stop(redis_server)
    try:
        with ThreadPoolExecutor(80) as threads:
            answers = list(threads.map(lambda _: api.get(path), range(80)))
        assert api.get("/livez").elapsed.total_seconds() < 1
    finally:
        redis_server.send_signal(signal.SIGCONT)

    for response in answers:
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        assert response.elapsed.total_seconds() < 8
    with ThreadPoolExecutor(80) as threads:
        assert {response.status_code for response in threads.map(lambda _: api.get(path), range(80))} == {200}


def test_s3_killed_gives_503_for_pictures_alone(shaken: Fleet, text_task: dict[str, Any]) -> None:
    api = shaken.caller()
    shaken.stack.kill_part("s3")

    assert_503_quickly(post_picture(api), "blobs_unavailable")
    ready = api.get("/readyz")
    assert_503_quickly(ready, "blobs_unavailable")
    assert "s3" in ready.json()["detail"]
    assert shaken.task_ids() == []
    assert api.post("/v1/tasks", json=text_task).status_code == 202

    shaken.stack.start_part("s3")

    wait_until(lambda: post_picture(api).status_code == 202, 10)


def test_task_deleted_while_s3_is_away_is_due_for_purging_and_can_be_deleted_again(shaken: Fleet) -> None:
    api = shaken.caller()
    task_id = post_picture(api).json()["id"]
    shaken.succeed(shaken.claim(), "x" * 1000)
    shaken.stack.kill_part("s3")

    assert_503_quickly(api.delete(f"/v1/tasks/{task_id}"), "blobs_unavailable")
    assert_503_quickly(api.get(f"/v1/tasks/{task_id}/result", params={"format": "text"}), "blobs_unavailable")
    task = api.get(f"/v1/tasks/{task_id}").json()
    assert task["status"] == "succeeded"
    assert task["expires_at"] <= datetime.now(UTC).isoformat()
    assert shaken.redis.zscore("ovis:retention", task_id) is not None

    shaken.stack.start_part("s3")

    wait_until(lambda: api.delete(f"/v1/tasks/{task_id}").status_code in {204, 410}, 10)
    assert api.get(f"/v1/tasks/{task_id}").status_code == 410
    assert shaken.keys() == shaken.keys("results/") == []


def test_hanging_s3_gives_503_and_what_it_stores_late_is_deleted(shaken: Fleet) -> None:
    api = shaken.caller()
    assert post_picture(api).status_code == 202
    s3 = shaken.stack.parts["s3"]
    stop(s3)
    try:
        response = post_picture(api)
        assert api.get("/livez").elapsed.total_seconds() < 1
    finally:
        s3.send_signal(signal.SIGCONT)

    assert_503_quickly(response, "blobs_unavailable")
    assert len(shaken.task_ids()) == 1
    wait_until(lambda: shaken.keys() == [f"inputs/acme/{shaken.task_ids()[0]}/0"])
    time.sleep(0.5)
    assert len(shaken.keys()) == 1
