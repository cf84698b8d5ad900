"""Event streams, with a real HTTP client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from contract import store
from contract.events import append_delta, events_key
from contract.redis_io import run
from tests.api_gateway.conftest import KEYS, Fleet, GatewayProcess, wait_until
from tests.api_gateway.listening import WHOLE, Event, following, parse, seen


def submit(api: httpx.Client, body: dict[str, Any]) -> str:
    answer = api.post("/v1/tasks", json=body)
    assert answer.status_code == 202, answer.text
    task_id: str = answer.json()["id"]
    return task_id


def read_all(api: httpx.Client, task_id: str, after: str | None = None) -> list[Event]:
    """A whole stream, to its end."""
    headers = {"Last-Event-ID": after} if after else {}
    answer = api.get(f"/v1/tasks/{task_id}/events", headers=headers)
    assert answer.status_code == 200, answer.text
    return [event for block in answer.text.split("\n\n") if (event := parse(block))]


def test_a_stream_tells_everything_in_order_and_ends(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    task_id = submit(api, text_task)
    with following(api, task_id) as got:
        assert seen([got.get(timeout=10)]) == [("status", "queued")]
        attempt = fleet.claim()
        assert seen([got.get(timeout=10)]) == [("status", "running")]
        assert run(fleet.redis, append_delta(attempt.token, 0, "he"))
        assert run(fleet.redis, append_delta(attempt.token, 2, "llo"))
        first, second = got.get(timeout=10), got.get(timeout=10)
        assert (first.data["offset"], first.data["text"], first.data["attempt"]) == (0, "he", 1)
        assert (second.data["offset"], second.data["text"]) == (2, "llo")
        fleet.succeed(attempt)
        assert seen([got.get(timeout=10), got.get(timeout=10)]) == WHOLE[1:]
        assert got.get(timeout=10) is None
    ids = [event.id for event in read_all(api, task_id)]
    assert len(set(ids)) == 5


def test_a_lost_attempt_writes_nothing_more(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    submit(api, text_task)
    attempt = fleet.claim()
    run(fleet.redis, store.release(attempt.token, "engine_died", counts=True))
    assert not run(fleet.redis, append_delta(attempt.token, 0, "late"))
    again = fleet.claim()
    assert run(fleet.redis, append_delta(again.token, 0, "new"))
    fleet.succeed(again)
    events = read_all(api, again.task_id)
    assert [event.data["attempt"] for event in events if event.kind == "delta"] == [2]
    assert seen(events)[:3] == [("status", "running"), ("status", "queued"), ("status", "running")]


def test_a_stream_resumes_after_any_event(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = submit(api, text_task)
    fleet.succeed(fleet.claim())
    events = read_all(api, task_id)
    assert seen(events) == WHOLE
    for number, event in enumerate(events[:-1]):
        assert read_all(api, task_id, event.id) == events[number + 1 :]
    last = events[-1].id
    assert last is not None
    assert api.get(f"/v1/tasks/{task_id}/events", headers={"Last-Event-ID": last}).status_code == 204


def test_a_retried_task_is_followed_to_the_end_of_its_new_run(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    task_id = submit(api, text_task)
    assert fleet.exhaust() == task_id
    assert api.post(f"/v1/tasks/{task_id}/retry").status_code == 202
    with following(api, task_id) as got:
        fleet.succeed(fleet.claim())
        events = list(iter(lambda: got.get(timeout=10), None))
    assert seen(events)[-4:] == [("status", "queued"), *WHOLE]
    assert [event.data["run"] for event in events][-4:] == [2] * 4
    assert ("status", "failed") in seen(events)


@pytest.mark.parametrize(
    ("last", "status", "code"), [("x", 422, "invalid_request"), ("1-", 422, "invalid_request"), ("1-0", 404, None)]
)
def test_a_wrong_request_is_refused(api: httpx.Client, last: str, status: int, code: str | None) -> None:
    answer = api.get(f"/v1/tasks/task_{'0' * 32}/events", headers={"Last-Event-ID": last})
    assert answer.status_code == status
    assert answer.json()["code"] == (code or "not_found")


def test_another_tenants_stream_is_not_there(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = submit(api, text_task)
    assert fleet.caller("other").get(f"/v1/tasks/{task_id}/events").status_code == 404


def test_a_purged_task_leaves_no_stream(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = submit(api, text_task)
    fleet.succeed(fleet.claim())
    assert fleet.redis.exists(events_key(task_id))
    assert api.delete(f"/v1/tasks/{task_id}").status_code == 204
    assert not fleet.redis.exists(events_key(task_id))
    assert api.get(f"/v1/tasks/{task_id}/events").status_code == 410


def num_calls(fleet: Fleet, command: str) -> int:
    found = fleet.redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(found["calls"])


def test_two_hundred_listeners_share_one_reader(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    """Given 200 listeners of one task, its events reach all of them, and Redis is read per event, not per listener."""
    task_id = submit(api, text_task)
    key = events_key(task_id)
    headers = {"Authorization": f"Bearer {KEYS['acme']}"}
    ready = 0

    async def listen(client: httpx.AsyncClient) -> list[tuple[str, str]]:
        nonlocal ready
        events, block = [], ""
        async with client.stream("GET", f"{fleet.stack.url}/v1/tasks/{task_id}/events") as answer:
            async for line in answer.aiter_lines():
                block += line + "\n"
                if not line:
                    if event := parse(block):
                        events.append(event)
                        ready += len(events) == 1
                    block = ""
        return seen(events)

    async def drive() -> tuple[list[list[tuple[str, str]]], int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(headers=headers, timeout=60, limits=limits) as client:
            listeners = [asyncio.create_task(listen(client)) for _ in range(200)]
            while ready < 200:
                await asyncio.sleep(0.02)
            before = num_calls(fleet, "xrange")
            subscribers = fleet.redis.pubsub_numsub(key)[0][1]
            assert subscribers == 1
            attempt = await asyncio.to_thread(fleet.claim)
            await asyncio.to_thread(fleet.succeed, attempt)
            return await asyncio.gather(*listeners), num_calls(fleet, "xrange") - before

    got, reads = asyncio.run(drive())
    assert got == [[("status", "queued"), *WHOLE]] * 200
    assert reads <= 20
    wait_until(lambda: fleet.redis.pubsub_numsub(key)[0][1] == 0)


def test_streams_are_kept_alive_and_end_when_the_gateway_stops(
    api: httpx.Client, text_task: dict[str, Any], start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateway = start_gateway(OVIS_EVENTS_PING_S="0.1")
    task_id = submit(api, text_task)
    with api.stream("GET", f"{gateway.url}/v1/tasks/{task_id}/events") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith(": ping"))
        stopped = threading.Thread(target=gateway.stop)
        stopped.start()
        assert all(line.startswith((":", "event", "data")) or not line for line in lines)  # to its end
        stopped.join(20)


def test_a_lost_subscription_costs_no_event(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = submit(api, text_task)
    with following(api, task_id) as got:
        assert got.get(timeout=10).data["status"] == "queued"
        fleet.redis.client_kill_filter(_type="pubsub")
        fleet.redis.client_kill_filter(_type="normal", skipme=True)
        fleet.succeed(fleet.claim())
        assert seen([got.get(timeout=15) for _ in range(3)]) == WHOLE
        assert got.get(timeout=10) is None
