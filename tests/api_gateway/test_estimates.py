"""Estimates without an io worker: refused in time, and nothing stays."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from contract.errors import InvalidRequest
from contract.estimates import (
    MAX_QUESTIONS,
    QUESTIONS_KEY,
    Estimate,
    EstimateAnswer,
    EstimateQuestion,
    answer_key,
    asked_key,
)
from contract.task import ObjectInput
from contract.tenants import Tenant
from tests.api_gateway.conftest import PNG, Fleet, GatewayProcess, wait_until

#: What an estimate says where no part ran lately.
NOT_KNOWN: dict[str, None] = {"expected_output_tokens": None, "expected_seconds": None}

IMAGE = {"kind": "image", "model": "ovis2-reader", "input": {"base64": base64.b64encode(PNG).decode()}}


@pytest.mark.parametrize(("waiting", "code"), [(0, "estimate_late"), (MAX_QUESTIONS, "queue_full")])
def test_an_estimate_that_nobody_gives_is_refused(
    fleet: Fleet, api: httpx.Client, start_gateway: Callable[..., GatewayProcess], waiting: int, code: str
) -> None:
    gateway = start_gateway(OVIS_ESTIMATE_WAIT_S="0.5")
    if waiting:
        fleet.redis.lpush(QUESTIONS_KEY, *["{}"] * waiting)
    headers = {"Authorization": api.headers["Authorization"]}

    response = httpx.post(f"{gateway.url}/v1/tasks:estimate", json=IMAGE, headers=headers, timeout=20)

    assert (response.status_code, response.json()["code"]) == (503, code)
    assert "Retry-After" in response.headers
    assert fleet.keys() == []
    assert fleet.task_ids() == []


def test_an_estimate_needs_a_key_and_a_body_that_would_be_taken(fleet: Fleet, api: httpx.Client) -> None:
    assert fleet.caller("nobody").post("/v1/tasks:estimate", json=IMAGE).status_code == 401
    refused = api.post("/v1/tasks:estimate", json={**IMAGE, "options": {"pages": "1"}})

    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/options/pages")
    assert not fleet.redis.exists(QUESTIONS_KEY)


def test_a_tenant_that_waits_for_enough_estimates_is_refused_with_the_numbers(
    fleet: Fleet, api: httpx.Client, start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateway = start_gateway(OVIS_ESTIMATE_WAIT_S="20")
    limit = Tenant(id="acme").max_waiting_estimates
    answers: list[dict[str, Any]] = []
    wrong = InvalidRequest("nothing lies there", "/options/start_s").info()

    def wait(headers: dict[str, str]) -> None:
        answers.append(httpx.post(url, json=IMAGE, headers=headers, timeout=30).json())

    url, headers = f"{gateway.url}/v1/tasks:estimate", {"Authorization": api.headers["Authorization"]}
    waiting = [threading.Thread(target=wait, args=(headers,)) for _ in range(limit)]
    for thread in waiting:
        thread.start()
    wait_until(lambda: fleet.redis.llen(QUESTIONS_KEY) == limit)

    refused = httpx.post(url, json=IMAGE, headers=headers, timeout=20)

    assert (refused.status_code, refused.json()["code"]) == (429, "tenant_queue_full")
    assert f"the limit is {limit}" in refused.json()["detail"]
    assert "Retry-After" in refused.headers
    good = EstimateAnswer(estimate=Estimate(parts=1, max_output_tokens=1, **NOT_KNOWN))
    for answer in (EstimateAnswer(error=wrong), *[good] * (limit - 1)):
        question = EstimateQuestion.model_validate_json(fleet.redis.rpop(QUESTIONS_KEY))
        fleet.redis.rpush(answer_key(question.id), answer.model_dump_json())
    for thread in waiting:
        thread.join()
    assert sorted(answer.get("parts", 0) for answer in answers) == [0, *[1] * (limit - 1)]
    (told,) = (answer["errors"] for answer in answers if "errors" in answer)
    assert told == [{"detail": "nothing lies there", "pointer": "/options/start_s"}]
    assert not fleet.redis.exists(asked_key("acme"))


def test_an_upload_is_looked_at_where_it_lies(
    fleet: Fleet, api: httpx.Client, start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateway = start_gateway(OVIS_ESTIMATE_WAIT_S="0.5")
    upload = api.post("/v1/uploads", json={"size_bytes": len(PNG), "media_type": "image/png"}).json()
    fleet.blobs.put(f"incoming/acme/{upload['id']}/0", PNG, "image/png")
    headers = {"Authorization": api.headers["Authorization"]}
    body = {**IMAGE, "input": {"upload": upload["id"]}}

    assert httpx.post(f"{gateway.url}/v1/tasks:estimate", json=body, headers=headers, timeout=20).status_code == 503

    (question,) = fleet.redis.lrange(QUESTIONS_KEY, 0, -1)
    (source,) = EstimateQuestion.model_validate_json(question).spec.inputs
    assert source == ObjectInput(bucket="ovis", key=f"incoming/acme/{upload['id']}/0")
    assert fleet.keys("") == [source.key]


def test_an_upload_that_never_came_is_named(fleet: Fleet, api: httpx.Client) -> None:
    body = {**IMAGE, "input": {"upload": f"upl_{'0' * 32}"}}

    refused = api.post("/v1/tasks:estimate", json=body)

    assert (refused.json()["code"], refused.json()["errors"][0]["pointer"]) == ("input_unavailable", "/input/upload")
    assert not fleet.redis.exists(QUESTIONS_KEY)
