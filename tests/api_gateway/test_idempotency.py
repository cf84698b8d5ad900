"""Idempotency keys: one task, however often it is handed in."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from contract import store
from contract.redis_io import run
from tests.api_gateway.conftest import PNG, Fleet

IMAGE = {"kind": "image", "model": "ovis2-reader"}


def post_form(api: httpx.Client, key: str, data: bytes = PNG) -> httpx.Response:
    files = [("task", (None, json.dumps(IMAGE).encode(), "application/json")), ("file", ("a.png", data, "image/png"))]
    return api.post("/v1/tasks", files=files, headers={"Idempotency-Key": key})


def test_same_body_gives_the_same_task_however_it_is_written(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    body = {**text_task, "metadata": {"a": "1", "b": "2"}}
    shuffled = {"metadata": {"b": "2", "a": "1"}, **dict(reversed(text_task.items()))}
    headers = {"Idempotency-Key": "order-42", "Content-Type": "application/json"}

    first = api.post("/v1/tasks", content=json.dumps(body), headers=headers)
    second = api.post("/v1/tasks", content=json.dumps(shuffled, indent=4), headers=headers)

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert second.headers["Location"] == first.headers["Location"]
    assert len(fleet.task_ids()) == 1


def test_ended_task_is_given_again_with_200(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "order-42"}
    first = api.post("/v1/tasks", json=text_task, headers=headers)
    fleet.succeed(fleet.claim())

    second = api.post("/v1/tasks", json=text_task, headers=headers)

    assert second.status_code == 200
    assert (second.json()["id"], second.json()["status"]) == (first.json()["id"], "succeeded")


def test_other_body_is_a_conflict_and_leaves_nothing(fleet: Fleet, api: httpx.Client) -> None:
    assert post_form(api, "order-42").status_code == 202

    response = post_form(api, "order-42", PNG + b"!")

    assert (response.status_code, response.json()["code"]) == (422, "idempotency_conflict")
    assert response.json()["errors"][0]["parameter"] == "Idempotency-Key"
    assert len(fleet.task_ids()) == len(fleet.keys()) == 1


def test_other_base64_is_a_conflict(fleet: Fleet, api: httpx.Client) -> None:
    headers = {"Idempotency-Key": "order-42"}

    def post(data: bytes) -> httpx.Response:
        source = {"base64": base64.b64encode(data).decode(), "media_type": "image/png"}
        return api.post("/v1/tasks", json={**IMAGE, "inputs": [source]}, headers=headers)

    assert [post(b"one").status_code, post(b"one").status_code, post(b"two").status_code] == [202, 202, 422]
    assert len(fleet.keys()) == 1


def test_keys_of_two_tenants_are_apart(fleet: Fleet, text_task: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "order-42"}

    first = fleet.caller("acme").post("/v1/tasks", json=text_task, headers=headers)
    second = fleet.caller("other").post("/v1/tasks", json={**text_task, "prompt": "x"}, headers=headers)

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] != second.json()["id"]


def test_a_hundred_at_once_make_one_task_and_one_picture(fleet: Fleet, api: httpx.Client) -> None:
    with ThreadPoolExecutor(100) as threads:
        responses = list(threads.map(lambda _: post_form(api, "order-42"), range(100)))

    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["id"] for response in responses}) == 1
    assert len(fleet.task_ids()) == 1
    assert fleet.keys() == [f"inputs/acme/{responses[0].json()['id']}/0"]


def test_a_hundred_at_once_with_two_bodies_make_one_task(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    def post(number: int) -> httpx.Response:
        body = {**text_task, "prompt": f"Say {number % 2}."}
        return api.post("/v1/tasks", json=body, headers={"Idempotency-Key": "order-42"})

    with ThreadPoolExecutor(100) as threads:
        responses = list(threads.map(post, range(100)))

    assert sorted(response.status_code for response in responses) == [202] * 50 + [422] * 50
    assert len({response.json()["id"] for response in responses if response.status_code == 202}) == 1
    assert len(fleet.task_ids()) == 1


def test_key_of_a_purged_task_is_gone(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "order-42"}
    task_id = api.post("/v1/tasks", json=text_task, headers=headers).json()["id"]
    fleet.succeed(fleet.claim())
    assert run(fleet.redis, store.purge(task_id))

    response = api.post("/v1/tasks", json=text_task, headers=headers)

    assert (response.status_code, response.json()["code"]) == (410, "gone")


def test_without_a_key_every_call_is_a_task(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    ids = {api.post("/v1/tasks", json=text_task).json()["id"] for _ in range(3)}

    assert len(ids) == len(fleet.task_ids()) == 3
