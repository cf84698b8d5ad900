"""Uploads: addresses that take so many bytes and no more, tasks that name them, and long multipart bodies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from contract.blobs import UPLOAD_KEPT_S
from tests.api_gateway.conftest import KEYS, PNG, Fleet, GatewayProcess, memory_peak_bytes
from workers.sweep import sweep_orphans

IMAGE = {"kind": "image", "model": "ovis2-reader"}
MEGABYTE = 1_000_000


def begin(api: httpx.Client, size_bytes: int = len(PNG)) -> dict[str, Any]:
    response = api.post("/v1/uploads", json={"size_bytes": size_bytes, "media_type": "image/png"})
    assert response.status_code == 201, response.text
    upload: dict[str, Any] = response.json()
    return upload


def put(upload: dict[str, Any], data: bytes = PNG) -> int:
    headers = {**upload["put"]["headers"], "Content-Length": str(len(data))}
    return httpx.put(upload["put"]["url"], content=data, headers=headers).status_code


def post(upload: dict[str, Any], data: bytes = PNG) -> int:
    form = upload["post"]
    return httpx.post(form["url"], data=form["fields"], files={"file": data}).status_code


def submit(api: httpx.Client, upload_id: str, **headers: str) -> httpx.Response:
    return api.post("/v1/tasks", json={**IMAGE, "input": {"upload": upload_id}}, headers=headers)


@pytest.mark.parametrize("send", [put, post], ids=["put", "post"])
def test_an_upload_becomes_a_tasks_own_input(
    fleet: Fleet, api: httpx.Client, send: Callable[[dict[str, Any]], int]
) -> None:
    upload = begin(api)
    assert api.get(f"/v1/uploads/{upload['id']}").json()["status"] == "waiting"
    assert send(upload) in (200, 204)
    assert api.get(f"/v1/uploads/{upload['id']}").json()["size_bytes"] == len(PNG)

    task = submit(api, upload["id"])

    assert task.status_code == 202, task.text
    attempt = fleet.claim()
    (stored,) = attempt.spec.inputs
    assert stored.key == f"inputs/acme/{task.json()['id']}/0"  # type: ignore[union-attr]
    assert fleet.blobs.get(stored.key) == PNG  # type: ignore[union-attr]
    assert fleet.redis.hget("ovis:load", "t:acme") == str(len(PNG))


def test_what_is_sent_after_the_submission_changes_no_task(fleet: Fleet, api: httpx.Client) -> None:
    upload = begin(api)
    put(upload)
    task_id = submit(api, upload["id"]).json()["id"]

    assert put(upload, PNG[::-1]) == 200

    assert fleet.blobs.get(f"inputs/acme/{task_id}/0") == PNG


def test_addresses_take_no_more_than_was_announced(fleet: Fleet, api: httpx.Client) -> None:
    upload = begin(api)

    assert put(upload, PNG + b"!") == 403
    assert put(upload, PNG[:-1]) == 403
    assert post(upload, PNG + b"!") in (400, 403)
    assert fleet.keys("incoming/") == []


def test_an_upload_is_found_by_its_tenant_alone(fleet: Fleet, api: httpx.Client) -> None:
    upload = begin(api)
    put(upload)
    other = fleet.caller("other")

    assert other.get(f"/v1/uploads/{upload['id']}").status_code == 404
    refused, never_sent = submit(other, upload["id"]), submit(other, "upl_" + "0" * 32)

    assert (refused.status_code, refused.json()["code"]) == (422, "input_unavailable")
    assert refused.json()["errors"][0]["pointer"] == "/input/upload"
    assert refused.json()["detail"] == never_sent.json()["detail"]
    assert fleet.task_ids() == []


def test_an_upload_over_a_limit_is_refused_at_once(fleet: Fleet, api: httpx.Client) -> None:
    light = fleet.caller("light").post("/v1/uploads", json={"size_bytes": 1001})
    long = api.post("/v1/uploads", json={"size_bytes": 1024**3 + 1})

    assert [(answer.status_code, answer.json()["code"]) for answer in (light, long)] == [(413, "too_large")] * 2
    assert "1001" in light.json()["detail"]
    assert "1000" in light.json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/size_bytes"),
        ({"size_bytes": 0}, "/size_bytes"),
        ({"size_bytes": 1, "media_type": "no type"}, "/media_type"),
        ({"size_bytes": 1, "name": "x"}, "/name"),
    ],
)
def test_wrong_announcements_are_422(fleet: Fleet, api: httpx.Client, body: dict[str, Any], pointer: str) -> None:
    response = api.post("/v1/uploads", json=body)

    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, pointer)


def test_a_repeated_submission_needs_the_upload_no_more(fleet: Fleet, api: httpx.Client) -> None:
    upload = begin(api)
    put(upload)
    first = submit(api, upload["id"], **{"Idempotency-Key": "order-42"})
    fleet.blobs.delete_prefix("incoming/")

    again = submit(api, upload["id"], **{"Idempotency-Key": "order-42"})

    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_uploads_are_swept_after_a_day_and_tasks_keep_theirs(fleet: Fleet, api: httpx.Client) -> None:
    upload = begin(api)
    put(upload)
    task_id = submit(api, upload["id"]).json()["id"]

    assert sweep_orphans(fleet.redis, fleet.blobs, min_age_s=3600) == 0
    assert sweep_orphans(fleet.redis, fleet.blobs, min_age_s=3600, upload_age_s=0) == 1

    assert fleet.keys("incoming/") == []
    assert fleet.keys() == [f"inputs/acme/{task_id}/0"]
    assert datetime.fromisoformat(upload["expires_at"]) - datetime.now(UTC) <= timedelta(seconds=UPLOAD_KEPT_S)


def test_a_long_multipart_body_is_never_whole_in_memory(
    fleet: Fleet, start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateway = start_gateway(OVIS_MAX_BODY_BYTES=str(400 * MEGABYTE), OVIS_BLOB_TIMEOUT_S="60")
    head = (
        b'--x\r\nContent-Disposition: form-data; name="task"\r\nContent-Type: application/json\r\n\r\n'
        + json.dumps(IMAGE).encode()
        + b'\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    )

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(200):
            yield b"A" * MEGABYTE
        yield b"\r\n--x--\r\n"

    key = {"Authorization": f"Bearer {KEYS['acme']}"}
    httpx.post(f"{gateway.url}/v1/tasks", json={**IMAGE, "input": {"base64": "AAAA"}}, headers=key)
    headers = {**key, "Content-Type": "multipart/form-data; boundary=x"}
    before = gateway.memory_peak_bytes()

    response = httpx.post(f"{gateway.url}/v1/tasks", content=body(), headers=headers, timeout=120)

    assert response.status_code == 202, response.text
    assert fleet.blobs.facts(f"inputs/acme/{response.json()['id']}/0").size_bytes == 200 * MEGABYTE
    growth = memory_peak_bytes(gateway.process.pid) - before
    assert growth < 40 * MEGABYTE, growth
