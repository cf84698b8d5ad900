"""Handing in: every form of body becomes the same record."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from contract.task import TaskStatus
from tests.api_gateway.conftest import PNG, Fleet

BASE64_PNG = base64.b64encode(PNG).decode()


#: Every field of a text task.
TEXT_TASK = {
    "kind": "text",
    "model": "ovis2-reader",
    "prompt": "Say hello.",
    "system": "Be brief.",
    "options": {"max_new_tokens": 7},
    "priority": "high",
    "retention_s": 60,
    "metadata": {"order": "42"},
}


def image_task(**fields: Any) -> dict[str, Any]:
    return {"kind": "image", "model": "ovis2-reader", **fields}


def test_text_task_is_accepted_and_reads_back(fleet: Fleet, api: httpx.Client) -> None:
    response = api.post("/v1/tasks", json=TEXT_TASK)

    assert response.status_code == 202
    task = response.json()
    assert response.headers["Location"] == f"/v1/tasks/{task['id']}"
    assert int(response.headers["Retry-After"]) >= 1
    assert response.headers["X-Request-Id"]
    assert task["created_at"].endswith("Z")
    assert {key: value for key, value in task.items() if key not in {"id", "created_at"}} == {
        "kind": "text",
        "model": "ovis2-reader",
        "operation": "ask",
        "status": "queued",
        "progress": {"parts_total": 1, "parts_done": 0, "parts_failed": 0},
        "stage": None,
        "run": 1,
        "attempts": 0,
        "started_at": None,
        "deadline_at": None,
        "ended_at": None,
        "expires_at": None,
        "usage": None,
        "result": None,
        "result_url": None,
        "error": None,
        "metadata": {"order": "42"},
    }
    assert api.get(response.headers["Location"]).json() == task
    spec = fleet.claim().spec
    assert (spec.prompt, spec.system, spec.options.max_new_tokens) == ("Say hello.", "Be brief.", 7)


def test_base64_picture_lies_in_the_blob_store_before_the_answer(fleet: Fleet, api: httpx.Client) -> None:
    body = image_task(input={"base64": BASE64_PNG, "media_type": "image/png"})

    response = api.post("/v1/tasks", json=body)

    assert response.status_code == 202, response.text
    attempt = fleet.claim()
    (source,) = attempt.spec.inputs
    assert source.model_dump() == {"bucket": "ovis", "key": f"inputs/acme/{response.json()['id']}/0"}
    assert fleet.blobs.get(f"inputs/acme/{attempt.task_id}/0") == PNG
    assert attempt.spec.operation == "ocr"
    assert attempt.spec.prompt == "Read all the text in the image."


def test_several_inputs_keep_their_order(fleet: Fleet, api: httpx.Client) -> None:
    fleet.blobs.put("uploads/a.png", PNG, "image/png")
    inputs = [
        {"url": "https://example.com/first.png"},
        {"base64": BASE64_PNG, "media_type": "image/png"},
        {"s3": "s3://ovis/uploads/a.png"},
    ]

    response = api.post("/v1/tasks", json=image_task(model="ovis2-4b", inputs=inputs, options={"max_partition": 2}))

    assert response.status_code == 202, response.text
    sources = [source.model_dump() for source in fleet.claim("ovis2-4b").spec.inputs]
    assert sources == [
        {"url": "https://example.com/first.png"},
        {"bucket": "ovis", "key": f"inputs/acme/{response.json()['id']}/1"},
        {"bucket": "ovis", "key": "uploads/a.png"},
    ]


@pytest.mark.parametrize("file_name", [None, "task.json"], ids=["as a field", "as a file"])
def test_multipart_files_keep_their_order(fleet: Fleet, api: httpx.Client, file_name: str | None) -> None:
    task = json.dumps(image_task(operation="caption")).encode()
    large = PNG + bytes(2_000_000)
    files = [
        ("task", (file_name, task, "application/json")),
        ("file", ("a.png", large, "image/png")),
        ("file", ("b.png", PNG, "image/png")),
    ]

    response = api.post("/v1/tasks", files=files)

    assert response.status_code == 202, response.text
    prefix = f"inputs/acme/{response.json()['id']}"
    assert fleet.blobs.get(f"{prefix}/0") == large
    assert fleet.blobs.get(f"{prefix}/1") == PNG
    assert fleet.s3.head_object(Bucket="ovis", Key=f"{prefix}/0")["ContentType"] == "image/png"
    assert fleet.claim().spec.operation == "caption"


def test_accepted_tasks_are_counted(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    def accepted() -> float:
        lines = api.get("/metrics").text.splitlines()
        counts = [line for line in lines if line.startswith("ovis_tasks_accepted_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in counts if 'model="ovis2-reader"' in line)

    before = accepted()

    api.post("/v1/tasks", json=text_task)

    assert accepted() == before + 1


def test_tenant_at_its_limit_gets_429_and_leaves_nothing(fleet: Fleet) -> None:
    api = fleet.caller("small")
    body = image_task(input={"base64": BASE64_PNG, "media_type": "image/png"})
    assert api.post("/v1/tasks", json=body).status_code == 202

    response = api.post("/v1/tasks", json=body)

    assert (response.status_code, response.json()["code"]) == (429, "tenant_queue_full")
    assert response.json()["retryable"] is True
    assert int(response.headers["Retry-After"]) >= 1
    assert len(fleet.task_ids()) == len(fleet.keys()) == 1


def test_full_queue_gives_503_and_leaves_nothing(fleet: Fleet, api: httpx.Client) -> None:
    fleet.redis.hset("ovis:q:ovis2-reader:stats", "waiting", 100_000)

    response = api.post("/v1/tasks", json=image_task(input={"base64": BASE64_PNG, "media_type": "image/png"}))

    assert (response.status_code, response.json()["code"]) == (503, "queue_full")
    assert int(response.headers["Retry-After"]) >= 1
    assert fleet.task_ids() == fleet.keys() == []


def test_stored_record_says_queued(fleet: Fleet, api: httpx.Client, text_task: dict[str, Any]) -> None:
    task_id = api.post("/v1/tasks", json=text_task).json()["id"]

    assert fleet.redis.hget(f"ovis:task:{task_id}", "status") == TaskStatus.QUEUED
