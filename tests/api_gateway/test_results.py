"""Results: inline, by presigned URL, and as text alone."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api_gateway.conftest import INLINE_BYTES, Fleet

LONG = "Grüße, 世界.\n" * INLINE_BYTES


def succeeded(fleet: Fleet, api: httpx.Client, body: dict[str, Any], text: str) -> str:
    task_id = str(api.post("/v1/tasks", json=body).json()["id"])
    fleet.succeed(fleet.claim(), text)
    return task_id


def test_small_result_is_answered_from_the_record(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = succeeded(fleet, api, text_task, "hello")

    response = api.get(f"/v1/tasks/{task_id}/result")

    assert response.status_code == 200
    document = response.json()
    assert document["task_id"] == task_id
    assert (document["text"], document["finish_reason"]) == ("hello", "stop")
    assert document["usage"]["visual_tokens"] == 576


def test_large_result_is_a_redirect_that_needs_no_key(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    task_id = succeeded(fleet, api, text_task, LONG)
    assert api.get(f"/v1/tasks/{task_id}").json()["result"]["text"] is None

    response = api.get(f"/v1/tasks/{task_id}/result")

    assert response.status_code == 303
    followed = httpx.get(response.headers["Location"])
    assert (followed.status_code, followed.json()["text"]) == (200, LONG)


def test_a_short_answer_comes_with_the_log_probabilities_that_were_asked_for(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]
) -> None:
    body = {**text_task, "options": {**text_task.get("options", {}), "logprobs": 0}}
    task_id = str(api.post("/v1/tasks", json=body).json()["id"])
    told = [{"token": "hello", "logprob": -0.5, "top": []}]
    fleet.succeed(fleet.claim(), "hello", logprobs=told)

    document = httpx.get(api.get(f"/v1/tasks/{task_id}/result").headers["Location"]).json()

    assert (document["text"], document["logprobs"]) == ("hello", told)
    assert api.get(f"/v1/tasks/{task_id}/parts/0").json()["logprobs"] == told
    assert api.get(f"/v1/tasks/{task_id}/result", params={"format": "text"}).text == "hello"


@pytest.mark.parametrize("text", ["hello", LONG], ids=["inline", "large"])
@pytest.mark.parametrize(("wanted", "media_type"), [("text", "text/plain"), ("markdown", "text/markdown")])
def test_text_alone_is_served_whatever_its_size(
    fleet: Fleet, api: httpx.Client, text_task: dict[str, Any], text: str, wanted: str, media_type: str
) -> None:
    task_id = succeeded(fleet, api, text_task, text)

    response = api.get(f"/v1/tasks/{task_id}/result", params={"format": wanted})

    assert response.status_code == 200
    assert response.headers["Content-Type"] == f"{media_type}; charset=utf-8"
    assert response.text == text


@pytest.mark.parametrize("wanted", ["json", "text"])
def test_task_without_result_is_409(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any], wanted: str) -> None:
    task_id = api.post("/v1/tasks", json=text_task).json()["id"]
    queued = api.get(f"/v1/tasks/{task_id}/result", params={"format": wanted})
    api.post(f"/v1/tasks/{task_id}/cancel")

    canceled = api.get(f"/v1/tasks/{task_id}/result", params={"format": wanted})

    for response in (queued, canceled):
        assert (response.status_code, response.json()["code"]) == (409, "result_not_ready")
    assert "queued" in queued.json()["detail"]
    assert "canceled" in canceled.json()["detail"]


def test_result_that_was_deleted_is_410(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = succeeded(fleet, api, text_task, LONG)
    fleet.blobs.delete_prefix(f"results/acme/{task_id}/")

    response = api.get(f"/v1/tasks/{task_id}/result", params={"format": "text"})

    assert (response.status_code, response.json()["code"]) == (410, "gone")
