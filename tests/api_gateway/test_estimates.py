"""Estimates without an io worker: refused in time, and nothing stays."""

from __future__ import annotations

import base64
from collections.abc import Callable

import httpx
import pytest

from contract.estimates import MAX_QUESTIONS, QUESTIONS_KEY
from tests.api_gateway.conftest import PNG, Fleet, GatewayProcess

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
