"""An estimate says what the task then takes, through real processes."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import pytest
import redis
from PIL import Image

from contract import store
from contract.blobs import BlobStore
from contract.settings import FleetSettings
from ovis_fleet import Client
from ovis_fleet.stack import LocalStack
from tests.e2e.conftest import MODEL, RECEIPT


def pages(count: int) -> bytes:
    """A TIFF with so many receipts."""
    out = io.BytesIO()
    with Image.open(RECEIPT) as receipt:
        page = receipt.convert("RGB")
        page.save(out, "TIFF", save_all=True, append_images=[page] * (count - 1))
    return out.getvalue()


def body(data: bytes, kind: str, **options: Any) -> dict[str, Any]:
    return {"kind": kind, "model": MODEL, "input": {"base64": base64.b64encode(data).decode()}, "options": options}


def estimate(fleet: LocalStack, task: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {fleet.api_key}"}
    return httpx.post(f"{fleet.url}/v1/tasks:estimate", json=task, headers=headers, timeout=30)


@pytest.mark.parametrize(
    ("data", "kind", "options"),
    [(RECEIPT.read_bytes(), "image", {}), (pages(3), "document", {"pages": "2-"})],
    ids=["picture", "document"],
)
def test_the_estimate_is_what_the_task_takes(
    fleet: LocalStack, api: Client, queue: redis.Redis, data: bytes, kind: str, options: dict[str, Any]
) -> None:
    guessed = estimate(fleet, body(data, kind, **options)).json()
    headers = {"Authorization": f"Bearer {fleet.api_key}", "Prefer": "wait=60"}
    task = httpx.post(f"{fleet.url}/v1/tasks", json=body(data, kind, **options), headers=headers, timeout=90).json()

    assert task["status"] == "succeeded"
    for name in ("images", "pages", "frames", "tiles", "visual_tokens"):
        assert guessed[name] == task["usage"][name], name
    assert guessed["parts"] == task["progress"]["parts_total"]
    assert guessed["max_output_tokens"] >= task["usage"]["output_tokens"]
    paced = estimate(fleet, body(data, kind, **options)).json()
    assert paced["expected_seconds"] > 0
    assert 0 < paced["expected_output_tokens"] <= paced["max_output_tokens"]


def test_an_estimate_leaves_nothing_behind(fleet: LocalStack, queue: redis.Redis) -> None:
    settings = FleetSettings(**{name.removeprefix("OVIS_").lower(): value for name, value in fleet.env.items()})
    before = {stored.task_id for stored in BlobStore(settings).list_tasks("inputs")}
    tasks = queue.keys("ovis:task:*")

    assert estimate(fleet, body(RECEIPT.read_bytes(), "image")).status_code == 200

    assert {stored.task_id for stored in BlobStore(settings).list_tasks("inputs")} == before
    assert queue.keys("ovis:task:*") == tasks
    assert not queue.exists("ovis:estimates")
    assert int(queue.hgetall(store.queue_stats_key(MODEL)).get("waiting", "0")) == 0


@pytest.mark.parametrize(
    ("data", "kind", "options", "code"),
    [
        (b"hello", "image", {}, "not"),
        (pages(2), "document", {"pages": "3"}, "page_out_of_range"),
        (pages(2), "video", {}, "not_a_video"),
    ],
    ids=["words", "missing page", "pages as a film"],
)
def test_what_would_fail_is_refused_with_its_code(
    fleet: LocalStack, data: bytes, kind: str, options: dict[str, Any], code: str
) -> None:
    response = estimate(fleet, body(data, kind, **options))

    assert response.status_code == 422
    assert response.json()["code"].startswith(code)
