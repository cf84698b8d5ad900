"""Long bodies: refused before and while they arrive, without being kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.api_gateway.conftest import KEYS, Fleet, GatewayProcess, memory_peak_bytes

MEGABYTE = 1_000_000
LIMIT_BYTES = 32 * 1024 * 1024

HEAD = b'{"kind": "image", "model": "ovis2-reader", "input": {"media_type": "image/png", "base64": "'
FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'


def endless(head: bytes, size_bytes: int) -> Iterator[bytes]:
    yield head
    for _ in range(size_bytes // MEGABYTE):
        yield b"A" * MEGABYTE


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
@pytest.mark.parametrize(
    ("head", "content_type"),
    [(HEAD, "application/json"), (FORM_HEAD, "multipart/form-data; boundary=x")],
    ids=["json", "multipart"],
)
def test_body_of_100_mb_is_413_and_fills_no_memory(
    fleet: Fleet, api: httpx.Client, head: bytes, content_type: str, declared: bool
) -> None:
    pid = fleet.stack.parts["gateway"].pid
    assert pid is not None
    api.get("/livez")
    before = memory_peak_bytes(pid)
    headers = {"Content-Type": content_type}
    if declared:
        headers["Content-Length"] = str(len(head) + 100 * MEGABYTE)

    response = api.post("/v1/tasks", content=endless(head, 100 * MEGABYTE), headers=headers)

    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert str(LIMIT_BYTES) in response.json()["detail"]
    if declared:
        assert headers["Content-Length"] in response.json()["detail"]
    growth = memory_peak_bytes(pid) - before
    assert growth < (4 * MEGABYTE if declared else LIMIT_BYTES + 8 * MEGABYTE), growth
    assert fleet.task_ids() == fleet.keys() == []
    assert api.get("/livez").status_code == 200


def test_limit_is_a_setting_and_counts_exactly(
    fleet: Fleet, text_task: dict[str, Any], start_gateway: Callable[..., GatewayProcess]
) -> None:
    gateway = start_gateway(OVIS_MAX_BODY_BYTES="2048")
    body = json.dumps(text_task).encode()
    headers = {"Authorization": f"Bearer {KEYS['acme']}", "Content-Type": "application/json"}

    def post(size_bytes: int) -> int:
        content = body.ljust(size_bytes)
        return httpx.post(f"{gateway.url}/v1/tasks", content=content, headers=headers).status_code

    assert [post(2048), post(2049)] == [202, 413]


def test_body_without_a_key_is_not_read(fleet: Fleet) -> None:
    headers = {"Content-Type": "application/json"}

    response = fleet.caller("nobody").post("/v1/tasks", content=endless(HEAD, 20 * MEGABYTE), headers=headers)

    assert response.status_code == 401
